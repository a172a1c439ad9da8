# SPDX-License-Identifier: Apache-2.0
"""Events in, the lifecycle consulted, effects out. Knows units and their dependencies, no more."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Collection
from dataclasses import replace

from maestro_py.daemon import log
from maestro_py.daemon.loop import Loop
from maestro_py.daemon.paths import Paths
from maestro_py.daemon.runner import Runner
from maestro_py.daemon.unit import Unit
from maestro_py.daemon.waiting import Signal
from maestro_py.errors import MaestroError, NotFound
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
from maestro_py.process.kernel import boot_id
from maestro_py.spec.model import DaemonConfig, ResolvedProcess, RestartPolicy, State
from maestro_py.state.events import Happened, History
from maestro_py.state.store import Note, RunStore, Store

FLUSH_AFTER = 0.02
"""Seconds in which identities and events are gathered for one write to the run database."""

NOTE_AFTER = 1.0
"""Seconds in which changed causes are gathered for one write to the state database: flash wears."""

DEATHS = frozenset(
    {Kind.EXIT, Kind.SIGNAL, Kind.OOM, Kind.NOT_READY, Kind.LAUNCH, Kind.DEPENDENCY, Kind.UNKNOWN}
)
"""Causes that nobody asked for."""

DAEMON_STOPS = Cause(Kind.ASKED, "the daemon stops")

KEEP_EVENTS = 1000

EVENTS_PER_BOOT = 1_000_000
"""Event ids set aside for each boot, so that they grow for ever without a write to disk for each."""

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
        self.paths = paths
        self.store = store
        self.run_store = run_store
        self.cgroups = cgroups
        self.units: dict[str, Unit] = {}
        self.changed = Signal(loop)
        self.happened = Signal(loop)
        self.history = self._continue_history()
        self.boot_id = boot_id()
        self.runner = Runner(
            loop,
            paths,
            cgroups,
            dict(os.environ),
            config.log_max_size,
            config.log_max_files,
            open_files,
            self.feed,
        )
        self.ending = False
        self._queue: deque[tuple[Unit, Event]] = deque()
        self._draining = False
        self._dependents: dict[str, set[str]] = {}
        self._identities: dict[str, tuple[str, int, int, str] | None] = {}
        self._new_events: list[Happened] = []
        self._flushing = False
        self._notes = store.notes()
        self._dirty_notes: set[str] = set()
        self._chance = 0

    def _continue_history(self) -> History:
        """Go on where the run database ends; after a reboot, further up than any id given before."""
        earlier = [Happened(*row) for row in self.run_store.events()]
        if earlier:
            return History(KEEP_EVENTS, earlier)
        first = self.store.entries("counter").get("event", 0)
        first = first if isinstance(first, int) else 0
        self.store.change({("counter", "event"): first + EVENTS_PER_BOOT})
        return History(KEEP_EVENTS, first=first + 1)

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
            note = self._notes.get(process.name, Note())
            unit.stopped_by_hand = note.stopped
            if note.cause:
                kind, _, text = note.cause.partition(": ")
                cause = Cause(Kind(kind), text)
                unit.life = replace(unit.life, cause=cause)
                unit.death = cause if cause.kind in DEATHS else unit.death
        for name in unit.process.depends_on:
            self._dependents.get(name, set()).discard(process.name)
        unit.process = process
        for name in process.depends_on:
            self._dependents.setdefault(name, set()).add(process.name)
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
        if self._notes.pop(process, None):
            self._dirty_notes.discard(process)
            self.store.forget(process)
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

    def _handle(self, unit: Unit, event: Event) -> None:
        before = unit.life
        if self.ending and isinstance(event, (Start, Again, DepsReady)):
            return
        now = Now(self.loop.time(), self.deps_ready(unit), self._next_chance())
        unit.life, effects = step(before, event, unit.process, now)
        after = unit.life
        ended = before.state in ALIVE and (after.state is not before.state or Effect.LAUNCH in effects)
        if ended and after.cause.kind in DEATHS and not after.completed and after.state is not State.RUNNING:
            unit.death = after.cause
        if after.timer != before.timer:
            self._arm(unit)
        for effect in effects:
            if effect is Effect.LAUNCH:
                self.runner.launch(unit)
            elif effect is Effect.TERMINATE:
                self.runner.terminate(unit)
            else:
                self.runner.kill(unit)
        if unit.launch and (Effect.LAUNCH in effects or isinstance(event, Launched)):
            identity = (self.boot_id, unit.launch.pid, unit.launch.start_ticks, unit.name)
            self._identities[unit.name] = identity
        if after.state is not before.state or after.cause != before.cause:
            self._note_change(unit, before.state)
        if after.state not in ALIVE and before.state in ALIVE:
            self._identities[unit.name] = None
        if after.state not in _HOLDING and before.state in _HOLDING:
            self.runner.release(unit)
        if after.ready is not before.ready:
            self._tell_dependents(unit)
        self.changed.notify()

    def _next_chance(self) -> float:
        # low-discrepancy sequence: spreads restarts evenly without importing a random generator
        self._chance = (self._chance + 0x9E3779B9) & 0xFFFFFFFF
        return self._chance / 0x100000000

    def _arm(self, unit: Unit) -> None:
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
            unit.since = time.time()
            text = life.state.value
            if life.state is State.STARTING and unit.pid:
                text += f" (pid {unit.pid})"
            if life.cause.text and life.state in (
                State.RESTARTING,
                State.FAILED,
                State.STOPPED,
                State.STOPPING,
            ):
                text += f": {life.cause.text}"
            self.happen(f"process-{life.state.value.lower().replace('_', '-')}", text, process=unit.name)
        self._remember(unit)

    def _remember(self, unit: Unit) -> None:
        cause = unit.life.cause
        if unit.death.text and cause in (Cause(), DAEMON_STOPS):
            cause = unit.death  # still worth knowing after a restart of the daemon
        note = Note(unit.stopped_by_hand, f"{cause.kind.value}: {cause.text}" if cause.text else "")
        if note == self._notes.get(unit.name, Note()):
            return
        self._notes[unit.name] = note
        if not self._dirty_notes:
            self.loop.call_later(NOTE_AFTER, self.flush_notes)
        self._dirty_notes.add(unit.name)

    def flush_notes(self) -> None:
        """Write what is remembered of the units that changed."""
        dirty, self._dirty_notes = self._dirty_notes, set()
        try:
            for name in sorted(dirty):
                self.store.note(name, self._notes[name], durable=False)
        except MaestroError as error:
            log.error(str(error))

    def happen(self, type: str, message: str, *, job: str = "", process: str = "") -> None:
        """Record an event and tell whoever follows."""
        if process and not job:
            unit = self.units.get(process)
            if unit and not unit.process.composite_id:
                job = process
        event = self.history.add(time.time(), type, message, job=job, process=process)
        log.info(f"{process or job}: {message}" if process or job else message)
        self._new_events.append(event)
        if not self._flushing:
            self._flushing = True
            self.loop.call_later(FLUSH_AFTER, self.flush)
        self.happened.notify()

    def flush(self) -> None:
        """Write gathered identities and events to the run database."""
        self._flushing = False
        identities, self._identities = self._identities, {}
        events, self._new_events = self._new_events, []
        rows = [(e.id, e.time, e.type, e.job, e.process, e.message) for e in events]
        try:
            self.run_store.flush(identities, rows, KEEP_EVENTS)
        except MaestroError as error:
            log.error(str(error))

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
        self._remember(unit)
        if by_hand and unit.process.restart.policy is RestartPolicy.UNLESS_STOPPED:
            self.store.note(process, self._notes[process], durable=True)

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

    def recover(self) -> None:
        """End what an earlier daemon that crashed left running: nothing is ever run twice."""
        for name in self.cgroups.existing():
            group = self.cgroups.open(name)
            if group is None:
                continue
            if group.populated():
                log.warning(f"{name}: ending {len(group.pids())} processes left over from an earlier daemon")
                group.kill()
                deadline = self.loop.time() + 5
                while group.populated() and self.loop.time() < deadline:
                    time.sleep(0.005)
            if not group.remove():
                log.warning(f"{name}: its control group is still in use")
            group.close()
        self.runner.recover_networks()

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
        self.flush()
        self.flush_notes()
