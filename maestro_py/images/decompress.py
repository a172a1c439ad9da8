# SPDX-License-Identifier: Apache-2.0
"""Compressed files as a stream of plain bytes, undone by a second process while the first one works.

Decompressing costs about as much as parsing and writing, so the two run side by side with a pipe in
between. The forked child shares the file's offset: the parent sees from it how far the archive is read.
"""

from __future__ import annotations

import bz2
import ctypes
import fcntl
import importlib
import lzma
import os
import shutil
import signal
import zlib
from collections.abc import Callable
from typing import Protocol, cast

from maestro_py.errors import Unsupported

MAGIC = {"gz": b"\x1f\x8b", "bz2": b"BZh", "xz": b"\xfd7zXZ\0", "zst": b"\x28\xb5\x2f\xfd"}
"""First bytes of each compressed format (RFC 1952, bzip2, the .xz specification, RFC 8878)."""

XZ_MEMORY = 128 << 20
"""Bytes an xz stream may ask for; `xz -9` asks for 65 MiB."""

READ, WRITE, PIPE = 256 << 10, 256 << 10, 1 << 20
F_SETPIPE_SZ = 1031  # linux/fcntl.h; fcntl has the name from Python 3.10 on, but not on every build
PR_SET_PDEATHSIG = 1  # linux/prctl.h


class Broken(Exception):
    """The data are damaged or end early; says how."""


class _Stream(Protocol):
    """What bz2, lzma and zstd have in common; zlib is brought into this form."""

    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int = -1) -> bytes: ...


class Plain:
    """Plain bytes, readable from `fd`, of `source`, an open file at its start; `kind` as in MAGIC or empty.

    A context manager: afterwards the child is gone. Entering raises Unsupported when nothing here can
    undo the format.
    """

    def __init__(self, source: int, kind: str) -> None:
        self.fd = source
        self._source = source
        self._kind = kind
        self._pid = 0
        self._verdict = -1

    def __enter__(self) -> Plain:
        if self._kind:
            self._start(_zstd_program() if self._kind == "zst" else "")
        return self

    def __exit__(self, *_: object) -> None:
        if self._pid:
            os.kill(self._pid, signal.SIGKILL)
            os.close(self.fd)
            self._reap()

    def position(self) -> int:
        """Return how many bytes of the file are read so far."""
        return os.lseek(self._source, 0, os.SEEK_CUR)

    def check(self) -> None:
        """Raise Broken when the decompressor met damage; at the end of the stream, or once it went wrong.

        A child that still had more to say is ended by its closed pipe, which says nothing about the file.
        """
        if self._pid:
            os.close(self.fd)
            said = os.read(self._verdict, 4096).decode(errors="replace")
            status = self._reap()
            if said or (status and not (os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGPIPE)):
                raise Broken(said or f"the {self._kind} data are damaged or end early")

    def _reap(self) -> int:
        status = os.waitpid(self._pid, 0)[1]
        self._pid = 0
        os.close(self._verdict)
        return status

    def _start(self, program: str) -> None:
        self.fd, into = os.pipe()
        self._verdict, verdict = os.pipe()
        try:
            fcntl.fcntl(into, F_SETPIPE_SZ, PIPE)
        except OSError:
            pass  # a user over the kernel's share of pipe memory gets a smaller one
        parent = os.getpid()
        self._pid = os.fork()
        if self._pid == 0:
            try:
                _die_with(parent)
                os.close(self.fd)
                if program:
                    _run(program, self._source, into)
                _undo(self._kind, self._source, into)
                os._exit(0)
            except Broken as error:
                os.write(verdict, str(error).encode())
            except BaseException as error:
                os.write(verdict, f"the {self._kind} data are damaged: {error}".encode())
            finally:
                os._exit(1)
        os.close(into)
        os.close(verdict)


def _die_with(parent: int) -> None:
    for number in (signal.SIGTERM, signal.SIGPIPE, signal.SIGALRM):
        signal.signal(number, signal.SIG_DFL)
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


def _run(program: str, source: int, into: int) -> None:
    os.dup2(source, 0)
    os.dup2(into, 1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    os.execv(program, [program, "-dcq"])


def _zstd_module() -> Callable[[], _Stream] | None:
    try:  # part of Python from 3.14 on
        return cast("Callable[[], _Stream]", importlib.import_module("compression.zstd").ZstdDecompressor)
    except ImportError:
        return None


def _zstd_program() -> str:
    """Return the zstd program; empty when Python does it itself. Raises Unsupported for neither."""
    program = shutil.which("zstd")
    if program is None and _zstd_module() is None:
        raise Unsupported(
            "it is compressed with zstd, which this device cannot undo",
            hint="install the zstd program, or pack the image as tar.gz",
        )
    return program or ""


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
    if kind == "xz":
        return lambda: lzma.LZMADecompressor(memlimit=XZ_MEMORY)
    module = _zstd_module()
    assert module
    return module


def _undo(kind: str, source: int, into: int) -> None:
    """Write the plain bytes of `source` to `into`: one stream or several in a row, then at most zeros."""
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
            data = os.read(source, READ)
            if not data:
                raise Broken(f"the {kind} data end early")
        view = memoryview(stream.decompress(data, WRITE))
        while view:
            view = view[os.write(into, view) :]


def _next_stream(kind: str, source: int, data: bytes) -> bytes:
    """Return the beginning of the stream that follows, or nothing at the end of the file."""
    magic = MAGIC[kind]
    while len(data := data.lstrip(b"\0")) < len(magic):
        more = os.read(source, READ)
        if not more:
            break
        data += more
    if data and not data.startswith(magic):
        raise Broken(f"something else follows the {kind} data")
    return data
