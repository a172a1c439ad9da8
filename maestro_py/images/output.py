# SPDX-License-Identifier: Apache-2.0
"""Writing files of an image: on disk soon after, and out of the page cache.

An image may be larger than the memory of its device. Left to the kernel, all of it waits there for the disk,
drives out what running jobs have in memory, and holds up whoever else syncs. So no more than WINDOW bytes are
on their way, and what has arrived leaves the page cache, except for programs: they may start any moment.
"""

from __future__ import annotations

import os
from collections import deque
from typing import NamedTuple

from maestro_py.images.flush import await_written, write_soon
from maestro_py.images.manifest import Checksum

WINDOW, WINDOW_RANGES = 16 << 20, 64
"""Bytes that may be on their way to disk, and in how many ranges, each of which has a descriptor."""

STEP = 4 << 20
"""Bytes of a large file sent on their way together."""

SMALL = 64 << 10
"""Bytes below which a file is left to the end, when everything small goes to disk together."""


class _Range(NamedTuple):
    fd: int
    start: int
    size: int
    stays: bool


class WriteBehind:
    """Brings ranges of files to disk while later ones are written."""

    def __init__(self) -> None:
        self._ranges: deque[_Range] = deque()
        self._size = 0

    def add(self, fd: int, start: int, size: int, *, stays: bool) -> None:
        """Send a range on its way; wait for the oldest ones when there are too many.

        stays: in the page cache, too. `fd` remains the caller's. Raises OSError when one cannot be written.
        """
        write_soon(fd, start, size)
        self._ranges.append(_Range(os.dup(fd), start, size, stays))
        self._size += size
        while self._size > WINDOW or len(self._ranges) > WINDOW_RANGES:
            self._settle()

    def settle(self) -> None:
        """Wait for all that is on its way. Raises OSError."""
        while self._ranges:
            self._settle()

    def close(self) -> None:
        """Forget what is on its way."""
        while self._ranges:
            os.close(self._ranges.popleft().fd)

    def _settle(self) -> None:
        fd, start, size, stays = self._ranges.popleft()
        self._size -= size
        try:
            await_written(fd, start, size)
            if not stays:
                # from the file's start: only whole pages go, and ranges end within one
                os.posix_fadvise(fd, 0, start + size, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(fd)


class Output:
    """An open new file that takes its bytes one piece after the other, and their checksum.

    stays: in the page cache.
    """

    def __init__(self, fd: int, behind: WriteBehind, *, stays: bool) -> None:
        self._fd = fd
        self._behind = behind
        self._stays = stays
        self._checksum = Checksum()
        self._sent = self._size = 0

    def write(self, data: memoryview) -> None:
        """Write all of it. Raises OSError."""
        self._checksum.update(data)
        while data:
            count = os.write(self._fd, data)
            self._size += count
            data = data[count:]
        if self._size - self._sent >= STEP:
            self._send()

    def finish(self) -> str:
        """Return the checksum of everything written, see Checksum; `fd` remains the caller's."""
        if self._size - self._sent >= SMALL:
            self._send()
        return self._checksum.hexdigest()

    def _send(self) -> None:
        self._behind.add(self._fd, self._sent, self._size - self._sent, stays=self._stays)
        self._sent = self._size
