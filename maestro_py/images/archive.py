# SPDX-License-Identifier: Apache-2.0
"""Reading archives: what is in them, one member after the other, and what may be unpacked at all.

tarfile and zipfile only read headers here; nothing of theirs writes to disk. Everything a header says is
checked before a member is handed out, so that the writer deals with plain relative paths and with what
is allowed: `devices`, `fifos`, `setuid` bits and `capabilities` are refused unless the caller names them.
Memory does not grow with a tar archive's size.
"""

from __future__ import annotations

import binascii
import os
import stat
import sys
import tarfile
import time
import zipfile
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import Any, cast

from maestro_py.images.decompress import MAGIC, Broken, Plain

FILE, DIRECTORY, SYMLINK, HARDLINK = "file", "directory", "symbolic link", "hard link"
CHARACTERS, BLOCKS, FIFO = "character device", "block device", "FIFO"

FAMILIES = {"tarball": "tar", "devicejs_tarball": "tar", "zip": "zip", "devicejs_zip": "zip"}
"""Image types and the kind of archive each one means."""

MAX_NAME, MAX_PATH, MAX_TARGET = 255, 1024, 4095
"""Bytes in one component (NAME_MAX), in a member's path, and in a link's target (PATH_MAX - 1)."""

MAX_HEADER = 1 << 20
"""Bytes one extended tar header may have."""

MAX_TRAILER = 64 << 20
"""Bytes of zeros that may follow a tar archive's end."""

BUFFER, BLOCK = 1 << 20, 512


class Refused(Exception):
    """A member that is not unpacked, and why."""

    def __init__(self, member: str, why: str) -> None:
        super().__init__(f"member {printable(member)}: {why}")


@dataclass(frozen=True)
class Member:
    """One entry. parts: path below the root, never empty; mtime: unix seconds; target: of either link.

    owner: as the archive says, (uid, gid); device: number of a device node; capabilities: value of the
    extended attribute.

    `copy(fd)` writes a file's bytes; call it at most once, before the next member is asked for.
    """

    parts: tuple[str, ...]
    kind: str
    mode: int
    mtime: float
    size: int = 0
    target: str = ""
    copy: Callable[[int], None] = lambda fd: None
    owner: tuple[int, int] = (0, 0)
    device: int = 0
    capabilities: bytes = b""

    @property
    def name(self) -> str:
        """The path as text, for messages."""
        return "/".join(self.parts)


def find_kind(fd: int) -> tuple[str, str]:
    """Return (family, compression) of an open file from its first bytes: `tar` or `zip`, "" for unknown.

    A compressed file is taken for a tar archive; reading it will tell.
    """
    head = os.pread(fd, BLOCK, 0)
    for compression, magic in MAGIC.items():
        if head.startswith(magic):
            return "tar", compression
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):  # a member, or the end of an empty archive
        return "zip", ""
    try:
        tarfile.TarInfo.frombuf(head, "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        return ("tar", "") if head == bytes(BLOCK) else ("", "")
    return "tar", ""


def printable(text: str) -> str:
    """Return text fit for a message: control and undecodable characters escaped, not endless."""
    text = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text[:300])
    return text or "''"


def split_path(name: str) -> tuple[str, ...]:
    """Return the components of a member's path; empty for the root itself. Raises Refused."""
    _check_text(name, name, "its name", MAX_PATH)
    if name.startswith("/"):
        raise Refused(name, "its path is absolute")
    parts = tuple(part for part in name.split("/") if part not in ("", "."))
    if ".." in parts:
        raise Refused(name, "its path contains '..'")
    if any(len(part.encode()) > MAX_NAME for part in parts):
        raise Refused(name, f"a part of its name is longer than {MAX_NAME} bytes")
    return parts


def _check_text(member: str, text: str, what: str, longest: int) -> None:
    if not text:
        raise Refused(member, f"{what} is empty")
    try:
        length = len(text.encode())
    except UnicodeEncodeError:
        raise Refused(member, f"{what} is not valid UTF-8") from None
    if length > longest:
        raise Refused(member, f"{what} is longer than {longest} bytes")
    if any(c < " " or c == "\x7f" for c in text):
        raise Refused(member, f"{what} has a control character in it")


def _not_allowed(what: str) -> str:
    return f"and `image_allow` of its job does not have `{what}`"


def _check_mode(member: str, mode: int, kind: str, allow: Collection[str]) -> int:
    special = 0 if kind == SYMLINK else stat.S_ISUID | stat.S_ISGID
    if "setuid" not in allow:
        for bit, name in ((stat.S_ISUID, "setuid"), (stat.S_ISGID, "setgid")):
            if mode & bit & special:
                raise Refused(member, f"it has the {name} bit, {_not_allowed('setuid')}")
    return mode & (special | (0o1777 if kind == DIRECTORY else 0o777))


# ---- tar


class _Stream:
    """A forward-only file over a descriptor, in the form tarfile wants, with a way around it for data.

    limit: bytes it may have at most.
    """

    def __init__(self, fd: int, limit: int) -> None:
        self._fd = fd
        self._limit = limit
        self._buffer = memoryview(bytearray(BUFFER))
        self._start = self._end = 0
        self._offset = 0
        self.block = b""  # what was read last

    def _available(self) -> int:
        if self._start == self._end:
            self._start, self._end = 0, os.readv(self._fd, [self._buffer])
        return self._end - self._start

    def take(self, count: int) -> memoryview:
        """Return 1 to `count` bytes, valid until the next call; nothing at the end."""
        size = min(count, self._available())
        found = self._buffer[self._start : self._start + size]
        self._start += size
        self._offset += size
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

    def copy(self, size: int, fd: int) -> None:
        while size:
            piece = self.take(size)
            if not piece:
                raise Broken("the archive ends early")
            size -= len(piece)
            while piece:
                piece = piece[os.write(fd, piece) :]


def read_tar(plain: Plain, allow: Collection[str] = (), limit: int = sys.maxsize) -> Iterator[Member]:
    """Yield the members of a tar archive. Raises Refused and Broken, each at the member concerned.

    limit: bytes the archive may have once it is not compressed any more.
    """
    stream = _Stream(plain.fd, limit)
    tar: tarfile.TarFile | None = None
    while True:
        try:
            if tar is None:
                tar = tarfile.TarFile(fileobj=cast("Any", stream), encoding="utf-8", errors="surrogateescape")
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
    while piece := stream.take(BUFFER):
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
        raise Refused(info.name, f"it is a {kind}, {_not_allowed(needed)}")
    if "capabilities" not in allow and any(name in info.pax_headers for name in _CAPABILITIES):
        raise Refused(info.name, f"it has file capabilities, {_not_allowed('capabilities')}")
    if info.size < 0:
        raise Refused(info.name, "its size is negative")
    parts = split_path(info.name)
    if not parts and kind != DIRECTORY:
        raise Refused(info.name, f"the root itself as a {kind}")
    if kind in (SYMLINK, HARDLINK):
        _check_text(info.name, info.linkname, "its target", MAX_TARGET)
    mode = _check_mode(info.name, info.mode, kind, allow)
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
        copy=lambda fd: stream.copy(size, fd),
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


# ---- zip

_UNIX_SYSTEMS = (3, 19)  # APPNOTE 4.4.2: Unix and macOS put a mode into the upper half of the attributes


def read_zip(fd: int, allow: Collection[str] = ()) -> Iterator[Member]:
    """Yield the members of a zip archive. Raises Refused and Broken, each at the member concerned."""
    try:
        with open(fd, "rb", closefd=False) as file, zipfile.ZipFile(file) as archive:
            for info in archive.infolist():
                member = _zip_member(info, archive, allow)
                if member.parts:
                    yield member
    except (Refused, Broken, OSError, MemoryError):
        raise
    except Exception as error:  # zipfile meets hostile headers with more than BadZipFile
        raise Broken(
            f"the zip directory at its end is missing or damaged ({printable(str(error))})"
        ) from error


def _zip_member(info: zipfile.ZipInfo, archive: zipfile.ZipFile, allow: Collection[str]) -> Member:
    name = info.orig_filename  # `filename` is cut at a NUL
    mode = info.external_attr >> 16 if info.create_system in _UNIX_SYSTEMS else 0
    file_type = stat.S_IFMT(mode)
    kind = DIRECTORY if name.endswith("/") else FILE
    if file_type == stat.S_IFLNK:
        kind = SYMLINK
    elif file_type not in (0, stat.S_IFDIR if kind == DIRECTORY else stat.S_IFREG):
        raise Refused(name, f"its type {stat.filemode(mode)[0]!r} cannot be unpacked")
    parts = split_path(name)
    if not parts and kind != DIRECTORY:
        raise Refused(name, f"the root itself as a {kind}")
    if info.flag_bits & 1:
        raise Refused(name, "it is encrypted")
    permissions = _check_mode(name, stat.S_IMODE(mode), kind, allow)
    permissions = permissions or (0o755 if kind == DIRECTORY else 0o644)
    mtime = time.mktime((*info.date_time, 0, 0, -1)) if info.date_time[1] else 0.0  # zip keeps local time
    if kind == DIRECTORY:
        return Member(parts, kind, permissions, mtime)
    if kind == SYMLINK:
        target = _zip_target(info, archive)
        return Member(parts, kind, permissions, mtime, target=target)
    return Member(
        parts, FILE, permissions, mtime, info.file_size, copy=lambda fd: _zip_copy(info, archive, fd)
    )


def _zip_target(info: zipfile.ZipInfo, archive: zipfile.ZipFile) -> str:
    if info.file_size > MAX_TARGET:
        raise Refused(info.orig_filename, f"its target is longer than {MAX_TARGET} bytes")
    with _zip_open(info, archive) as data:
        target = _zip_read(info, data).decode("utf-8", "surrogateescape")
    _check_text(info.orig_filename, target, "its target", MAX_TARGET)
    return target


def _zip_open(info: zipfile.ZipInfo, archive: zipfile.ZipFile) -> Any:
    try:
        return archive.open(info)
    except NotImplementedError as error:
        raise Refused(
            info.orig_filename, f"its compression cannot be undone: {printable(str(error))}"
        ) from error
    except Exception as error:
        raise Refused(info.orig_filename, f"its data are damaged: {printable(str(error))}") from error


def _zip_read(info: zipfile.ZipInfo, data: Any) -> bytes:
    try:
        return cast("bytes", data.read(BUFFER))
    except Exception as error:
        raise Refused(info.orig_filename, f"its data are damaged: {printable(str(error))}") from error


def _zip_copy(info: zipfile.ZipInfo, archive: zipfile.ZipFile, fd: int) -> None:
    left = info.file_size
    with _zip_open(info, archive) as data:
        while piece := memoryview(_zip_read(info, data)):
            left -= len(piece)
            while piece:
                piece = piece[os.write(fd, piece) :]
    if left:
        raise Refused(
            info.orig_filename, f"its data are damaged: {info.file_size - left} of {info.file_size} bytes"
        )
