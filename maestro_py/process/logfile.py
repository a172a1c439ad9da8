# SPDX-License-Identifier: Apache-2.0
"""Reading the log of a process: `<name>.log`, older `<name>.log.1`, `.2`, … and the index beside them.

The index `<name>.idx` has one line per incarnation, "absolute_offset unix_ms incarnation", and one
with `-` for the incarnation that says at which absolute offset the current file begins. Absolute
offsets count every byte ever logged. No call reads a whole file or keeps one in memory.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from maestro_py.spec.model import safe_name

_BLOCK = 65536
LIMIT = 1 << 20
"""Most bytes one call returns, whatever the number of lines."""


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


class _Chain:
    """The files of one log, opened, oldest first, as one range of absolute offsets."""

    def __init__(self, log_dir: str, name: str, base: int = 0) -> None:
        self.files: list[tuple[int, int, int]] = []  # descriptor, absolute begin, size
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
                begin = (
                    base if generation == 0 else (self.files[-1][1] if self.files else base) - info.st_size
                )
                self.files.append((fd, begin, info.st_size))
            generation += 1
        self.files.reverse()
        self.begin = self.files[0][1] if self.files else base
        self.end = self.files[-1][1] + self.files[-1][2] if self.files else base

    def __enter__(self) -> _Chain:
        return self

    def __exit__(self, *_: object) -> None:
        for fd, _begin, _size in self.files:
            os.close(fd)

    def read(self, start: int, stop: int) -> bytes:
        parts = []
        for fd, begin, size in self.files:
            low, high = max(start, begin), min(stop, begin + size)
            if low < high:
                parts.append(os.pread(fd, high - low, low - begin))
        return b"".join(parts)

    def last_lines(self, start: int, stop: int, count: int) -> bytes:
        """Return the last `count` lines of [start, stop), read backwards, at most LIMIT bytes."""
        start = max(start, self.begin, stop - LIMIT)
        parts: list[bytes] = []
        at, missing = stop, count
        while at > start:
            low = max(start, at - _BLOCK)
            block = self.read(low, at)
            # the newline that ends the last line does not begin one
            edge = len(block) - 1 if at == stop and block.endswith(b"\n") else len(block)
            while missing:
                edge = block.rfind(b"\n", 0, edge)
                if edge < 0:
                    break
                missing -= 1
            if not missing:
                parts.append(block[edge + 1 :])
                break
            parts.append(block)
            at = low
        return b"".join(reversed(parts))


def tail(log_dir: str, name: str, count: int) -> bytes:
    """Return the last `count` lines of a log, over rotated files; at most LIMIT bytes."""
    if count <= 0:
        return b""
    with _Chain(log_dir, name) as chain:
        return chain.last_lines(chain.begin, chain.end, count)


def previous(log_dir: str, name: str, count: int) -> bytes:
    """Return the last `count` lines of the incarnation before the current one; empty when there is none."""
    index = read_index(log_dir, name)
    if len(index.starts) < 2 or count <= 0:
        return b""
    with _Chain(log_dir, name, index.base) as chain:
        return chain.last_lines(index.starts[-2][0], min(index.starts[-1][0], chain.end), count)


class Follower:
    """Reads what is appended to a log from its making on, over rotations, nothing lost, nothing twice.

    It holds the file it reads, so a rotated or deleted one is still read to its end. The log need
    not be there yet.
    """

    def __init__(self, log_dir: str, name: str) -> None:
        self._log_dir, self._name = log_dir, name
        self._fd = self._open(0)
        self._offset = os.fstat(self._fd).st_size if self._fd >= 0 else 0

    def read_new(self, limit: int = _BLOCK) -> bytes:
        """Return up to `limit` new bytes; empty when there are none yet."""
        while True:
            data = self._read(limit)
            if data:
                return data
            newer = self._newer()
            if newer < 0:
                return b""
            # rotation ends the writing to a file: one more look at it, then it is finished with
            data = self._read(limit)
            if data:
                os.close(newer)
                return data
            self.close()
            self._fd, self._offset = newer, 0

    def close(self) -> None:
        """Give the file back."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __del__(self) -> None:
        self.close()

    def _open(self, generation: int) -> int:
        try:
            path = log_path(self._log_dir, self._name, generation)
            return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return -1

    def _read(self, limit: int) -> bytes:
        if self._fd < 0:
            return b""
        data = os.pread(self._fd, limit, self._offset)
        if not data and os.fstat(self._fd).st_size < self._offset:  # somebody emptied the file
            self._offset = 0
            data = os.pread(self._fd, limit, 0)
        self._offset += len(data)
        return data

    def _newer(self) -> int:
        """Return the opened file that follows the one being read, -1 when there is none."""
        own = os.fstat(self._fd).st_ino if self._fd >= 0 else -1
        newer, generation = -1, 0
        while True:
            fd = self._open(generation)
            if fd < 0 and generation:
                return newer  # ours is deleted, or there was none: the oldest that is left
            if fd >= 0 and os.fstat(fd).st_ino == own:
                os.close(fd)
                return newer
            if newer >= 0:
                os.close(newer)
            newer = fd
            generation += 1
