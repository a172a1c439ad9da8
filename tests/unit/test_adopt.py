# SPDX-License-Identifier: Apache-2.0
"""What becomes of a recorded process, and what is worth recording: the decisions alone."""

from __future__ import annotations

from typing import Any

import pytest

from maestro_py.daemon.adopt import Verdict, continued, judge
from maestro_py.daemon.ledger import DAEMON_STOPS, Kept, worth_keeping
from maestro_py.exits import Exit
from maestro_py.lifecycle import Cause, Kind, Life, Next
from maestro_py.spec.resolved import State

S = State


def kept(state: State, kind: Kind = Kind.NONE, *, life: dict[str, Any] | None = None, **keys: Any) -> Kept:
    return Kept(Life(state, Cause(kind, "why"), **(life or {})), Cause(), **keys)


@pytest.mark.parametrize(
    ("state", "has_pid", "there", "keys", "verdict"),
    [
        (S.RUNNING, True, True, {"reported": True}, Verdict.ADOPT),
        (S.STARTING, True, True, {}, Verdict.ADOPT),
        (S.STOPPING, True, True, {"reported": True}, Verdict.ADOPT),
        (S.RUNNING, True, False, {"reported": True}, Verdict.BURY),
        (S.STOPPING, True, False, {"reported": True}, Verdict.BURY),
        (S.STARTING, True, False, {"reported": True}, Verdict.BURY),
        # nobody knows that it ever began: the launch is what was meant to be
        (S.STARTING, True, False, {"reported": False}, Verdict.LAUNCH),
        (S.STARTING, False, False, {}, Verdict.LAUNCH),
        (S.STOPPING, False, False, {}, Verdict.BURY),
        # its main process had ended, others of it were still there
        (S.RUNNING, False, False, {"exit": Exit(code=1), "reported": True}, Verdict.BURY),
        (S.STARTING, False, False, {"exit": Exit(code=1)}, Verdict.BURY),
        (S.RUNNING, True, True, {"exit": Exit(code=1)}, Verdict.BURY),
        *((state, False, False, {}, Verdict.WAIT) for state in (S.RESTARTING, S.WAITING_FOR_DEPS)),
        *((state, True, True, {}, Verdict.WAIT) for state in (S.FAILED, S.STOPPED, S.NEVER_RAN)),
    ],
)
def test_what_becomes_of_a_recorded_process(
    state: State, has_pid: bool, there: bool, keys: dict[str, Any], verdict: Verdict
) -> None:
    assert judge(kept(state, **keys), has_pid=has_pid, there=there) is verdict


@pytest.mark.parametrize(
    ("what", "worth"),
    [
        *((kept(state), True) for state in (S.STARTING, S.RUNNING, S.STOPPING, S.RESTARTING)),
        (kept(S.WAITING_FOR_DEPS), True),
        (kept(S.NEVER_RAN), False),
        (kept(S.FAILED, Kind.EXIT), True),
        (kept(S.FAILED, Kind.IMAGE), False),
        (kept(S.STOPPED, Kind.EXIT, life={"completed": True}), True),
        (kept(S.STOPPED, Kind.ASKED, stopped_by_hand=True), True),
        # by a plan that was about to start it again, or that found it disabled
        (kept(S.STOPPED, Kind.ASKED), False),
        (kept(S.STOPPED, Kind.DISABLED), False),
    ],
)
def test_only_what_goes_on_as_it_is_is_worth_keeping(what: Kept, worth: bool) -> None:
    assert worth_keeping(what) is worth


def test_a_stop_for_the_daemons_own_end_becomes_a_restart_and_no_other_stop_does() -> None:
    ending = Kept(Life(S.STOPPING, DAEMON_STOPS), Cause())
    assert continued(ending).next is Next.START
    asked = Kept(Life(S.STOPPING, Cause(Kind.ASKED, "stopped by root")), Cause())
    assert continued(asked) == asked.life
    death = Kept(Life(S.STOPPING, DAEMON_STOPS, next=Next.DEATH), Cause())
    assert continued(death) == death.life
