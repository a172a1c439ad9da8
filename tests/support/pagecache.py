# SPDX-License-Identifier: Apache-2.0
"""What is in the page cache, and a place whose files may leave it."""

from __future__ import annotations

import ctypes
import mmap
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def on_disk() -> Iterator[Path]:
    """Give a directory on a disk, which /tmp need not be on."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as place:
        yield Path(place)


def cached(path: Path) -> int:
    """Return the bytes of a file that are in the page cache, mincore(2)."""
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as memory:
        pages = (ctypes.c_ubyte * (-(-len(memory) // mmap.PAGESIZE)))()
        start = ctypes.c_char.from_buffer(memory)
        ctypes.CDLL(None).mincore(ctypes.byref(start), ctypes.c_size_t(len(memory)), pages)
        del start
        return sum(page & 1 for page in pages) * mmap.PAGESIZE
