# SPDX-License-Identifier: Apache-2.0
"""Ways to disk that Python has no function for."""

from __future__ import annotations

import ctypes
import errno
import os

_WAIT_BEFORE, _WRITE = 1, 2  # SYNC_FILE_RANGE_…, linux/fs.h
_LOST = (errno.EIO, errno.ENOSPC, errno.EDQUOT)  # anything else: the file system does not know the call
_libc = ctypes.CDLL(None, use_errno=True)


def write_soon(fd: int, start: int = 0, size: int = 0) -> None:
    """Have the kernel begin to write a part of a file, to its end when `size` is 0; see sync_file_range(2).

    Nothing waits for it and nothing is promised: whoever syncs later has less to wait for. It is advice, so
    a file system that does not know it is no error.
    """
    _range(fd, start, size, _WRITE)


def await_written(fd: int, start: int, size: int) -> None:
    """Wait until what `write_soon` began is over. Raises OSError when the disk did not take it.

    This is no sync: what the disk itself holds back, and how the file is found again, is not asked about.
    """
    if _range(fd, start, size, _WAIT_BEFORE) != 0 and ctypes.get_errno() in _LOST:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def sync_file_system(fd: int) -> None:
    """Bring everything of the file system that `fd` is on to disk, syncfs(2). Raises OSError."""
    if _libc.syncfs(fd) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def _range(fd: int, start: int, size: int, what: int) -> int:
    return int(_libc.sync_file_range(fd, ctypes.c_int64(start), ctypes.c_int64(size), what))
