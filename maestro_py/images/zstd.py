# SPDX-License-Identifier: Apache-2.0
"""Zstandard by the system's libzstd (streaming functions of zstd.h); Python has its own from 3.14 on only."""

from __future__ import annotations

import ctypes

from maestro_py.errors import Unsupported
from maestro_py.images.decompress import Broken, Source
from maestro_py.images.pieces import Pieces

LIBRARY = "libzstd.so.1"

_READ = 128 << 10  # more than ZSTD_DStreamInSize


class _Buffer(ctypes.Structure):
    """ZSTD_inBuffer and ZSTD_outBuffer."""

    _fields_ = (("start", ctypes.c_void_p), ("size", ctypes.c_size_t), ("at", ctypes.c_size_t))


def library() -> ctypes.CDLL:
    """Return libzstd. Raises Unsupported where there is none."""
    try:
        found = ctypes.CDLL(LIBRARY)
    except OSError:
        raise Unsupported(
            "it is compressed with zstd, which this device cannot undo",
            hint=f"install {LIBRARY}, or pack the image as tar.gz",
        ) from None
    found.ZSTD_createDStream.restype = ctypes.c_void_p
    found.ZSTD_decompressStream.restype = ctypes.c_size_t
    found.ZSTD_decompressStream.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p]
    found.ZSTD_isError.argtypes = [ctypes.c_size_t]
    found.ZSTD_getErrorName.argtypes = [ctypes.c_size_t]
    found.ZSTD_getErrorName.restype = ctypes.c_char_p
    return found


def undo(zstd: ctypes.CDLL, source: Source, into: Pieces) -> None:
    """Give the plain bytes of an open file, one frame or several in a row. Raises Broken."""
    stream = zstd.ZSTD_createDStream()
    if not stream:
        raise MemoryError
    data = bytearray(_READ)
    came, went = _Buffer(_address(data), 0, 0), _Buffer()
    missing = 1  # 0 between two frames
    while True:
        held = missing and went.at and went.at == went.size  # it has more than found room
        if came.at == came.size and not held:
            came.size, came.at = source.read_into(data), 0
            if not came.size:
                break
        room = into.room()
        went.start, went.size, went.at = _address(room), len(room), 0
        missing = zstd.ZSTD_decompressStream(stream, ctypes.byref(went), ctypes.byref(came))
        if zstd.ZSTD_isError(missing):
            raise Broken(f"the zst data are damaged: {zstd.ZSTD_getErrorName(missing).decode()}")
        if went.at:
            into.give(went.at)
    if missing:
        raise Broken("the zst data end early")


def _address(buffer: bytearray | memoryview) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(buffer))
