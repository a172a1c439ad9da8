# SPDX-License-Identifier: Apache-2.0
"""One thin wrapper per system call Python lacks, and the facts /proc tells about a process.

Every wrapper raises OSError with errno and, where there is one, the path in `filename`. ctypes is
loaded at the first call, so a daemon that needs none of these never pays for it; `load()` does it
before a fork, because a forked child must not import.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from signal import SIGCHLD
from typing import Any

# include/uapi/linux/mount.h
MS_RDONLY = 1
MS_NOSUID = 2
MS_NODEV = 4
MS_NOEXEC = 8
MS_REMOUNT = 32
MS_BIND = 4096
MS_REC = 16384
MS_PRIVATE = 1 << 18
MS_SLAVE = 1 << 19

# include/linux/fs.h
MNT_DETACH = 2

# include/uapi/linux/sched.h
CLONE_PIDFD = 0x1000
CLONE_NEWNS = 0x20000
CLONE_INTO_CGROUP = 0x200000000

# include/uapi/linux/prctl.h
PR_SET_PDEATHSIG = 1
PR_GET_PDEATHSIG = 2
PR_SET_CHILD_SUBREAPER = 36
PR_SET_NO_NEW_PRIVS = 38

# include/uapi/asm-generic/unistd.h; the same number on every architecture but alpha.
SYS_CLONE3 = 435

# include/uapi/linux/pidfd.h: struct pidfd_info as of 6.13, 64 bytes.
PIDFD_GET_INFO = 0xC040FF0B  # _IOWR(0xFF, 11, struct pidfd_info)
PIDFD_INFO_EXIT = 1 << 3
_PIDFD_INFO = struct.Struct("=QQ11Ii")
assert _PIDFD_INFO.size == 64

_libc: Any = None
_libc_gil: Any = None
_ctypes: Any = None


def load() -> None:
    """Load libc through ctypes, once. Call it before a fork whose child uses these wrappers."""
    global _libc, _libc_gil, _ctypes
    if _libc is None:
        import ctypes

        _ctypes = ctypes
        # PyDLL keeps the GIL: a child made by clone3 must come back holding it, as its only thread.
        _libc_gil = ctypes.PyDLL(None, use_errno=True)
        _libc = ctypes.CDLL(None, use_errno=True)
        _libc.syscall.restype = _libc_gil.syscall.restype = ctypes.c_long


def _check(result: int, call: str, path: str | bytes = "") -> int:
    if result >= 0:
        return result
    number = _ctypes.get_errno()
    text = os.strerror(number)
    if number == errno.ENOSYS:
        text = f"this kernel has no {call}()"
    raise OSError(number, text, path) if path else OSError(number, text)


def mount(source: str, target: str, fstype: str | None, flags: int, data: str = "") -> None:
    """mount(2). `filename` of the error is the target."""
    load()
    _check(
        _libc.mount(
            os.fsencode(source),
            os.fsencode(target),
            fstype.encode() if fstype else None,
            _ctypes.c_ulong(flags),
            data.encode() if data else None,
        ),
        "mount",
        target,
    )


def umount(target: str, flags: int = 0) -> None:
    """umount2(2)."""
    load()
    _check(_libc.umount2(os.fsencode(target), flags), "umount2", target)


def pivot_root(new_root: str, put_old: str) -> None:
    """pivot_root(2); glibc and musl export it without a header."""
    load()
    _check(_libc.pivot_root(os.fsencode(new_root), os.fsencode(put_old)), "pivot_root", new_root)


def unshare(flags: int) -> None:
    """unshare(2)."""
    load()
    _check(_libc.unshare(_ctypes.c_int(flags)), "unshare")


def prctl(option: int, argument: int = 0) -> int:
    """prctl(2) with one argument, the others 0."""
    load()
    zero = _ctypes.c_ulong(0)
    return _check(_libc.prctl(option, _ctypes.c_ulong(argument), zero, zero, zero), "prctl")


def trim() -> None:
    """malloc_trim(3): give free heap pages back; the imports of a start leave a megabyte. glibc only."""
    load()
    try:
        _libc.malloc_trim(0)
    except AttributeError:
        pass  # another C library


def clone_into_cgroup(cgroup_fd: int) -> tuple[int, int]:
    """fork() into a cgroup v2 directory: return (pid, pidfd) in the parent, (0, -1) in the child.

    clone3(2) with CLONE_INTO_CGROUP | CLONE_PIDFD, Linux 5.7. libc's fork handlers do not run, so it
    is for single-threaded callers that exec soon. The pidfd is close-on-exec.
    """
    load()
    pidfd = _ctypes.c_int(-1)
    # struct clone_args: flags pidfd child_tid parent_tid exit_signal stack stack_size tls set_tid
    # set_tid_size cgroup.
    fields = (
        CLONE_PIDFD | CLONE_INTO_CGROUP,
        _ctypes.addressof(pidfd),
        0,
        0,
        int(SIGCHLD),
        0,
        0,
        0,
        0,
        0,
        cgroup_fd,
    )
    args = (_ctypes.c_uint64 * 11)(*fields)
    result = _libc_gil.syscall(
        _ctypes.c_long(SYS_CLONE3), _ctypes.byref(args), _ctypes.c_size_t(_ctypes.sizeof(args))
    )
    _check(result, "clone3")
    return result, pidfd.value


def pidfd_exit_status(pidfd: int) -> int | None:
    """Return the wait status of the process behind a pidfd, also of one that was not our child.

    Linux 6.15 keeps it after the process was reaped (poll then reports POLLHUP); None: not ended,
    not reaped, or a kernel that does not tell.
    """
    request = bytearray(_PIDFD_INFO.pack(PIDFD_INFO_EXIT, *(0,) * 13))
    try:
        fcntl.ioctl(pidfd, PIDFD_GET_INFO, request)
    except OSError:
        return None
    fields = _PIDFD_INFO.unpack(request)
    return int(fields[-1]) & 0xFFFF if fields[0] & PIDFD_INFO_EXIT else None


def _read(path: str) -> bytes:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(fd, 4096)
    finally:
        os.close(fd)


def stat_fields(pid: int) -> list[bytes]:
    """Return /proc/PID/stat from its third field (the state) on; the name before it may hold anything.

    Raises OSError when the process is gone.
    """
    return _read(f"/proc/{pid}/stat").rpartition(b")")[2].split()


def start_ticks(pid: int) -> int:
    """Return when the process was started, in clock ticks since boot (field 22 of proc_pid_stat(5))."""
    return int(stat_fields(pid)[19])


_boot_id = ""


def boot_id() -> str:
    """Return the random id of this boot (proc_sys_kernel(5)); empty where /proc does not tell."""
    global _boot_id
    if not _boot_id:
        try:
            _boot_id = _read("/proc/sys/kernel/random/boot_id").decode().strip()
        except OSError:
            pass
    return _boot_id
