# SPDX-License-Identifier: Apache-2.0
"""Reading the log of a process: `<name>.log`, older `<name>.log.1`, `.2`, … and the index beside them.

The index `<name>.idx` has one line per incarnation, "absolute_offset unix_ms incarnation", and one
with `-` for the incarnation that says at which absolute offset the current file begins. Absolute
offsets count every byte ever logged, so one names the same place after any rotation. When what was
written is told by logtimes.py. No call reads a whole file or keeps one in memory.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass

from maestro_py.process import logtimes
from maestro_py.spec.names import safe_name

_BLOCK = 65536
LOOK_BACK = 16 << 20
"""Bytes that are searched for the beginning of the last lines; should they be longer, it is here."""


def log_path(log_dir: str, name: str, generation: int = 0) -> str:
    """Return the path of a log file: 0 is being written, 1 the one before."""
    suffix = f".{generation}" if generation else ""
    return os.path.join(log_dir, f"{safe_name(name)}.log{suffix}")


def index_path(log_dir: str, name: str) -> str:
    """Return the path of the index."""
    return os.path.join(log_dir, f"{safe_name(name)}.idx")


@dataclass(frozen=True, slots=True)
class Index:
    """base: absolute offset at which the current file begins. starts: (offset, unix ms, incarnation)."""

    base: int = 0
    starts: tuple[tuple[int, int, int], ...] = ()


def read_index(log_dir: str, name: str) -> Index:
    """Return the index; lines that make no sense (a torn write) are passed over."""
    try:
        with open(index_path(log_dir, name), "rb") as file:
            lines = file.read().splitlines()
    except OSError:
        return Index()
    base, starts = 0, []
    for line in lines:
        try:
            offset, when, incarnation = line.split()
            if incarnation == b"-":
                base = int(offset)
            else:
                starts.append((int(offset), int(when), int(incarnation)))
        except ValueError:
            continue
    return Index(base, tuple(starts))


class Log:
    """The files of one log, opened, as one range of absolute offsets: `begin` to `end` at this moment.

    Use it in a `with` statement.
    """

    def __init__(self, log_dir: str, name: str) -> None:
        self._log_dir, self._name = log_dir, name
        self._index = read_index(log_dir, name)
        self._files: list[tuple[int, int, int]] = []  # descriptor, absolute begin, size; oldest first
        base = self._index.base
        seen = set()
        generation = 0
        while True:
            try:
                fd = os.open(log_path(log_dir, name, generation), os.O_RDONLY | os.O_CLOEXEC)
            except FileNotFoundError:
                if generation:
                    break
                generation += 1
                continue
            info = os.fstat(fd)
            if info.st_ino in seen:  # renamed between two opens
                os.close(fd)
            else:
                seen.add(info.st_ino)
                later = self._files[-1][1] if self._files else base
                self._files.append((fd, later - info.st_size if generation else base, info.st_size))
            generation += 1
        self._files.reverse()
        self.begin = self._files[0][1] if self._files else base
        self.end = self._files[-1][1] + self._files[-1][2] if self._files else base

    def __enter__(self) -> Log:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give the files back."""
        for fd, _begin, _size in self._files:
            os.close(fd)
        self._files = []

    def read(self, start: int, stop: int) -> bytes:
        """Return the bytes from start to stop, less what is not there any more."""
        parts = []
        for fd, begin, size in self._files:
            low, high = max(start, begin), min(stop, begin + size)
            if low < high:
                parts.append(os.pread(fd, high - low, low - begin))
        return b"".join(parts)

    def pieces(self, start: int, stop: int) -> Iterator[bytes]:
        """Yield the bytes from start to stop in pieces of moderate size."""
        for at in range(max(start, self.begin), stop, _BLOCK):
            yield self.read(at, min(stop, at + _BLOCK))

    def select(
        self,
        *,
        lines: int | None = None,
        since: float | None = None,
        until: float | None = None,
        previous: bool = False,
    ) -> tuple[int, int]:
        """Return (start, stop) of what was asked for, an empty range when there is no such thing.

        lines: only so many of the last. since, until: unix seconds; what is returned may begin and end
        a second (long ago in a busy log: some more) too early and too late, and never misses anything.
        previous: the incarnation before the current one instead of all.
        """
        start, stop = self.begin, self.end
        if previous:
            starts = self._index.starts
            if len(starts) < 2:
                return stop, stop
            start, stop = max(start, starts[-2][0]), min(stop, starts[-1][0])
        if since is not None or until is not None:
            marks = logtimes.read_marks(logtimes.times_path(self._log_dir, self._name))
            if since is not None and (place := logtimes.since(marks, since * 1000)) is not None:
                start = max(start, place)
            if until is not None and (place := logtimes.until(marks, until * 1000)) is not None:
                stop = min(stop, place)
        start = min(start, self.end)
        if start >= stop:
            return start, start
        return (start if lines is None else self._last_lines(lines, start, stop)), stop

    def _last_lines(self, count: int, start: int, stop: int) -> int:
        """Return where the last `count` lines of [start, stop) begin; read backwards."""
        if count <= 0:
            return stop
        start = max(start, self.begin, stop - LOOK_BACK)
        at = stop
        while at > start:
            low = max(start, at - _BLOCK)
            block = self.read(low, at)
            # the newline that ends the last line does not begin one
            edge = len(block) - 1 if at == stop and block.endswith(b"\n") else len(block)
            found = block.count(b"\n", 0, edge)
            if found < count:
                count -= found
                at = low
                continue
            for _ in range(count):
                edge = block.rfind(b"\n", 0, edge)
            return low + edge + 1
        return start


class Follower:
    """Reads what is appended to a log, over rotations, nothing lost, nothing twice.

    It begins at an absolute offset, the end by default, and holds the file it reads, so a rotated or
    deleted one is still read to its end. The log need not be there yet. `offset` is where the next
    byte stands; when files fell out before they were read it jumps, and so it does at the beginning
    if what was asked for is not there any more.
    """

    def __init__(self, log_dir: str, name: str, offset: int | None = None) -> None:
        self._log_dir, self._name = log_dir, name
        self._fd, self._begin = -1, 0
        with Log(log_dir, name) as log:
            self.offset = log.end if offset is None else min(max(offset, log.begin), log.end)
            for fd, begin, size in log._files:
                if begin <= self.offset <= begin + size:
                    self._take(os.dup(fd), begin)

    def read_new(self, limit: int = _BLOCK) -> bytes:
        """Return up to `limit` new bytes; empty when there are none yet."""
        while True:
            data = self._read(limit)
            if data:
                return data
            newer, follows = self._newer()
            if newer < 0:
                return b""
            # rotation ends the writing to a file: one more look at it, then it is finished with
            data = self._read(limit)
            if data:
                os.close(newer)
                return data
            if not follows:
                self.offset = self._begin_of(newer)
            self._take(newer, self.offset)

    def close(self) -> None:
        """Give the file back."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __del__(self) -> None:
        self.close()

    def _take(self, fd: int, begin: int) -> None:
        self.close()
        self._fd, self._begin = fd, begin

    def _read(self, limit: int) -> bytes:
        if self._fd < 0:
            return b""
        at = self.offset - self._begin
        data = os.pread(self._fd, limit, at)
        if not data and os.fstat(self._fd).st_size < at:  # somebody emptied the file
            self._begin = self.offset
            data = os.pread(self._fd, limit, 0)
        self.offset += len(data)
        return data

    def _newer(self) -> tuple[int, bool]:
        """Return the opened file that follows the one being read, and whether it follows at once.

        -1 when there is none.
        """
        own = os.fstat(self._fd).st_ino if self._fd >= 0 else -1
        newer, generation = -1, 0
        while True:
            try:
                path = log_path(self._log_dir, self._name, generation)
                fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            except FileNotFoundError:
                fd = -1
            if fd < 0 and generation:
                return newer, False  # ours is deleted, or there was none: the oldest that is left
            if fd >= 0 and os.fstat(fd).st_ino == own:
                os.close(fd)
                return newer, True
            if newer >= 0:
                os.close(newer)
            newer = fd
            generation += 1

    def _begin_of(self, fd: int) -> int:
        """Return the absolute offset at which an open file of the log begins."""
        inode = os.fstat(fd).st_ino
        with Log(self._log_dir, self._name) as log:
            for other, begin, _size in log._files:
                if os.fstat(other).st_ino == inode:
                    return max(begin, self.offset)
        return self.offset
