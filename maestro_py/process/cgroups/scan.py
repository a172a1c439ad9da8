# SPDX-License-Identifier: Apache-2.0
"""Without control groups: processes found by descent and by a mark in their environment.

The mark survives a double fork, a new session and a crash of the daemon. What it does not survive is
a descendant that clears its environment after its parents have gone, nor can one be caught that forks a
successor and exits faster than /proc can be read; only a real group holds those.
"""

from __future__ import annotations

import os
import signal

from maestro_py.process import kernel
from maestro_py.process.cgroups.port import Cgroup, Cgroups
from maestro_py.process.cgroups.signals import signal_all, start_ticks
from maestro_py.process.cgroups.values import set_fields
from maestro_py.spec.model import Limits

PROCESS = "MAESTRO_PROCESS"
INSTANCE = "MAESTRO_INSTANCE"

KILL_TIME = 0.5  # seconds for one `kill`: enough for hundreds of processes, short enough for the daemon


class ScanCgroup(Cgroup):
    """The processes that descend from one, or carry its mark."""

    def __init__(self, name: str, base: str) -> None:
        self.name = name
        self._base = base
        self._root: tuple[int, int | None] | None = None

    @property
    def env(self) -> tuple[tuple[str, str], ...]:
        """Return the mark."""
        return ((PROCESS, self.name), (INSTANCE, self._base))

    def attach(self, pid: int) -> None:
        """Take note of the process all others descend from; its start tells it from a later namesake."""
        self._root = (pid, start_ticks(pid))

    def pids(self) -> list[int]:
        """Return what is alive of the process, its descendants and whatever carries the mark."""
        parents: dict[int, int] = {}
        found = set()
        for pid in _others():
            try:
                fields = kernel.stat_fields(pid)
            except OSError:
                continue
            if fields[0] in b"ZX" and _threads(pid) < 2:
                continue
            parents[pid] = int(fields[1])
            if (pid, int(fields[19])) == self._root:
                found.add(pid)
        found.update(pid for pid in parents if _mark(pid, self._base) == self.name)
        grown = True
        while grown:
            below = {pid for pid, parent in parents.items() if parent in found} - found
            found |= below
            grown = bool(below)
        return sorted(found)

    def holds(self, pid: int) -> bool:
        """Return true: a program may have overwritten its mark, which then tells nothing."""
        return True

    def kill(self) -> None:
        """SIGKILL all of them until none is left, for half a second at most."""
        signal_all(self.pids, signal.SIGKILL, wait=KILL_TIME)

    def freeze(self, on: bool) -> None:
        """Stop or continue all of them by signal; their parents can see it, unlike with a group."""
        signal_all(self.pids, signal.SIGSTOP if on else signal.SIGCONT)

    def frozen(self) -> bool:
        """Return whether all of them are stopped (state T of proc_pid_stat(5))."""
        return all(_state(pid) in b"TZX" for pid in self.pids())

    def remove(self) -> bool:
        """Return whether nothing is left: there is no group to remove."""
        return not self.populated()


class ScanCgroups(Cgroups):
    """No control groups: no limits either."""

    kind = "none"

    def __init__(self, base: str, why: str) -> None:
        self.base = base
        self.notes = (f"no limits, and processes that clear their environment can escape: {why}",)
        self._why = why

    def create(self, name: str, limits: Limits) -> Cgroup:
        """Return the handle; limits were answered by `unsupported`."""
        return ScanCgroup(name, self.base)

    def existing(self) -> list[str]:
        """Return the names in the marks of this daemon's processes."""
        return marked_names(self.base)

    def open(self, name: str) -> Cgroup | None:
        """Return a handle when something carries that mark."""
        group = ScanCgroup(name, self.base)
        return group if group.populated() else None

    def unsupported(self, limits: Limits) -> list[str]:
        """Return a sentence for every limit that is set."""
        return [f"{field}: {self._why}" for field in set_fields(limits)]

    def describe(self) -> str:
        """Return one line for people."""
        return f"none: {self._why}"


def marked_names(base: str) -> list[str]:
    """Return the names of the processes that carry the mark of the daemon whose base this is."""
    names = {_mark(pid, base) for pid in _others()}
    return sorted(name for name in names if name)


def _others() -> list[int]:
    # not ourselves: a daemon may be a marked process of another one
    return [int(name) for name in os.listdir("/proc") if name.isdigit() and int(name) not in (1, os.getpid())]


def _state(pid: int) -> bytes:
    try:
        return kernel.stat_fields(pid)[0]
    except OSError:  # gone
        return b"X"


def _threads(pid: int) -> int:
    # the first thread may have ended while others run: the process is then alive, though it reads Z
    try:
        return len(os.listdir(f"/proc/{pid}/task"))
    except OSError:
        return 0


def _mark(pid: int, base: str) -> str:
    try:
        fd = os.open(f"/proc/{pid}/environ", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:  # gone, or somebody else's
        return ""
    try:
        chunks = [b"\0"]
        while chunk := os.read(fd, 65536):
            chunks.append(chunk)
    except OSError:
        return ""
    finally:
        os.close(fd)
    data = b"".join(chunks)
    if f"\0{INSTANCE}={base}\0".encode() not in data:
        return ""
    _, found, rest = data.partition(f"\0{PROCESS}=".encode())
    return rest.partition(b"\0")[0].decode(errors="surrogateescape") if found else ""
