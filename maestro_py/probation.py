# SPDX-License-Identifier: Apache-2.0
"""Has a new version of a process proved itself? Pure: what is known of it, and the time, are arguments."""

from __future__ import annotations

from dataclasses import replace
from enum import Enum

from maestro_py.lifecycle import Cause, Kind, Life
from maestro_py.spec.resolved import Probation, State
from maestro_py.units import format_duration
from maestro_py.valueclass import valueclass


class Verdict(str, Enum):
    """What is to be done about it: nothing yet, keep it for good, or bring the one before back."""

    WAIT = "wait"
    KEEP = "keep"
    GO_BACK = "go back"


@valueclass(frozen=True)
class Trial:
    """What has been seen of a new version. Times are the caller's monotonic seconds, None: not yet.

    launched: when it was first launched. ready: when it was first RUNNING. deaths: nobody asked for them.
    """

    launched: float | None = None
    ready: float | None = None
    deaths: int = 0


@valueclass(frozen=True)
class Ruling:
    """A verdict, why, and when to look again at the latest should nothing happen; None: no need."""

    verdict: Verdict
    why: str = ""
    again: float | None = None


def look(trial: Trial, life: Life, deaths: int, now: float) -> Trial:
    """Return the trial with what shows now; `deaths` since it began."""
    launched, ready = trial.launched, trial.ready
    if launched is None and life.state in (State.STARTING, State.RUNNING, State.RESTARTING):
        launched = now
    if ready is None and life.state is State.RUNNING:
        ready = now
    return replace(trial, launched=launched, ready=ready, deaths=deaths)


def judge(trial: Trial, life: Life, death: Cause, rules: Probation, now: float) -> Ruling:
    """Return the ruling; `death` is the last cause nobody asked for.

    What waits for others, or was stopped by hand, is not judged meanwhile.
    """
    if life.state is State.FAILED:
        return Ruling(Verdict.GO_BACK, life.cause.text)
    if life.completed:
        return Ruling(Verdict.KEEP)
    if trial.deaths and trial.ready is None and death.kind is Kind.NOT_READY:
        return Ruling(Verdict.GO_BACK, death.text)
    if trial.deaths >= rules.deaths:
        times = "once" if trial.deaths == 1 else f"{trial.deaths} times"
        return Ruling(Verdict.GO_BACK, f"{death.text}, and died {times} on probation")
    if life.state not in (State.STARTING, State.RUNNING, State.RESTARTING):
        return Ruling(Verdict.WAIT)
    if trial.ready is None:
        end = (now if trial.launched is None else trial.launched) + rules.timeout
        if now < end:
            return Ruling(Verdict.WAIT, again=end)
        last = f"; its last death: {death.text}" if trial.deaths else ""
        return Ruling(Verdict.GO_BACK, f"was not RUNNING within {format_duration(rules.timeout)}{last}")
    end = trial.ready + rules.duration
    if now < end:
        return Ruling(Verdict.WAIT, again=end)
    # what is between two lives has proved nothing: it runs again, or dies once too often
    return Ruling(Verdict.KEEP if life.state is State.RUNNING else Verdict.WAIT)
