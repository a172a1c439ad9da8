# SPDX-License-Identifier: Apache-2.0
"""Reading tar archives. Memory does not grow with their size."""

from __future__ import annotations

import binascii
import os
import tarfile
from collections.abc import Collection, Iterator
from typing import Any, cast

from maestro_py.images.archive import (
    BLOCK,
    BLOCKS,
    CHARACTERS,
    DIRECTORY,
    FIFO,
    FILE,
    HARDLINK,
    MAX_TARGET,
    SYMLINK,
    Member,
    Refused,
    Write,
    check_mode,
    check_text,
    not_allowed,
    split_path,
)
from maestro_py.images.decompress import Broken, Plain
from maestro_py.units import MAX_SIZE

MAX_HEADER = 1 << 20
"""Bytes one extended header may have."""

MAX_TRAILER = 64 << 20
"""Bytes of zeros that may follow an archive's end."""


class _Stream:
    """A forward-only file in the form tarfile wants, with a way around it for data.

    limit: bytes it may have at most.
    """

    def __init__(self, plain: Plain, limit: int) -> None:
        self._plain = plain
        self._limit = limit
        self._rest = memoryview(b"")
        self._offset = 0
        self.block = b""  # what was read last

    def take(self, count: int) -> memoryview:
        """Return 1 to `count` bytes, valid until the next call; nothing at the end."""
        if not self._rest:
            self._rest = self._plain.read()
        found, self._rest = self._rest[:count], self._rest[count:]
        self._offset += len(found)
        if self._offset > self._limit:
            raise Broken(f"more than {self._limit} bytes come out of it")
        return found

    def read(self, count: int) -> bytes:
        if count > MAX_HEADER:
            raise Broken(f"a header of {count} bytes")
        found = b""
        while len(found) < count and (piece := self.take(count - len(found))):
            found += piece
        self.block = found
        return found

    def tell(self) -> int:
        return self._offset

    def seek(self, offset: int) -> None:
        if offset < self._offset:
            raise Broken("a header points backwards")
        while self._offset < offset:
            if not self.take(offset - self._offset):
                raise Broken("the archive ends early")

    def copy(self, size: int, write: Write) -> None:
        while size:
            piece = self.take(size)
            if not piece:
                raise Broken("the archive ends early")
            size -= len(piece)
            write(piece)


def read_tar(plain: Plain, allow: Collection[str] = (), limit: int = MAX_SIZE) -> Iterator[Member]:
    """Yield the members of a tar archive. Raises Refused and Broken, each at the member concerned.

    limit: bytes the archive may have once it is not compressed any more.
    """
    stream = _Stream(plain, limit)
    tar: tarfile.TarFile | None = None
    while True:
        try:
            if tar is None:
                tar = tarfile.TarFile(fileobj=cast("Any", stream), encoding="utf-8", errors="surrogateescape")
                if not tar.firstmember:  # type: ignore[attr-defined]
                    break  # empty; asked for the next one, Python 3.10 would look before the beginning
            info = tar.next()
            tar.members = []  # type: ignore[attr-defined]  # it would keep them all
        except (Broken, MemoryError):
            raise
        except RecursionError as error:
            raise Broken("too many extended headers in a row") from error
        except Exception as error:  # tarfile meets hostile headers with more than its own errors
            raise Broken(f"damaged header near byte {stream.tell()} of the tar archive") from error
        if info is None:
            break
        member = _tar_member(info, stream, allow)
        if member.parts:
            yield member
    if len(stream.block) < BLOCK:
        raise Broken("the archive ends early")
    if any(stream.block):  # tarfile takes a damaged header for the end
        raise Broken(f"damaged header near byte {stream.tell()} of the tar archive")
    _drain(stream)


def _drain(stream: _Stream) -> None:
    limit = stream.tell() + MAX_TRAILER
    while piece := stream.take(MAX_TRAILER):
        if any(piece.tobytes().lstrip(b"\0")):
            raise Broken("something else follows the archive's end")
        if stream.tell() > limit:
            raise Broken("too much follows the archive's end")


_TAR_KINDS = {
    tarfile.REGTYPE: FILE,
    tarfile.AREGTYPE: FILE,
    tarfile.CONTTYPE: FILE,
    tarfile.DIRTYPE: DIRECTORY,
    tarfile.SYMTYPE: SYMLINK,
    tarfile.LNKTYPE: HARDLINK,
    tarfile.CHRTYPE: CHARACTERS,
    tarfile.BLKTYPE: BLOCKS,
    tarfile.FIFOTYPE: FIFO,
}
_ONLY_IF_ALLOWED = {CHARACTERS: "devices", BLOCKS: "devices", FIFO: "fifos"}
_CAPABILITIES = "SCHILY.xattr.security.capability", "LIBARCHIVE.xattr.security.capability"


def _tar_member(info: tarfile.TarInfo, stream: _Stream, allow: Collection[str]) -> Member:
    kind = _TAR_KINDS.get(info.type)
    if info.sparse is not None or info.type == tarfile.GNUTYPE_SPARSE:
        raise Refused(info.name, "it is a sparse file; pack it without --sparse")
    if kind is None:
        raise Refused(info.name, f"it is of an unknown type {info.type!r}")
    needed = _ONLY_IF_ALLOWED.get(kind, "")
    if needed and needed not in allow:
        raise Refused(info.name, f"it is a {kind}, {not_allowed(needed)}")
    if "capabilities" not in allow and any(name in info.pax_headers for name in _CAPABILITIES):
        raise Refused(info.name, f"it has file capabilities, {not_allowed('capabilities')}")
    if info.size < 0:
        raise Refused(info.name, "its size is negative")
    parts = split_path(info.name)
    if not parts and kind != DIRECTORY:
        raise Refused(info.name, f"the root itself as a {kind}")
    if kind in (SYMLINK, HARDLINK):
        check_text(info.name, info.linkname, "its target", MAX_TARGET)
    mode = check_mode(info.name, info.mode, kind, allow)
    owner = (info.uid, info.gid)
    if kind in (CHARACTERS, BLOCKS):
        return Member(parts, kind, mode, info.mtime, owner=owner, device=_device(info))
    if kind != FILE:
        return Member(parts, kind, mode, info.mtime, target=info.linkname, owner=owner)
    size, capabilities = info.size, _capabilities(info)
    return Member(
        parts,
        FILE,
        mode,
        info.mtime,
        size,
        copy=lambda write: stream.copy(size, write),
        owner=owner,
        capabilities=capabilities,
    )


def _device(info: tarfile.TarInfo) -> int:
    try:
        return os.makedev(info.devmajor, info.devminor)
    except (OverflowError, ValueError):
        raise Refused(info.name, "its device number is not valid") from None


def _capabilities(info: tarfile.TarInfo) -> bytes:
    """Return the value of the attribute: as it is by star and GNU tar, in base64 by libarchive."""
    plain, encoded = (info.pax_headers.get(name) for name in _CAPABILITIES)
    if plain is not None:
        return plain.encode("utf-8", "surrogateescape")
    try:
        return binascii.a2b_base64(encoded or "")
    except ValueError:
        raise Refused(info.name, "its file capabilities are not valid") from None
