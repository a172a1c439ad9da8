# SPDX-License-Identifier: Apache-2.0
"""What is mounted for one process, as data: each is a frozen value that can mount itself.

They run in the child, in its own mount namespace. Sources are opened before the root changes and
reached through their descriptors afterwards.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Sequence

from maestro_py.process import kernel
from maestro_py.valueclass import valueclass

QUIET = kernel.MS_NOSUID | kernel.MS_NODEV

_PAGE = 4096
_KEPT = os.ST_RDONLY | os.ST_NOSUID | os.ST_NODEV | os.ST_NOEXEC | os.ST_NOATIME | os.ST_NODIRATIME

# Documentation/admin-guide/devices.txt
_DEVICES = (
    ("null", 1, 3),
    ("zero", 1, 5),
    ("full", 1, 7),
    ("random", 1, 8),
    ("urandom", 1, 9),
    ("tty", 5, 0),
)
_LINKS = (("fd", "/proc/self/fd"), ("stdin", "fd/0"), ("stdout", "fd/1"), ("stderr", "fd/2"))

# What user 0 may write there without any capability, and change the machine by it.
_PROC_OF_THE_MACHINE = ("sys", "sysrq-trigger", "irq", "bus", "fs")


@valueclass(frozen=True)
class Bind:
    """Show `source` of the device, a directory or a file, at `target`.

    flags: MS_* added to those of the source. below: they hold for mounts below it as well.
    optional: where there are no mount namespaces the process is launched without it.
    """

    source: str
    target: str
    flags: int = 0
    below: bool = False
    optional: bool = False

    def mount(self, source: int) -> None:
        """Mount what is open as `source`."""
        kernel.mount(f"/proc/self/fd/{source}", self.target, None, kernel.MS_BIND | kernel.MS_REC)
        seen = os.open(self.target, os.O_PATH | os.O_CLOEXEC)
        if not os.path.sameopenfile(seen, source):
            raise _moved(self.target)
        if self.flags:
            restrict(f"/proc/self/fd/{seen}", self.flags)
        os.close(seen)


@valueclass(frozen=True)
class Tmpfs:
    """An empty directory in memory. size: bytes, 0: the kernel's default of half the memory."""

    target: str
    size: int = 0
    mode: int = 0o1777
    uid: int = 0
    gid: int = 0

    def mount(self, source: int) -> None:
        """Mount it."""
        size = f",size={self.size}" if self.size else ""
        data = f"mode={self.mode:o},uid={self.uid},gid={self.gid}{size}"
        before = os.stat(self.target)
        kernel.mount("tmpfs", self.target, "tmpfs", QUIET, data)
        if os.stat(self.target).st_dev == before.st_dev:
            raise _moved(self.target)


@valueclass(frozen=True)
class Secrets:
    """Files in memory that only one user can read: (name, content) each.

    Filled where no other process can move anything, then shown at `target` (see `root`).
    """

    target: str
    files: tuple[tuple[str, bytes], ...]
    uid: int
    gid: int

    def mount(self, source: int) -> None:
        """Mount and fill it; nothing can be written there afterwards."""
        size = sum(-(-len(content) // _PAGE) + 1 for _, content in self.files) * _PAGE
        flags = QUIET | kernel.MS_NOEXEC
        data = f"mode=500,uid={self.uid},gid={self.gid},size={size}"
        try:
            kernel.mount("tmpfs", self.target, "tmpfs", flags, data + ",noswap")  # Linux 6.4
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            kernel.mount("tmpfs", self.target, "tmpfs", flags, data)
        for name, content in self.files:
            path = f"{self.target}/{name}"
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o400)
            os.fchown(fd, self.uid, self.gid)
            rest = memoryview(content)
            while rest:
                rest = rest[os.write(fd, rest) :]
            os.close(fd)
        restrict(self.target, flags | kernel.MS_RDONLY)


Mounted = Bind | Tmpfs | Secrets


def _moved(path: str) -> OSError:
    """Whoever shares the root may move what is at `path` while it is mounted on."""
    return OSError(errno.EBUSY, "it was moved while it was mounted on", path)


def restrict(path: str, flags: int) -> None:
    """Add these flags to those a mount has, in this namespace only."""
    # the ST_* of statvfs(3) have the values of their MS_*; a remount drops what it does not name
    kernel.mount(
        "none", path, None, kernel.MS_REMOUNT | kernel.MS_BIND | flags | os.statvfs(path).f_flag & _KEPT
    )


def mount_point(path: str, directory: bool = True) -> os.stat_result:
    """Return what is at `path`, made with its parents when missing. Ours have mode 0 (see `tmp`).

    Others that share the root may be making the same.
    """
    path = os.path.realpath(path)  # a link that leads nowhere yet is followed too
    try:
        return os.stat(path)
    except FileNotFoundError:
        pass
    made = ""
    for part in os.path.dirname(path).split("/")[1:]:
        made += "/" + part
        if part and not os.path.isdir(made):
            _unless_there(os.mkdir, made, 0o755)
    if directory:
        _unless_there(os.mkdir, path, 0)
    else:
        _unless_there(os.mknod, path, stat.S_IFREG)
    return os.stat(path)


def _unless_there(make: Callable[[str, int], None], path: str, mode: int) -> None:
    try:
        make(path, mode)
    except FileExistsError:
        pass


def proc(masked: bool) -> list[str]:
    """Mount the /proc of the pid namespace; return the mount points.

    masked: what belongs to the whole machine is read-only.
    """
    flags = kernel.MS_NOSUID | kernel.MS_NODEV | kernel.MS_NOEXEC
    kernel.mount("proc", "/proc", "proc", flags)
    points = ["/proc"]
    for name in _PROC_OF_THE_MACHINE if masked else ():
        path = f"/proc/{name}"
        try:
            kernel.mount(path, path, None, kernel.MS_BIND)
        except FileNotFoundError:
            continue  # this kernel is built without it
        restrict(path, flags | kernel.MS_RDONLY)
        points.append(path)
    return points


def dev(devices: Sequence[tuple[str, int, int]], uid: int, gid: int) -> list[str]:
    """Mount a small /dev; return the mount points. devices: (path, mode, number) of further nodes."""
    mount_point("/dev")
    kernel.mount("tmpfs", "/dev", "tmpfs", kernel.MS_NOSUID | kernel.MS_NOEXEC, "mode=755,size=64k")
    for name, major, minor in _DEVICES:
        os.mknod("/dev/" + name, 0o666 | stat.S_IFCHR, os.makedev(major, minor))
    for name, target in _LINKS:
        os.symlink(target, "/dev/" + name)
    os.mkdir("/dev/shm")
    kernel.mount("tmpfs", "/dev/shm", "tmpfs", QUIET, "mode=1777")
    for path, mode, number in devices:
        os.makedirs(os.path.dirname(path), 0o755, exist_ok=True)
        os.mknod(path, stat.S_IFMT(mode) | 0o600, number)
        os.chown(path, uid, gid)
    return ["/dev", "/dev/shm"]


def device_nodes(paths: Sequence[str]) -> list[tuple[str, int, int]]:
    """Return (path, mode, number) of device nodes, links followed; before the root changes."""
    found = []
    for path in paths:
        entry = os.stat(path)
        if not (stat.S_ISCHR(entry.st_mode) or stat.S_ISBLK(entry.st_mode)):
            raise OSError(errno.ENODEV, "it is not a device node", path)
        found.append((path, entry.st_mode, entry.st_rdev))
    return found


def tmp(read_only: bool) -> list[str]:
    """Give a root without a /tmp, or with one that cannot be written, one in memory; return mount points.

    Mode 0 marks a mount point made here at an earlier start.
    """
    if stat.S_IMODE(mount_point("/tmp").st_mode) != 0 and not read_only:
        return []
    Tmpfs("/tmp").mount(-1)
    return ["/tmp"]


# Options of a mount as proc_pid_mountinfo(5) spells them.
_FLAGS = {
    b"ro": kernel.MS_RDONLY,
    b"nosuid": kernel.MS_NOSUID,
    b"nodev": kernel.MS_NODEV,
    b"noexec": kernel.MS_NOEXEC,
}


def seal(rules: Sequence[tuple[str, int]], done: set[str]) -> None:
    """Give every mount the flags of the innermost rule, (directory, flags), that it is below.

    done: mount points that are as they shall be.
    """
    rules = sorted(rules, key=lambda rule: len(rule[0]), reverse=True)
    for line in _mountinfo().splitlines():
        words = line.split(b" ")
        point = os.fsdecode(_unescaped(words[4]))
        if point in done:
            continue
        has = sum(_FLAGS.get(option, 0) for option in words[5].split(b","))
        wanted = next((flags for top, flags in rules if below(point, top)), 0)
        if wanted & ~has:
            try:
                restrict(point, wanted)
            except OSError as error:
                if error.errno not in (errno.EINVAL, errno.ENOENT, errno.ENOTDIR):
                    raise  # those three: hidden under another mount, so the process cannot reach it


def _unescaped(name: bytes) -> bytes:
    """Return a path of mountinfo with `\\040` and the like (white space, the backslash) as they are.

    By hand: a codec would be imported now, from a root that may hold no Python.
    """
    first, *rest = name.split(b"\\")
    return first + b"".join(bytes((int(part[:3], 8),)) + part[3:] for part in rest)


def _mountinfo() -> bytes:
    fd = os.open("/proc/self/mountinfo", os.O_RDONLY | os.O_CLOEXEC)
    text = b""
    while piece := os.read(fd, 65536):
        text += piece
    os.close(fd)
    return text


def below(path: str, top: str) -> bool:
    """Return whether `path` is the directory `top` or in it."""
    return path == top or path.startswith(top.rstrip("/") + "/")
