# SPDX-License-Identifier: Apache-2.0
"""What is written down, so that the next daemon goes on where this one ends, however it ends.

A change of a process's life is in the run database before anything is done about it, and events before
anybody is told of them: there is no moment in which a crash would lose what somebody has seen. Causes
and stops by hand outlive a reboot as notes in the state database.
"""

from __future__ import annotations

import json
import time
from collections import deque

from maestro_py.daemon import log
from maestro_py.daemon.loop import Loop
from maestro_py.daemon.unit import Unit
from maestro_py.daemon.waiting import Signal
from maestro_py.errors import MaestroError
from maestro_py.exits import Exit
from maestro_py.lifecycle import ALIVE, Cause, Kind, Life
from maestro_py.process.kernel import boot_id
from maestro_py.spec import codec
from maestro_py.spec.resolved import ResolvedProcess, State
from maestro_py.state.events import Happened, History
from maestro_py.state.running import Record, RunStore
from maestro_py.state.store import Note, Store
from maestro_py.valueclass import valueclass

AGAIN, NOTES_AGAIN = 1.0, 30.0
"""Seconds after which a write that failed is tried again."""

NOTE_AFTER = 1.0
"""Seconds in which changed causes are gathered for one write to the state database: flash wears."""

KEEP_EVENTS = 1000

EVENTS_PER_BOOT = 1_000_000
"""Event ids set aside for each boot, so that they grow for ever without a write to disk for each."""

DAEMON_STOPS = Cause(Kind.ASKED, "the daemon stops")


@valueclass(frozen=True)
class Kept:
    """What a record says of a process besides its identity and definition. Names are those of Unit.

    restarts: (kind of cause, count). exit: how the main process ended, while others of it are left.
    reported: whether its exec is known to have happened.
    """

    life: Life
    death: Cause
    since: float = 0.0
    stopped_by_hand: bool = False
    paused: str = ""
    exit: Exit | None = None
    reported: bool = False
    deaths: int = 0
    restarts: tuple[tuple[str, int], ...] = ()


def keep(unit: Unit) -> Kept:
    """Return what there is to say of a unit."""
    return Kept(
        unit.life,
        unit.death,
        unit.since,
        unit.stopped_by_hand,
        unit.paused,
        unit.exit if unit.life.state in ALIVE else None,
        unit.reported,
        unit.deaths,
        tuple(unit.restarts.items()),
    )


def worth_keeping(kept: Kept) -> bool:
    """Whether a unit goes on as it is after a crash; what else is down is found by the boot anew.

    One that was stopped for a change, or because the daemon stops, was meant to run again.
    """
    life = kept.life
    if life.state is State.STOPPED:
        return life.completed or kept.stopped_by_hand or life.cause.kind not in (Kind.ASKED, Kind.DISABLED)
    if life.state is State.FAILED:
        return life.cause.kind is not Kind.IMAGE  # it may be there by now
    return life.state is not State.NEVER_RAN


class Ledger:
    """Records of units, events and notes, and how they get to the databases."""

    def __init__(self, loop: Loop, store: Store, run_store: RunStore) -> None:
        self.loop = loop
        self.store = store
        self.run_store = run_store
        self.boot_id = boot_id()
        self.history = self._continue_history()
        self.happened = Signal(loop)
        self._complaint = ""
        self._dirty: dict[str, Unit] = {}
        self._gone: set[str] = set()
        self._written: dict[str, ResolvedProcess] = {}  # definitions as recorded
        self._events: deque[Happened] = deque(maxlen=KEEP_EVENTS)
        self._told = self.history.last_id
        self._retry = False
        self._notes = store.notes()
        self._dirty_notes: set[str] = set()

    def _continue_history(self) -> History:
        """Go on where the run database ends; after a reboot, further up than any id given before."""
        earlier = [Happened(*row) for row in self.run_store.events()]
        if earlier:
            return History(KEEP_EVENTS, earlier)
        first = self.store.entries("counter").get("event", 0)
        first = first if isinstance(first, int) else 0
        self.store.change({("counter", "event"): first + EVENTS_PER_BOOT})
        return History(KEEP_EVENTS, first=first + 1)

    # records and events

    def touch(self, unit: Unit) -> None:
        """Have the record of a unit written with the next flush."""
        self._dirty[unit.name] = unit

    def found(self, unit: Unit) -> None:
        """Take note that a unit was made from its record, which stays as it is until something changes."""
        self._dirty.pop(unit.name, None)
        self._written[unit.name] = unit.process

    def forget(self, process: str) -> None:
        """Drop what is known of a process that is gone."""
        self._dirty.pop(process, None)
        if self._written.pop(process, None):
            self._gone.add(process)
        if self._notes.pop(process, None):
            self._note_soon(process)

    def forget_everybody(self) -> None:
        """Drop the records of an orderly stop. Should it fail, the next daemon finds that nobody is there."""
        try:
            self.run_store.forget_records()
        except MaestroError as error:
            self._complain(error)

    def add_event(self, type: str, message: str, job: str, process: str) -> Happened:
        """Add an event; it is told with the next flush."""
        event = self.history.add(time.time(), type, message, job=job, process=process)
        self._events.append(event)
        return event

    def flush(self) -> None:
        """Write what has changed, then tell whoever follows events. A failed write is tried again."""
        records: dict[str, Record | None] = dict.fromkeys(self._gone)
        definitions: dict[str, ResolvedProcess] = {}
        for name, unit in self._dirty.items():
            kept = keep(unit)
            if worth_keeping(kept):
                definitions[name] = unit.running if kept.life.state in ALIVE else unit.process
                records[name] = self._record(unit, kept, definitions[name])
            elif name in self._written:
                records[name] = None
        rows = [(e.id, e.time, e.type, e.job, e.process, e.message) for e in self._events]
        if records or rows:
            try:
                self.run_store.flush(records, rows, KEEP_EVENTS)
            except MaestroError as error:
                self._try_again(error)
                return
        for name, record in records.items():
            if record is None:
                self._written.pop(name, None)
        self._written.update(definitions)
        self._gone.clear()
        self._dirty.clear()
        self._events.clear()
        self._tell()

    def _record(self, unit: Unit, kept: Kept, definition: ResolvedProcess) -> Record:
        launch = unit.launch if unit.pid else None
        pid, ticks = (launch.pid, launch.start_ticks) if launch else (0, 0)
        known = self._written.get(unit.name) is definition
        text = "" if known else _json(definition)
        return Record(self.boot_id, pid, ticks, _json(kept), text)

    def _try_again(self, error: MaestroError) -> None:
        if not self._retry:
            self._complain(error)
            self._retry = True
            self.loop.call_later(AGAIN, self._once_more)
        self._tell()

    def _complain(self, error: MaestroError) -> None:
        """Log what cannot be written, once for as long as it is the same."""
        if str(error) != self._complaint:
            self._complaint = str(error)
            log.error(f"{error}; it is tried again")

    def _once_more(self) -> None:
        self._retry = False
        self.flush()

    def _tell(self) -> None:
        if self._told != self.history.last_id:
            self._told = self.history.last_id
            self.happened.notify()

    # notes

    def note_of(self, process: str) -> Note:
        """Return what an earlier daemon noted."""
        return self._notes.get(process, Note())

    def remember(self, unit: Unit, *, now: bool = False) -> None:
        """Note cause and stop by hand of a unit, soon; now: before this returns, and durably."""
        cause = unit.life.cause
        if unit.death.text and cause in (Cause(), DAEMON_STOPS):
            cause = unit.death  # still worth knowing after a restart of the daemon
        note = Note(unit.stopped_by_hand, f"{cause.kind.value}: {cause.text}" if cause.text else "")
        if note != self._notes.get(unit.name, Note()):
            self._notes[unit.name] = note
            self._note_soon(unit.name)
        if now:
            self.store.note(unit.name, note, durable=True)

    def _note_soon(self, process: str) -> None:
        if not self._dirty_notes:
            self.loop.call_later(NOTE_AFTER, self.flush_notes)
        self._dirty_notes.add(process)

    def flush_notes(self) -> None:
        """Write what is remembered of the units that changed."""
        try:
            self.store.note_all({name: self._notes.get(name) for name in sorted(self._dirty_notes)})
            self._dirty_notes.clear()
        except MaestroError as error:
            self._complain(error)
            self.loop.call_later(NOTES_AGAIN, self.flush_notes)


def _json(value: object) -> str:
    return json.dumps(codec.dump(value), separators=(",", ":"))
