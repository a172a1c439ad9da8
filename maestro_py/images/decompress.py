# SPDX-License-Identifier: Apache-2.0
"""Compressed files as a stream of plain bytes, undone by a second process while the first one works.

Decompressing costs about as much as parsing and writing, so the two run side by side, with memory that both
have in between. The child shares the offset of the file: the parent sees from it how far the archive is read.
"""

from __future__ import annotations

import bz2
import ctypes
import functools
import lzma
import os
import signal
import zlib
from collections.abc import Callable
from typing import Protocol

from maestro_py.images.pieces import PIECE, Pieces

MAGIC = {"gz": b"\x1f\x8b", "bz2": b"BZh", "xz": b"\xfd7zXZ\0", "zst": b"\x28\xb5\x2f\xfd"}
"""First bytes of each compressed format (RFC 1952, bzip2, the .xz specification, RFC 8878)."""

XZ_MEMORY = 128 << 20
"""Bytes an xz stream may ask for; `xz -9` asks for 65 MiB."""

READ = 64 << 10
"""Bytes of the compressed file read at a time: what is left of them is copied with every piece made."""

GIVE_BACK = 1 << 20
"""Bytes after which the memory of what was read is given back."""

PR_SET_PDEATHSIG = 1  # linux/prctl.h


class Broken(Exception):
    """The data are damaged or end early; says how."""


class Source:
    """An open file that is read once, from its start.

    What was read leaves the page cache, if it is on disk: its memory serves what is unpacked next, and
    does not drive out what running jobs have there. The offset is the file's own.
    """

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self._done = self._given_back = 0

    def read(self, size: int) -> bytes:
        """Return at most `size` bytes, none at the end."""
        data = os.read(self.fd, size)
        self._count(len(data))
        return data

    def read_into(self, buffer: bytearray | memoryview) -> int:
        """Fill a buffer, or its beginning; return how many bytes there are."""
        count = os.readv(self.fd, [buffer])
        self._count(count)
        return count

    def _count(self, size: int) -> None:
        self._done += size
        if self._done - self._given_back >= GIVE_BACK:
            os.posix_fadvise(self.fd, 0, self._done, os.POSIX_FADV_DONTNEED)
            self._given_back = self._done


class _Stream(Protocol):
    """What bz2 and lzma have in common; zlib is brought into this form."""

    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int = -1) -> bytes: ...


class Plain:
    """Plain bytes of `source`, an open file at its start; `kind` as in MAGIC or empty.

    A context manager: afterwards the child is gone. Entering raises Unsupported when nothing here can
    undo the format.
    """

    def __init__(self, source: int, kind: str) -> None:
        self._source = Source(source)
        self._kind = kind
        self._pid = self._verdict = 0
        self._pieces: Pieces | None = None
        self._buffer = memoryview(bytearray(0 if kind else PIECE))

    def __enter__(self) -> Plain:
        if self._kind:
            self._start(_undoer(self._kind))
        return self

    def __exit__(self, *_: object) -> None:
        if self._pid:
            os.kill(self._pid, signal.SIGKILL)
            self._reap()

    def read(self) -> memoryview:
        """Return some bytes, valid until the next call; nothing at the end."""
        if self._pieces:
            return self._pieces.take()
        return self._buffer[: self._source.read_into(self._buffer)]

    def position(self) -> int:
        """Return how many bytes of the file are read so far."""
        return os.lseek(self._source.fd, 0, os.SEEK_CUR)

    def check(self) -> None:
        """Raise Broken when the decompressor met damage; at the end of the stream, or once it went wrong.

        A child that still had more to say ends when nobody takes it, which says nothing about the file.
        """
        if self._pid:
            status, said = self._reap()
            if said or (status and not (os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGPIPE)):
                raise Broken(said or f"the {self._kind} data are damaged or end early")

    def _reap(self) -> tuple[int, str]:
        """Return the exit status of the child and what it said about the file."""
        assert self._pieces
        self._pieces.close()
        said = os.read(self._verdict, 4096).decode(errors="replace")
        status = os.waitpid(self._pid, 0)[1]
        self._pid = 0
        os.close(self._verdict)
        return status, said

    def _start(self, undo: Undo) -> None:
        self._pieces = pieces = Pieces()
        self._verdict, verdict = os.pipe()
        parent = os.getpid()
        self._pid = os.fork()
        if self._pid == 0:
            try:
                _die_with(parent)
                pieces.giver()
                undo(self._source, pieces)
                os._exit(0)
            except Broken as error:
                os.write(verdict, str(error).encode())
            except BaseException as error:
                os.write(verdict, f"the {self._kind} data are damaged: {error}".encode())
            finally:
                os._exit(1)
        pieces.taker()
        os.close(verdict)


Undo = Callable[[Source, Pieces], None]
"""Undoes the compression of an open file; raises Broken."""


def _die_with(parent: int) -> None:
    for number in (signal.SIGTERM, signal.SIGPIPE, signal.SIGALRM):
        signal.signal(number, signal.SIG_DFL)
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


def _undoer(kind: str) -> Undo:
    """Return what undoes a format. Raises Unsupported."""
    if kind == "zst":
        from maestro_py.images import zstd  # most devices have no such images

        return functools.partial(zstd.undo, zstd.library())
    return functools.partial(_undo, kind)


class _Gzip:
    """One gzip stream with the interface of the other decompressors."""

    def __init__(self) -> None:
        self._zlib = zlib.decompressobj(16 + zlib.MAX_WBITS)
        self.needs_input = True

    @property
    def eof(self) -> bool:
        return self._zlib.eof

    @property
    def unused_data(self) -> bytes:
        return self._zlib.unused_data

    def decompress(self, data: bytes, max_length: int = -1) -> bytes:
        plain = self._zlib.decompress(self._zlib.unconsumed_tail + data, max_length)
        self.needs_input = not self._zlib.unconsumed_tail and len(plain) < max_length
        return plain


def _maker(kind: str) -> Callable[[], _Stream]:
    if kind == "gz":
        return _Gzip
    if kind == "bz2":
        return bz2.BZ2Decompressor
    return lambda: lzma.LZMADecompressor(memlimit=XZ_MEMORY)


def _undo(kind: str, source: Source, into: Pieces) -> None:
    """Give the plain bytes of an open file: one stream or several in a row, then at most zeros."""
    make = _maker(kind)
    stream = make()
    while True:
        data = b""
        if stream.eof:
            data = _next_stream(kind, source, stream.unused_data)
            if not data:
                return
            stream = make()
        elif stream.needs_input:
            data = source.read(READ)
            if not data:
                raise Broken(f"the {kind} data end early")
        into.put(stream.decompress(data, PIECE))


def _next_stream(kind: str, source: Source, data: bytes) -> bytes:
    """Return the beginning of the stream that follows, or nothing at the end of the file."""
    magic = MAGIC[kind]
    while len(data := data.lstrip(b"\0")) < len(magic):
        more = source.read(READ)
        if not more:
            break
        data += more
    if data and not data.startswith(magic):
        raise Broken(f"something else follows the {kind} data")
    return data
