# SPDX-License-Identifier: Apache-2.0
"""What is in an archive, one member after the other, and what may be unpacked at all.

`tarball` and `zipball` read; tarfile and zipfile are only asked for headers, nothing of theirs writes to
disk. Everything a header says is checked before a member is handed out, so that the writer deals with plain
relative paths and with what is allowed: `devices`, `fifos`, `setuid` bits and `capabilities` are refused
unless the caller names them.
"""

from __future__ import annotations

import os
import re
import stat
import tarfile
from collections.abc import Callable, Collection
from typing import NamedTuple

from maestro_py.images.decompress import MAGIC

FILE, DIRECTORY, SYMLINK, HARDLINK = "file", "directory", "symbolic link", "hard link"
CHARACTERS, BLOCKS, FIFO = "character device", "block device", "FIFO"

FAMILIES = {"tarball": "tar", "devicejs_tarball": "tar", "zip": "zip", "devicejs_zip": "zip"}
"""Image types and the kind of archive each one means."""

MAX_NAME, MAX_PATH, MAX_TARGET = 255, 1024, 4095
"""Bytes in one component (NAME_MAX), in a member's path, and in a link's target (PATH_MAX - 1)."""

BLOCK = 512
"""Bytes of a tar header; what is looked at to tell what a file is."""


_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


class Refused(Exception):
    """A member that is not unpacked, and why."""

    def __init__(self, member: str, why: str) -> None:
        super().__init__(f"member {printable(member)}: {why}")


Write = Callable[[memoryview], None]
"""Takes some more bytes of a file."""


class Member(NamedTuple):
    """One entry. parts: path below the root, never empty; mtime: unix seconds; target: of either link.

    owner: as the archive says, (uid, gid); device: number of a device node; capabilities: value of the
    extended attribute.

    `copy(write)` hands out a file's bytes; call it at most once, before the next member is asked for.
    """

    parts: tuple[str, ...]
    kind: str
    mode: int
    mtime: float
    size: int = 0
    target: str = ""
    copy: Callable[[Write], None] = lambda write: None
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
    check_text(name, name, "its name", MAX_PATH)
    if name.startswith("/"):
        raise Refused(name, "its path is absolute")
    parts = tuple(part for part in name.split("/") if part not in ("", "."))
    if ".." in parts:
        raise Refused(name, "its path contains '..'")
    if len(name) > MAX_NAME // 4 and any(len(part.encode()) > MAX_NAME for part in parts):
        raise Refused(name, f"a part of its name is longer than {MAX_NAME} bytes")
    return parts


def check_text(member: str, text: str, what: str, longest: int) -> None:
    """Refuse a text that no file system, or no message, should see. what: what it is of the member."""
    if not text:
        raise Refused(member, f"{what} is empty")
    try:
        length = len(text.encode())
    except UnicodeEncodeError:
        raise Refused(member, f"{what} is not valid UTF-8") from None
    if length > longest:
        raise Refused(member, f"{what} is longer than {longest} bytes")
    if _CONTROL.search(text):
        raise Refused(member, f"{what} has a control character in it")


def not_allowed(what: str) -> str:
    """Return the end of the sentence that refuses what only a template can allow."""
    return f"and `image_allow` of its job does not have `{what}`"


def check_mode(member: str, mode: int, kind: str, allow: Collection[str]) -> int:
    """Return the bits of a mode that count for this kind. Raises Refused for one that is not allowed."""
    special = 0 if kind == SYMLINK else stat.S_ISUID | stat.S_ISGID
    if "setuid" not in allow:
        for bit, name in ((stat.S_ISUID, "setuid"), (stat.S_ISGID, "setgid")):
            if mode & bit & special:
                raise Refused(member, f"it has the {name} bit, {not_allowed('setuid')}")
    return mode & (special | (0o1777 if kind == DIRECTORY else 0o777))
