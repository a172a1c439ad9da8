# SPDX-License-Identifier: Apache-2.0
"""What one process sees of the file system: a directory becomes its `/`, or parts of the device change.

In a private mount namespace the directory is bound onto itself; what the process needs besides (its
config and own directories, images outside the root, /proc, a small /dev) is mounted inside; then it is
pivoted to, and the old root is detached and cannot be reached, not even by root with a leftover
descriptor. Mount points are made from inside: a link in an image resolves inside the new root, and
nothing of the device is touched by one that points elsewhere.

Where the kernel refuses namespaces, plain chroot(2) is used and the process's log says so; what
needs more than that is refused.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar

from maestro_py.process import kernel, mounts
from maestro_py.process.mounts import Bind, Mounted, Secrets, Tmpfs
from maestro_py.valueclass import valueclass

_NO_NAMESPACES = (errno.EPERM, errno.ENOSYS, errno.EINVAL, errno.ENOSPC)
_OWN_NAMES = kernel.CLONE_NEWIPC | kernel.CLONE_NEWUTS


@valueclass(frozen=True)
class MakeRoot:
    """Step that changes the root; the working directory is the new `/` afterwards. Needs root.

    mounted: what is shown inside besides /proc, /dev and /tmp. devices: further nodes, for uid and gid.
    masked: the machine's own settings in /proc are read-only.
    """

    root: str
    mounted: tuple[Mounted, ...] = ()
    devices: tuple[str, ...] = ()
    uid: int = 0
    gid: int = 0
    read_only: bool = False
    masked: bool = False
    name: ClassVar[str] = "root"
    libc: ClassVar[bool] = True

    def describe(self) -> str:
        """Return what it does."""
        return f"change the root to {self.root}"

    def run(self) -> None:
        """Do all of it; OSError names the path that was refused, as the device or the new root sees it."""
        os.close(os.open(self.root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC))
        refused = _own_namespace()
        if refused:
            self._plain(refused)
            return
        old = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        kernel.mount("none", "/", None, kernel.MS_REC | kernel.MS_PRIVATE)
        todo = _open_sources([_filled_aside(item) for item in self.mounted])
        devices = mounts.device_nodes(self.devices)
        kernel.mount(self.root, self.root, None, kernel.MS_BIND | kernel.MS_REC)
        os.chdir(self.root)
        new = os.open(".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        # While it is filled it is our root by chroot(2): pivoted to, it would have the old root on top of
        # it, and `..` in a link, which others may be writing there just now, would lead to that.
        os.chroot(".")
        mask = os.umask(0)
        mounts.mount_point("/proc")
        done = mounts.proc(self.masked)
        done += mounts.dev(devices, self.uid, self.gid)
        if not any(item.target == "/tmp" for item in self.mounted):
            done += mounts.tmp(self.read_only)
        shown = []
        for item, source, directory in todo:
            item = replace(item, target=os.path.realpath(item.target))
            mounts.mount_point(item.target, directory)
            item.mount(source)
            shown.append(item)
        os.umask(mask)
        os.fchdir(old)
        os.chroot(".")
        os.fchdir(new)
        # pivot_root(2): with the same directory twice the old root ends up on top of the new one
        kernel.pivot_root(".", ".")
        os.fchdir(old)
        kernel.umount(".", kernel.MNT_DETACH)
        os.chdir("/")
        _seal(shown, self.read_only, (), done)

    def _plain(self, reason: OSError) -> None:
        needs = [item.target for item in self.mounted if not (isinstance(item, Bind) and item.optional)]
        needs += self.devices
        if needs or self.read_only:
            what = f"{needs[0]} cannot be shown inside" if needs else "it cannot be made read-only"
            text = f"{reason.strerror} (no mount namespace, so {what})"
            raise OSError(reason.errno, text, self.root)
        os.chroot(self.root)
        os.chdir("/")
        os.write(2, f"maestro: no mount namespace ({reason.strerror}), plain chroot used\n".encode())


@valueclass(frozen=True)
class OwnMounts:
    """Step that keeps the device's root and changes what this process finds there. Needs root.

    Nothing is made on the device: what is mounted on must be there, unless it is in one of the new
    directories in memory. proc: mount a new /proc.
    """

    mounted: tuple[Mounted, ...] = ()
    read_only: bool = False
    proc: bool = False
    masked: bool = False
    name: ClassVar[str] = "mounts"
    libc: ClassVar[bool] = True

    def describe(self) -> str:
        """Return what it does."""
        return "set up its own mounts"

    def run(self) -> None:
        """Do all of it; OSError names the path that was refused."""
        refused = _own_namespace()
        if refused:
            raise OSError(refused.errno, f"{refused.strerror} (no mount namespace)")
        todo = _open_sources(self.mounted)
        kernel.mount("none", "/", None, kernel.MS_REC | kernel.MS_PRIVATE)
        mask = os.umask(0)
        done = mounts.proc(self.masked) if self.proc else []
        empty: list[str] = []
        if self.read_only:
            taken = {item.target for item in self.mounted}
            for path in ("/tmp", "/var/tmp"):
                if path not in taken and os.path.isdir(path) and not os.path.islink(path):
                    Tmpfs(path).mount(-1)
                    empty.append(path)
        done += empty
        shown = []
        for item, source, directory in todo:
            item = replace(item, target=os.path.realpath(item.target))
            if any(mounts.below(item.target, path) for path in empty):
                mounts.mount_point(item.target, directory)
            item.mount(source)
            shown.append(item)
            if isinstance(item, Tmpfs):
                empty.append(item.target)
        os.umask(mask)
        _seal(shown, self.read_only, ("/dev", "/proc"), done)
        os.chdir("/")


def _own_namespace() -> OSError | None:
    """Enter new mount, ipc and uts namespaces; return why not even the first is to be had."""
    for flags in (kernel.CLONE_NEWNS | _OWN_NAMES, kernel.CLONE_NEWNS):
        try:
            kernel.unshare(flags)
            return None
        except OSError as error:
            if error.errno not in _NO_NAMESPACES:
                raise
            refused = error
    return refused


_ASIDE = "/proc"
"""A directory of the old root, which is ours alone by then and gone soon: no one else gets there."""


def _filled_aside(item: Mounted) -> Mounted:
    """Return secrets as a mount like others: in the new root others could have them written elsewhere."""
    if not isinstance(item, Secrets):
        return item
    replace(item, target=_ASIDE).mount(-1)
    return Bind(_ASIDE, item.target)


def _open_sources(mounted: Sequence[Mounted]) -> list[tuple[Mounted, int, bool]]:
    """Return each, parents before what is in them, with its open source and whether it is a directory."""
    found = []
    for item in sorted(mounted, key=lambda item: item.target.count("/")):
        source, directory = -1, True
        if isinstance(item, Bind):
            source = os.open(item.source, os.O_PATH | os.O_CLOEXEC)
            directory = stat.S_ISDIR(os.fstat(source).st_mode)
        found.append((item, source, directory))
    return found


def _seal(shown: Sequence[Mounted], read_only: bool, spared: Sequence[str], done: list[str]) -> None:
    """Restrict the mounts that came along with others, and the root."""
    rules = [(item.target, item.flags) for item in shown if isinstance(item, Bind) and item.below]
    if read_only:
        rules += [("/", kernel.MS_RDONLY), *((path, 0) for path in spared)]
        rules += [(item.target, 0) for item in shown if not (isinstance(item, Bind) and item.below)]
    if rules:
        mounts.seal(rules, {*done, *(item.target for item in shown)})
