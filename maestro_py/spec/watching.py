# SPDX-License-Identifier: Apache-2.0
"""Kinds and tables of the fields that say how a process is watched, and what follows."""

from __future__ import annotations

from typing import Any

from maestro_py.spec import kinds
from maestro_py.spec.isolation import PORT_NUMBER
from maestro_py.spec.kinds import ARGUMENT, NAME, choice, integer, list_of, object_of, text_kind
from maestro_py.spec.model import Health, OnFailure, Probe
from maestro_py.spec.quantities import SECONDS
from maestro_py.spec.reader import Field, Kind, Reading, Table, Wrong

_NEEDS = {
    "ok-string": ("ok_string",),
    "notify": (),
    "none": (),
    "fd": ("fd",),
    "tcp": ("port",),
    "http": ("port", "path"),
    "exec": ("command",),
}
"""Types of probes and the keys that belong to each."""

_OPTIONAL = frozenset({"ok_string", "path"})
_OURS = {key for keys in _NEEDS.values() for key in keys}

_ASKED = ("tcp", "http", "exec")
"""Probes that ask; the others wait to be told."""

_READY_TYPE = choice(*_NEEDS)


def _command(raw: Any, path: str, reading: Reading) -> tuple[str, ...]:
    words: tuple[str, ...] = _WORDS.read(raw, path, reading)
    if raw and words and not words[0].startswith(("/", "{{")):
        raise Wrong("a command begins with the absolute path of its program")
    return words


def _http_path(raw: Any, path: str, reading: Reading) -> str:
    text: str = ARGUMENT.read(raw, path, reading)
    if not text.startswith("/") or not text.isascii() or not text.isprintable() or " " in text:
        raise Wrong
    return text


_WORDS = list_of(ARGUMENT, "strings")
COMMAND = Kind(
    "a program's absolute path and its arguments, as a list of strings", _command, list, _WORDS.schema
)

_PROBE_FIELDS = (
    Field("ok_string", kinds.OK_TEXT, "ok-string: what the process prints once it is ready.", "!!OK!!"),
    Field("fd", integer(3, 1023), "fd: descriptor the process writes a newline to.", "none"),
    Field("port", PORT_NUMBER, "tcp, http: port that must answer, on 127.0.0.1 or in its own network.",
          "none"),
    Field("path", text_kind("a path that begins with a slash", _http_path),
          "http: path that must be answered with a status from 200 to 399.", "/"),
    Field("command", COMMAND,
          "exec: program that must end with exit code 0, run as the process itself is.", "none"),
)  # fmt: skip

READY = Table(
    "a way to say ready",
    Probe,
    (
        Field("type", _READY_TYPE, "ok-string, notify (sd_notify), fd, tcp, http, exec or none.",
              required=True),
        *_PROBE_FIELDS,
        Field("timeout", SECONDS, "Time to become ready in; 0 is for ever.", "timeout_for_ok"),
        Field("interval", SECONDS, "tcp, http, exec: time between two questions.", "1s"),
    ),
)  # fmt: skip

HEALTH = Table(
    "a health check",
    Health,
    (
        Field("type", choice(*_ASKED), "tcp, http or exec.", required=True),
        *(row for row in _PROBE_FIELDS if row.key not in ("ok_string", "fd")),
        Field("interval", SECONDS, "Time between two checks.", "30s"),
        Field("timeout", SECONDS, "Time one check may take.", "5s"),
        Field("threshold", integer(1, 1000), "Failures in a row that count.", "3"),
        Field("action", choice("restart", "report"),
              "restart: it is stopped and counts as dead; report: the event alone.", "restart"),
    ),
)  # fmt: skip

ON_FAILURE = Table(
    "what follows a failure",
    OnFailure,
    (
        Field("command", COMMAND,
              "Program to run, as the process itself is, with MAESTRO_CAUSE in its environment.", "none"),
        Field("job", NAME, "Job to start.", "none"),
    ),
)  # fmt: skip


def _probe_check(values: dict[str, Any], path: str, reading: Reading) -> None:
    kind = values.get("type")
    if kind is None:
        return
    for key in _NEEDS[kind]:
        if not values.get(key) and key not in _OPTIONAL:
            reading.problem(path, f"`{key}` is missing, which {kind} needs")
    for key in sorted(_OURS.intersection(values).difference(_NEEDS[kind])):
        reading.problem(f"{path}.{key}", f"{kind} has no `{key}`")
    if values.get("interval") is not None and values["interval"] < 0.01:
        reading.problem(f"{path}.interval", "at least 10ms")


def _health_check(values: dict[str, Any], path: str, reading: Reading) -> None:
    _probe_check(values, path, reading)
    if values.get("timeout") == 0:
        reading.problem(f"{path}.timeout", "a check needs some time")


def _failure_check(values: dict[str, Any], path: str, reading: Reading) -> None:
    if bool(values.get("command")) == ("job" in values):
        reading.problem(path, "give one of `command` and `job`")


_READY_OBJECT = object_of(READY, _probe_check)


def _ready(raw: Any, path: str, reading: Reading) -> Probe | None:
    if isinstance(raw, str):
        raw = {"type": raw}
    probe: Probe | None = _READY_OBJECT.read(raw, path, reading)
    return probe


READINESS = Kind(
    '"notify", "ok-string" or an object with `type`', _ready, READY.write, {"anyOf": [_READY_TYPE, READY]}
)
HEALTH_CHECK = object_of(HEALTH, _health_check)
FAILURE = object_of(ON_FAILURE, _failure_check)
