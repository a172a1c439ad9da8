# SPDX-License-Identifier: Apache-2.0
"""How processes ended, and who is who: exits, signals that never reach a stranger, identities."""

from __future__ import annotations

import os
import signal
from collections.abc import Container
from dataclasses import dataclass

from maestro_py.errors import MaestroError
from maestro_py.exits import Exit
from maestro_py.process import kernel
from maestro_py.units import signal_name


def _exit(info: os.waitid_result) -> Exit:
    if info.si_code == os.CLD_EXITED:
        return Exit(code=info.si_status)
    return Exit(signal=info.si_status, core=info.si_code == os.CLD_DUMPED)


def wait(pid: int, pidfd: int) -> Exit | None:
    """Return how the process behind `pidfd` ended, reaping it when it is a child; None while it lives.

    A process of somebody else has ended once its pidfd is readable. Its status is in /proc until it is
    reaped and with the pidfd after that (Linux 6.15); on older kernels a quick burial leaves it unknown.
    """
    try:
        info = os.waitid(os.P_PIDFD, pidfd, os.WEXITED | os.WNOHANG)
    except ChildProcessError:
        return _exit_of_stranger(pid, pidfd)
    except OSError:  # EINVAL: pidfds came in 5.3, waiting for one in 5.4
        info = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG)
    return _exit(info) if info is not None else None


def _exit_of_stranger(pid: int, pidfd: int) -> Exit | None:
    status = kernel.zombie_status(pid)
    if status is None or not alive(pidfd):  # reaped meanwhile: what /proc told may be another's
        status = kernel.pidfd_exit_status(pidfd)
    if status is not None:
        return Exit.from_wait_status(status)
    return None if alive(pidfd) else Exit()


def send_signal(pidfd: int, number: int) -> bool:
    """Signal the process behind `pidfd`; False when it is gone.

    Raises MaestroError when the kernel does not allow it.
    """
    try:
        signal.pidfd_send_signal(pidfd, number)
    except ProcessLookupError:
        return False
    except PermissionError as error:
        raise MaestroError(f"cannot send {signal_name(number)}: {error.strerror}", code="forbidden") from None
    return True


def alive(pidfd: int) -> bool:
    """Return whether the process exists, be it as a zombie."""
    try:
        signal.pidfd_send_signal(pidfd, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def reap_strangers(known: Container[int]) -> list[tuple[int, Exit]]:
    """Reap dead children that are not in `known`: those a sub-reaper inherited. Known ones are left.

    waitid for any child would keep offering the same known zombie, so the children are listed and
    asked one by one.
    """
    try:
        if os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            return []
    except ChildProcessError:
        return []
    reaped = []
    for pid in children(os.getpid()):
        if pid in known:
            continue
        try:
            info = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG)
        except ChildProcessError:
            continue
        if info is not None:
            reaped.append((pid, _exit(info)))
    return reaped


def children(pid: int) -> list[int]:
    """Return the pids of the direct children, the dead not yet reaped included."""
    found: list[int] = []
    try:
        for thread in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{thread}/children", "rb") as file:  # CONFIG_PROC_CHILDREN
                found += map(int, file.read().split())
    except ProcessLookupError:
        pass
    except FileNotFoundError:
        if os.path.exists(f"/proc/{pid}"):
            return [child for child, parent in _parents().items() if parent == pid]
    return found


def descendants(pid: int) -> list[int]:
    """Return all pids below `pid`, parents first. A process that was adopted by init is not among them."""
    below: dict[int, list[int]] = {}
    for child, parent in _parents().items():
        below.setdefault(parent, []).append(child)
    found, todo = [], [pid]
    while todo:
        step = below.get(todo.pop(0), [])
        found += step
        todo += step
    return found


def _parents() -> dict[int, int]:
    """Return pid -> parent pid of everything in /proc (fields 1 and 4 of proc_pid_stat(5))."""
    table = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                table[int(name)] = int(kernel.stat_fields(int(name))[1])
            except (OSError, IndexError):
                continue
    return table


@dataclass(frozen=True, slots=True)
class Identity:
    """One process for ever: a pid comes back, but not at the same tick of the same boot."""

    boot_id: str
    pid: int
    start_ticks: int

    @classmethod
    def of(cls, pid: int) -> Identity:
        """Return the identity of a process that is there now. Raises OSError when it is gone."""
        return cls(kernel.boot_id(), pid, kernel.start_ticks(pid))


def still_same(identity: Identity, pidfd: int) -> bool:
    """Return whether `pidfd`, opened before this call, is the process of `identity`. In doubt it is not."""
    if not identity.boot_id or identity.boot_id != kernel.boot_id():
        return False
    try:
        if kernel.start_ticks(identity.pid) != identity.start_ticks:
            return False
        with open(f"/proc/self/fdinfo/{pidfd}", "rb") as file:  # its Pid is -1 once the process is gone
            return b"\nPid:\t%d\n" % identity.pid in file.read()
    except (OSError, IndexError, ValueError):
        return False
