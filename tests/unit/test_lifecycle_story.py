# SPDX-License-Identifier: Apache-2.0
"""The life of a process, told: what is asked, what happens, what the daemon is told to do."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from maestro_py.exits import Exit
from maestro_py.lifecycle import (
    KILL_AGAIN,
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
    Now,
    Ready,
    Start,
    Stop,
    Timer,
    delay,
    step,
)
from maestro_py.spec.model import Backoff, RestartPolicy
from maestro_py.spec.resolved import Ready as Readiness
from maestro_py.spec.resolved import ResolvedProcess, Restart, State

ASKED = Cause(Kind.ASKED, "stopped by somebody")
SEGV = Exited(Exit(signal=11))
PROCESS = ResolvedProcess(name="job", members=("job",))
ALWAYS = Restart(RestartPolicy.ALWAYS, backoff=Backoff(jitter=0.0))


class Story:
    """One life on a clock that only moves when told to."""

    def __init__(self, **settings: Any) -> None:
        self.process = replace(PROCESS, **settings)
        self.life = Life()
        self.time = 100.0
        self.deps_ready = True
        self.chance = 0.5

    def told(self, event: Event) -> tuple[Effect, ...]:
        self.life, effects = step(
            self.life, event, self.process, Now(self.time, self.deps_ready, self.chance)
        )
        return effects

    def after(self, seconds: float) -> tuple[Effect, ...]:
        """Let time pass and the timer strike if it is due by then."""
        self.time += seconds
        return self.told(Timer())

    def at_timer(self) -> tuple[Effect, ...]:
        assert self.life.timer is not None
        return self.after(self.life.timer - self.time)

    def started(self) -> Story:
        assert self.told(Start()) == (Effect.LAUNCH,)
        self.told(Launched())
        return self

    @property
    def state(self) -> State:
        return self.life.state

    @property
    def wait(self) -> float:
        assert self.life.timer is not None
        return self.life.timer - self.time


# Becoming ready


def test_without_an_ok_string_a_launched_process_is_ready_at_once() -> None:
    story = Story().started()
    assert story.state is State.RUNNING
    assert story.life.ready
    assert story.life.running_since == story.time


def test_ok_in_time_makes_it_ready_and_disarms_the_timer() -> None:
    story = Story(ready=Readiness("!!OK!!", timeout=5)).started()
    assert (story.state, story.wait) == (State.STARTING, 5)
    story.time += 4.9
    story.told(Ready())
    assert (story.state, story.life.timer) == (State.RUNNING, None)
    assert story.after(1) == ()
    assert story.state is State.RUNNING


def test_ok_seen_before_the_news_of_the_launch_counts() -> None:
    story = Story(ready=Readiness("!!OK!!", timeout=5))
    story.told(Start())
    story.told(Ready())
    story.told(Launched())
    assert (story.state, story.life.timer) == (State.RUNNING, None)


def test_no_ok_in_time_is_killed_and_then_the_restart_policy_applies() -> None:
    story = Story(ready=Readiness("!!OK!!", timeout=5), restart=ALWAYS).started()
    assert story.after(4.999) == ()
    assert story.at_timer() == (Effect.KILL,)
    assert story.state is State.STOPPING
    assert story.life.cause == Cause(Kind.NOT_READY, "did not say OK within 5s")
    story.told(Exited(Exit(signal=9)))
    assert story.state is State.RESTARTING
    assert story.life.cause == Cause(Kind.NOT_READY, "did not say OK within 5s")


def test_no_ok_in_time_without_restart_fails_and_says_so() -> None:
    story = Story(ready=Readiness("!!OK!!", timeout=0.25)).started()
    story.at_timer()
    story.told(Exited(Exit(signal=9)))
    assert story.state is State.FAILED
    assert story.life.cause == Cause(Kind.NOT_READY, "did not say OK within 250ms")


def test_ok_after_the_timeout_comes_too_late() -> None:
    story = Story(ready=Readiness("!!OK!!", timeout=5)).started()
    story.at_timer()
    story.told(Ready())
    assert story.state is State.STOPPING


def test_a_timeout_of_zero_waits_for_ok_for_ever() -> None:
    story = Story(ready=Readiness("!!OK!!", timeout=0)).started()
    assert (story.state, story.life.timer) == (State.STARTING, None)


def test_deferred_running_status_counts_as_ready_after_its_time() -> None:
    story = Story(ready=Readiness(defer=3)).started()
    assert story.after(2.9) == ()
    assert story.state is State.STARTING
    story.at_timer()
    assert story.state is State.RUNNING
    assert story.life.running_since == story.time


def test_dying_before_ok_is_a_failure_even_with_exit_code_0() -> None:
    story = Story(ready=Readiness("!!OK!!"), restart=Restart(RestartPolicy.ON_FAILURE)).started()
    story.told(Exited(Exit(code=0)))
    assert story.state is State.RESTARTING
    assert story.life.cause == Cause(Kind.EXIT, "exit code 0 before it said OK")


# Ending by itself


@pytest.mark.parametrize(
    ("policy", "exit", "state", "kind"),
    [
        (RestartPolicy.NEVER, Exit(code=0), State.STOPPED, Kind.EXIT),
        (RestartPolicy.NEVER, Exit(code=1), State.FAILED, Kind.EXIT),
        (RestartPolicy.NEVER, Exit(signal=11), State.FAILED, Kind.SIGNAL),
        (RestartPolicy.NEVER, Exit(), State.FAILED, Kind.UNKNOWN),
        (RestartPolicy.ON_FAILURE, Exit(code=0), State.STOPPED, Kind.EXIT),
        (RestartPolicy.ON_FAILURE, Exit(code=1), State.RESTARTING, Kind.EXIT),
        (RestartPolicy.ON_FAILURE, Exit(signal=11), State.RESTARTING, Kind.SIGNAL),
        (RestartPolicy.ON_FAILURE, Exit(), State.RESTARTING, Kind.UNKNOWN),
        (RestartPolicy.ALWAYS, Exit(code=0), State.RESTARTING, Kind.EXIT),
        (RestartPolicy.ALWAYS, Exit(code=1), State.RESTARTING, Kind.EXIT),
        (RestartPolicy.ALWAYS, Exit(signal=11), State.RESTARTING, Kind.SIGNAL),
        (RestartPolicy.ALWAYS, Exit(), State.RESTARTING, Kind.UNKNOWN),
        (RestartPolicy.UNLESS_STOPPED, Exit(code=0), State.RESTARTING, Kind.EXIT),
        (RestartPolicy.UNLESS_STOPPED, Exit(code=1), State.RESTARTING, Kind.EXIT),
        (RestartPolicy.UNLESS_STOPPED, Exit(signal=11), State.RESTARTING, Kind.SIGNAL),
        (RestartPolicy.UNLESS_STOPPED, Exit(), State.RESTARTING, Kind.UNKNOWN),
    ],
)
def test_what_an_exit_leads_to_under_each_policy(
    policy: RestartPolicy, exit: Exit, state: State, kind: Kind
) -> None:
    story = Story(restart=Restart(policy)).started()
    assert story.told(Exited(exit)) == ()
    assert story.state is state
    assert story.life.cause == Cause(kind, exit.describe())
    assert story.life.completed is story.life.ready is (state is State.STOPPED)


def test_death_by_memory_limit_is_named_with_its_evidence() -> None:
    story = Story().started()
    story.told(Exited(Exit(signal=9), oom="out of memory: limit 10.0M"))
    assert story.state is State.FAILED
    assert story.life.cause == Cause(Kind.OOM, "out of memory: limit 10.0M")


def test_a_one_shot_that_completes_counts_as_ready_and_stays_so_when_stopped() -> None:
    story = Story().started()
    story.told(Exited(Exit(code=0)))
    assert story.life.ready
    story.told(Stop(ASKED))
    assert story.life.ready
    assert story.life.cause == Cause(Kind.EXIT, "exit code 0")


def test_a_one_shot_that_is_started_again_is_not_ready_until_it_is() -> None:
    story = Story(ready=Readiness(defer=9)).started()
    story.told(Exited(Exit(code=0)))
    assert story.life.ready
    assert story.told(Start()) == (Effect.LAUNCH,)
    assert not story.life.ready


# Restarting


def test_a_restart_limit_gives_up_after_that_many_restarts() -> None:
    story = Story(restart=Restart(RestartPolicy.ALWAYS, limit=3, pause=1)).started()
    launches = 1
    while story.told(SEGV) == () and story.state is State.RESTARTING:
        assert story.at_timer() == (Effect.LAUNCH,)
        story.told(Launched())
        launches += 1
    assert story.state is State.FAILED
    assert launches == 1 + 3
    assert story.life.restarts == 3
    assert story.life.cause == Cause(Kind.SIGNAL, "killed by SIGSEGV; gave up after 3 restarts")


def test_one_restart_is_written_in_the_singular() -> None:
    story = Story(restart=Restart(RestartPolicy.ALWAYS, limit=1, pause=0)).started()
    story.told(SEGV)
    story.told(Launched())
    story.told(SEGV)
    assert story.life.cause.text == "killed by SIGSEGV; gave up after 1 restart"


def test_a_fixed_pause_never_grows_and_has_no_jitter() -> None:
    story = Story(restart=Restart(RestartPolicy.ALWAYS, pause=0.7))
    story.chance = 0.99
    story.started()
    for _ in range(20):
        story.told(SEGV)
        assert story.wait == pytest.approx(0.7)
        story.at_timer()
        story.told(Launched())


def test_a_pause_of_zero_restarts_at_once() -> None:
    story = Story(restart=Restart(RestartPolicy.ALWAYS, pause=0)).started()
    assert story.told(SEGV) == (Effect.LAUNCH,)
    assert story.state is State.STARTING
    assert story.life.restarts == 1
    assert story.life.cause.text == "killed by SIGSEGV"


def test_back_off_grows_by_its_factor_up_to_its_cap() -> None:
    story = Story(restart=ALWAYS).started()
    waits = []
    for _ in range(13):
        story.told(SEGV)
        waits.append(round(story.wait, 6))
        story.at_timer()
        story.told(Launched())
    assert waits == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 51.2, 60.0, 60.0, 60.0]


def test_a_stable_run_makes_the_next_death_the_first_again() -> None:
    story = Story(restart=replace(ALWAYS, limit=4)).started()
    for _ in range(3):
        story.told(SEGV)
        story.at_timer()
        story.told(Launched())
    assert story.life.tries == 3
    story.time += 9.99
    story.told(SEGV)
    assert (story.life.tries, round(story.wait, 6)) == (4, 0.8)
    story.at_timer()
    story.told(Launched())
    story.time += 10
    story.told(SEGV)
    assert (story.life.tries, round(story.wait, 6)) == (1, 0.1)
    assert story.life.restarts == 4


def test_time_before_it_is_ready_is_no_stable_run() -> None:
    story = Story(restart=ALWAYS, ready=Readiness("!!OK!!")).started()
    story.time += 3600
    story.told(SEGV)
    story.at_timer()
    story.told(Launched())
    story.time += 3600
    story.told(SEGV)
    assert story.life.tries == 2


@given(
    initial=st.floats(0, 1e6),
    factor=st.floats(0, 1e300),
    most=st.floats(0, 1e6),
    jitter=st.floats(0, 1),
    tries=st.integers(0, 10**9),
    chance=st.floats(0, 1, exclude_max=True),
)
def test_the_delay_is_within_its_cap_and_jitter_and_never_overflows(
    initial: float, factor: float, most: float, jitter: float, tries: int, chance: float
) -> None:
    wait = delay(Restart(RestartPolicy.ALWAYS, backoff=Backoff(initial, factor, most, jitter)), tries, chance)
    assert 0 <= wait <= most * (1 + jitter) * 1.000001


@given(tries=st.integers(0, 40), chance=st.floats(0, 1, exclude_max=True))
def test_jitter_spreads_around_the_delay(tries: int, chance: float) -> None:
    middle = min(60.0, 0.1 * 2**tries)
    wait = delay(Restart(RestartPolicy.ALWAYS), tries, chance)
    assert middle * 0.9 * 0.999999 <= wait <= middle * 1.1 * 1.000001


# Being asked


@pytest.mark.parametrize("ask", [Start(), Again(ASKED)])
def test_a_start_by_hand_in_a_back_off_clears_the_counters_and_launches_at_once(ask: Event) -> None:
    story = Story(restart=ALWAYS).started()
    for _ in range(5):
        story.told(SEGV)
        story.at_timer()
        story.told(Launched())
    story.told(SEGV)
    assert story.told(ask) == (Effect.LAUNCH,)
    assert (story.life.restarts, story.life.tries, story.life.cause) == (0, 0, Cause())


def test_a_start_by_hand_while_it_is_being_started_clears_the_counters_and_launches_nothing() -> None:
    story = Story(restart=ALWAYS, ready=Readiness("!!OK!!", timeout=5)).started()
    story.told(SEGV)
    story.at_timer()
    story.told(Launched())
    before = story.life
    assert story.told(Start()) == ()
    assert story.life == replace(before, restarts=0, tries=0)


def test_a_start_after_failure_clears_the_cause() -> None:
    story = Story().started()
    story.told(SEGV)
    assert story.state is State.FAILED
    story.told(Start())
    assert story.life.cause == Cause()


def test_a_stop_while_starting_terminates_and_late_news_of_the_launch_does_not_revive_it() -> None:
    story = Story(ready=Readiness("!!OK!!", timeout=5))
    story.told(Start())
    assert story.told(Stop(ASKED)) == (Effect.TERMINATE,)
    assert story.told(Launched()) == ()
    assert story.told(Ready()) == ()
    assert story.state is State.STOPPING
    story.told(Exited(Exit(signal=15)))
    assert (story.state, story.life.cause) == (State.STOPPED, ASKED)


def test_a_stop_while_starting_whose_launch_fails_is_stopped_and_not_failed() -> None:
    story = Story()
    story.told(Start())
    story.told(Stop(ASKED))
    story.told(LaunchFailed("cannot launch job: no such file", lasting=True))
    assert (story.state, story.life.cause) == (State.STOPPED, ASKED)


def test_the_ladder_of_a_stop_is_terminate_then_kill_and_kill_again() -> None:
    story = Story(stop_timeout=8.0).started()
    assert story.told(Stop(ASKED)) == (Effect.TERMINATE,)
    assert story.wait == 8.0
    assert story.after(7.9) == ()
    assert story.at_timer() == (Effect.KILL,)
    for _ in range(3):
        assert story.wait == KILL_AGAIN
        assert story.at_timer() == (Effect.KILL,)
    story.told(Exited(Exit(signal=9)))
    cause = Cause(ASKED.kind, f"{ASKED.text}, did not end within 8s and was killed")
    assert (story.state, story.life.cause, story.life.timer) == (State.STOPPED, cause, None)


def test_a_stop_timeout_of_zero_kills_at_once() -> None:
    story = Story(stop_timeout=0.0).started()
    story.told(Stop(ASKED))
    assert story.at_timer() == (Effect.KILL,)


def test_a_stopped_process_is_not_restarted_whatever_its_policy() -> None:
    story = Story(restart=ALWAYS).started()
    story.told(Stop(ASKED))
    story.told(Exited(Exit(code=1)))
    assert story.state is State.STOPPED


def test_a_stop_in_a_back_off_stays_down() -> None:
    story = Story(restart=ALWAYS).started()
    story.told(SEGV)
    assert story.told(Stop(ASKED)) == ()
    assert (story.state, story.life.timer, story.life.cause) == (State.STOPPED, None, ASKED)
    assert story.after(1000) == ()
    assert story.state is State.STOPPED


def test_switching_off_what_ended_by_itself_is_the_newer_cause() -> None:
    story = Story().started()
    story.told(Exited(Exit(code=0)))
    story.told(Stop(Cause(Kind.DISABLED, "disabled")))
    assert story.life.cause == Cause(Kind.DISABLED, "disabled")


def test_a_restart_stops_then_starts_with_fresh_counters_and_keeps_its_cause() -> None:
    story = Story(restart=ALWAYS).started()
    story.told(SEGV)
    story.at_timer()
    story.told(Launched())
    why = Cause(Kind.ASKED, "restart asked for")
    assert story.told(Again(why)) == (Effect.TERMINATE,)
    assert story.told(Exited(Exit(signal=15))) == (Effect.LAUNCH,)
    assert (story.life.restarts, story.life.tries, story.life.cause) == (0, 0, why)


@pytest.mark.parametrize("ask", [Start(), Again(ASKED)])
def test_a_start_asked_while_stopping_is_launched_once_it_is_gone(ask: Event) -> None:
    story = Story().started()
    story.told(Stop(ASKED))
    assert story.told(ask) == ()
    assert story.state is State.STOPPING
    assert story.at_timer() == (Effect.KILL,)
    assert story.told(Exited(Exit(signal=9))) == (Effect.LAUNCH,)
    assert story.state is State.STARTING


def test_the_last_word_said_while_stopping_counts() -> None:
    story = Story().started()
    for ask in (Stop(ASKED), Start(), Stop(ASKED), Again(ASKED), Stop(Cause(Kind.DISABLED, "disabled"))):
        story.told(ask)
    assert story.told(Exited(Exit(signal=15))) == ()
    assert (story.state, story.life.cause.kind) == (State.STOPPED, Kind.DISABLED)


def test_a_stop_while_it_is_killed_for_not_being_ready_stays_down() -> None:
    story = Story(restart=ALWAYS, ready=Readiness("!!OK!!", timeout=1)).started()
    story.at_timer()
    story.told(Stop(ASKED))
    story.told(Exited(Exit(signal=9)))
    assert (story.state, story.life.cause) == (State.STOPPED, ASKED)


# Launching


def test_a_lasting_launch_failure_is_final_whatever_the_policy() -> None:
    story = Story(restart=ALWAYS)
    story.told(Start())
    assert story.told(LaunchFailed("cannot run /x: no such file", lasting=True)) == ()
    assert (story.state, story.life.cause) == (
        State.FAILED,
        Cause(Kind.LAUNCH, "cannot run /x: no such file"),
    )


def test_a_passing_launch_failure_is_tried_again_by_policy() -> None:
    story = Story(restart=replace(ALWAYS, limit=2))
    story.told(Start())
    for _ in range(2):
        story.told(LaunchFailed("cannot fork: no memory", lasting=False))
        assert story.state is State.RESTARTING
        assert story.at_timer() == (Effect.LAUNCH,)
    story.told(LaunchFailed("cannot fork: no memory", lasting=False))
    assert story.state is State.FAILED
    assert story.life.cause == Cause(Kind.LAUNCH, "cannot fork: no memory; gave up after 2 restarts")


def test_a_passing_launch_failure_without_restart_fails() -> None:
    story = Story()
    story.told(Start())
    story.told(LaunchFailed("cannot fork: no memory", lasting=False))
    assert (story.state, story.life.cause.kind) == (State.FAILED, Kind.LAUNCH)


def test_what_cannot_be_run_at_all_fails_with_its_cause_unless_it_runs() -> None:
    no_image = Cause(Kind.IMAGE, "checksum mismatch")
    story = Story()
    story.told(Fail(no_image))
    assert (story.state, story.life.cause) == (State.FAILED, no_image)
    story.told(Start())
    story.told(Fail(no_image))
    assert story.state is State.STARTING


# Dependencies


def test_it_waits_for_its_dependencies_and_starts_when_they_are_ready() -> None:
    story = Story()
    story.deps_ready = False
    assert story.told(Start()) == ()
    assert story.state is State.WAITING_FOR_DEPS
    story.deps_ready = True
    assert story.told(DepsReady()) == (Effect.LAUNCH,)


def test_news_of_ready_dependencies_that_is_already_outdated_starts_nothing() -> None:
    story = Story()
    story.deps_ready = False
    story.told(Start())
    assert story.told(DepsReady()) == ()
    assert story.state is State.WAITING_FOR_DEPS


def test_a_lost_dependency_is_borne_without_restart_on_dependency_fail() -> None:
    story = Story().started()
    story.deps_ready = False
    assert story.told(DepsLost("db")) == ()
    assert story.state is State.RUNNING


def test_a_lost_dependency_stops_it_until_the_dependency_is_back_and_counts_as_a_restart() -> None:
    story = Story(restart=Restart(on_dependency_fail=True)).started()
    story.deps_ready = False
    assert story.told(DepsLost("db")) == (Effect.TERMINATE,)
    assert story.life.cause == Cause(Kind.DEPENDENCY, "its dependency db is gone")
    assert story.told(Exited(Exit(code=0))) == ()
    assert story.state is State.WAITING_FOR_DEPS
    story.deps_ready = True
    assert story.told(DepsReady()) == (Effect.LAUNCH,)
    assert (story.life.restarts, story.life.tries) == (1, 0)


def test_a_back_off_that_ends_while_a_dependency_is_down_waits_for_it() -> None:
    story = Story(restart=ALWAYS).started()
    story.told(SEGV)
    story.deps_ready = False
    assert story.at_timer() == ()
    assert story.state is State.WAITING_FOR_DEPS
    story.deps_ready = True
    assert story.told(DepsReady()) == (Effect.LAUNCH,)
    assert story.life.restarts == 1


def test_a_stop_while_it_waits_for_dependencies_stays_down() -> None:
    story = Story()
    story.deps_ready = False
    story.told(Start())
    story.told(Stop(ASKED))
    story.deps_ready = True
    assert story.told(DepsReady()) == ()
    assert story.state is State.STOPPED
