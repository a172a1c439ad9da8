# SPDX-License-Identifier: Apache-2.0
"""Helper program: unpack one verified archive into a new directory, safely.

`python -m maestro_py.images.unpack`, request on stdin, lines on stdout as in `maestro_py.helper`:

    {"archive", "dest",             a path, and a directory that does not exist yet
     "image_type",                  tarball, devicejs_tarball, zip or devicejs_zip
     "max_bytes", "max_entries",    0 or null: no limit, and MAX_ENTRIES
     "max_ratio",                   times its own size it may unpack to; 0 or null: no limit
     "owner": {"uid", "gid"},       of everything; "archive": as it says; null: whoever runs this
     "allow": [],                   "devices", "fifos", "setuid", "capabilities", and "absolute-links" for a
                                    tree that will be a root of its own
     "checks",                      what it must be before one byte is unpacked, as `verify` has it; or null
     "sums",                        file for the checksums of what was unpacked; none when left out
     "name"}                        what messages call the archive; its path when left out

Progress counts bytes of the archive. The last line carries `bytes` and `entries` unpacked. When it comes,
everything is on disk. On any failure `dest` is gone completely; `sums` is for the caller to take away.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Iterator
from typing import Any, Final, Literal, NamedTuple

from maestro_py import helper
from maestro_py.errors import MaestroError, Unsupported
from maestro_py.faultpoint import reach
from maestro_py.images.archive import (
    BLOCKS,
    CHARACTERS,
    DIRECTORY,
    FAMILIES,
    FIFO,
    FILE,
    HARDLINK,
    SYMLINK,
    Member,
    Refused,
    find_kind,
    printable,
    split_path,
)
from maestro_py.images.decompress import Broken, Plain
from maestro_py.images.files import remove_tree
from maestro_py.images.flush import sync_file_system
from maestro_py.images.links import Links, Parts
from maestro_py.images.manifest import Sums
from maestro_py.images.output import Output, WriteBehind
from maestro_py.images.tarball import MAX_TRAILER, read_tar
from maestro_py.images.verify import verify
from maestro_py.units import MAX_SIZE

MAX_ENTRIES = 200_000
"""Files, directories and links one image may have when the request does not say."""

RATIO_FREE = 64 << 20
"""Bytes an archive may unpack to whatever its own size is."""

ARCHIVE: Final = "archive"
"""Owner of each file: as the archive says."""

MAX_ID = (1 << 32) - 2
"""Greatest user or group number; 2^32-1 means "leave it" to chown(2)."""

_TYPES = {
    FILE: stat.S_IFREG,
    HARDLINK: stat.S_IFREG,
    DIRECTORY: stat.S_IFDIR,
    SYMLINK: stat.S_IFLNK,
    CHARACTERS: stat.S_IFCHR,
    BLOCKS: stat.S_IFBLK,
    FIFO: stat.S_IFIFO,
}
_NODES = (CHARACTERS, BLOCKS, FIFO)
_OPEN_DIR = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC

Owner = tuple[int, int] | None
"""(uid, gid); None: whoever runs this."""


class Limits(NamedTuple):
    """What one unpacking may do; see the fields of the request."""

    max_entries: int = MAX_ENTRIES
    max_bytes: int = MAX_SIZE
    max_plain: int = MAX_SIZE  # bytes a tar archive may have once it is not compressed any more
    owner: Owner | Literal["archive"] = None
    allow: frozenset[str] = frozenset()


class Tree:
    """Writes members below a new directory, always relative to descriptors that follow no link."""

    def __init__(self, dest: str, limits: Limits, sums: Sums | None = None) -> None:
        os.mkdir(dest, 0o700)
        self._sums = sums
        self._behind = WriteBehind()
        self.entries = self.bytes = 0
        self._limits = limits
        self._root = os.open(dest, _OPEN_DIR)
        self._open: list[tuple[str, int]] = []  # the directory last used, from the root down
        # mode, mtime and owner, given at the end
        self._directories: dict[Parts, tuple[int, float, Owner]] = {}
        self._links = Links(absolute="absolute-links" in limits.allow)

    def close(self) -> None:
        """Close every descriptor."""
        self._behind.close()
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
        self._links.check()
        for parts in sorted(self._directories, reverse=True):  # what is inside first
            mode, mtime, owner = self._directories[parts]
            fd = self._directory(parts, "/".join(parts))
            _own(fd, owner)
            os.fchmod(fd, mode)
            os.utime(fd, ns=_times(mtime))
        self._close_below(0)
        _own(self._root, self._owner(None))
        os.fchmod(self._root, 0o755)
        sync_file_system(self._root)
        self._behind.settle()

    def _count(self, name: str) -> None:
        self.entries += 1
        if self.entries > self._limits.max_entries:
            raise Refused(name, f"with it there are more than {self._limits.max_entries} entries to unpack")

    def _create(self, member: Member, parent: int, name: str) -> None:
        if member.kind == SYMLINK:
            os.symlink(member.target, name, dir_fd=parent)
            self._links.add(member.parts, member.target)
            if self._sums:
                self._sums.link(member.name, member.target)
            self._finish_by_name(member, parent, name)
        elif member.kind == HARDLINK:
            self._hard_link(member)
        elif member.kind in _NODES:
            os.mknod(name, _TYPES[member.kind] | member.mode, member.device, dir_fd=parent)
            self._finish_by_name(member, parent, name)
        else:
            fd = os.open(name, _NEW_FILE, member.mode & 0o777, dir_fd=parent)
            try:
                output = Output(fd, self._behind, stays=bool(member.mode & 0o111))
                member.copy(output.write)
                digest = output.finish()
                if self._sums:
                    self._sums.file(member.name, digest)
                _own(fd, self._owner(member))
                if member.mode & ~0o777:  # a change of owner would take these away
                    os.fchmod(fd, member.mode)
                if member.capabilities:
                    os.setxattr(fd, "security.capability", member.capabilities)
                os.utime(fd, ns=_times(member.mtime))
            finally:
                os.close(fd)

    def _finish_by_name(self, member: Member, parent: int, name: str) -> None:
        owner = self._owner(member)
        if owner:
            os.chown(name, *owner, dir_fd=parent, follow_symlinks=False)
            if member.kind != SYMLINK and member.mode & ~0o777:
                os.chmod(name, member.mode, dir_fd=parent)  # just made here: a node, never a link
        os.utime(name, ns=_times(member.mtime), dir_fd=parent, follow_symlinks=False)

    def _owner(self, member: Member | None) -> Owner:
        """Return who gets a member; one that is not in the archive gets the daemon's or everybody's owner."""
        if self._limits.owner != ARCHIVE:
            return self._limits.owner
        if member and not all(0 <= number <= MAX_ID for number in member.owner):
            raise Refused(member.name, "its owner is not valid")
        return member.owner if member else None

    def _hard_link(self, member: Member) -> None:
        target = _split_target(member)
        if target == member.parts:
            raise Refused(member.name, "it is a hard link to itself")
        if not target:
            raise Refused(member.name, "it is a hard link to the root itself")
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
        self._directories[member.parts] = (member.mode, member.mtime, self._owner(member))

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
        _own(fd, self._owner(None))
        return fd

    def _close_below(self, depth: int) -> None:
        while len(self._open) > depth:
            os.close(self._open.pop()[1])


def _own(fd: int, owner: Owner) -> None:
    if owner:
        os.fchown(fd, *owner)


def _lstat(name: str, parent: int) -> os.stat_result | None:
    try:
        return os.stat(name, dir_fd=parent, follow_symlinks=False)
    except FileNotFoundError:
        return None


def _bits_of_time() -> int:
    """Return how many bits of seconds a file's time may have: ext4 keeps 34, some 32-bit systems know 31."""
    try:
        time.gmtime(1 << 31)
    except OverflowError:
        return 31
    return 34


def _times(mtime: float) -> tuple[int, int]:
    if not 0 <= mtime < 1 << TIME_BITS:  # also catches nan
        mtime = 0
    nanoseconds = mtime * 10**9 if isinstance(mtime, int) else int(mtime * 1e9)
    return nanoseconds, nanoseconds


def unpack(request: helper.Request) -> dict[str, Any]:
    """Unpack; return `bytes` and `entries`. Raises MaestroError that names the archive and the member."""
    archive, dest = str(request["archive"]), str(request["dest"])
    os.umask(0)  # members are created with the very mode they have
    try:
        source = os.open(archive, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            if request.get("checks"):
                verify(source, request["checks"])
            reach("images.unpack.verified")
            sums = Sums(str(request["sums"])) if request.get("sums") else None
            try:
                return _unpack(source, str(request["image_type"]), dest, _limits(source, request), sums)
            finally:
                if sums:
                    sums.close()
        finally:
            os.close(source)
    except OSError as error:
        why: object = f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    except (Refused, Broken) as error:
        why = error
    except Unsupported as error:
        raise Unsupported(f"{_cannot(request)}: {error.message}", hint=error.hint) from error
    raise MaestroError(f"{_cannot(request)}: {why}")


def _limits(source: int, request: helper.Request) -> Limits:
    owner, size = request.get("owner"), os.fstat(source).st_size
    most = int(request.get("max_ratio") or 0) * size + RATIO_FREE if request.get("max_ratio") else MAX_SIZE
    return Limits(
        max_entries=int(request.get("max_entries") or MAX_ENTRIES),
        max_bytes=min(int(request.get("max_bytes") or MAX_SIZE), most),
        max_plain=min(most + MAX_TRAILER, MAX_SIZE),
        owner=ARCHIVE if owner == ARCHIVE else (int(owner["uid"]), int(owner["gid"])) if owner else None,
        allow=frozenset(request.get("allow") or ()),
    )


def _cannot(request: helper.Request) -> str:
    return f"cannot unpack {request.get('name') or request['archive']}"


def _unpack(source: int, image_type: str, dest: str, limits: Limits, sums: Sums | None) -> dict[str, Any]:
    family, compression = find_kind(source)
    wanted = FAMILIES.get(image_type)
    if wanted is None:
        raise Broken(f"image type {image_type!r} is not known, expected one of {', '.join(FAMILIES)}")
    if family != wanted:
        found = f"a {family} archive" if family else "neither a tar nor a zip archive"
        raise Broken(f"it is {found}, its declared type {image_type} means {wanted}")
    total, progress = os.fstat(source).st_size, helper.Progress()
    tree = Tree(dest, limits, sums)
    try:
        try:
            with Plain(source, compression) as plain:
                try:
                    for member in _members(family, source, plain, limits):
                        tree.add(member)
                        progress.report(plain.position() if progress.due() else 0, total)
                except Broken:
                    plain.check()  # what the decompressor met explains more
                    raise
                plain.check()
            if sums:
                sums.close()
            reach("images.unpack.written")
            tree.finish()
            reach("images.unpack.synced")
        finally:
            tree.close()
    except BaseException:
        remove_tree(dest)
        raise
    return {"bytes": tree.bytes, "entries": tree.entries}


def _members(family: str, source: int, plain: Plain, limits: Limits) -> Iterator[Member]:
    if family == "zip":
        from maestro_py.images.zipball import read_zip  # most images are tar archives

        return read_zip(source, limits.allow)
    return read_tar(plain, limits.allow, limits.max_plain)


def _split_target(member: Member) -> Parts:
    try:
        return split_path(member.target)
    except Refused as error:
        why = f"it is a hard link to {printable(member.target)}, which leaves the image"
        raise Refused(member.name, why) from error


TIME_BITS = _bits_of_time()


if __name__ == "__main__":
    helper.main(unpack)
