# SPDX-License-Identifier: Apache-2.0
"""Reads what the daemon is told by files: its config file, the shipped and the device's own templates.

YAML is parsed by a helper program, and the outcome is kept, so that a boot with an unchanged file pays
nothing for it. A JSON file needs no helper.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from typing import Any

from maestro_py import shipped
from maestro_py.daemon import helpers, log
from maestro_py.daemon.loop import Loop
from maestro_py.daemon.paths import Paths
from maestro_py.errors import InvalidDocument, MaestroError, Problem
from maestro_py.spec.daemonconfig import DaemonConfig
from maestro_py.spec.documents import read_daemon_config, read_templates
from maestro_py.spec.layers import Layer, layer
from maestro_py.spec.model import ConfigSpec, TemplateSpec
from maestro_py.spec.text import load_json


def builtins() -> dict[str, str]:
    """Return upstream's built-in variables, and where the shipped templates and their hosts are."""
    return {
        "thisdir": os.path.dirname(os.path.abspath(sys.argv[0])),
        "cwd": os.getcwd(),
        "templates": shipped.templates(),
    }


async def read_config(loop: Loop, path: str, cache_dir: str) -> tuple[DaemonConfig, list[Problem]]:
    """Return the daemon's config file, with warnings; the defaults when there is none.

    Raises InvalidDocument.
    """
    data = await _load(loop, path, cache_dir)
    if data is None:
        return DaemonConfig(), []
    known, notes = _platform(data)
    config, warnings = read_daemon_config(
        data, environ=os.environ, builtins={**builtins(), **known}, source=path
    )
    return config, [*notes, *warnings]


def _platform(document: object) -> tuple[dict[str, str], list[Problem]]:
    """Return the variables that the platform readers of a daemon's file define, and what went wrong."""
    from maestro_py.spec import platform  # a device without a file of its own pays nothing for it

    found: dict[str, str] = {}
    notes: list[Problem] = []
    for name, path in platform.readers(document):
        try:
            found |= platform.identity(load_json(_read(path), path)) if path else platform.TEST_PLATFORM
        except (MaestroError, ValueError) as error:
            why = " ".join(str(error).split())
            notes.append(Problem("platform_readers", f"{name}: {why}; its variables are not defined"))
    return found, notes


async def _load(loop: Loop, path: str, cache_dir: str) -> Any:
    if not os.path.lexists(path):
        return None
    raw = _read(path)
    if raw.lstrip()[:1] == b"{":
        return load_json(raw, path)
    cached = os.path.join(cache_dir, "config.json")
    text = raw.decode("utf-8", "surrogateescape")
    try:
        with open(cached, encoding="utf-8", errors="surrogateescape") as file:
            known = json.load(file)
        if known["text"] == text and known["path"] == path:
            return known["document"]
    except (OSError, ValueError, KeyError, TypeError):
        pass  # no usable copy: parse
    document = (await helpers.run(loop, "maestro_py.spec.yamltext", args=(path,)))["document"]
    _keep(cached, {"path": path, "text": text, "document": document})
    return document


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise MaestroError(f"cannot read {path}: {error.strerror}") from error


def _keep(path: str, value: Mapping[str, Any]) -> None:
    temporary = f"{path}.new"
    try:
        with open(temporary, "w", encoding="utf-8", errors="surrogateescape") as file:
            json.dump(value, file)
        os.chmod(temporary, 0o600)
        os.rename(temporary, path)
    except OSError as error:
        log.warning(f"cannot keep {path}: {error.strerror}")  # it is parsed again next time


def file_layer(config: DaemonConfig) -> Layer:
    """Return the layer of the config file; a job's inline data is its config."""
    configs = [
        ConfigSpec(name=job.config_name or "default", job=job.job, data=job.config)
        for job in config.jobs
        if job.config
    ]
    return layer(config.jobs, config.templates, (), configs)


async def template_layer(loop: Loop, directories: tuple[str, ...]) -> tuple[Layer, list[Problem]]:
    """Return the templates of some directories, later ones on top. Raises InvalidDocument."""
    templates: list[TemplateSpec] = []
    warnings: list[Problem] = []
    for path in _template_files(directories):
        if path.endswith(".json"):
            data = load_json(_read(path), path)
        else:
            data = (await helpers.run(loop, "maestro_py.spec.yamltext", args=(path,)))["document"]
        found, notes = read_templates(data, path)
        templates += found
        warnings += notes
    return layer(templates=templates), warnings


def _template_files(directories: tuple[str, ...]) -> list[str]:
    found: list[str] = []
    for directory in directories:
        try:
            names = sorted(os.listdir(directory))
        except OSError:
            continue
        found += [os.path.join(directory, n) for n in names if n.endswith((".json", ".yaml", ".yml"))]
    return found


def check(paths: Paths) -> int:
    """Print what is wrong with the config file; return 0 when it is acceptable, 1 when not."""
    from maestro_py.spec.documents import check_references
    from maestro_py.spec.text import load  # may import YAML: this process ends soon

    try:
        with open(paths.config, "rb") as file:
            data = load(file.read(), paths.config)
        known, unread = _platform(data)
        config, warnings = read_daemon_config(
            data, environ=os.environ, builtins={**builtins(), **known}, source=paths.config
        )
        files = [
            template
            for path in _template_files((shipped.templates(), paths.local_templates))
            for template in read_templates(load(_read(path), path), path)[0]
        ]
        templates = {template.name: template for template in (*files, *config.templates)}
        errors, notes = check_references(config.jobs, templates.values(), (), ())
        if errors:
            raise InvalidDocument(paths.config, errors)
    except OSError as error:
        print(f"maestrod: cannot read {paths.config}: {error.strerror}", file=sys.stderr)
        return 1
    except MaestroError as error:
        print(f"maestrod: {error}", file=sys.stderr)
        return 1
    for warning in (*unread, *warnings, *notes):
        print(f"{paths.config}: warning: {warning}", file=sys.stderr)
    jobs, own = len(config.jobs), len(config.templates)
    counts = f"{jobs} job{'' if jobs == 1 else 's'}, {own} template{'' if own == 1 else 's'}"
    print(f"{paths.config}: good: {counts}")
    return 0
