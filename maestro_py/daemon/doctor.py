# SPDX-License-Identifier: Apache-2.0
"""What this device offers, each fact with what its absence switches off. Looks only; changes nothing."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import resource
import struct
import sys

from maestro_py.daemon import privileges
from maestro_py.process import kernel
from maestro_py.process.cgroups import Cgroups
from maestro_py.spec.isolation import CAPABILITIES
from maestro_py.spec.model import Limits
from maestro_py.state.database import damaged_files
from maestro_py.units import format_size

_PROBE = Limits(
    mem_limit=1 << 30,
    mem_high=1 << 30,
    swap_limit=0,
    pids_max=1000,
    cpu_weight=100,
    cpu_max=1.0,
    io_weight=100,
)
"""Every limit, to ask which cannot be kept."""

_CAPABILITIES = {
    "chown": "image files keep the daemon's owner",
    "kill": "jobs of other users cannot be signalled",
    **{right: f"{', '.join(fields)} refused" for right, fields in privileges.FIELDS.items()},
}
"""What the lack of each switches off."""

# No architecture outside alpha numbers the system calls after 424 differently.
_LANDLOCK_CREATE_RULESET = 444
_NO_FD = 0x7FFF_FFFF  # above every possible limit of open files


def facts(cgroups: Cgroups, state_dir: str = "") -> list[dict[str, object]]:
    """Return the facts as {"name", "value", "ok", "means"}; means is what is switched off, "" when nothing.

    state_dir: where the room on the disk is measured; empty leaves that out.
    """
    found = [*_who(), *_groups(cgroups), *_kernel()]
    if state_dir:
        found += [_room(state_dir), _damages(state_dir)]
    found.append(_open_files())
    return [
        {"name": name, "value": value, "ok": ok, "means": "" if ok else means}
        for name, value, ok, means in found
    ]


_Fact = tuple[str, str, bool, str]


def _who() -> list[_Fact]:
    root = os.geteuid() == 0
    version = ".".join(map(str, sys.version_info[:3]))
    effective = kernel.capabilities()["CapEff"]
    bits = {name: number for number, name in enumerate(CAPABILITIES)}
    lacking = {name: means for name, means in _CAPABILITIES.items() if not effective >> bits[name] & 1}
    return [
        ("python", version, sys.version_info >= (3, 10), "needs Python 3.10"),
        ("kernel", os.uname().release, True, ""),
        (
            "user",
            "root" if root else f"uid {os.geteuid()}",
            root,
            "jobs run as this user, without a root of their own",
        ),
        (
            "capabilities",
            "all needed" if not lacking else "lacking " + ", ".join(lacking),
            not lacking,
            "; ".join(lacking.values()),
        ),
    ]


def _groups(cgroups: Cgroups) -> list[_Fact]:
    lost = cgroups.unsupported(_PROBE)
    refused = privileges.refused(privileges.own(cgroups))
    return [
        (
            "refused fields",
            ", ".join(refused) or "none",
            not refused,
            "a document that asks for one of them is refused",
        ),
        ("cgroups", cgroups.describe(), not cgroups.notes, "; ".join(cgroups.notes)),
        (
            "cgroup controllers",
            ", ".join(cgroups.controllers) or "none",
            not lost,
            "; ".join(lost),
        ),
        (
            "swap accounting",
            *_yes(not any(sentence.startswith("swap_limit:") for sentence in lost)),
            "`swap_limit` has no effect",
        ),
    ]


def _kernel() -> list[_Fact]:
    landlock = _landlock()
    return [
        ("pidfd", *_yes(_pidfd()), "processes cannot be supervised: Linux 5.3 is needed"),
        (
            "clone into cgroup",
            *_yes(_clone_into_cgroup()),
            "each start on cgroup v2 waits a few milliseconds to join",
        ),
        (
            "exit status of adopted processes",
            *_yes(_pidfd_info() and _release() >= (6, 15)),
            "after a crash of the daemon a job's end is seen, its exit status is not",
        ),
        (
            "mount namespaces",
            *_yes(os.path.exists("/proc/self/ns/mnt")),
            "a new root is entered by plain chroot; no `mounts` or `tmpfs`",
        ),
        ("user namespaces", *_yes(_user_namespaces()), "no isolation without root"),
        ("seccomp", *_yes(os.path.exists("/proc/sys/kernel/seccomp/actions_avail")), "`seccomp` is refused"),
        ("landlock", f"version {landlock}" if landlock else "no", landlock > 0, "no file rules without root"),
        ("splice", *_yes(hasattr(os, "splice")), "log output is copied through the daemon"),
    ]


def _room(state_dir: str) -> _Fact:
    try:
        disk = os.statvfs(state_dir)
    except OSError as error:
        return ("free space", f"{state_dir}: {error.strerror}", False, "state and images cannot be stored")
    free, total = disk.f_bavail * disk.f_frsize, disk.f_blocks * disk.f_frsize
    low = free < max(16 << 20, total // 50)
    value = f"{format_size(free)} of {format_size(total)} in {state_dir}"
    return ("free space", value, not low, "images may not fit; `maestro image gc` makes room")


def _damages(state_dir: str) -> _Fact:
    kept = [os.path.basename(path) for path in damaged_files(state_dir)]
    return (
        "state database",
        f"was damaged, kept as {', '.join(kept)}" if kept else "no damage seen",
        not kept,
        f"what came back may lack the last change; look, then remove the files in {state_dir}",
    )


def _open_files() -> _Fact:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    enough = hard == resource.RLIM_INFINITY or hard >= 1024
    return ("open files", f"{soft} of {hard}", enough, "fewer than a hundred jobs: each takes about ten")


def _yes(value: bool) -> tuple[str, bool]:
    return ("yes" if value else "no", value)


def _release() -> tuple[int, int]:
    major, minor = os.uname().release.split(".")[:2]
    return int(major), int("".join(c for c in minor if c.isdigit()) or "0")


def _pidfd() -> bool:
    try:
        os.close(os.pidfd_open(os.getpid()))
    except OSError:
        return False
    return True


def _pidfd_info() -> bool:
    try:
        pidfd = os.pidfd_open(os.getpid())
    except OSError:
        return False
    try:
        fcntl.ioctl(pidfd, kernel.PIDFD_GET_INFO, bytes(64))
    except OSError:
        return False
    finally:
        os.close(pidfd)
    return True


def _syscall(number: int, *arguments: object) -> tuple[int, int]:
    libc = ctypes.PyDLL(None, use_errno=True)
    result = libc.syscall(ctypes.c_long(number), *arguments)
    return result, ctypes.get_errno()


def _clone_into_cgroup() -> bool:
    # struct clone_args, linux/sched.h: flags first, cgroup last of eleven. The fd cannot exist, so no
    # child can come of it: EBADF from a kernel that looked, EINVAL, E2BIG or ENOSYS from one that did not.
    arguments = ctypes.create_string_buffer(
        struct.pack("=11Q", kernel.CLONE_INTO_CGROUP, *[0] * 3, 17, *[0] * 5, _NO_FD)
    )
    result, error = _syscall(kernel.SYS_CLONE3, arguments, ctypes.c_size_t(88))
    return result < 0 and error == errno.EBADF


def _landlock() -> int:
    # flag 1 asks for the version only
    version, _ = _syscall(_LANDLOCK_CREATE_RULESET, None, ctypes.c_size_t(0), ctypes.c_uint(1))
    return max(0, version)


def _user_namespaces() -> bool:
    def value(path: str) -> int:
        try:
            with open(path, encoding="ascii") as file:
                return int(file.read())
        except (OSError, ValueError):
            return -1

    if not os.path.exists("/proc/self/ns/user") or value("/proc/sys/user/max_user_namespaces") == 0:
        return False
    if os.geteuid() == 0:
        return True
    closed = value("/proc/sys/kernel/unprivileged_userns_clone") == 0
    return not closed and value("/proc/sys/kernel/apparmor_restrict_unprivileged_userns") != 1
