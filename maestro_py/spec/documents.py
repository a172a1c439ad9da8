# SPDX-License-Identifier: Apache-2.0
"""Running configs, templates and single objects: plain data to model and back.

A reader returns model values and warnings, or raises InvalidDocument with every problem it found.
The daemon's own file is read in `daemonfile`, rules across documents are in `references`; both are
reachable from here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, cast

from maestro_py.errors import InvalidDocument, Problem
from maestro_py.spec import checks, fields
from maestro_py.spec.daemonfile import SCHEMA, read_daemon_config
from maestro_py.spec.kinds import BOOLEAN, Check, choice, integer, list_of, object_of
from maestro_py.spec.model import ConfigSpec, ImageSpec, JobSpec, RunningConfig, TemplateSpec
from maestro_py.spec.reader import (
    BAD,
    Field,
    Kind,
    Reading,
    Table,
    Wrong,
    read_object,
    read_value,
    show,
)
from maestro_py.spec.references import check_references

__all__ = [
    "RUNNING",
    "RUNNING_OP",
    "check_references",
    "public_json",
    "read_config",
    "read_daemon_config",
    "read_image",
    "read_job",
    "read_running_config",
    "read_stored",
    "read_template",
    "read_templates",
    "to_json",
]

Spec = JobSpec | TemplateSpec | ImageSpec | ConfigSpec | RunningConfig

_FLAGS = {"removeOldImages": "remove_old_images", "failFast": "fail_fast"}


def _flags(raw: Any, path: str, reading: Reading) -> dict[str, bool]:
    """Return attribute values from a list of flag names or an object of booleans."""
    if isinstance(raw, list):
        raw = {name if isinstance(name, str) else repr(name): True for name in raw}
    if not isinstance(raw, dict):
        raise Wrong
    known = {name.lower(): attr for name, attr in _FLAGS.items()}
    values: dict[str, bool] = {}
    for name, item in raw.items():
        attr = known.get(str(name).lower())
        if attr is None:
            reading.problem(path, f"no such flag: {show(name)}", reading.suggest(str(name)[:40], _FLAGS))
        elif item is not None:
            value = read_value(BOOLEAN, item, f"{path}.{name}", reading)
            values[attr] = value is True
    return values


_FLAGS_SCHEMA = {
    "anyOf": [
        {"type": "array", "items": {"enum": list(_FLAGS)}},
        {"type": "object", "properties": {key: {"anyOf": [BOOLEAN, {"type": "null"}]} for key in _FLAGS}},
    ]
}
_FLAGS_FIELD = Field(
    "flags",
    Kind('a list of flags, as ["removeOldImages", "failFast"]', _flags, schema=_FLAGS_SCHEMA),
    "removeOldImages: delete images that are no longer used. failFast: stop at the first failing piece.",
    "none",
)

TEMPLATES = list_of(object_of(fields.TEMPLATE), "templates")

RUNNING = Table(
    "a running config",
    dict,
    (
        SCHEMA,
        Field("config", choice("running"), 'The word "running", which says what the document is.', "running"),
        Field("date", integer(0, (1 << 63) - 1), "Number that grows with each new document.", "0"),
        Field("jobs", list_of(object_of(fields.JOB), "jobs"), "The jobs the device shall have.", "none"),
        Field("templates", TEMPLATES, "Templates the jobs are started by.", "none", ("container_templates",)),
        Field("images", list_of(object_of(fields.IMAGE, checks.image), "images"),
              "Archives the jobs need.", "none"),
        Field("configs", list_of(object_of(fields.CONFIG, checks.config), "configs"),
              "Data and files for the jobs.", "none"),
        _FLAGS_FIELD,
    ),
)  # fmt: skip


def _conf(raw: Any, path: str, reading: Reading) -> dict[str, Any]:
    return read_object(RUNNING, raw, path, reading)


RUNNING_OP = Table(
    "a running config operation",
    dict,
    (
        Field("op", choice("update"), 'The word "update": the one operation there is.', required=True),
        Field("conf", Kind("a running config", _conf, schema=RUNNING), "The running config.", required=True),
        _FLAGS_FIELD,
    ),
)


def read_running_config(
    data: object,
    *,
    source: str = "running config",
    references: Callable[[RunningConfig], list[Problem]] | None = None,
) -> tuple[RunningConfig, list[Problem]]:
    """Return the running config and warnings.

    Two forms: the flat one, and upstream's RunningConfigOpPayload `{op, conf, flags}`. A job's `config`
    is the name of a config here. Raises InvalidDocument with every problem. references: checks how the parts
    refer to each other; asked only when there are problems already, so that theirs are told together.
    """
    reading = Reading()
    wrapped = isinstance(data, dict) and any(str(key).lower() in ("op", "conf") for key in data)
    table, path = (RUNNING_OP, "conf.") if wrapped else (RUNNING, "")
    values = _top(table, data, reading)
    if wrapped:
        inner = dict(values.get("conf", {}))
        inner["flags"] = {**inner.get("flags", {}), **values.get("flags", {})}
        values = inner
    lists: tuple[tuple[str, Any], ...] = (
        ("jobs", checks.jobs),
        ("templates", checks.templates),
        ("images", checks.images),
        ("configs", checks.configs),
    )
    for name, check in lists:
        check(values.get(name, ()), path + name, reading)
    flags = values.pop("flags", {})
    for key in ("config", "$schema"):
        values.pop(key, None)
    found = RunningConfig(**values, **flags)
    if reading.problems and references and not reading.enough:
        reading.problems += references(found)
    _refuse(reading, source)
    return found, reading.warnings


def read_templates(data: object, source: str) -> tuple[tuple[TemplateSpec, ...], list[Problem]]:
    """Return the templates of a template file: one object, a list, or `{"templates": [...]}`.

    Raises InvalidDocument with every problem.
    """
    reading = Reading()
    path = ""
    if isinstance(data, dict):
        lists = [key for key in data if str(key).lower() in ("templates", "container_templates")]
        if len(lists) == 1 and len(data) == 1:
            path = lists[0]
            data = data[path]
        else:
            data = [data]
    templates = read_value(TEMPLATES, data, path, reading)
    if templates is not BAD:
        checks.templates(templates, path, reading)
    _refuse(reading, source)
    return templates, reading.warnings


def read_job(data: object, source: str) -> JobSpec:
    """Return one job of upstream's API, where `config` is inline data. Raises InvalidDocument."""
    return cast("JobSpec", _read_one(fields.JOB_INLINE, data, source))


def read_template(data: object, source: str) -> TemplateSpec:
    """Return one template. Raises InvalidDocument."""
    return cast("TemplateSpec", _read_one(fields.TEMPLATE, data, source))


def read_image(data: object, source: str) -> ImageSpec:
    """Return one image. Raises InvalidDocument."""
    return cast("ImageSpec", _read_one(fields.IMAGE, data, source, checks.image))


def read_config(data: object, source: str) -> ConfigSpec:
    """Return one config. Raises InvalidDocument."""
    return cast("ConfigSpec", _read_one(fields.CONFIG, data, source, checks.config))


def read_stored(kind: Literal["job", "template", "image", "config"], data: object) -> Any:
    """Return the spec that `to_json` wrote. Raises InvalidDocument."""
    readers: dict[str, Any] = {
        "job": read_job,
        "template": read_template,
        "image": read_image,
        "config": read_config,
    }
    return readers[kind](data, f"stored {kind}")


def to_json(spec: Spec) -> dict[str, object]:
    """Return the canonical object of a spec: reading it back gives an equal spec.

    Only what was said is in it. A job's config is written as `config_data` and `config_name`, which
    mean the same in every document, and never as `config`, which does not.
    """
    if isinstance(spec, JobSpec):
        return fields.JOB.write(spec)
    if isinstance(spec, TemplateSpec):
        return fields.TEMPLATE.write(spec)
    if isinstance(spec, ImageSpec):
        return fields.IMAGE.write(spec)
    if isinstance(spec, ConfigSpec):
        return fields.CONFIG.write(spec)
    flags = [name for name, attr in _FLAGS.items() if getattr(spec, attr)]
    return {
        "config": "running",
        "date": spec.date,
        "jobs": [to_json(job) for job in spec.jobs],
        "templates": [to_json(template) for template in spec.templates],
        "images": [to_json(image) for image in spec.images],
        "configs": [to_json(config) for config in spec.configs],
        **({"flags": flags} if flags else {}),
    }


def public_json(spec: Spec) -> dict[str, object]:
    """Return the canonical object of a spec for people's eyes: inline secrets are left out.

    Reading it back is refused for want of them, so that nothing stores an empty secret by mistake.
    """
    found = to_json(spec)
    if isinstance(spec, RunningConfig):
        found["jobs"] = [public_json(job) for job in spec.jobs]
        found["templates"] = [public_json(template) for template in spec.templates]
    secrets = found.get("secrets")
    if isinstance(secrets, list):
        found["secrets"] = [
            {key: value for key, value in each.items() if key not in ("data", "encoding")} for each in secrets
        ]
    return found


def _top(table: Table, data: object, reading: Reading) -> dict[str, Any]:
    values = read_value(
        Kind(table.noun, lambda raw, at, r: read_object(table, raw, at, r)), data, "", reading
    )
    return {} if values is BAD else cast("dict[str, Any]", values)


def _read_one(table: Table, data: object, source: str, check: Check | None = None) -> Any:
    reading = Reading()
    value = read_value(object_of(table, check), data, "", reading)
    _refuse(reading, source)
    return value


def _refuse(reading: Reading, source: str) -> None:
    if reading.problems:
        raise InvalidDocument(source, reading.problems)
