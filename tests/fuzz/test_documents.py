# SPDX-License-Identifier: Apache-2.0
"""Documents nobody would write: a value or InvalidDocument, soon; what is accepted can be written back."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.fuzzing import SEED, TIMEOUT, kept, rounds, spoiled

from maestro_py.errors import InvalidDocument, MaestroError, Problem
from maestro_py.spec.daemonfile import DAEMON, read_daemon_config
from maestro_py.spec.documents import (
    RUNNING,
    RUNNING_OP,
    check_references,
    read_running_config,
    read_stored,
    read_templates,
    to_json,
)
from maestro_py.spec.expand import resolve
from maestro_py.spec.fields import JOB, TEMPLATE
from maestro_py.spec.model import RunningConfig
from maestro_py.spec.places import Places
from maestro_py.spec.reader import Field, Kind, Table
from maestro_py.spec.schema import tables
from maestro_py.spec.text import load, load_json
from maestro_py.spec.yamltext import load_yaml

SOON = 10.0
"""Seconds of this process's own time that one document may take; they are small."""

SAMPLES = [
    file.read_bytes()
    for file in sorted((Path(__file__).parents[3] / "shared/samples/maestro").rglob("*.*"))
    if file.is_file() and file.stat().st_size < 30_000
]

NAMES = ("a", "b", "c")
WORDS = (
    "", *NAMES, "/a", "/a/b", "b/c", "16M", "1m30s", "50ms", "SIGTERM", "HUP", "http://h/x.tar",
    "file:///x", "1:2", "{{IMAGE}}", "{{a}}", "{{x", "${HOME|x}", "a=b", "0644", "640", "nobody", "nofile",
    "default", "none", "host", "10.0.0.2/24", "127.0.0.1:80", "0" * 64, "YQ==", "KILL", "CAP_KILL", "true",
    "-1", "1e9", "!!OK!!",
)  # fmt: skip
STRANGE: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2**31, 2**63, 2**64, 10**400, 0.5, -0.0, 1e308, [], {}, [[]], [None],
    {"": ""}, "\0", "\ud800", "a\nb", "\x1b[31m", "ü" * 70, "x" * 5000, "{{a}}" * 300, "٣", "1_000", " 1",
    "1e400", "nan", "inf", "9" * 5000, "../..", "//", "\u2028", "%s{}", "\U0001d7d9M",
    {"a": {"a": {"a": {}}}},
)  # fmt: skip
YAML = (
    b"&a ", b"*a", b"<<: *a\n", b"!!binary YQ==", b"!!set {a}", b"!!python/object:os.system x",
    b"? [a]\n: b\n", b"\t", b".inf", b"1:30", b"2020-01-01", b"0o17", b"[" * 200, b"{a: " * 200, b"---\n",
    b"...\n", b"%YAML 9.9\n", b"|+\n", b"'", b"\x85", b"\xff\xfe", b"\xef\xbb\xbf", b"!!float x",
    b"!!int _", b"!!timestamp x", b"!!null x", b"!<", b"=", b"!!merge x", b"!!omap [a]", b"0x", b"0b_",
    b"1__0", b"::", b"\\ud800", b"\"\\udfff\"", b"9" * 5000, b"!!bool x",
)  # fmt: skip

PLAIN = (b"\n", b"\n  ", b"a: ", b"- ", b"[", b"]", b"{", b"}", b",", b" ")


def dumped(data: Any, unicode: bool) -> str:
    dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
    return str(yaml.dump(data, Dumper=dumper, allow_unicode=unicode))


class Maker:
    """Makes documents from the tables of fields, most of them nearly right."""

    def __init__(self, dice: random.Random) -> None:
        self.dice = dice
        self.good = 0.95
        everything = [t for start in (RUNNING_OP, DAEMON) for t in tables(start)]
        self.rows: list[Field] = [row for table in everything for row in table.fields]

    def document(self, start: Table) -> Any:
        """Return a document; how often something strange is in it differs from one to the next."""
        self.good = self.dice.choice((1.0, 0.99, 0.95, 0.5))
        return self.value(start, 0)

    def value(self, part: Any, depth: int) -> Any:
        """Return a value for a table, a kind or a schema."""
        dice = self.dice
        if dice.random() > self.good:
            return dice.choice(STRANGE)
        if isinstance(part, Kind):
            return self.value(part.schema, depth)
        if isinstance(part, Table):
            return self.object(part, depth)
        for key in ("enum", "anyOf", "oneOf", "type"):
            if isinstance(part, dict) and isinstance(part.get(key), (list, tuple)):
                picked = dice.choice(part[key])
                if key == "enum":
                    return picked
                return self.value({**part, key: picked} if key == "type" else picked, depth)
        wanted = part.get("type") if isinstance(part, dict) else None
        if wanted == "array":
            return [self.value(part.get("items"), depth) for _ in range(dice.choice((0, 1, 1, 2, 3)))]
        if wanted == "object":
            found = {}
            for name, item in part.get("properties", {}).items():
                if dice.random() < 0.5:
                    found[name] = self.value(item, depth)
            more = part.get("additionalProperties")
            if more:
                found[dice.choice(WORDS)] = self.value(more, depth)
            return found
        if wanted in ("integer", "number"):
            low, high = part.get("minimum", 0), part.get("maximum", 1 << 62)
            return dice.choice((low, high, 1, 10, dice.randrange(1000)))
        if wanted == "boolean":
            return dice.random() < 0.5
        if wanted == "null":
            return None
        return dice.choice(NAMES if dice.random() < 0.5 else WORDS)

    def object(self, table: Table, depth: int) -> dict[str, Any]:
        """Return an object of a table: what must be there, and a few fields."""
        dice, found = self.dice, {}
        often = 0.6 if depth == 0 else dice.choice((0.02, 0.1, 0.3))
        for row in table.fields:
            if row.required or dice.random() < often:
                key = row.key if dice.random() < 0.9 else dice.choice((row.key, *row.aliases))
                found[key] = self.value(row.kind, depth + 1)
        if dice.random() > self.good:
            row = dice.choice(self.rows)
            found[dice.choice((row.key, row.key.upper(), row.key[:-1], row.key + "\0"))] = dice.choice(
                STRANGE
            )
        for key in ("job", "name"):  # so that things find each other
            if key in found and dice.random() < self.good:
                found[key] = dice.choice(NAMES)
        return found

    def text(self, data: Any, *, yaml_too: bool) -> bytes:
        """Return the text of a document, with a few bytes wrong at times."""
        dice = self.dice
        if yaml_too and dice.random() < 0.5:
            try:
                text = dumped(data, dice.random() < 0.5).encode("utf-8", "surrogatepass")
            except (UnicodeError, yaml.YAMLError):
                text = b"a: 1\n"
        else:
            text = json.dumps(data, ensure_ascii=dice.random() < 0.5).encode("utf-8", "surrogatepass")
        if yaml_too and SAMPLES and dice.random() < 0.2:
            text = dice.choice(SAMPLES)
        if dice.random() < 0.3:
            text = spoiled(dice, text)
        for _ in range(dice.choice((0, 0, 0, 1, 3)) if yaml_too else 0):
            at = dice.randrange(len(text) + 1)
            text = text[:at] + dice.choice(YAML) + text[at:]
        return text


def printable(told: Problem | str) -> None:
    """Hold what a person is told to what a terminal may get."""
    text = str(told)
    assert text.isprintable(), ascii(text)
    text.encode()
    assert len(text) < 5000


def read(reader: Callable[..., Any], *args: Any, **keys: Any) -> Any:
    """Return what a reader makes of a document, None when it refuses it."""
    try:
        return reader(*args, **keys)
    except InvalidDocument as error:
        problems = error.problems
    assert problems
    for problem in problems:
        printable(problem)
    return None


def held(data: object) -> RunningConfig | None:
    """Read a running config, hold it to the rules and return it when it is good."""
    found = read(read_running_config, data, source="doc")
    if found is None:
        return None
    config, warnings = found
    for warning in warnings:
        printable(warning)
    written = json.dumps(to_json(config), ensure_ascii=False).encode()
    again, _ = read_running_config(load_json(written, "again"), source="again")
    assert again == config
    for kind in ("job", "template", "image", "config"):
        for spec in getattr(config, kind + "s"):
            assert read_stored(kind, to_json(spec)) == spec
    parts = (config.jobs, config.templates, config.images, config.configs)
    errors, warnings = check_references(*parts)
    for problem in (*errors, *warnings):
        printable(problem)
    if not errors:
        try:
            resolve(*parts, Places("/im", "/co", "/s", "/t", "/cwd"))
        except MaestroError as error:
            for line in str(error).splitlines():
                printable(line)
        return config
    return None


@pytest.mark.timeout(TIMEOUT)
def test_any_running_config_is_accepted_and_written_back_or_refused() -> None:
    dice = random.Random(SEED)
    maker, accepted = Maker(dice), 0
    for count in rounds(least=50):
        text = maker.text(maker.document(dice.choice((RUNNING, RUNNING, RUNNING_OP))), yaml_too=False)
        with kept(f"document {count}", {"running.json": text}):
            began = time.process_time()
            data = read(load_json, text, "doc")
            if data is not None:
                accepted += held(data) is not None
            assert time.process_time() - began < SOON
    print(f"\n| running configs | {count + 1} | {accepted} accepted |")
    assert accepted


@pytest.mark.timeout(TIMEOUT)
def test_any_file_of_the_daemon_or_of_templates_is_accepted_or_refused() -> None:
    dice = random.Random(SEED)
    maker, accepted = Maker(dice), 0
    environ, builtins = {"HOME": "{{thisdir}}"}, {"thisdir": "/d", "cwd": "/c", "ARCH_a": "{{a}}"}
    for count in rounds(least=50):
        start = dice.choice((DAEMON, TEMPLATE, JOB))
        text = maker.text(maker.document(start), yaml_too=True)
        with kept(f"file {count}", {"document": text}):
            began = time.process_time()
            data = read(load, text, "doc")
            if data is None:
                continue
            json.dumps(data, allow_nan=False)
            found = read(read_daemon_config, data, environ=environ, builtins=builtins, source="doc")
            if found:
                config, warnings = found
                for warning in warnings:
                    printable(warning)
                held(
                    {
                        "jobs": [to_json(j) for j in config.jobs],
                        "templates": [to_json(t) for t in config.templates],
                    }
                )
                accepted += 1
            templates = read(read_templates, data, "doc")
            for template in templates[0] if templates else ():
                assert read_stored("template", to_json(template)) == template
            assert time.process_time() - began < SOON
    print(f"\n| files of the daemon and of templates | {count + 1} | {accepted} accepted |")
    assert accepted


@pytest.mark.timeout(TIMEOUT)
def test_any_bytes_are_yaml_or_refused() -> None:
    dice = random.Random(SEED)
    for count in rounds(least=50):
        text = b"".join(dice.choice((*YAML, *PLAIN)) for _ in range(dice.randrange(1, 30)))
        with kept(f"text {count}", {"text.yaml": text}):
            began = time.process_time()
            data = read(load_yaml, text, "doc")
            json.dumps(data, allow_nan=False)
            assert time.process_time() - began < SOON
    print(f"\n| YAML | {count + 1} |")
