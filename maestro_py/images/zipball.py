# SPDX-License-Identifier: Apache-2.0
"""Reading zip archives."""

from __future__ import annotations

import io
import stat
import time
import zipfile
from collections.abc import Collection, Iterator
from typing import Any, cast

from maestro_py.images.archive import (
    DIRECTORY,
    FILE,
    MAX_TARGET,
    SYMLINK,
    Member,
    Refused,
    Write,
    check_mode,
    check_text,
    printable,
    split_path,
)
from maestro_py.images.decompress import Broken

BUFFER = 256 << 10

MAX_DIRECTORY = 8 << 20
"""Bytes the list of members may have: zipfile holds all of it in memory, about ten times as large."""

_UNIX_SYSTEMS = (3, 19)  # APPNOTE 4.4.2: Unix and macOS put a mode into the upper half of the attributes


class _File(io.BufferedReader):
    """An open file of which nothing is read that is larger than the list of members may be."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and size > MAX_DIRECTORY:
            raise Broken(f"its list of members has {size} bytes, at most {MAX_DIRECTORY} can be read")
        return super().read(size)


def read_zip(fd: int, allow: Collection[str] = ()) -> Iterator[Member]:
    """Yield the members of a zip archive. Raises Refused and Broken, each at the member concerned."""
    try:
        with _File(io.FileIO(fd, closefd=False)) as file, zipfile.ZipFile(file) as archive:
            for info in archive.infolist():
                member = _member(info, archive, allow)
                if member.parts:
                    yield member
    except (Refused, Broken, OSError, MemoryError):
        raise
    except Exception as error:  # zipfile meets hostile headers with more than BadZipFile
        raise Broken(
            f"the zip directory at its end is missing or damaged ({printable(str(error))})"
        ) from error


def _member(info: zipfile.ZipInfo, archive: zipfile.ZipFile, allow: Collection[str]) -> Member:
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
    permissions = check_mode(name, stat.S_IMODE(mode), kind, allow)
    permissions = permissions or (0o755 if kind == DIRECTORY else 0o644)
    mtime = time.mktime((*info.date_time, 0, 0, -1)) if info.date_time[1] else 0.0  # zip keeps local time
    if kind == DIRECTORY:
        return Member(parts, kind, permissions, mtime)
    if kind == SYMLINK:
        target = _target(info, archive)
        return Member(parts, kind, permissions, mtime, target=target)
    return Member(
        parts,
        FILE,
        permissions,
        mtime,
        info.file_size,
        copy=lambda write: _copy(info, archive, write),
    )


def _target(info: zipfile.ZipInfo, archive: zipfile.ZipFile) -> str:
    if info.file_size > MAX_TARGET:
        raise Refused(info.orig_filename, f"its target is longer than {MAX_TARGET} bytes")
    with _open(info, archive) as data:
        target = _read(info, data).decode("utf-8", "surrogateescape")
    check_text(info.orig_filename, target, "its target", MAX_TARGET)
    return target


def _open(info: zipfile.ZipInfo, archive: zipfile.ZipFile) -> Any:
    try:
        return archive.open(info)
    except NotImplementedError as error:
        raise Refused(
            info.orig_filename, f"its compression cannot be undone: {printable(str(error))}"
        ) from error
    except Exception as error:
        raise Refused(info.orig_filename, f"its data are damaged: {printable(str(error))}") from error


def _read(info: zipfile.ZipInfo, data: Any) -> bytes:
    try:
        return cast("bytes", data.read(BUFFER))
    except Exception as error:
        raise Refused(info.orig_filename, f"its data are damaged: {printable(str(error))}") from error


def _copy(info: zipfile.ZipInfo, archive: zipfile.ZipFile, write: Write) -> None:
    left = info.file_size
    with _open(info, archive) as data:
        while piece := memoryview(_read(info, data)):
            left -= len(piece)
            write(piece)
    if left:
        raise Refused(
            info.orig_filename, f"its data are damaged: {info.file_size - left} of {info.file_size} bytes"
        )
