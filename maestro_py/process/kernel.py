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
from collections.abc import Sequence
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

# linux/reboot.h
REBOOT_RESTART = 0x01234567
REBOOT_HALT = 0xCDEF0123
REBOOT_POWER_OFF = 0x4321FEDC
REBOOT_CAD_OFF = 0

# include/uapi/linux/sched.h
CLONE_PIDFD = 0x1000
CLONE_NEWNS = 0x20000
CLONE_NEWUTS = 0x4000000
CLONE_NEWIPC = 0x8000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000
CLONE_INTO_CGROUP = 0x200000000

# include/uapi/linux/inotify.h
IN_CLOSE_WRITE = 0x8
IN_MOVED_TO = 0x80
IN_CREATE = 0x100

# include/linux/splice.h
SPLICE_F_NONBLOCK = 2

# include/uapi/linux/prctl.h
PR_SET_PDEATHSIG = 1
PR_GET_PDEATHSIG = 2
PR_SET_DUMPABLE = 4
PR_SET_SECCOMP = 22
PR_CAPBSET_DROP = 24
PR_SET_SECUREBITS = 28
PR_SET_CHILD_SUBREAPER = 36
PR_SET_NO_NEW_PRIVS = 38
PR_CAP_AMBIENT = 47
PR_CAP_AMBIENT_RAISE = 2
PR_CAP_AMBIENT_CLEAR_ALL = 4

# include/uapi/linux/seccomp.h
SECCOMP_MODE_FILTER = 2

# include/uapi/linux/securebits.h
SECBIT_NOROOT = 1
SECBIT_NOROOT_LOCKED = 2
SECBIT_KEEP_CAPS = 16

# include/uapi/linux/capability.h
_CAPABILITY_VERSION_3 = 0x20080522
_CAPABILITY_HEADER = struct.Struct("=2I")
_CAPABILITY_DATA = struct.Struct("=6I")

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


def _call(call: str, *arguments: object, path: str | bytes = "") -> int:
    """Call a function of libc, and again when a signal came between, as os does by itself (PEP 475)."""
    function = getattr(_libc, call)
    while (result := function(*arguments)) < 0 and _ctypes.get_errno() == errno.EINTR:
        pass
    return _check(result, call, path)


def mount(source: str, target: str, fstype: str | None, flags: int, data: str = "") -> None:
    """mount(2). `filename` of the error is the target."""
    load()
    _call(
        "mount",
        os.fsencode(source),
        os.fsencode(target),
        fstype.encode() if fstype else None,
        _ctypes.c_ulong(flags),
        data.encode() if data else None,
        path=target,
    )


def umount(target: str, flags: int = 0) -> None:
    """umount2(2)."""
    load()
    _call("umount2", os.fsencode(target), flags, path=target)


def reboot(command: int) -> None:
    """reboot(2), with one of the REBOOT_ constants. Writes nothing that is still in memory to a disk."""
    load()
    _check(_libc.reboot(_ctypes.c_int(command)), "reboot")


def pivot_root(new_root: str, put_old: str) -> None:
    """pivot_root(2); glibc and musl export it without a header."""
    load()
    _check(_libc.pivot_root(os.fsencode(new_root), os.fsencode(put_old)), "pivot_root", new_root)


def unshare(flags: int) -> None:
    """unshare(2)."""
    load()
    _check(_libc.unshare(_ctypes.c_int(flags)), "unshare")


def setns(fd: int, kind: int) -> None:
    """setns(2): join the namespace behind a descriptor; kind is its CLONE_NEW* flag."""
    load()
    _check(_libc.setns(fd, _ctypes.c_int(kind)), "setns")


def inotify(paths: Sequence[str], events: int) -> int:
    """inotify(7): return a descriptor, not blocking, that tells of these events of files and directories.

    A path that is not there is left out.
    """
    load()
    fd = _check(_libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC), "inotify_init1")
    try:
        for path in paths:
            try:
                _check(_libc.inotify_add_watch(fd, os.fsencode(path), events), "inotify_add_watch", path)
            except FileNotFoundError:
                pass
    except OSError:
        os.close(fd)
        raise
    return fd


def tee(source: int, target: int, size: int) -> int:
    """tee(2): copy up to `size` bytes from one pipe into another and leave them there. Never waits."""
    load()
    return _call("tee", source, target, _ctypes.c_size_t(size), SPLICE_F_NONBLOCK)


def prctl(option: int, argument: int = 0, second: int = 0) -> int:
    """prctl(2) with one or two arguments, the others 0."""
    load()
    zero = _ctypes.c_ulong(0)
    first, other = _ctypes.c_ulong(argument), _ctypes.c_ulong(second)
    return _check(_libc.prctl(option, first, other, zero, zero), "prctl")


def set_capabilities(mask: int) -> None:
    """capset(2): make the permitted, effective and inheritable sets of this thread exactly `mask`."""
    load()
    low, high = mask & 0xFFFFFFFF, mask >> 32
    # two structures of 32-bit numbers: version and pid; effective, permitted, inheritable, low and high
    header = _CAPABILITY_HEADER.pack(_CAPABILITY_VERSION_3, 0)
    _check(_libc.capset(header, _CAPABILITY_DATA.pack(low, low, low, high, high, high)), "capset")


def set_seccomp(program: bytes) -> None:
    """prctl(PR_SET_SECCOMP) with a filter: struct sock_filter entries of eight bytes each, seccomp(2)."""
    load()
    code = _ctypes.create_string_buffer(program, len(program))
    # struct sock_fprog: unsigned short len; struct sock_filter *filter;
    header = struct.pack("@HP", len(program) // 8, _ctypes.addressof(code))
    fprog = _ctypes.create_string_buffer(header, len(header))
    prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, _ctypes.addressof(fprog))


_capabilities: dict[str, int] | None = None


def capabilities() -> dict[str, int]:
    """Return the capability sets of this process by the names of proc_pid_status(5), as CapPrm. Read once."""
    global _capabilities
    if _capabilities is None:
        lines = _read("/proc/self/status").decode().splitlines()
        pairs = (line.split(":\t") for line in lines if line.startswith("Cap"))
        _capabilities = {name: int(digits, 16) for name, digits in pairs}
    return _capabilities


def trim() -> None:
    """malloc_trim(3): give free heap pages back; the imports of a start leave a megabyte. glibc only."""
    load()
    try:
        _libc.malloc_trim(0)
    except AttributeError:
        pass  # another C library


def clone_into_cgroup(cgroup_fd: int) -> tuple[int, int]:
    """fork() into a cgroup v2 directory; see `clone`."""
    return clone(0, cgroup_fd)


def clone(flags: int, cgroup_fd: int | None = None) -> tuple[int, int]:
    """fork() into new namespaces and a cgroup: return (pid, pidfd) in the parent, (0, -1) in the child.

    clone3(2) with CLONE_PIDFD, Linux 5.3; CLONE_INTO_CGROUP came in 5.7. libc's fork handlers do not
    run, so it is for single-threaded callers that exec soon. The pidfd is close-on-exec.
    """
    load()
    pidfd = _ctypes.c_int(-1)
    flags |= CLONE_PIDFD | (CLONE_INTO_CGROUP if cgroup_fd is not None else 0)
    # struct clone_args: flags pidfd child_tid parent_tid exit_signal stack stack_size tls set_tid
    # set_tid_size cgroup.
    fields = (flags, _ctypes.addressof(pidfd), 0, 0, int(SIGCHLD), 0, 0, 0, 0, 0, cgroup_fd or 0)
    args = (_ctypes.c_uint64 * 11)(*fields)
    result = _libc_gil.syscall(
        _ctypes.c_long(SYS_CLONE3), _ctypes.byref(args), _ctypes.c_size_t(_ctypes.sizeof(args))
    )
    _check(result, "clone3")
    return result, pidfd.value


def fork_into_pid_namespace() -> int:
    """fork() into a new pid namespace where clone3 is not to be had; the caller itself stays in its own."""
    own = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
    try:
        unshare(CLONE_NEWPID)
        pid = -1
        try:
            pid = os.fork()
        finally:
            if pid != 0:
                setns(own, CLONE_NEWPID)
        return pid
    finally:
        os.close(own)


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


def zombie_status(pid: int) -> int | None:
    """Return the wait status of a process that ended and is not reaped yet; None when there is none.

    Field 52 of proc_pid_stat(5), which reads 0 for whoever may not trace the process.
    """
    try:
        fields = stat_fields(pid)
        return int(fields[49]) if fields[0] == b"Z" else None
    except (OSError, IndexError, ValueError):
        return None


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
