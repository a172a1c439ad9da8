# SPDX-License-Identifier: Apache-2.0
"""Watches processes that run a new version of an image until it has proved itself, or has not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from maestro_py.daemon.supervisor import Supervisor
from maestro_py.daemon.waiting import Task, TimedOutError
from maestro_py.probation import Ruling, Trial, Verdict, judge, look


@dataclass
class _Watch:
    deaths: int  # of the unit before the trial
    trial: Trial = field(default_factory=Trial)
    ruling: Ruling = field(default_factory=lambda: Ruling(Verdict.WAIT))
    task: Task[None] | None = None


class Trials:
    """The processes on trial. `decided(process, ruling)` is told each verdict, once.

    A failed one stays known here until `end`: its roll-back is on the way.
    """

    def __init__(self, supervisor: Supervisor, decided: Callable[[str, Ruling], None]) -> None:
        self.supervisor = supervisor
        self.decided = decided
        self._watches: dict[str, _Watch] = {}

    def begin(self, name: str) -> None:
        """Watch a process from now on, anew if it was watched: its new version was just started."""
        self.end(name)
        watch = self._watches[name] = _Watch(self.supervisor.units[name].deaths)
        watch.task = self.supervisor.loop.spawn(self._watch(name, watch), name=f"trial of {name}")

    def end(self, name: str) -> None:
        """Watch it no more."""
        watch = self._watches.pop(name, None)
        if watch and watch.task:
            watch.task.cancel()

    def known(self, name: str) -> bool:
        """Whether a process is watched, or waits for its roll-back."""
        return name in self._watches

    def open(self, name: str) -> bool:
        """Whether a new version has not been ready yet, or shall be rolled back."""
        watch = self._watches.get(name)
        return watch is not None and (watch.trial.ready is None or self.failed(name))

    def failed(self, name: str) -> bool:
        """Whether a new version shall be rolled back, and has not been yet."""
        watch = self._watches.get(name)
        return watch is not None and watch.ruling.verdict is Verdict.GO_BACK

    async def _watch(self, name: str, watch: _Watch) -> None:
        loop = self.supervisor.loop
        while (unit := self.supervisor.units.get(name)) is not None:
            now = loop.time()
            watch.trial = look(watch.trial, unit.life, unit.deaths - watch.deaths, now)
            watch.ruling = ruling = judge(watch.trial, unit.life, unit.death, unit.process.probation, now)
            if ruling.verdict is not Verdict.WAIT:
                watch.task = None
                self.supervisor.changed.notify()
                self.decided(name, ruling)
                return
            try:
                if ruling.again is None:
                    await self.supervisor.changed.wait()
                else:
                    await loop.wait_for(self.supervisor.changed.wait(), max(0.001, ruling.again - now))
            except TimedOutError:
                pass
