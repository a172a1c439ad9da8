# SPDX-License-Identifier: Apache-2.0
"""Has a new version proved itself? Every row of the table."""

from __future__ import annotations

from dataclasses import replace

import pytest

from maestro_py.lifecycle import Cause, Kind, Life
from maestro_py.probation import Ruling, Trial, Verdict, judge, look
from maestro_py.spec.resolved import Probation, State

RULES = Probation(timeout=10, duration=60, deaths=3)
NOW = 1000.0
CRASH = Cause(Kind.SIGNAL, "killed by SIGSEGV")
MUTE = Cause(Kind.NOT_READY, "did not say OK within 5s")
LAUNCHED = Trial(launched=NOW - 4)
READY = Trial(launched=NOW - 8, ready=NOW - 6)


def ruling(trial: Trial, state: State, death: Cause = CRASH, now: float = NOW, **life: object) -> Ruling:
    return judge(trial, replace(Life(state=state), **life), death, RULES, now)  # type: ignore[arg-type]


@pytest.mark.parametrize("state", [State.NEVER_RAN, State.STOPPED, State.STOPPING, State.WAITING_FOR_DEPS])
@pytest.mark.parametrize("trial", [Trial(), LAUNCHED, READY])
def test_what_is_down_by_wish_or_waits_is_not_judged(trial: Trial, state: State) -> None:
    assert ruling(trial, state, now=NOW + 1000) == Ruling(Verdict.WAIT)


@pytest.mark.parametrize("trial", [Trial(), LAUNCHED, READY])
def test_what_has_failed_for_good_goes_back_at_once(trial: Trial) -> None:
    found = ruling(trial, State.FAILED, cause=Cause(Kind.LAUNCH, "cannot execute /x"))
    assert found == Ruling(Verdict.GO_BACK, "cannot execute /x")


def test_what_ended_well_has_proved_itself() -> None:
    assert ruling(LAUNCHED, State.STOPPED, completed=True).verdict is Verdict.KEEP


@pytest.mark.parametrize("state", [State.STARTING, State.RESTARTING])
def test_until_it_runs_its_deadline_counts(state: State) -> None:
    assert ruling(LAUNCHED, state) == Ruling(Verdict.WAIT, again=NOW + 6)
    late = ruling(LAUNCHED, state, now=NOW + 6)
    assert late == Ruling(Verdict.GO_BACK, "was not RUNNING within 10s")
    died = ruling(replace(LAUNCHED, deaths=1), state, now=NOW + 6)
    assert died.why == "was not RUNNING within 10s; its last death: killed by SIGSEGV"


def test_one_that_never_said_ok_is_not_asked_twice() -> None:
    assert ruling(replace(LAUNCHED, deaths=1), State.RESTARTING, MUTE) == Ruling(Verdict.GO_BACK, MUTE.text)
    once_ready = ruling(replace(READY, deaths=1), State.RESTARTING, MUTE)
    assert once_ready.verdict is Verdict.WAIT, "then it is a death as any other"


@pytest.mark.parametrize("trial", [LAUNCHED, READY])
@pytest.mark.parametrize("state", [State.STARTING, State.RUNNING, State.RESTARTING])
def test_so_many_deaths_are_too_many(trial: Trial, state: State) -> None:
    assert ruling(replace(trial, deaths=2), state).verdict is Verdict.WAIT
    found = ruling(replace(trial, deaths=3), state)
    assert found == Ruling(Verdict.GO_BACK, "killed by SIGSEGV, and died 3 times on probation")


def test_it_has_proved_itself_once_it_ran_long_enough_and_runs() -> None:
    assert ruling(READY, State.RUNNING) == Ruling(Verdict.WAIT, again=NOW + 54)
    assert ruling(READY, State.RUNNING, now=NOW + 54) == Ruling(Verdict.KEEP)
    assert ruling(READY, State.RESTARTING, now=NOW + 54) == Ruling(Verdict.WAIT)


def test_what_is_seen_of_it_is_kept() -> None:
    trial = look(Trial(), Life(state=State.WAITING_FOR_DEPS), 0, 1)
    assert trial == Trial()
    trial = look(trial, Life(state=State.STARTING), 0, 2)
    assert trial == Trial(launched=2)
    trial = look(trial, Life(state=State.RESTARTING), 1, 3)
    assert trial == Trial(launched=2, deaths=1)
    trial = look(trial, Life(state=State.RUNNING), 1, 4)
    assert trial == Trial(launched=2, ready=4, deaths=1)
    assert look(trial, Life(state=State.RUNNING), 2, 9) == Trial(launched=2, ready=4, deaths=2)
