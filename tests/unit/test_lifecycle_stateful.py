# SPDX-License-Identifier: Apache-2.0
"""A life against a model of the kernel and of the clock, driven at random."""

from __future__ import annotations

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from maestro_py.exits import Exit
from maestro_py.lifecycle import (
    ALIVE,
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
    Next,
    Now,
    Ready,
    Start,
    Stop,
    Timer,
    step,
)
from maestro_py.spec.model import Backoff, RestartPolicy
from maestro_py.spec.resolved import Ready as Readiness
from maestro_py.spec.resolved import ResolvedProcess, Restart, State

ASKED = Cause(Kind.ASKED, "somebody asked")

READINESS = st.sampled_from(
    [Readiness(), Readiness("!!OK!!", timeout=5.0), Readiness("!!OK!!"), Readiness(defer=3.0)]
)
RESTARTS = st.builds(
    Restart,
    policy=st.sampled_from(RestartPolicy),
    limit=st.integers(0, 3),
    pause=st.sampled_from([None, 0.0, 2.0]),
    backoff=st.builds(Backoff, initial=st.sampled_from([0.0, 0.1]), jitter=st.sampled_from([0.0, 0.1, 1.0])),
    on_dependency_fail=st.booleans(),
)
EXITS = st.one_of(
    st.just(Exited(Exit(code=0))),
    st.just(Exited(Exit(code=7))),
    st.just(Exited(Exit(signal=11))),
    st.just(Exited(Exit())),
    st.just(Exited(Exit(signal=9), oom="out of memory")),
)


class Device(RuleBasedStateMachine):
    """What the supervisor does with a life: carries out effects, arms its timer, reports what happens."""

    def __init__(self) -> None:
        super().__init__()
        self.life = Life()
        self.time = 1000.0
        self.deps_ready = True
        self.exists = False  # forked; ends only by `exits` or `launch_fails`
        self.execed = False
        self.terminated_at: float | None = None
        self.killed_at: float | None = None
        self.launches = 0  # since somebody last asked for a start

    @initialize(ready=READINESS, restart=RESTARTS, stop_timeout=st.sampled_from([0.0, 4.0]))
    def define(self, ready: Readiness, restart: Restart, stop_timeout: float) -> None:
        self.process = ResolvedProcess(
            name="job", members=("job",), ready=ready, restart=restart, stop_timeout=stop_timeout
        )

    def tell(self, event: Event, chance: float = 0.5) -> None:
        before = self.life
        self.life, effects = step(before, event, self.process, Now(self.time, self.deps_ready, chance))
        assert len(effects) <= 1
        if Effect.LAUNCH in effects:
            assert not self.exists, "launched while an earlier one is alive"
            assert self.deps_ready, "launched before its dependencies are ready"
            self.exists, self.execed = True, False
            self.terminated_at = self.killed_at = None
            self.launches += 1
        elif effects:
            assert self.exists, "signalled what is not there"
            if Effect.TERMINATE in effects:
                assert self.terminated_at is None
                self.terminated_at = self.time
            else:
                self.killed_at = self.time
        if before.state is State.FAILED and self.life.state is not State.FAILED:
            assert isinstance(event, Start | Again | Stop), "left FAILED without being asked"
        if self.life.state is State.FAILED and before.state is not State.FAILED:
            assert isinstance(event, Exited | LaunchFailed | Fail)

    # what people ask for

    @rule()
    def start(self) -> None:
        self.launches = 1 if self.life.state in (State.STARTING, State.RUNNING) else 0
        self.tell(Start())
        assert self.life.tries == self.life.restarts == 0

    @rule()
    def restart(self) -> None:
        self.launches = 0
        self.tell(Again(ASKED))
        assert self.life.tries == self.life.restarts == 0
        assert self.life.next is (Next.START if self.life.state is State.STOPPING else Next.STAY)

    @rule(disable=st.booleans())
    def stop(self, disable: bool) -> None:
        cause = Cause(Kind.DISABLED, "disabled") if disable else ASKED
        self.tell(Stop(cause))
        assert self.life.state in (State.STOPPED, State.STOPPING)
        assert self.life.next is Next.STAY

    @rule()
    def cannot_be_run(self) -> None:
        self.tell(Fail(Cause(Kind.IMAGE, "no image")))

    # what the kernel does

    @precondition(lambda self: self.exists and not self.execed)
    @rule()
    def exec_succeeds(self) -> None:
        self.execed = True
        self.tell(Launched())

    @precondition(lambda self: self.exists and not self.execed)
    @rule(lasting=st.booleans())
    def launch_fails(self, lasting: bool) -> None:
        self.exists = False
        self.tell(LaunchFailed("cannot launch job: no memory", lasting))

    @precondition(lambda self: self.exists and self.execed and self.process.ready.ok_string)
    @rule()
    def says_ok(self) -> None:
        self.tell(Ready())

    @precondition(lambda self: self.exists and self.execed)
    @rule(exited=EXITS, chance=st.floats(0, 1, exclude_max=True))
    def exits(self, exited: Exited, chance: float) -> None:
        self.exists = False
        self.tell(exited, chance)

    @precondition(lambda self: self.exists and self.life.state is not State.STOPPING)
    @rule(times=st.integers(1, 5))
    def dies_again_and_again(self, times: int) -> None:
        for _ in range(times):
            if self.exists and not self.execed:
                self.exec_succeeds()
            if self.exists:
                self.exits(Exited(Exit(code=7)), 0.5)
            if self.life.state is State.RESTARTING:
                self.the_timer_strikes()
            self.restarts_are_counted_right()

    # what others do

    @rule()
    def outdated_news_of_dependencies_comes(self) -> None:
        self.tell(DepsReady())

    @precondition(lambda self: not self.deps_ready)
    @rule()
    def dependencies_come(self) -> None:
        self.deps_ready = True
        self.tell(DepsReady())

    @precondition(lambda self: self.deps_ready)
    @rule()
    def a_dependency_goes(self) -> None:
        self.deps_ready = False
        self.tell(DepsLost("other"))

    # time

    @precondition(lambda self: self.life.timer is not None)
    @rule()
    def the_timer_strikes(self) -> None:
        assert self.life.timer is not None
        self.time = max(self.time, self.life.timer)
        before = self.life
        self.tell(Timer())
        assert self.life != before, "a timer that struck was left armed"

    @rule(seconds=st.floats(0, 30))
    def time_passes(self, seconds: float) -> None:
        """Up to the next timer, which a loop would not pass over; a spurious strike changes nothing."""
        until = self.time + seconds
        if self.life.timer is not None:
            until = min(until, self.life.timer - 1e-3)
        self.time = max(self.time, until)
        before = self.life
        if before.timer is None or self.time < before.timer:
            self.tell(Timer())
            assert self.life == before

    # what always holds

    @invariant()
    def a_process_exists_exactly_in_the_states_that_say_so(self) -> None:
        assert self.exists == (self.life.state in ALIVE)

    @invariant()
    def timers_are_never_in_the_past(self) -> None:
        assert self.life.timer is None or self.life.timer >= self.time

    @invariant()
    def every_state_is_left_again_or_final(self) -> None:
        state = self.life.state
        if state in (State.STOPPING, State.RESTARTING):
            assert self.life.timer is not None
        elif state is State.STARTING and self.execed:
            assert self.life.timer is not None or (
                self.process.ready.ok_string and not self.process.ready.timeout
            )
        elif state is State.WAITING_FOR_DEPS:
            assert not self.deps_ready
        elif state is not State.STARTING:
            assert self.life.timer is None

    @invariant()
    def what_shall_stop_is_terminated_then_killed_in_time_and_again(self) -> None:
        if self.life.state is not State.STOPPING:
            return
        assert self.terminated_at is not None or self.killed_at is not None
        if self.killed_at is not None:
            assert self.life.timer == self.killed_at + KILL_AGAIN
        else:
            assert self.terminated_at is not None
            assert self.life.timer == self.terminated_at + self.process.stop_timeout

    @invariant()
    def restarts_are_counted_right(self) -> None:
        if self.life.state in (State.STARTING, State.RUNNING):
            assert self.life.restarts == self.launches - 1
        limit = self.process.restart.limit
        assert not limit or self.life.tries <= limit

    @invariant()
    def a_restart_only_follows_where_the_policy_says_so(self) -> None:
        if self.life.state is State.RESTARTING:
            assert self.process.restart.policy is not RestartPolicy.NEVER

    @invariant()
    def the_cause_says_why_it_is_down(self) -> None:
        if self.life.state in (State.FAILED, State.RESTARTING, State.STOPPED, State.STOPPING):
            assert self.life.cause.kind is not Kind.NONE
            assert self.life.cause.text
        if self.life.state is State.FAILED:
            assert self.life.cause.kind not in (Kind.ASKED, Kind.DISABLED, Kind.DEPENDENCY)
        if self.life.completed:
            assert self.life.state is State.STOPPED

    def teardown(self) -> None:
        """Whatever happened, a stop brings it down within the ladder."""
        if not hasattr(self, "process"):
            return
        self.tell(Stop(ASKED))
        for _ in range(3):
            if self.life.state is State.STOPPING:
                self.the_timer_strikes()
        if self.exists:
            assert self.killed_at is not None
            self.exists = False
            self.tell(Exited(Exit(signal=9)))
        assert self.life.state is State.STOPPED
        assert self.life.timer is None


TestDevice = Device.TestCase
TestDevice.settings = settings(
    max_examples=150,
    stateful_step_count=40,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.filter_too_much],
)
