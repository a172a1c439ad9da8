# SPDX-License-Identifier: Apache-2.0
"""A directory becomes `/` for one process.

In a private mount namespace the directory is bound onto itself and pivoted to; what the process
needs besides (its config, images outside the root, /proc, a small /dev) is mounted inside; the old
root is then detached and cannot be reached, not even by root with a leftover descriptor. Mount
points are made only after the pivot: a link in an image then resolves inside the new root, and
nothing of the device is touched by one that points elsewhere.

Where the kernel refuses namespaces, plain chroot(2) is used and the process's log says so.
"""

from __future__ import annotations

import errno
import os
import stat
from dataclasses import dataclass
from typing import ClassVar

from maestro_py.process import kernel

_NO_NAMESPACES = (errno.EPERM, errno.ENOSYS, errno.EINVAL, errno.ENOSPC)

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


@dataclass(frozen=True)
class Bind:
    """Show `source` of the device, a directory or a file, at `target` inside the new root."""

    source: str
    target: str
    read_only: bool = False


@dataclass(frozen=True)
class MakeRoot:
    """Step that changes the root; the working directory is the new `/` afterwards. Needs root."""

    root: str
    binds: tuple[Bind, ...] = ()
    name: ClassVar[str] = "root"
    libc: ClassVar[bool] = True

    def describe(self) -> str:
        """Return what it does."""
        return f"change the root to {self.root}"

    def run(self) -> None:
        """Do all of it; OSError names the path that was refused, as the device or the new root sees it."""
        os.close(os.open(self.root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC))
        try:
            kernel.unshare(kernel.CLONE_NEWNS)
        except OSError as error:
            if error.errno not in _NO_NAMESPACES:
                raise
            self._plain(error)
            return
        old = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        sources = [os.open(bind.source, os.O_PATH | os.O_CLOEXEC) for bind in self.binds]
        kernel.mount("none", "/", None, kernel.MS_REC | kernel.MS_PRIVATE)
        kernel.mount(self.root, self.root, None, kernel.MS_BIND | kernel.MS_REC)
        os.chdir(self.root)
        # pivot_root(2): with the same directory twice the old root ends up on top of the new one, and
        # stays usable as a source of binds until it is detached.
        kernel.pivot_root(".", ".")
        mask = os.umask(0)
        _mount_proc()
        for bind, source in zip(self.binds, sources, strict=True):
            _bind(source, bind)
        _mount_dev()
        _mount_tmp()
        os.umask(mask)
        os.fchdir(old)
        kernel.umount(".", kernel.MNT_DETACH)
        os.chdir("/")

    def _plain(self, reason: OSError) -> None:
        if self.binds:
            text = f"{reason.strerror} (no mount namespace, so {self.binds[0].target} cannot be shown inside)"
            raise OSError(reason.errno, text, self.root)
        os.chroot(self.root)
        os.chdir("/")
        os.write(2, f"maestro: no mount namespace ({reason.strerror}), plain chroot used\n".encode())


def _mount_point(path: str, directory: bool = True) -> os.stat_result:
    """Return what is at `path`, made with its parents when missing. Ours have mode 0 (see _mount_tmp)."""
    try:
        return os.stat(path)
    except FileNotFoundError:
        pass
    parent = os.path.dirname(path)
    made = ""
    for part in parent.split("/")[1:]:
        made += "/" + part
        if part and not os.path.isdir(made):
            os.mkdir(made, 0o755)
    if directory:
        os.mkdir(path, 0)
    else:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0))
    return os.stat(path)


def _mount_proc() -> None:
    _mount_point("/proc")
    kernel.mount("proc", "/proc", "proc", kernel.MS_NOSUID | kernel.MS_NODEV | kernel.MS_NOEXEC)


def _bind(source: int, bind: Bind) -> None:
    _mount_point(bind.target, stat.S_ISDIR(os.fstat(source).st_mode))
    kernel.mount(f"/proc/self/fd/{source}", bind.target, None, kernel.MS_BIND | kernel.MS_REC)
    if bind.read_only:
        flags = kernel.MS_REMOUNT | kernel.MS_BIND | kernel.MS_RDONLY | kernel.MS_NOSUID | kernel.MS_NODEV
        kernel.mount("none", bind.target, None, flags)


def _mount_dev() -> None:
    _mount_point("/dev")
    kernel.mount("tmpfs", "/dev", "tmpfs", kernel.MS_NOSUID | kernel.MS_NOEXEC, "mode=755,size=64k")
    for name, major, minor in _DEVICES:
        os.mknod("/dev/" + name, 0o666 | stat.S_IFCHR, os.makedev(major, minor))
    for name, target in _LINKS:
        os.symlink(target, "/dev/" + name)
    os.mkdir("/dev/shm")
    kernel.mount("tmpfs", "/dev/shm", "tmpfs", kernel.MS_NOSUID | kernel.MS_NODEV, "mode=1777")


def _mount_tmp() -> None:
    """Give a root without /tmp one in memory; mode 0 marks a mount point made here at an earlier start."""
    if stat.S_IMODE(_mount_point("/tmp").st_mode) == 0:
        kernel.mount("tmpfs", "/tmp", "tmpfs", kernel.MS_NOSUID | kernel.MS_NODEV, "mode=1777")
