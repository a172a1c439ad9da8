# SPDX-License-Identifier: Apache-2.0
"""Every state x every event, spelled out. A cell is `NEW_STATE effect`, or `=`: the life stays as it is."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import get_args

import pytest

from maestro_py.exits import Exit
from maestro_py.lifecycle import (
    Again,
    Cause,
    DepsLost,
    DepsReady,
    Effect,
    Event,
    Exited,
    Fail,
    Kind,
    Launched,
    LaunchFailed,
    Life,
    Next,
    Now,
    Ready,
    Start,
    Stop,
    Timer,
    Unwell,
    step,
)
from maestro_py.spec.model import RestartPolicy
from maestro_py.spec.resolved import Ready as Readiness
from maestro_py.spec.resolved import ResolvedProcess, Restart, State

NOW = 1000.0

PROCESS = ResolvedProcess(
    name="job",
    members=("job",),
    ready=Readiness("!!OK!!", timeout=5.0),
    restart=Restart(RestartPolicy.ON_FAILURE, pause=2.0, on_dependency_fail=True),
    stop_timeout=10.0,
)

ASKED = Cause(Kind.ASKED, "somebody asked")
CRASH = Cause(Kind.SIGNAL, "killed by SIGSEGV")

EVENTS: dict[str, Event] = {
    "Start": Start(),
    "Stop": Stop(ASKED),
    "Again": Again(ASKED),
    "DepsReady": DepsReady(),
    "DepsLost": DepsLost("other"),
    "Launched": Launched(),
    "LaunchFailed for good": LaunchFailed("cannot launch job: no such file", lasting=True),
    "LaunchFailed for now": LaunchFailed("cannot launch job: no memory", lasting=False),
    "Ready": Ready(),
    "Unwell": Unwell(Cause(Kind.HEALTH, "port 80 does not answer")),
    "Timer": Timer(),
    "Exited 0": Exited(Exit(code=0)),
    "Exited 3": Exited(Exit(code=3)),
    "Fail": Fail(Cause(Kind.IMAGE, "no image")),
}

LIVES = {
    State.NEVER_RAN: Life(),
    State.WAITING_FOR_DEPS: Life(State.WAITING_FOR_DEPS),
    State.STARTING: Life(State.STARTING, timer=NOW),
    State.RUNNING: Life(State.RUNNING, running_since=NOW - 1),
    State.STOPPING: Life(State.STOPPING, ASKED, timer=NOW, next=Next.STAY, running_since=NOW - 1),
    State.STOPPED: Life(State.STOPPED, ASKED),
    State.RESTARTING: Life(State.RESTARTING, CRASH, tries=1, timer=NOW),
    State.FAILED: Life(State.FAILED, CRASH),
}

# One row per event; columns are the states in the order of the enum:
#   NEVER_RAN, WAITING_FOR_DEPS, STARTING, RUNNING, STOPPING, STOPPED, RESTARTING, FAILED
ROWS: dict[str, tuple[str, str, str, str, str, str, str, str]] = {
    "Start": (
        "STARTING launch",
        "STARTING launch",
        "=",
        "=",
        "STOPPING",  # and then started
        "STARTING launch",
        "STARTING launch",
        "STARTING launch",
    ),
    "Stop": (
        "STOPPED",
        "STOPPED",
        "STOPPING terminate",
        "STOPPING terminate",
        "=",
        "=",
        "STOPPED",
        "STOPPED",
    ),
    "Again": (
        "STARTING launch",
        "STARTING launch",
        "STOPPING terminate",
        "STOPPING terminate",
        "STOPPING",  # and then started
        "STARTING launch",
        "STARTING launch",
        "STARTING launch",
    ),
    "DepsReady": ("=", "STARTING launch", "=", "=", "=", "=", "=", "="),
    "DepsLost": ("=", "=", "STOPPING terminate", "STOPPING terminate", "=", "=", "=", "="),
    "Launched": ("=", "=", "STARTING", "=", "=", "=", "=", "="),  # now with a timer for the OK string
    "LaunchFailed for good": ("=", "=", "FAILED", "=", "STOPPED", "=", "=", "="),
    "LaunchFailed for now": ("=", "=", "RESTARTING", "=", "STOPPED", "=", "=", "="),
    "Ready": ("=", "=", "RUNNING", "=", "=", "=", "=", "="),
    "Unwell": ("=", "=", "=", "STOPPING terminate", "=", "=", "=", "="),
    "Timer": ("=", "=", "STOPPING kill", "=", "STOPPING kill", "=", "STARTING launch", "="),
    "Exited 0": ("=", "=", "RESTARTING", "STOPPED", "STOPPED", "=", "=", "="),
    "Exited 3": ("=", "=", "RESTARTING", "RESTARTING", "STOPPED", "=", "=", "="),
    "Fail": ("FAILED", "FAILED", "=", "=", "=", "FAILED", "FAILED", "FAILED"),
}

TABLE = {(state, event): cell for event, row in ROWS.items() for state, cell in zip(State, row, strict=True)}

NO_PROCESS = frozenset(
    {State.NEVER_RAN, State.WAITING_FOR_DEPS, State.STOPPED, State.RESTARTING, State.FAILED}
)


def outcome(life: Life, event: str, *, deps_ready: bool = True) -> tuple[Life, tuple[Effect, ...]]:
    return step(life, EVENTS[event], PROCESS, Now(NOW, deps_ready))


def consistent(life: Life) -> None:
    """Assert that what a life holds fits its state."""
    if life.timer is not None:
        assert life.state in (State.STARTING, State.STOPPING, State.RESTARTING)
    if life.state in (State.STOPPING, State.RESTARTING):
        assert life.timer is not None, "nothing would ever end this state"
    assert (life.running_since is not None) == (life.state is State.RUNNING) or life.state is State.STOPPING
    if life.next is not Next.STAY:
        assert life.state is State.STOPPING
    if life.completed:
        assert life.state is State.STOPPED
    if life.state in (State.STOPPING, State.STOPPED, State.RESTARTING, State.FAILED):
        assert life.cause.text
        assert life.cause.kind is not Kind.NONE


def test_the_table_has_a_cell_for_every_state_and_every_event() -> None:
    assert set(LIVES) == set(State)
    assert {type(event) for event in EVENTS.values()} == set(get_args(Event))
    assert set(TABLE) == set(itertools.product(State, EVENTS))


@pytest.mark.parametrize("state", State, ids=lambda state: state.value)
@pytest.mark.parametrize("event", EVENTS)
def test_cell(state: State, event: str) -> None:
    cell = TABLE[state, event]
    life, effects = outcome(LIVES[state], event)
    if cell == "=":
        assert (life, effects) == (LIVES[state], ())
    else:
        expected, *wanted = cell.split()
        assert life.state is State[expected]
        assert [effect.value for effect in effects] == wanted
        assert (life, effects) != (LIVES[state], ())
    consistent(life)


@pytest.mark.parametrize("state", State, ids=lambda state: state.value)
@pytest.mark.parametrize("event", EVENTS)
def test_every_launch_waits_while_a_dependency_is_not_ready(state: State, event: str) -> None:
    life, effects = outcome(LIVES[state], event, deps_ready=False)
    assert Effect.LAUNCH not in effects
    if "launch" in TABLE[state, event]:
        assert life.state is State.WAITING_FOR_DEPS
    else:
        assert (life, effects) == outcome(LIVES[state], event)
    consistent(life)


@pytest.mark.parametrize("state", State, ids=lambda state: state.value)
def test_a_timer_that_strikes_early_changes_nothing(state: State) -> None:
    life = LIVES[state]
    if life.timer is not None:
        life = replace(life, timer=NOW + 0.001)
    assert outcome(life, "Timer") == (life, ())


# A stopping process, by what shall follow. Rows are what ends it; columns: STAY, START, RESTART, DEATH.
AFTER_STOPPING: dict[str, tuple[str, str, str, str]] = {
    "Exited 0": ("STOPPED", "STARTING launch", "STARTING launch", "RESTARTING"),
    "Exited 3": ("STOPPED", "STARTING launch", "STARTING launch", "RESTARTING"),
    "LaunchFailed for good": ("STOPPED", "STARTING launch", "STARTING launch", "RESTARTING"),
    "LaunchFailed for now": ("STOPPED", "STARTING launch", "STARTING launch", "RESTARTING"),
    "Timer": ("STOPPING kill", "STOPPING kill", "STOPPING kill", "STOPPING kill"),
}


@pytest.mark.parametrize("then", Next, ids=lambda then: then.value)
@pytest.mark.parametrize("event", AFTER_STOPPING)
def test_what_follows_a_stop(then: Next, event: str) -> None:
    cell = dict(zip(Next, AFTER_STOPPING[event], strict=True))[then]
    expected, *wanted = cell.split()
    life, effects = outcome(replace(LIVES[State.STOPPING], next=then), event)
    assert life.state is State[expected]
    assert [effect.value for effect in effects] == wanted
    assert life.next is (then if life.state is State.STOPPING else Next.STAY)
    assert life.restarts == (1 if then is Next.RESTART and life.state is State.STARTING else 0)
    consistent(life)


@pytest.mark.parametrize("event", EVENTS)
@pytest.mark.parametrize("then", Next, ids=lambda then: then.value)
def test_what_a_stopping_process_is_told_changes_what_follows_and_launches_nothing(
    then: Next, event: str
) -> None:
    """Start and Again: started afterwards. Stop: stays down. Everything else leaves it as it was."""
    if event in AFTER_STOPPING:
        return
    life, effects = outcome(replace(LIVES[State.STOPPING], next=then), event)
    follows = {"Start": Next.START, "Again": Next.START, "Stop": Next.STAY}
    assert life.state is State.STOPPING
    assert effects == ()
    assert life.next is follows.get(event, then)
    consistent(life)


@pytest.mark.parametrize("state", sorted(NO_PROCESS), ids=lambda state: state.value)
@pytest.mark.parametrize("event", ["Launched", "LaunchFailed for now", "Ready", "Exited 0", "Exited 3"])
def test_late_news_of_a_process_that_is_gone_changes_nothing(state: State, event: str) -> None:
    assert outcome(LIVES[state], event) == (LIVES[state], ())
