# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from typing import Any

import pytest

from maestro_py.lifecycle import Cause, Kind, Life
from maestro_py.spec.model import RestartPolicy
from maestro_py.spec.resolved import Ready, ResolvedProcess, Restart, State
from maestro_py.why import why

NOW = 1000.0
CRASH = Cause(Kind.SIGNAL, "killed by SIGSEGV")
STAYS = "It is not tried again by itself: mend the cause, then `maestro start` or apply again."


def process(**fields: Any) -> ResolvedProcess:
    return ResolvedProcess(name="web", members=("web",), **fields)


def told(life: Life, others: dict[str, Life] | None = None, held: str = "", **fields: Any) -> list[str]:
    return why(process(**fields), life, others or {}, NOW, held)


@pytest.mark.parametrize("state", State)
def test_every_state_has_its_sentence(state: State) -> None:
    first, *_ = told(Life(state, CRASH, tries=1, timer=NOW + 1, running_since=NOW - 1))
    assert first.startswith("web ")
    assert first.endswith(".")


def test_it_never_ran() -> None:
    assert told(Life()) == ["web has not been started."]
    assert told(Life(), autostart=False) == ["web has not been started: it is not started by itself."]


def test_what_ended_it_before_the_daemon_started_is_told() -> None:
    assert told(Life(cause=CRASH)) == ["web has not been started.", "Before that: killed by SIGSEGV."]


def test_it_runs() -> None:
    assert told(Life(State.RUNNING, running_since=NOW - 90)) == ["web runs, ready for 1m30s."]
    assert told(Life(State.RUNNING, running_since=0.0)) == ["web runs, ready for 16m40s."]


def test_it_runs_after_restarts() -> None:
    life = Life(State.RUNNING, CRASH, restarts=2, running_since=NOW - 5)
    assert told(life) == [
        "web runs, ready for 5s.",
        "Before that: killed by SIGSEGV.",
        "It was restarted 2 times since it was last started by hand or by an apply.",
    ]
    assert "It was restarted once since" in told(Life(State.RUNNING, restarts=1, running_since=NOW))[1]


def test_it_has_not_said_ok_yet() -> None:
    life = Life(State.STARTING, timer=NOW + 3)
    assert told(life, ready=Ready("!!OK!!", 5)) == [
        "web was launched and is not ready yet: it has not said !!OK!!, for at most 3s more."
    ]
    assert told(Life(State.STARTING), ready=Ready("!!OK!!")) == [
        "web was launched and is not ready yet: it has not said !!OK!!."
    ]


def test_its_running_status_is_deferred() -> None:
    assert told(Life(State.STARTING, timer=NOW + 3), ready=Ready(defer=5)) == [
        "web was launched and is not ready yet: it counts as ready in 3s."
    ]


def test_it_is_in_back_off() -> None:
    life = Life(State.RESTARTING, CRASH, tries=2, timer=NOW + 4)
    restart = Restart(RestartPolicy.ALWAYS, limit=5)
    assert told(life, restart=restart) == [
        "web is in back-off for another 4s after 2 deaths: killed by SIGSEGV"
        " (it is given up after 5 restarts)."
    ]


def test_a_back_off_that_is_over_is_never_negative() -> None:
    assert "for another 0s after 1 death:" in told(Life(State.RESTARTING, CRASH, tries=1, timer=NOW - 1))[0]


def test_it_failed_and_stays_down() -> None:
    assert told(Life(State.FAILED, CRASH)) == ["web failed: killed by SIGSEGV.", STAYS]


def test_it_was_stopped_or_ended_by_itself() -> None:
    stopped = Life(State.STOPPED, Cause(Kind.ASKED, "stopped by hand"))
    assert told(stopped) == ["web is stopped: stopped by hand."]
    ended = Life(State.STOPPED, Cause(Kind.EXIT, "exit code 0"), completed=True)
    assert told(ended) == ["web ended: exit code 0."]
    assert told(Life(State.STOPPED)) == ["web is stopped: nobody started it."]


def test_it_is_being_stopped() -> None:
    life = Life(State.STOPPING, Cause(Kind.DEPENDENCY, "its dependency db is gone"))
    assert told(life) == ["web is being stopped: its dependency db is gone."]


def test_it_waits_and_says_for_whom_and_why_they_are_not_ready() -> None:
    others = {
        "db": Life(State.RESTARTING, CRASH, tries=3, timer=NOW + 8),
        "auth": Life(State.FAILED, Cause(Kind.LAUNCH, "no such file")),
        "dns": Life(State.STARTING),
        "net": Life(State.RUNNING, running_since=NOW),
        "setup": Life(State.STOPPED, completed=True),
    }
    lines = told(
        Life(State.WAITING_FOR_DEPS),
        others,
        depends_on=("auth", "db", "dns", "gone", "net", "setup"),
    )
    assert lines == [
        "web waits for what it depends on.",
        "It waits for auth, which failed: no such file.",
        "It waits for db, which is in back-off for another 8s after 3 deaths: killed by SIGSEGV.",
        "It waits for dns, which is starting and not ready yet.",
        "It waits for gone, which is not known.",
    ]


def test_a_version_that_is_held_back_is_told_whatever_the_state() -> None:
    lines = told(Life(State.RUNNING, running_since=NOW), held="checksum mismatch")
    assert lines[-1] == "Its newest version is not in force: checksum mismatch."


def test_who_waits_for_one_that_waits_is_told_the_end_of_the_chain() -> None:
    killed = Cause(Kind.OOM, "killed for memory, limit 10.0M, peak 10.0M")
    others = {
        "api": Life(State.WAITING_FOR_DEPS),
        "db": Life(State.WAITING_FOR_DEPS),
        "disk": Life(State.RESTARTING, killed, tries=3, timer=NOW + 12),
        "net": Life(State.RUNNING, running_since=NOW),
    }
    needs = {"api": ["net", "db"], "db": ["disk"], "disk": [], "net": []}
    lines = why(process(depends_on=("api",)), Life(State.WAITING_FOR_DEPS), others, NOW, needs=needs)
    assert lines[1] == (
        "It waits for api, which waits for db, which waits for disk, which is in back-off for another 12s "
        "after 3 deaths: killed for memory, limit 10.0M, peak 10.0M."
    )


def test_a_circle_of_waiting_ends() -> None:
    others = {"a": Life(State.WAITING_FOR_DEPS), "b": Life(State.WAITING_FOR_DEPS)}
    needs = {"a": ["b"], "b": ["a"]}
    lines = why(process(depends_on=("a",)), Life(State.WAITING_FOR_DEPS), others, NOW, needs=needs)
    assert lines[1] == "It waits for a, which waits for b, which waits for what it depends on."


def test_memory_is_told_beside_its_limit() -> None:
    life = Life(State.RUNNING, running_since=NOW)
    with_limit = why(process(), life, {}, NOW, memory=(5 << 20, 9 << 20, 10 << 20))
    assert with_limit[1] == "It uses 5.0M of memory, limit 10.0M, peak 9.0M."
    assert len(why(process(), life, {}, NOW, memory=(5 << 20, None, None))) == 1
