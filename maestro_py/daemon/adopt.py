# SPDX-License-Identifier: Apache-2.0
"""Taking over what an earlier daemon left: its processes run on, and their lives go on where they were.

A process is known by boot, pid and start, and by its control group where there is one. Its pidfd is
opened first and compared then, and nothing is ever signalled but through that: in doubt it is a
stranger. What is in a group of ours without a record is taken over when it looks like what is wanted
there, and ended when not.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from dataclasses import replace
from enum import Enum

from maestro_py.daemon import log
from maestro_py.daemon.ledger import DAEMON_STOPS, Kept
from maestro_py.daemon.supervisor import Supervisor
from maestro_py.daemon.unit import Unit
from maestro_py.errors import MaestroError
from maestro_py.exits import Exit
from maestro_py.faultpoint import reach
from maestro_py.lifecycle import ALIVE, DepsReady, Launched, Life, Next
from maestro_py.process import kernel, reaper
from maestro_py.process.cgroups import Cgroup
from maestro_py.process.launcher import Launch
from maestro_py.spec import codec
from maestro_py.spec.resolved import ResolvedProcess, State
from maestro_py.state.running import Record

PATIENCE = 5.0
"""Seconds for a killed group to become empty."""

UNSEEN = Exit(unseen=True)


class Verdict(Enum):
    """What becomes of a recorded process."""

    ADOPT = "adopt"
    """It is there: take it over."""

    BURY = "bury"
    """It ended meanwhile: see its group empty, then let its life go on."""

    LAUNCH = "launch"
    """It was about to be launched: do that."""

    WAIT = "wait"
    """There is no process, and shall be none for now."""


def judge(kept: Kept, *, has_pid: bool, there: bool) -> Verdict:
    """Decide. has_pid: a main process was recorded; there: it was found and is no other."""
    if kept.life.state not in ALIVE:
        return Verdict.WAIT
    if has_pid and there and kept.exit is None:
        return Verdict.ADOPT
    if kept.life.state is State.STARTING and kept.exit is None and not (has_pid and kept.reported):
        return Verdict.LAUNCH  # it was not let go, or ended before anybody knew that it began
    return Verdict.BURY


def continued(kept: Kept) -> Life:
    """Return how a life goes on: what was stopped because the daemon stops is started again."""
    life = kept.life
    if life.state is State.STOPPING and life.cause == DAEMON_STOPS and life.next is Next.STAY:
        return replace(life, next=Next.START)
    return life


def adopt(supervisor: Supervisor, wanted: Mapping[str, ResolvedProcess]) -> None:
    """Take over everything. wanted: what is asked for now, to tell what to do without a record."""
    found = _read(supervisor, wanted)
    for _, definition, kept in found.values():
        unit = supervisor.define(definition)
        unit.running = definition
        unit.life = continued(kept)
        unit.since, unit.death, unit.deaths = kept.since, kept.death, kept.deaths
        unit.stopped_by_hand, unit.paused = kept.stopped_by_hand, kept.paused
        unit.restarts = dict(kept.restarts)
        supervisor.ledger.found(unit)
    supervisor.continues = bool(found)
    # all lives first: what happens to one may concern another
    for name, (record, _, kept) in found.items():
        unit = supervisor.units[name]
        try:
            _go_on(supervisor, unit, record, kept)
        except (MaestroError, OSError) as error:
            log.error(f"cannot take over {name}: {error}; it is ended")
            _end(supervisor, name)
            supervisor.runner.bury(unit, kept.exit or UNSEEN)
        supervisor.arm(unit)
    for name in supervisor.cgroups.existing():
        unit_there = supervisor.units.get(name)
        if unit_there is None or unit_there.life.state not in ALIVE:
            _without_record(supervisor, name, wanted.get(name))
    supervisor.runner.recover_networks([u for u in supervisor.units.values() if u.pid])
    for unit in list(supervisor.units.values()):
        if unit.life.state is State.WAITING_FOR_DEPS and supervisor.deps_ready(unit):
            supervisor.feed(unit, DepsReady())


def _read(
    supervisor: Supervisor, wanted: Mapping[str, ResolvedProcess]
) -> dict[str, tuple[Record, ResolvedProcess, Kept]]:
    """Return the records of this boot that can be read."""
    found = {}
    stale: dict[str, Record | None] = {}
    for name, record in supervisor.run_store.records().items():
        if record.boot_id != supervisor.ledger.boot_id:
            stale[name] = None
            continue
        try:
            definition = codec.load(ResolvedProcess, json.loads(record.definition))
            kept = codec.load(Kept, json.loads(record.kept))
        except ValueError as error:
            log.error(f"the record of {name} cannot be read: {error}")
            stale[name] = None
            continue
        same = wanted.get(name)
        found[name] = (record, same if same == definition else definition, kept)  # one copy is enough
    supervisor.run_store.flush(stale)
    return found


def _go_on(supervisor: Supervisor, unit: Unit, record: Record, kept: Kept) -> None:
    launch = _find(supervisor, unit.name, record) if record.pid and kept.exit is None else None
    there = isinstance(launch, Launch)
    verdict = judge(kept, has_pid=bool(record.pid), there=there)
    if verdict is Verdict.ADOPT:
        assert isinstance(launch, Launch)
        supervisor.runner.adopt(unit, launch)
        reach("adopt.taken")
        if not supervisor.generation:  # after an upgrade in place that is no news
            supervisor.happen("process-adopted", f"taken over (pid {launch.pid})", process=unit.name)
        if unit.life.state is State.STARTING and unit.life.timer is None:
            supervisor.feed(unit, Launched())  # if its exec failed, it is seen to end
    elif verdict is Verdict.BURY:
        supervisor.runner.bury(unit, kept.exit or (launch if isinstance(launch, Exit) else UNSEEN))
    elif verdict is Verdict.LAUNCH:
        _end(supervisor, unit.name)  # a child that was not let go is on its way out
        supervisor.runner.launch(unit)


def _find(supervisor: Supervisor, name: str, record: Record) -> Launch | Exit | None:
    """Return the process of a record when it is there beyond doubt, or how it ended when that is known."""
    try:
        pidfd = os.pidfd_open(record.pid)
    except OSError:
        return None
    group = None
    try:
        if reaper.still_same(reaper.Identity(record.boot_id, record.pid, record.ticks), pidfd):
            if exit := reaper.wait(record.pid, pidfd):
                return exit
            group = supervisor.cgroups.open(name)
            if group is None or group.holds(record.pid):
                launch = Launch(record.pid, pidfd, -1, record.ticks)
                pidfd = -1
                return launch
        return None
    finally:
        if pidfd >= 0:
            os.close(pidfd)
        if group:
            group.close()


def _without_record(supervisor: Supervisor, name: str, wanted: ResolvedProcess | None) -> None:
    """Deal with a group of ours that no record explains."""
    group = supervisor.cgroups.open(name)
    if group is None:
        return
    try:
        main = _main_process(group) if group.populated() and wanted and wanted.enabled else 0
    finally:
        group.close()
    if wanted and main and _runs(main, wanted.argv):
        pidfd = os.pidfd_open(main)
        unit = supervisor.define(wanted)
        unit.running = wanted
        now = supervisor.loop.time()
        unit.life = Life(State.RUNNING, running_since=now)
        supervisor.runner.adopt(unit, Launch(main, pidfd, -1, kernel.start_ticks(main)))
        supervisor.happen("process-adopted", f"found without a record (pid {main})", process=name)
        return
    _end(supervisor, name)


def _main_process(group: Cgroup) -> int:
    """Return the process of a group that was there first; 0 when none is left."""
    oldest = (0, 0)
    for pid in group.pids():
        try:
            began = (kernel.start_ticks(pid), pid)
        except OSError:
            continue
        oldest = min(oldest, began) if oldest[1] else began
    return oldest[1]


def _runs(pid: int, argv: tuple[str, ...]) -> bool:
    """Whether a process has this command line; a script's begins with its interpreter."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            words = file.read().split(b"\0")[:-1]
    except OSError:
        return False
    asked = [os.fsencode(word) for word in argv]
    return words == asked or (len(words) > len(asked) and words[-len(asked) + 1 :] == asked[1:])


def _end(supervisor: Supervisor, name: str) -> None:
    """Kill everything in the group of a process and remove it."""
    group = supervisor.cgroups.open(name)
    if group is None:
        return
    try:
        if group.populated():
            log.warning(f"{name}: ending {len(group.pids())} processes that belong to nothing", process=name)
            group.kill()
            deadline = supervisor.loop.time() + PATIENCE
            while group.populated() and supervisor.loop.time() < deadline:
                time.sleep(0.005)
        if not group.remove():
            log.warning(f"the control group of {name} is still in use", process=name)
    finally:
        group.close()
