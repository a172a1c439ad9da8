# SPDX-License-Identifier: Apache-2.0
"""Helper program: unpack one verified archive into a new directory, safely.

`python -m maestro_py.images.unpack`, request on stdin, lines on stdout as in `maestro_py.helper`:

    {"archive", "dest",             a path, and a directory that does not exist yet
     "image_type",                  tarball, devicejs_tarball, zip or devicejs_zip
     "max_bytes", "max_entries",    0 or null: no limit, and MAX_ENTRIES
     "owner": {"uid", "gid"},       of everything; null: whoever runs this
     "allow": [],                   "absolute-links": for a tree that will be a root of its own
     "name"}                        what messages call the archive; its path when left out

Progress counts bytes of the archive. The last line carries `bytes` and `entries` unpacked. When it comes,
everything is on disk. On any failure `dest` is gone completely.
"""

from __future__ import annotations

import ctypes
import os
import stat
import sys
from dataclasses import dataclass
from typing import Any

from maestro_py import helper
from maestro_py.errors import MaestroError, Unsupported
from maestro_py.images.archive import (
    DIRECTORY,
    FAMILIES,
    FILE,
    HARDLINK,
    SYMLINK,
    Member,
    Refused,
    find_kind,
    printable,
    read_tar,
    read_zip,
    split_path,
)
from maestro_py.images.decompress import Broken, Plain
from maestro_py.images.store import remove_tree

MAX_ENTRIES = 200_000
"""Files, directories and links one image may have when the request does not say."""

MAX_LINK_STEPS = 1000
"""Components looked at while one link is followed."""

_TYPES = {FILE: stat.S_IFREG, HARDLINK: stat.S_IFREG, DIRECTORY: stat.S_IFDIR, SYMLINK: stat.S_IFLNK}
_OPEN_DIR = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC

Parts = tuple[str, ...]


@dataclass(frozen=True)
class Limits:
    """What one unpacking may do; see the fields of the request."""

    max_entries: int = MAX_ENTRIES
    max_bytes: int = sys.maxsize
    owner: tuple[int, int] | None = None
    absolute_links: bool = False


class Tree:
    """Writes members below a new directory, always relative to descriptors that follow no link."""

    def __init__(self, dest: str, limits: Limits) -> None:
        os.mkdir(dest, 0o700)
        self.entries = self.bytes = 0
        self._limits = limits
        self._owner = limits.owner
        self._root = os.open(dest, _OPEN_DIR)
        self._open: list[tuple[str, int]] = []  # the directory last used, from the root down
        self._directories: dict[Parts, tuple[int, float]] = {}  # mode and mtime, given at the end
        self._links: dict[Parts, str] = {}

    def close(self) -> None:
        """Close every descriptor."""
        self._close_below(0)
        os.close(self._root)

    def add(self, member: Member) -> None:
        """Write one member. Raises Refused, or OSError for what the file system says."""
        self.bytes += member.size
        if self.bytes > self._limits.max_bytes:
            raise Refused(
                member.name, f"with it there are more than {self._limits.max_bytes} bytes to unpack"
            )
        self._count(member.name)
        parent, name = self._directory(member.parts[:-1], member.name), member.parts[-1]
        if member.kind == DIRECTORY:
            self._add_directory(member, parent, name)
            return
        try:
            self._create(member, parent, name)
        except FileExistsError:
            parent = self._directory(member.parts[:-1], member.name)
            self._check_same_type(member, parent, name)
            os.unlink(name, dir_fd=parent)
            self._create(member, parent, name)

    def finish(self) -> None:
        """Check every link again, give directories their modes and times, and bring everything to disk."""
        for parts in self._links:
            self._check_link(parts)
        for parts in sorted(self._directories, reverse=True):  # what is inside first
            mode, mtime = self._directories[parts]
            fd = self._directory(parts, "/".join(parts))
            self._own(fd)
            os.fchmod(fd, mode)
            os.utime(fd, ns=_times(mtime))
        self._close_below(0)
        self._own(self._root)
        os.fchmod(self._root, 0o755)
        if ctypes.CDLL(None, use_errno=True).syncfs(self._root) != 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))

    def _count(self, name: str) -> None:
        self.entries += 1
        if self.entries > self._limits.max_entries:
            raise Refused(name, f"with it there are more than {self._limits.max_entries} entries to unpack")

    def _create(self, member: Member, parent: int, name: str) -> None:
        if member.kind == SYMLINK:
            os.symlink(member.target, name, dir_fd=parent)
            self._links[member.parts] = member.target
            self._check_link(member.parts)  # to stop early; a later link may change where it leads
            if self._owner:
                os.chown(name, *self._owner, dir_fd=parent, follow_symlinks=False)
            os.utime(name, ns=_times(member.mtime), dir_fd=parent, follow_symlinks=False)
        elif member.kind == HARDLINK:
            self._hard_link(member)
        else:
            fd = os.open(name, _NEW_FILE, member.mode, dir_fd=parent)
            try:
                member.copy(fd)
                self._own(fd)
                os.utime(fd, ns=_times(member.mtime))
            finally:
                os.close(fd)

    def _hard_link(self, member: Member) -> None:
        target = _split_target(member)
        if target == member.parts:
            raise Refused(member.name, "it is a hard link to itself")
        old = os.dup(self._directory(target[:-1], member.name, make=False))
        try:
            parent = self._directory(member.parts[:-1], member.name)
            found = _lstat(target[-1], old)
            if found is None or not stat.S_ISREG(found.st_mode):
                why = f"it is a hard link to {printable(member.target)}, which is no file unpacked before"
                raise Refused(member.name, why)
            os.link(target[-1], member.parts[-1], src_dir_fd=old, dst_dir_fd=parent, follow_symlinks=False)
        finally:
            os.close(old)

    def _add_directory(self, member: Member, parent: int, name: str) -> None:
        try:
            os.mkdir(name, 0o700, dir_fd=parent)
        except FileExistsError:
            self._check_same_type(member, parent, name)
        self._directories[member.parts] = (member.mode, member.mtime)

    def _check_same_type(self, member: Member, parent: int, name: str) -> None:
        found = _lstat(name, parent)
        if found and stat.S_IFMT(found.st_mode) != _TYPES[member.kind]:
            raise Refused(member.name, f"it comes twice, the second time as a {member.kind}")

    def _directory(self, parts: Parts, name: str, *, make: bool = True) -> int:
        """Return a descriptor of a directory below the root, valid until the next call."""
        depth = 0
        for depth, part in enumerate(parts):
            if depth == len(self._open) or self._open[depth][0] != part:
                break
        else:
            depth = len(parts)
        self._close_below(depth)
        for part in parts[depth:]:
            above = self._open[-1][1] if self._open else self._root
            self._open.append((part, self._open_directory(part, above, parts, name, make)))
        return self._open[-1][1] if self._open else self._root

    def _open_directory(self, part: str, above: int, parts: Parts, name: str, make: bool) -> int:
        try:
            return os.open(part, _OPEN_DIR, dir_fd=above)
        except FileNotFoundError:
            if not make:
                raise Refused(name, f"it needs {'/'.join(parts)}, which is not there") from None
        except NotADirectoryError:
            found = _lstat(part, above)
            what = "link" if found and stat.S_ISLNK(found.st_mode) else "file"
            raise Refused(name, f"its path leads through the {what} {printable(part)}") from None
        self._count(name)
        os.mkdir(part, 0o755, dir_fd=above)  # not in the archive itself: an ordinary directory
        fd = os.open(part, _OPEN_DIR, dir_fd=above)
        self._own(fd)
        return fd

    def _close_below(self, depth: int) -> None:
        while len(self._open) > depth:
            os.close(self._open.pop()[1])

    def _own(self, fd: int) -> None:
        if self._owner:
            os.fchown(fd, *self._owner)

    def _check_link(self, parts: Parts) -> None:
        """Follow a link by name through the tree, as the kernel would; it may dangle, not leave."""
        name, target = "/".join(parts), self._links[parts]
        at, todo = list(parts[:-1]), _components(target)
        for _ in range(MAX_LINK_STEPS):
            if not todo:
                return
            part = todo.pop()
            if part == "/":
                if not self._limits.absolute_links:
                    raise Refused(name, f"it is a link to {printable(target)}, an absolute path")
                at = []
            elif part == "..":
                if not at:
                    raise Refused(name, f"it is a link to {printable(target)}, which leaves the image")
                at.pop()
            else:
                at.append(part)
                further = self._links.get(tuple(at))
                if further is not None:
                    at.pop()
                    todo += _components(further)
        raise Refused(name, f"it is a link to {printable(target)}, which leads in a circle or too far")


def _components(target: str) -> list[str]:
    """Return a target's components, last first; a leading `/` is one of them."""
    parts = [part for part in target.split("/") if part not in ("", ".")]
    return [*reversed(parts), "/"] if target.startswith("/") else parts[::-1]


def _lstat(name: str, parent: int) -> os.stat_result | None:
    try:
        return os.stat(name, dir_fd=parent, follow_symlinks=False)
    except FileNotFoundError:
        return None


def _times(mtime: float) -> tuple[int, int]:
    if not 0 <= mtime < 1 << 34:  # also catches nan; 34 bits are what ext4 keeps
        mtime = 0
    nanoseconds = mtime * 10**9 if isinstance(mtime, int) else int(mtime * 1e9)
    return nanoseconds, nanoseconds


def unpack(request: helper.Request) -> dict[str, Any]:
    """Unpack; return `bytes` and `entries`. Raises MaestroError that names the archive and the member."""
    archive, dest = str(request["archive"]), str(request["dest"])
    owner = request.get("owner")
    limits = Limits(
        max_entries=int(request.get("max_entries") or MAX_ENTRIES),
        max_bytes=int(request.get("max_bytes") or sys.maxsize),
        owner=(int(owner["uid"]), int(owner["gid"])) if owner else None,
        absolute_links="absolute-links" in (request.get("allow") or ()),
    )
    os.umask(0)  # members are created with the very mode they have
    try:
        source = os.open(archive, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            return _unpack(source, str(request["image_type"]), dest, limits)
        finally:
            os.close(source)
    except OSError as error:
        why: object = f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    except (Refused, Broken) as error:
        why = error
    except Unsupported as error:
        raise Unsupported(f"{_cannot(request)}: {error.message}", hint=error.hint) from error
    raise MaestroError(f"{_cannot(request)}: {why}")


def _cannot(request: helper.Request) -> str:
    return f"cannot unpack {request.get('name') or request['archive']}"


def _unpack(source: int, image_type: str, dest: str, limits: Limits) -> dict[str, Any]:
    family, compression = find_kind(source)
    wanted = FAMILIES.get(image_type)
    if wanted is None:
        raise Broken(f"image type {image_type!r} is not known, expected one of {', '.join(FAMILIES)}")
    if family != wanted:
        found = f"a {family} archive" if family else "neither a tar nor a zip archive"
        raise Broken(f"it is {found}, its declared type {image_type} means {wanted}")
    total, progress = os.fstat(source).st_size, helper.Progress()
    tree = Tree(dest, limits)
    try:
        try:
            with Plain(source, compression) as plain:
                try:
                    for member in read_zip(source) if family == "zip" else read_tar(plain):
                        tree.add(member)
                        progress.report(plain.position() if progress.due() else 0, total)
                except Broken:
                    plain.check()  # what the decompressor met explains more
                    raise
                plain.check()
            tree.finish()
        finally:
            tree.close()
    except BaseException:
        remove_tree(dest)
        raise
    return {"bytes": tree.bytes, "entries": tree.entries}


def _split_target(member: Member) -> Parts:
    try:
        return split_path(member.target)
    except Refused as error:
        why = f"it is a hard link to {printable(member.target)}, which leaves the image"
        raise Refused(member.name, why) from error


if __name__ == "__main__":
    sys.exit(helper.main(unpack))
