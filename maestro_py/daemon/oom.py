# SPDX-License-Identifier: Apache-2.0
"""Was it the memory limit? Tells a death by the kernel's OOM killer from any other, child's play included.

The kernel counts the kills of a group before it sends the signal, so a count that has risen since the
launch is seen at every death by it. On cgroup v2 such a kill ends the whole group, and nothing survives
one. On v1 it ends one process: a job whose helper was killed either dies of that soon, or lives on, and
then its later death is another story. The lack of memory wakes us there; who is alive SURVIVED seconds
later has survived it.
"""

from __future__ import annotations

import os
import signal

from maestro_py.daemon.loop import Loop, Timer
from maestro_py.exits import Exit
from maestro_py.process import kernel
from maestro_py.process.cgroups import Cgroup
from maestro_py.units import format_size

SURVIVED = 2.0
"""Seconds within which a death follows from the kill of another process of the group."""

_EXITING = 0x4  # PF_EXITING, include/linux/sched.h: in the flags field of proc_pid_stat(5)
_FLAGS, _PENDING = 6, 28  # fields 9 and 31, counted from the state


class OomWatch:
    """Kills for memory in one group, over all launches into it."""

    def __init__(self, loop: Loop, group: Cgroup) -> None:
        self._loop = loop
        self._group = group
        self._known = 0  # kills that can no longer be the cause of a death
        self._pid = 0
        self._fd: int | None = None
        self._timer: Timer | None = None

    def launching(self) -> None:
        """Forget what happened to earlier launches."""
        self._stop_timer()
        self._known = self._group.oom_kills()

    def watch(self, pid: int) -> None:
        """Watch over the main process; say it again when the group may have got a memory limit."""
        self._pid = pid
        fd = self._group.oom_fd()
        if fd is not None and fd != self._fd:
            self._fd = fd
            self._loop.add_reader(fd, self._lacking)

    def sentence(self, exit: Exit) -> str:
        """Return how memory was the cause of the main process's end, or nothing. Ask at that end."""
        self._stop_timer()
        self._pid = 0
        if exit.code == 0 or self._group.oom_kills() <= self._known:
            return ""
        killed = exit.signal == signal.SIGKILL
        if not killed and self._fd is None:
            return ""  # a kill that ends the whole group did not end this one
        memory = self._group.memory()
        limit = f", limit {format_size(memory.limit)}" if memory.limit else ""
        peak = f", peak {format_size(memory.peak)}" if memory.peak else ""
        if killed:
            return f"killed for memory{limit}{peak}"
        return f"a process of it was killed for memory{limit}{peak}; then {exit.describe()}"

    def close(self) -> None:
        """Stop watching; before the group is closed."""
        self._stop_timer()
        if self._fd is not None:
            self._loop.remove_reader(self._fd)
            self._fd = None

    def _lacking(self) -> None:
        assert self._fd is not None
        try:
            os.eventfd_read(self._fd)
        except BlockingIOError:
            return
        self._stop_timer()  # the last lack counts
        self._timer = self._loop.call_later(SURVIVED, self._judge)

    def _judge(self) -> None:
        self._timer = None
        if not self._pid:
            return
        kills = self._group.oom_kills()
        if _doomed(self._pid):
            self._timer = self._loop.call_later(SURVIVED, self._judge)
        else:
            self._known = kills

    def _stop_timer(self) -> None:
        if self._timer:
            self._timer.cancel()
            self._timer = None


def _doomed(pid: int) -> bool:
    """Whether a process is dead, dying, or has the order to die before it: a big one takes its time."""
    try:
        fields = kernel.stat_fields(pid)
    except OSError:
        return True
    pending = int(fields[_PENDING]) >> signal.SIGKILL - 1 & 1
    return fields[0] in b"ZX" or bool(int(fields[_FLAGS]) & _EXITING) or bool(pending)
