# SPDX-License-Identifier: Apache-2.0
"""What processes print, from their FIFOs to their logs, at the pace that costs least."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from maestro_py.daemon import log
from maestro_py.daemon.logroom import LogRoom
from maestro_py.daemon.loop import Loop
from maestro_py.daemon.paths import Paths
from maestro_py.daemon.unit import Unit
from maestro_py.process.output import PIPE_SIZE, Output

RUSH, GATHER = 0.005, 0.001
"""A job that writes again within RUSH seconds is read GATHER seconds later, to find more at once."""

FULL, EAGER = PIPE_SIZE * 3 // 4, 500
"""A job that filled this much of its pipe meanwhile is read at once for the next EAGER times."""

CLEAN_AFTER = 1.0
"""Seconds in which changes of the processes are gathered before their logs are looked through."""


class Capture:
    """The outputs of all units. ready: called when a unit has printed its OK string.

    logs: what room there is for all; log_size: bytes each log may have. logged: bytes since the daemon began.
    """

    def __init__(self, loop: Loop, paths: Paths, logs: LogRoom, ready: Callable[[Unit], None]) -> None:
        self.loop = loop
        self.paths = paths
        self.logs = logs
        self.log_size = logs.size_for(1)
        self.logged = 0
        self._ready = ready
        self._sharing = False
        self._cleaning = False

    def open(self, unit: Unit, owner: tuple[int, int] | None) -> None:
        """Make what takes the unit's output, or tell it whose the FIFOs are now. Raises MaestroError."""
        if unit.output:
            unit.output.owner = owner
            return
        unit.output = Output(
            unit.name,
            self.paths.run,
            self.paths.log,
            max_size=self.log_size,
            max_files=self.logs.files,
            ok_string=None,
            owner=owner,
        )

    def listen(self, unit: Unit) -> None:
        """Take what the unit's processes print from now on."""
        unit.listening = True
        for fd in unit.output.fds() if unit.output else ():
            self._watch(unit, fd)

    def finish(self, unit: Unit) -> None:
        """Take what is left of the unit's output, now that nobody prints any more."""
        unit.listening = False
        if unit.output:
            for fd in unit.output.fds():
                self.loop.remove_reader(fd)
            before = unit.output.position
            try:
                found = unit.output.finish()
            except OSError as error:  # whatever it is, the process has ended and goes its way
                log.error(f"cannot take what {unit.name} printed last: {error.strerror}")
                found = False
            if found:
                self._ready(unit)
            self.logged += unit.output.position - before
            unit.written.notify()

    def share(self, units: Mapping[str, Unit]) -> None:
        """The number of units has changed, and so has what each may log: once for many changes."""
        if not self._sharing:
            self._sharing = True
            self.loop.call_soon(lambda: self._resize(units))
        if not self._cleaning:
            self._cleaning = True
            self.loop.call_later(CLEAN_AFTER, lambda: self._clean(units))

    def _resize(self, units: Mapping[str, Unit]) -> None:
        self._sharing = False
        size = self.logs.size_for(len(units))
        if size != self.log_size:
            self.log_size = size
            for unit in units.values():
                if unit.output:
                    unit.output.resize(size)

    def _clean(self, units: Mapping[str, Unit]) -> None:
        self._cleaning = False
        try:
            deleted = self.logs.clean(units)
        except OSError as error:
            log.warning(f"cannot clean up {self.paths.log}: {error.strerror}")
        else:
            if deleted:
                log.info(f"logs are more than log_total_size; deleted {', '.join(deleted)}")

    def _watch(self, unit: Unit, fd: int) -> None:
        if unit.output and unit.listening and fd in unit.output.fds():
            self.loop.add_reader(fd, lambda: self._pump(unit, fd))

    def _pump(self, unit: Unit, fd: int) -> None:
        output = unit.output
        if output is None:
            return
        before = output.position
        if output.pump(fd):
            self._ready(unit)
        unit.written.notify()
        now = self.loop.time()
        moved, since = output.position - before, now - unit.pumped
        self.logged += moved
        unit.pumped = now
        if since > RUSH:
            unit.eager = 0
        elif moved >= FULL:
            unit.eager = EAGER  # it fills the pipe while we wait: waiting would hold it up
        elif unit.eager:
            unit.eager -= 1
        if since < RUSH and not unit.eager and not output.waiting:
            # it writes line by line: let some gather in the pipe, a wake-up for each costs more than they do
            self.loop.remove_reader(fd)
            self.loop.call_later(GATHER, lambda: self._watch(unit, fd))
