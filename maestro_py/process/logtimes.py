# SPDX-License-Identifier: Apache-2.0
"""When a log was written: `<name>.times` beside it, a mark for each second in which something came.

A line is "offset unix_ms span_ms": the bytes from there up to the next mark came within span_ms after
unix_ms. Offsets count every byte ever logged. Marks are written by whoever moves the bytes, when it
moves them anyway, so that capture itself never looks at what it carries. When the file is full, marks
of long ago are joined by two: a quiet log keeps its seconds for ever, a busy one knows its older
half only by minutes.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence

from maestro_py.spec.names import safe_name

SPAN = 1.0
"""Seconds one mark stands for."""

_SIZE = 64 << 10  # bytes of the file before marks are joined
_EXACT = 600  # the newest marks are not joined

Mark = tuple[int, int, int]
"""Absolute offset, unix time in ms, span in ms."""


def times_path(log_dir: str, name: str) -> str:
    """Return the path of the file of marks."""
    return os.path.join(log_dir, f"{safe_name(name)}.times")


class Marker:
    """Writes the marks of one log."""

    __slots__ = ("_next", "_path")

    def __init__(self, log_dir: str, name: str) -> None:
        self._path = times_path(log_dir, name)
        self._next = 0.0

    def note(self, offset: int) -> None:
        """Note that something came just now and begins at `offset`; most calls find that it was noted."""
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + SPAN
        line = b"%d %d %d\n" % (offset, time.time_ns() // 1_000_000, SPAN * 1000)
        try:
            with open(self._path, "ab", buffering=0) as file:
                file.write(line)
                full = file.tell() > _SIZE
            if full:
                self._thin()
        except OSError:
            pass  # what is lost is when it was

    def _thin(self) -> None:
        marks = thinned(read_marks(self._path))
        with open(self._path + ".new", "wb", buffering=0) as file:
            file.write(b"".join(b"%d %d %d\n" % mark for mark in marks))
        os.rename(self._path + ".new", self._path)


def thinned(marks: Sequence[Mark]) -> list[Mark]:
    """Return the marks with the older ones joined by two."""
    old, kept = marks[: -_EXACT or None], list(marks[-_EXACT:])
    joined = []
    for first, second in zip(old[::2], old[1::2], strict=False):
        joined.append((first[0], first[1], max(0, second[1] + second[2] - first[1])))
    if len(old) % 2:
        joined.append(old[-1])
    return joined + kept


def read_marks(path: str) -> list[Mark]:
    """Return the marks in a file, without torn lines and what was before the count began anew."""
    try:
        with open(path, "rb") as file:
            lines = file.read(2 * _SIZE).splitlines()
    except OSError:
        return []
    marks: list[Mark] = []
    for line in lines:
        try:
            offset, when, span = map(int, line.split())
        except ValueError:
            continue
        if marks and offset < marks[-1][0]:
            marks.clear()
        marks.append((offset, when, span))
    return marks


def since(marks: Sequence[Mark], ms: float) -> int | None:
    """Return the offset before which everything is older than this unix time.

    None: nothing is known to be older. An offset past the end: nothing is known to be younger.
    """
    for number in range(len(marks) - 1, -1, -1):
        if marks[number][1] + marks[number][2] <= ms:
            return marks[number + 1][0] if number + 1 < len(marks) else 1 << 62
    return None


def until(marks: Sequence[Mark], ms: float) -> int | None:
    """Return the offset from which on everything is younger than this unix time; None: nothing is."""
    for number in range(len(marks) - 1, -1, -1):
        if marks[number][1] < ms:
            return marks[number + 1][0] if number + 1 < len(marks) else None
    return marks[0][0] if marks else None
