# SPDX-License-Identifier: Apache-2.0
"""Moments as people write them on a command line."""

from __future__ import annotations

import time

_FORMS = ("%Y-%m-%d %H:%M:%S", "%Y-%m-%d %H:%M", "%Y-%m-%d", "%H:%M:%S", "%H:%M")


def parse_moment(text: str, now: float | None = None) -> float:
    """Return unix seconds of `10m` (ago), `2026-05-01 14:30`, `14:30` (the last one), `@1700000000`.

    Times of day are local; a `T` may stand for the blank, and a `Z` at the end makes it UTC. now: unix
    seconds, the clock by default. Raises ValueError that says what was expected.
    """
    from maestro_py.units import parse_duration

    now = time.time() if now is None else now
    plain = text.strip()
    if plain == "now":
        return now
    try:
        if plain.startswith("@"):
            return max(0.0, float(plain[1:]))
        return max(0.0, now - parse_duration(plain.removesuffix("ago").strip()))
    except ValueError:
        pass
    utc = plain.endswith("Z")
    plain = plain.removesuffix("Z").replace("T", " ")
    for form in _FORMS:
        try:
            found = time.strptime(plain, form)
            break
        except ValueError:
            continue
    else:
        raise ValueError("10m (ago), 14:30, 2026-05-01 14:30 or @1700000000")
    parts = list(found)
    if "%Y" not in form:
        parts[:3] = (time.gmtime if utc else time.localtime)(now)[:3]
    moment = _seconds(parts, utc)
    if "%Y" not in form and moment > now:
        parts[2] -= 1  # the one of yesterday; the zeroth of a month is the last of the one before
        moment = _seconds(parts, utc)
    return max(0.0, moment)


def _seconds(parts: list[int], utc: bool) -> float:
    if utc:
        import calendar

        return calendar.timegm((parts[0], parts[1], 1, *parts[3:6])) + (parts[2] - 1) * 86400.0
    year, month, day, hour, minute, second = parts[:6]
    return time.mktime((year, month, day, hour, minute, second, 0, 0, -1))
