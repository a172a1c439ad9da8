# SPDX-License-Identifier: Apache-2.0
"""Kinds of values that are quantities: sizes, times, masks, resource limits, signals, shares of a CPU."""

from __future__ import annotations

from typing import Any

from maestro_py.spec.kinds import plain
from maestro_py.spec.reader import Kind, Reading, Wrong, below
from maestro_py.units import parse_duration, parse_signal, parse_size, signal_name

MAX_SECONDS = 1e9
"""Longest duration accepted, about 31 years; upstream's 32-bit milliseconds end at 50 days."""

RLIMITS = (
    "as",
    "core",
    "cpu",
    "data",
    "fsize",
    "locks",
    "memlock",
    "msgqueue",
    "nice",
    "nofile",
    "nproc",
    "rss",
    "rtprio",
    "rttime",
    "sigpending",
    "stack",
)
"""Resources of setrlimit(2), without their RLIMIT_ prefix."""


def _umask(raw: Any, path: str, reading: Reading) -> int:
    if isinstance(raw, str):
        try:
            raw = int(raw.lower().removeprefix("0o"), 8) if raw[:1].isdigit() and len(raw) < 8 else None
        except ValueError:
            raise Wrong from None
    if not isinstance(raw, int) or isinstance(raw, bool) or not 0 <= raw <= 0o777:
        raise Wrong
    return raw


def _rlimit_value(raw: Any) -> int:
    if raw == -1 or (isinstance(raw, str) and raw.lower() in ("unlimited", "infinity", "-1")):
        return -1
    return _size_number(raw)


def _rlimits(raw: Any, path: str, reading: Reading) -> tuple[tuple[str, int, int], ...]:
    if not isinstance(raw, dict):
        raise Wrong
    found: dict[str, tuple[str, int, int]] = {}
    for key, item in raw.items():
        at = below(path, str(key))
        name = str(key).lower().removeprefix("rlimit_")
        if name not in RLIMITS:
            reading.problem(at, "no such resource limit", reading.suggest(name, RLIMITS))
            continue
        if name in found:
            reading.problem(at, f"the limit {name} is given twice")
            continue
        pair = item if isinstance(item, dict) else {"soft": item, "hard": item}
        unknown = [k for k in pair if k not in ("soft", "hard")]
        try:
            if unknown or not pair:
                raise Wrong
            soft = _rlimit_value(pair.get("soft", pair.get("hard")))
            hard = _rlimit_value(pair.get("hard", pair.get("soft")))
        except ValueError:
            reading.problem(at, 'expected a number, "unlimited" or {"soft": number, "hard": number}')
            continue
        if hard != -1 and (soft == -1 or soft > hard):
            reading.problem(at, "the soft limit is above the hard one")
            continue
        found[name] = (name, soft, hard)
    return tuple(found[name] for name in sorted(found))


def _write_rlimits(limits: tuple[tuple[str, int, int], ...]) -> object:
    def word(value: int) -> object:
        return "unlimited" if value == -1 else value

    return {
        name: word(soft) if soft == hard else {"soft": word(soft), "hard": word(hard)}
        for name, soft, hard in limits
    }


def _size_number(raw: Any) -> int:
    try:
        return parse_size(raw)
    except (ValueError, OverflowError):
        raise Wrong from None


def _size(raw: Any, path: str, reading: Reading) -> int:
    return _size_number(raw)


def _seconds(raw: Any, path: str, reading: Reading) -> float:
    try:
        value = parse_duration(raw)
    except (ValueError, OverflowError):
        raise Wrong from None
    if not value < MAX_SECONDS:
        raise Wrong("longer than 30 years")
    return round(value, 6)


def _milliseconds(raw: Any, path: str, reading: Reading) -> float:
    if isinstance(raw, str):
        try:
            raw = float(raw)
        except ValueError:
            return _seconds(raw, path, reading)
    if isinstance(raw, bool) or not isinstance(raw, (int, float)) or raw < 0:
        raise Wrong
    if not raw < MAX_SECONDS * 1000:
        raise Wrong("longer than 30 years")
    return round(raw / 1000, 6)


def _write_milliseconds(value: float) -> object:
    return plain(round(value * 1000, 3))


def _signal(raw: Any, path: str, reading: Reading) -> int:
    try:
        return parse_signal(raw)
    except ValueError:
        raise Wrong from None


def _write_signal(number: int) -> object:
    name = signal_name(number)
    return name if name.startswith("SIG") else number


def _cpus(raw: Any, path: str, reading: Reading) -> float:
    if isinstance(raw, str):
        text = raw.strip()
        try:
            raw = float(text[:-1]) / 100 if text.endswith("%") else float(text)
        except ValueError:
            raise Wrong from None
    if isinstance(raw, bool) or not isinstance(raw, (int, float)) or not 0.01 <= raw <= 100_000:
        raise Wrong
    return float(raw)


_SIZE = {"type": ["integer", "string"], "minimum": 0}
_NUMBER_OR_TEXT = {"type": ["number", "string"], "minimum": 0}
_OCTAL = {"type": ["string", "integer"], "minimum": 0, "maximum": 0o777}
_RLIMIT = {"type": ["integer", "string"], "minimum": -1}
_RLIMITS = {
    "type": "object",
    "additionalProperties": {
        "anyOf": [_RLIMIT, {"type": "object", "properties": {"soft": _RLIMIT, "hard": _RLIMIT}}]
    },
}

UMASK = Kind('an octal umask, as "022"', _umask, lambda value: f"{value:03o}", _OCTAL)
MODE = Kind('an octal file mode, as "640"', _umask, lambda value: f"{value:03o}", _OCTAL)
RLIMIT_TABLE = Kind('an object of limits, as {"nofile": 1024}', _rlimits, _write_rlimits, _RLIMITS)
SIZE = Kind('a size in bytes or with a unit, as 10485760 or "10M"', _size, schema=_SIZE)
SECONDS = Kind(
    'a duration in seconds or with units, as 5, "500ms" or "1m30s"', _seconds, plain, _NUMBER_OR_TEXT
)
MILLISECONDS = Kind(
    'a duration in milliseconds, or with a unit as "5s"', _milliseconds, _write_milliseconds, _NUMBER_OR_TEXT
)
SIGNAL = Kind('a signal, as "SIGTERM" or 15', _signal, _write_signal, {"type": ["string", "integer"]})
CPUS = Kind('a number of CPUs, as 0.5 or "50%"', _cpus, plain, _NUMBER_OR_TEXT)
