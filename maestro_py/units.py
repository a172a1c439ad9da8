# SPDX-License-Identifier: Apache-2.0
"""Sizes, durations and signals as people write them."""

from __future__ import annotations

import re
import signal

_SIZE = re.compile(r"([0-9]{1,19})(\.[0-9]{1,18})?\s*([kmgt]?)(?:i?b)?", re.IGNORECASE)
_FACTOR = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
MAX_SIZE = (1 << 63) - 1
"""Bytes, the largest number of them: what the kernel's and SQLite's signed numbers hold on any processor."""
_MAX_DURATION = 1e12
_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*(ms|us|s|min|m|h|d|w)", re.IGNORECASE)
_SECONDS = {"us": 1e-6, "ms": 1e-3, "s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400, "w": 604800}


def parse_size(value: object) -> int:
    """Return bytes from a number of bytes or from text such as `16M`, `1.5 GiB` (powers of 1024).

    Raises ValueError that says what was expected.
    """
    if isinstance(value, str) and (match := _SIZE.fullmatch(value.strip())):
        factor = _FACTOR[match[3].lower()]
        value = int(match[1]) * factor + int(float(match[2] or 0) * factor)
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MAX_SIZE:
        return value
    raise ValueError("a size in bytes or with a unit, as 10485760 or 10M")


def parse_duration(value: object) -> float:
    """Return seconds from a number of seconds or from text such as `500ms`, `1m30s`.

    Raises ValueError that says what was expected.
    """
    if isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < _MAX_DURATION:
        return float(value)
    if isinstance(value, str):
        text = value.strip()
        try:
            return parse_duration(float(text))
        except ValueError:
            pass
        parts = list(_DURATION.finditer(text))
        if parts and "".join(p[0] for p in parts).replace(" ", "") == text.replace(" ", ""):
            total = sum(float(p[1]) * _SECONDS[p[2].lower()] for p in parts)
            if total < _MAX_DURATION:
                return total
    raise ValueError("a duration in seconds or with units, as 5, 500ms or 1m30s")


def parse_signal(value: object) -> int:
    """Return a signal number from `SIGTERM`, `term` or 15. Raises ValueError that says what was expected."""
    try:
        if isinstance(value, int) and not isinstance(value, bool):
            if signal.SIGRTMIN <= value <= signal.SIGRTMAX:
                return value
            return int(signal.Signals(value))
        if isinstance(value, str):
            text = value.strip().upper()
            if text.isdigit():
                return parse_signal(int(text))
            return int(signal.Signals["SIG" + text.removeprefix("SIG")])
    except (KeyError, ValueError):
        pass
    raise ValueError("a signal, as SIGTERM or 15")


def signal_name(number: int) -> str:
    """Return `SIGTERM` for 15, `signal 40` for a number without a name."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def format_size(size: float) -> str:
    """Return a size for people: `10.0M`, `512B`."""
    value = float(size)
    for unit in ("B", "K", "M", "G"):
        digits = 0 if unit == "B" else 1
        if round(value, digits) < 1024:
            return f"{value:.{digits}f}{unit}"
        value /= 1024
    return f"{value:.1f}T"


def format_duration(seconds: float) -> str:
    """Return a duration for people, two units at most: `5s`, `1m30s`, `2d4h`, `250ms`."""
    ms = round(seconds * 1000)
    if ms < 1000:
        return f"{ms}ms" if ms > 0 else "0s"
    rest = round(seconds) if seconds >= 9.95 else round(seconds, 1)
    if rest < 60:
        return f"{rest:g}s"
    units = (("d", 86400), ("h", 3600), ("m", 60), ("s", 1))
    first = next(i for i, (_, size) in enumerate(units) if rest >= size)
    text = ""
    for name, size in units[first : first + 2]:
        count, rest = divmod(rest, size)
        text += f"{count}{name}" if count else ""
    return text
