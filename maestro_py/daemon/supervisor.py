# SPDX-License-Identifier: Apache-2.0
"""Events in, the lifecycle consulted, effects out. Knows units and their dependencies, no more."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Collection
from dataclasses import replace

from maestro_py.budget import RestartBudget
from maestro_py.daemon import log
from maestro_py.daemon.control import Control
from maestro_py.daemon.ledger import DAEMON_STOPS, Ledger
from maestro_py.daemon.logroom import LogRoom
from maestro_py.daemon.loop import Loop
from maestro_py.daemon.paths import Paths
from maestro_py.daemon.runner import Runner
from maestro_py.daemon.unit import Unit
from maestro_py.daemon.waiting import Signal
from maestro_py.errors import NotFound
from maestro_py.faultpoint import reach
from maestro_py.lifecycle import (
    ALIVE,
    Again,
    Cause,
    DepsLost,
    DepsReady,
    Effect,
    Event,
    Kind,
    Launched,
    Next,
    Now,
    Start,
    Stop,
    Timer,
    step,
)
from maestro_py.plan import IDLE
from maestro_py.process.cgroups import Cgroups
from maestro_py.spec.daemonconfig import DaemonConfig
from maestro_py.spec.model import RestartPolicy
from maestro_py.spec.resolved import ResolvedProcess, State
from maestro_py.state.running import RunStore
from maestro_py.state.store import Store

DEATHS = frozenset(
    {
        Kind.EXIT,
        Kind.SIGNAL,
        Kind.OOM,
        Kind.NOT_READY,
        Kind.HEALTH,
        Kind.WATCHDOG,
        Kind.LAUNCH,
        Kind.DEPENDENCY,
        Kind.UNKNOWN,
    }
)
"""Causes that nobody asked for."""

_URGENT = {
    "process-failed": log.error,
    "process-restarting": log.warning,
    "state-damaged": log.error,
}
"""How events are logged that somebody should look at, by type."""

BURST = 10
"""Seconds of the device's restart budget that may be spent at once."""

_HOLDING = ALIVE | {State.RESTARTING}
"""States in which a unit keeps its group and its network."""


class Supervisor:
    """All units of this device."""

    def __init__(
        self,
        loop: Loop,
        paths: Paths,
        config: DaemonConfig,
        store: Store,
        run_store: RunStore,
        cgroups: Cgroups,
        open_files: tuple[int, int],
    ) -> None:
        self.loop = loop
        self.began = loop.time()
        self.paths = paths
        self.store = store
        self.run_store = run_store
        self.cgroups = cgroups
        self.units: dict[str, Unit] = {}
        self.changed = Signal(loop)
        self.ledger = Ledger(loop, store, run_store)
        self.happened = self.ledger.happened
        self.history = self.ledger.history
        self.control = Control(loop, cgroups, self.record)
        self.runner = Runner(
            loop,
            paths,
            self.control,
            dict(os.environ),
            LogRoom.of(paths.log, config),
            open_files,
            self.feed,
            self.record,
            lambda type, text, unit: self.happen(type, text, process=unit.name),
        )
        self.budget = RestartBudget(config.restart_rate, int(config.restart_rate * BURST))
        self.observers: list[Callable[[Unit, State], None]] = []  # hear of each change of state
        self.ending = False
        self.warnings: list[str] = []  # what went wrong at the start, for everybody who asks for the status
        self.generation = 0  # how often this daemon was replaced in place
        self.continues = False  # an earlier daemon's processes were taken over
        self._queue: deque[tuple[Unit, Event]] = deque()
        self._draining = False
        self._dependents: dict[str, set[str]] = {}
        self._chance = 0

    # units

    def unit(self, process: str) -> Unit:
        """Return a unit by its process name; NotFound names it."""
        try:
            return self.units[process]
        except KeyError:
            raise NotFound(f"no process {process}") from None

    def define(self, process: ResolvedProcess) -> Unit:
        """Make a definition the one in force for the next launch; a new unit is made when there is none."""
        unit = self.units.get(process.name)
        if unit is None:
            unit = self.units[process.name] = Unit(process, Signal(self.loop))
            self.runner.capture.share(self.units)
            note = self.ledger.note_of(process.name)
            unit.stopped_by_hand = note.stopped
            if note.cause:
                kind, _, text = note.cause.partition(": ")
                cause = Cause(Kind(kind), text)
                unit.life = replace(unit.life, cause=cause)
                unit.death = cause if cause.kind in DEATHS else unit.death
        for name in unit.process.depends_on:
            self._dependents.get(name, set()).discard(process.name)
        unit.process = process
        self.runner.redefined(unit)
        for name in process.depends_on:
            self._dependents.setdefault(name, set()).add(process.name)
        self.ledger.touch(unit)
        return unit

    def forget(self, process: str) -> None:
        """Drop a unit that is down."""
        unit = self.units.pop(process)
        assert unit.life.state not in ALIVE
        self._cancel_timer(unit)
        for name in unit.process.depends_on:
            self._dependents.get(name, set()).discard(process)
        self.runner.release(unit, forget=True)
        unit.written.notify()
        self.ledger.forget(process)
        self.runner.capture.share(self.units)
        self.changed.notify()

    def deps_ready(self, unit: Unit) -> bool:
        """Whether everything the unit depends on is ready."""
        return all(name in self.units and self.units[name].life.ready for name in unit.process.depends_on)

    # events

    def feed(self, unit: Unit, event: Event) -> None:
        """Take an event. Events caused while one is handled wait their turn, so order is what happened."""
        self._queue.append((unit, event))
        if self._draining:
            return
        self._draining = True
        try:
            while self._queue:
                self._handle(*self._queue.popleft())
        finally:
            self._draining = False
            self.ledger.flush()

    def _handle(self, unit: Unit, event: Event) -> None:
        before = unit.life
        if self.ending and isinstance(event, (Start, Again, DepsReady)):
            return
        time_now = self.loop.time()
        now = Now(time_now, self.deps_ready(unit), self._next_chance(), self.budget.wait(time_now))
        unit.life, effects = step(before, event, unit.process, now)
        after = unit.life
        ended = before.state in ALIVE and (after.state is not before.state or Effect.LAUNCH in effects)
        if ended and after.cause.kind in DEATHS and not after.completed and after.state is not State.RUNNING:
            unit.death = after.cause
            unit.deaths += after.cause.kind is not Kind.DEPENDENCY
        if after.tries > before.tries:
            self.budget.take(now.time)
        if after.timer != before.timer:
            self.arm(unit)
        if after.restarts > before.restarts:
            unit.restarts[after.cause.kind.value] = unit.restarts.get(after.cause.kind.value, 0) + 1
        if before.state is State.STARTING and after.state is State.RUNNING and unit.launched is not None:
            unit.ready_after = now.time - unit.launched
        if after.state is not before.state:
            unit.since = time.time()
        if after != before or isinstance(event, Launched):
            self.ledger.touch(unit)
        if effects:
            self.ledger.flush()  # first the intent, then the effect
        for effect in effects:
            if effect is Effect.LAUNCH:
                reach("supervisor.launch.intended")
                unit.launched = now.time
                self.runner.launch(unit)
            elif effect is Effect.TERMINATE:
                reach("supervisor.terminate.intended")
                self.control.terminate(unit)
            else:
                reach("supervisor.kill.intended")
                self.control.kill(unit)
        if after.state is not before.state or after.cause != before.cause:
            self._note_change(unit, before.state)
        if unit.probing:
            unit.probing.follow(before.state)
        if after.state not in _HOLDING and before.state in _HOLDING:
            self.runner.release(unit)
        if after.state is State.FAILED and before.state is not State.FAILED:
            self._after_failure(unit)
        if after.ready is not before.ready:
            self._tell_dependents(unit)
        self.changed.notify()

    def _after_failure(self, unit: Unit) -> None:
        wish = unit.process.on_failure
        if self.ending or not (wish.command or wish.job):
            return
        if wish.command:
            self.loop.spawn(self.runner.commands.on_failure(unit), name=f"on_failure of {unit.name}")
            return
        for other in list(self.units.values()):
            if wish.job in other.process.members:
                self.start(other.name)

    def _next_chance(self) -> float:
        # low-discrepancy sequence: spreads restarts evenly without importing a random generator
        self._chance = (self._chance + 0x9E3779B9) & 0xFFFFFFFF
        return self._chance / 0x100000000

    def arm(self, unit: Unit) -> None:
        """Set the clock for the timer of a unit's life."""
        self._cancel_timer(unit)
        if unit.life.timer is not None:
            unit.timer = self.loop.call_at(unit.life.timer, lambda: self.feed(unit, Timer()))

    def _cancel_timer(self, unit: Unit) -> None:
        if unit.timer:
            unit.timer.cancel()
            unit.timer = None

    def _tell_dependents(self, unit: Unit) -> None:
        for name in sorted(self._dependents.get(unit.name, ())):
            dependent = self.units.get(name)
            if dependent is None:
                continue
            if not unit.life.ready:
                self.feed(dependent, DepsLost(unit.name))
            elif dependent.life.state is State.WAITING_FOR_DEPS and self.deps_ready(dependent):
                self.feed(dependent, DepsReady())

    # what is written down

    def _note_change(self, unit: Unit, before: State) -> None:
        life = unit.life
        if life.state is not before:
            text = life.state.value
            if life.state is State.STARTING and unit.pid:
                text += f" (pid {unit.pid})"
            again = life.state is State.STARTING and before in ALIVE  # no pause between two lives
            if life.cause.text and (
                again or life.state in (State.RESTARTING, State.FAILED, State.STOPPED, State.STOPPING)
            ):
                text += f": {life.cause.text}"
            self.happen(f"process-{life.state.value.lower().replace('_', '-')}", text, process=unit.name)
            for observe in self.observers:
                observe(unit, before)
        self.ledger.remember(unit)

    def record(self, unit: Unit) -> None:
        """Write down now what is known of a unit."""
        self.ledger.touch(unit)
        self.ledger.flush()

    def happen(self, type: str, message: str, *, job: str = "", process: str = "") -> None:
        """Record an event and tell whoever follows."""
        if process and not job:
            unit = self.units.get(process)
            if unit and not unit.process.composite_id:
                job = process
        event = self.ledger.add_event(type, message, job, process)
        say = _URGENT.get(type, log.info)
        say(message, event=type, event_id=event.id, job=job, process=process)
        if not self._draining:
            self.ledger.flush()

    # what people ask for

    def start(self, process: str) -> None:
        """Start a unit, and first what it depends on."""
        for name in self._with_dependencies(process):
            unit = self.units[name]
            if unit.process.enabled and (name == process or not unit.life.ready):
                unit.stopped_by_hand = False
                self.feed(unit, Start())

    def stop(self, process: str, cause: Cause, *, by_hand: bool = False) -> None:
        """Stop a unit. by_hand: a person said so, which `unless-stopped` remembers."""
        unit = self.unit(process)
        unit.stopped_by_hand = by_hand
        self.feed(unit, Stop(cause))
        lasting = by_hand and unit.process.restart.policy is RestartPolicy.UNLESS_STOPPED
        self.ledger.remember(unit, now=lasting)

    def restart(self, process: str, cause: Cause) -> None:
        """Stop a unit if it runs, and start it."""
        unit = self.unit(process)
        unit.stopped_by_hand = False
        self.feed(unit, Again(cause))

    def may_start_at_boot(self, unit: Unit) -> bool:
        """Whether a boot starts it: not after a stop by hand under `unless-stopped`."""
        held = unit.stopped_by_hand and unit.process.restart.policy is RestartPolicy.UNLESS_STOPPED
        return unit.process.enabled and unit.process.autostart and not held

    def _with_dependencies(self, process: str) -> list[str]:
        """Return the process after everything it depends on."""
        order: list[str] = []
        stack = [(process, False)]
        seen: set[str] = set()
        while stack:
            name, done = stack.pop()
            if done:
                order.append(name)
            elif name not in seen and name in self.units:
                seen.add(name)
                stack.append((name, True))
                stack += [(dep, False) for dep in self.units[name].process.depends_on]
        return order

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until a condition on the units holds."""
        while not condition():
            await self.changed.wait()

    async def until_down(self, processes: Collection[str]) -> None:
        """Wait until none of the processes exists any more, or was ended and launched again meanwhile."""
        launches = {n: self.units[n].launches for n in processes if n in self.units}

        def down(name: str) -> bool:
            unit = self.units.get(name)
            return unit is None or unit.life.state not in ALIVE or unit.launches != launches.get(name)

        await self.until(lambda: all(down(name) for name in processes))

    async def until_stopped(self, process: str, cause: Cause) -> None:
        """Stop a process and see it down, whoever may start it meanwhile."""
        while (unit := self.units.get(process)) and unit.life.state in ALIVE:
            if unit.life.state is State.STOPPING and unit.life.next is Next.STAY:
                await self.changed.wait()
            else:
                self.stop(process, cause)

    async def shut_down(self, *, keep: bool) -> None:
        """Stop every unit, dependents before what they depend on, or leave them all running.

        Nothing is started any more from here on, whatever else is still at work.
        """
        self.ending = True
        cause = DAEMON_STOPS
        while not keep:
            up = {unit.name for unit in self.units.values() if unit.life.state in ALIVE}
            for unit in list(self.units.values()):
                waits = self._dependents.get(unit.name, set()) & up
                if unit.life.state is State.STOPPING or unit.life.state in IDLE or waits:
                    continue
                self.feed(unit, Stop(cause))
            if not any(unit.life.state in ALIVE for unit in self.units.values()):
                break
            await self.changed.wait()
        if self.runner.networks:
            await self.runner.networks.settled()
        self.ledger.flush()
        self.ledger.flush_notes()
        if not keep:
            self.ledger.forget_everybody()
