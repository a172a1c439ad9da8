# SPDX-License-Identifier: Apache-2.0
"""Helper program: writes the default system call filter of this machine to stdout, as BPF.

The profile refuses what administers or attacks a kernel and what no job on a device has use for; all
else is allowed, so that a new C library keeps working. A refused call fails with EPERM. clone3 fails
with ENOSYS: its flags cannot be looked at, and C libraries then use clone, whose flags can.
libseccomp does the compiling, through either of its Python modules.
"""

from __future__ import annotations

import errno
import sys
from types import ModuleType

from maestro_py.process.seccomp import NO_LIBRARY

REFUSED = (
    "acct add_key bpf clock_adjtime clock_adjtime64 clock_settime clock_settime64 create_module "
    "delete_module finit_module fsconfig fsmount fsopen fspick get_kernel_syms get_mempolicy "
    "init_module io_uring_enter io_uring_register io_uring_setup ioperm iopl kcmp kexec_file_load "
    "kexec_load keyctl lookup_dcookie mbind migrate_pages modify_ldt mount mount_setattr move_mount "
    "move_pages nfsservctl open_by_handle_at open_tree perf_event_open pivot_root process_vm_readv "
    "process_vm_writev ptrace query_module quotactl quotactl_fd reboot request_key set_mempolicy "
    "set_mempolicy_home_node setdomainname sethostname setns settimeofday stime swapoff swapon sysfs "
    "_sysctl syslog umount umount2 unshare uselib userfaultfd ustat vhangup vm86 vm86old"
)
"""Administration of the machine, other processes' memory, namespaces, and entries with a bad record."""

NAMESPACES = (0x80, 0x20000, 0x2000000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000)
"""CLONE_NEW* of include/uapi/linux/sched.h: time, mount, cgroup, uts, ipc, user, pid, net."""

FAMILIES = (21, 30, 38, 40, 41, 42)
"""Socket families with a bad record that need no capability: RDS, TIPC, ALG, VSOCK, KCM, QIPCRTR."""

TERMINAL_CALLS = (0x5412, 0x541C)
"""ioctl(2) requests that type into a terminal: TIOCSTI and TIOCLINUX."""

_LOW = 0xFFFFFFFF


def library() -> ModuleType | None:
    """Return the Python module of libseccomp, the official one first; None when there is none."""
    for name in ("seccomp", "pyseccomp"):
        try:
            module = __import__(name)
        except (ImportError, RuntimeError, OSError):
            continue
        if hasattr(module, "SyscallFilter"):
            return module
    return None


def compile_to(file: object, lib: ModuleType) -> None:
    """Write the filter as an array of struct sock_filter."""
    profile = lib.SyscallFilter(lib.ALLOW)
    profile.set_attr(lib.Attr.ACT_BADARCH, lib.ERRNO(errno.ENOSYS))
    # programs of the machine's 32-bit sibling run too, under the same rules
    siblings = {"X86_64": "X86", "AARCH64": "ARM"}
    for name, sibling in siblings.items():
        if lib.system_arch() == getattr(lib.Arch, name):
            profile.add_arch(getattr(lib.Arch, sibling))
    refuse = lib.ERRNO(errno.EPERM)
    for name in REFUSED.split():
        _add(profile, refuse, name)
    for flag in NAMESPACES:
        _add(profile, refuse, "clone", lib.Arg(0, lib.MASKED_EQ, flag, flag))
    for family in FAMILIES:
        _add(profile, refuse, "socket", lib.Arg(0, lib.EQ, family))
    for request in TERMINAL_CALLS:
        _add(profile, refuse, "ioctl", lib.Arg(1, lib.MASKED_EQ, _LOW, request))
    _add(profile, lib.ERRNO(errno.ENOSYS), "clone3")
    profile.export_bpf(file)


def _add(profile: object, action: int, name: str, *arguments: object) -> None:
    try:
        profile.add_rule(action, name, *arguments)  # type: ignore[attr-defined]
    except (OSError, RuntimeError, ValueError):
        pass  # this libseccomp does not know the call, or the machine does not have it


def main() -> int:
    """Return the exit status."""
    lib = library()
    if lib is None:
        return NO_LIBRARY
    compile_to(sys.stdout.buffer, lib)
    return 0


if __name__ == "__main__":
    sys.exit(main())
