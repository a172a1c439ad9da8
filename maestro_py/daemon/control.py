# SPDX-License-Identifier: Apache-2.0
"""What is done to the processes of a unit that runs: signals, freezing, limits, the end of them all."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

from maestro_py.daemon import log
from maestro_py.daemon.loop import Loop
from maestro_py.daemon.oom import OomWatch
from maestro_py.daemon.unit import Unit
from maestro_py.errors import MaestroError
from maestro_py.process import pidns, reaper
from maestro_py.process.cgroups import Cgroups


class Control:
    """Reaches processes through their pidfd and their control group.

    record: writes down what is known of a unit.
    """

    def __init__(self, loop: Loop, cgroups: Cgroups, record: Callable[[Unit], None]) -> None:
        self._loop = loop
        self._cgroups = cgroups
        self._record = record

    def open_group(self, unit: Unit) -> None:
        """Make the unit's control group unless it is there. Raises MaestroError."""
        if unit.cgroup is None:
            unit.cgroup = self._cgroups.create(unit.name, unit.process.limits)
            unit.oom = OomWatch(self._loop, unit.cgroup)

    def take_group(self, unit: Unit) -> None:
        """Take over the group an earlier daemon made for the unit, or make it. Raises MaestroError."""
        unit.cgroup = self._cgroups.open(unit.name) or self._cgroups.create(unit.name, unit.running.limits)
        unit.oom = OomWatch(self._loop, unit.cgroup)

    def close_group(self, unit: Unit) -> None:
        """Remove the group of a unit that is down."""
        if unit.oom:
            unit.oom.close()
            unit.oom = None
        if unit.cgroup:
            group, unit.cgroup = unit.cgroup, None
            try:
                if not group.remove():
                    log.warning(f"the control group of {unit.name} is still in use")
            except MaestroError as error:
                log.warning(error.message)
            group.close()

    def terminate(self, unit: Unit) -> None:
        """Ask every process of the unit to end, with its stop signal."""
        self.signal(unit, unit.process.stop_signal, everybody=True)
        self.resume(unit)  # now: what is frozen meets the signal before anything else

    def kill(self, unit: Unit) -> None:
        """End every process of the unit now."""
        if unit.launch and unit.exit is None:
            reaper.send_signal(unit.launch.pidfd, signal.SIGKILL)
        if unit.cgroup:
            try:
                unit.paused = ""  # it thaws
                unit.cgroup.kill()
            except (MaestroError, OSError) as error:
                log.error(f"cannot kill the group of {unit.name}: {error}")

    def signal(self, unit: Unit, number: int, *, everybody: bool = False) -> None:
        """Send a signal to the main process, or to every process of the unit."""
        if unit.launch and unit.exit is None:
            private = unit.running.pids == "private"
            reaper.send_signal(
                unit.launch.pidfd, pidns.signal_for(unit.launch.pid, number) if private else number
            )
            if number == signal.SIGKILL:
                self.resume(unit)  # the freezer of v1 holds even that back
        if not everybody or unit.cgroup is None:
            return
        main = unit.launch.pid if unit.launch else 0
        for pid in unit.cgroup.pids():
            if pid == main:
                continue
            # a pid may be reused between reading it and signalling it: hold it first, then look again
            try:
                pidfd = os.pidfd_open(pid)
            except OSError:
                continue
            try:
                if pid in unit.cgroup.pids():
                    reaper.send_signal(pidfd, number)
            finally:
                os.close(pidfd)

    def set_limits(self, unit: Unit) -> None:
        """Write the limits of the definition in force to the running group."""
        if not unit.cgroup:
            return
        who = unit.paused
        self.resume(unit)  # a v1 group made now may bring a freezer
        try:
            unit.cgroup.set_limits(unit.process.limits)
        finally:
            if who:
                self.pause(unit, who)
        if unit.oom and unit.pid:
            unit.oom.watch(unit.pid)

    def pause(self, unit: Unit, who: str) -> None:
        """Freeze every process of the unit; it takes a moment, see `Cgroup.frozen`."""
        if unit.cgroup and unit.pid:
            unit.paused = who
            self._record(unit)
            unit.cgroup.freeze(True)

    def resume(self, unit: Unit) -> None:
        """Let the unit's processes go on, if they are frozen."""
        if unit.paused and unit.cgroup:
            unit.paused = ""
            try:
                unit.cgroup.freeze(False)
            except OSError as error:
                log.error(f"cannot thaw {unit.name}: {error.strerror}")
            self._record(unit)
