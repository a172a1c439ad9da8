# SPDX-License-Identifier: Apache-2.0
"""Ways to disk that Python has no function for."""

from __future__ import annotations

import ctypes
import os

_WRITE = 2  # SYNC_FILE_RANGE_WRITE, linux/fs.h
_libc = ctypes.CDLL(None, use_errno=True)


def write_soon(fd: int, start: int = 0, size: int = 0) -> None:
    """Have the kernel begin to write a part of a file, to its end when `size` is 0; see sync_file_range(2).

    Nothing waits for it and nothing is promised: whoever syncs later has less to wait for. It is advice, so
    a file system that does not know it is no error.
    """
    _libc.sync_file_range(fd, ctypes.c_int64(start), ctypes.c_int64(size), _WRITE)


def sync_file_system(fd: int) -> None:
    """Bring everything of the file system that `fd` is on to disk, syncfs(2). Raises OSError."""
    if _libc.syncfs(fd) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
