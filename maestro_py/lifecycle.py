# SPDX-License-Identifier: Apache-2.0
"""The life of one process: state x event -> state + effects. Pure: time and chance are arguments.

One function per event, each a decision on the state, so that every cell of the table can be named
and tested. A life has at most one timer; the caller arms a clock for it and sends `Timer` when it
strikes. `Exited` is sent once the main process and every descendant are gone.
"""

from __future__ import annotations

from dataclasses import replace
from enum import Enum

from maestro_py.exits import Exit
from maestro_py.spec.model import RestartPolicy
from maestro_py.spec.resolved import ResolvedProcess, Restart, State
from maestro_py.units import format_duration
from maestro_py.valueclass import valueclass

KILL_AGAIN = 5.0
"""Seconds after which a group that outlived SIGKILL (uninterruptible sleep) is killed once more."""


KILLED = " and was killed"
"""How the cause of a stop ends that took SIGKILL."""


class Kind(str, Enum):
    """What sort of thing a cause is; stable, for metrics and scripts."""

    NONE = ""
    ASKED = "asked"
    DISABLED = "disabled"
    EXIT = "exit"
    SIGNAL = "signal"
    OOM = "oom"
    NOT_READY = "not-ready"
    HEALTH = "health"
    WATCHDOG = "watchdog"
    LAUNCH = "launch"
    DEPENDENCY = "dependency"
    IMAGE = "image"
    UNKNOWN = "unknown"


@valueclass(frozen=True)
class Cause:
    """One line that says why a process is in the state it is in."""

    kind: Kind = Kind.NONE
    text: str = ""


class Next(str, Enum):
    """What follows once a stopping process is gone."""

    STAY = "stay"
    START = "start"
    RESTART = "restart"
    DEATH = "death"


@valueclass(frozen=True)
class Life:
    """Where a process is. Times are the caller's monotonic seconds.

    restarts: since the last start somebody asked for, for people.
    tries: deaths in a row without a stable run; counts towards the limit and the back-off.
    timer: when the one pending timer strikes, or None.
    completed: it ended by itself, successfully, and is not to be run again.
    """

    state: State = State.NEVER_RAN
    cause: Cause = Cause()
    restarts: int = 0
    tries: int = 0
    timer: float | None = None
    running_since: float | None = None
    next: Next = Next.STAY
    completed: bool = False

    @property
    def ready(self) -> bool:
        """Whether dependents may start: running, or run to its successful end."""
        return self.state is State.RUNNING or (self.state is State.STOPPED and self.completed)


ALIVE = frozenset({State.STARTING, State.RUNNING, State.STOPPING})
"""States in which a Linux process exists or is being launched."""


# Events


@valueclass(frozen=True)
class Start:
    """Somebody wants it running: an apply, a command, the boot. Counters start again."""


@valueclass(frozen=True)
class Stop:
    """Somebody wants it stopped, for the given cause."""

    cause: Cause


@valueclass(frozen=True)
class Again:
    """Stop it if it runs, then start it: a restart that was asked for."""

    cause: Cause


@valueclass(frozen=True)
class DepsReady:
    """Every dependency is ready."""


@valueclass(frozen=True)
class DepsLost:
    """A dependency is not ready any more."""

    name: str


@valueclass(frozen=True)
class Launched:
    """The program runs: exec succeeded."""


@valueclass(frozen=True)
class LaunchFailed:
    """It could not be launched. lasting: trying again cannot help (no such file, no such user)."""

    text: str
    lasting: bool


@valueclass(frozen=True)
class Ready:
    """The process said that it is ready."""


@valueclass(frozen=True)
class Unwell:
    """It runs, but its health check or its watchdog says that it does not work: it counts as dead."""

    cause: Cause


@valueclass(frozen=True)
class Timer:
    """The life's timer struck."""


@valueclass(frozen=True)
class Exited:
    """The process and all its descendants are gone. oom: the evidence, when the kernel killed for memory."""

    exit: Exit
    oom: str = ""


@valueclass(frozen=True)
class Fail:
    """It cannot be run at all for now: no image, no place for its config."""

    cause: Cause


Event = (
    Start
    | Stop
    | Again
    | DepsReady
    | DepsLost
    | Launched
    | LaunchFailed
    | Ready
    | Unwell
    | Timer
    | Exited
    | Fail
)


class Effect(str, Enum):
    """What the caller must do."""

    LAUNCH = "launch"
    TERMINATE = "terminate"
    KILL = "kill"


Effects = tuple[Effect, ...]
Outcome = tuple[Life, Effects]


@valueclass(frozen=True)
class Now:
    """What a decision may depend on besides the life.

    chance: in [0, 1), spreads restarts. hold: seconds until the device has time for another restart.
    """

    time: float
    deps_ready: bool = True
    chance: float = 0.5
    hold: float = 0.0


def step(life: Life, event: Event, process: ResolvedProcess, now: Now) -> Outcome:
    """Return the life after an event and the effects to carry out; what does not apply changes nothing."""
    match event:
        case Start():
            return _start(life, now)
        case Stop(cause):
            return _stop(life, cause, process, now)
        case Again(cause):
            return _again(life, cause, process, now)
        case DepsReady():
            return _go(life, now) if life.state is State.WAITING_FOR_DEPS else (life, ())
        case DepsLost(name):
            return _deps_lost(life, name, process, now)
        case Launched():
            return _launched(life, process, now)
        case LaunchFailed(text, lasting):
            return _launch_failed(life, text, lasting, process, now)
        case Ready():
            return (_running(life, now), ()) if life.state is State.STARTING else (life, ())
        case Unwell(cause):
            if life.state is not State.RUNNING:
                return life, ()
            return _stopping(life, Next.DEATH, cause, Effect.TERMINATE, now.time + process.stop_timeout)
        case Timer():
            return _timer(life, process, now)
        case Exited():
            return _exited(life, event, process, now)
        case Fail(cause):
            if life.state in ALIVE:
                return life, ()
            return _ended(life, State.FAILED, cause), ()


def _start(life: Life, now: Now) -> Outcome:
    fresh = replace(life, restarts=0, tries=0, completed=False)
    if life.state in (State.STARTING, State.RUNNING):
        return fresh, ()
    if life.state is State.STOPPING:
        return replace(fresh, next=Next.START), ()
    return _go(replace(fresh, cause=Cause()), now)


def _stop(life: Life, cause: Cause, process: ResolvedProcess, now: Now) -> Outcome:
    if life.state in (State.STARTING, State.RUNNING):
        return _stopping(life, Next.STAY, cause, Effect.TERMINATE, now.time + process.stop_timeout)
    if life.state is State.STOPPING:
        return replace(life, next=Next.STAY, cause=cause), ()
    if life.state is State.STOPPED and life.cause.kind not in (Kind.ASKED, Kind.DISABLED, Kind.NONE):
        # it ended by itself before: that stays the more telling cause, unless it is switched off now
        cause = cause if cause.kind is Kind.DISABLED else life.cause
    return _ended(life, State.STOPPED, cause, completed=life.completed), ()


def _again(life: Life, cause: Cause, process: ResolvedProcess, now: Now) -> Outcome:
    if life.state in (State.STARTING, State.RUNNING):
        fresh = replace(life, restarts=0, tries=0)
        return _stopping(fresh, Next.START, cause, Effect.TERMINATE, now.time + process.stop_timeout)
    return _start(life, now)


def _deps_lost(life: Life, name: str, process: ResolvedProcess, now: Now) -> Outcome:
    if life.state in (State.STARTING, State.RUNNING) and process.restart.on_dependency_fail:
        cause = Cause(Kind.DEPENDENCY, f"its dependency {name} is gone")
        return _stopping(life, Next.RESTART, cause, Effect.TERMINATE, now.time + process.stop_timeout)
    return life, ()


def _launched(life: Life, process: ResolvedProcess, now: Now) -> Outcome:
    if life.state is not State.STARTING:
        return life, ()
    ready = process.ready
    if ready.awaited:
        return replace(life, timer=now.time + ready.timeout if ready.timeout else None), ()
    if ready.defer:
        return replace(life, timer=now.time + ready.defer), ()
    return _running(life, now), ()


def _launch_failed(life: Life, text: str, lasting: bool, process: ResolvedProcess, now: Now) -> Outcome:
    if life.state is State.STOPPING:
        return _gone(life, process, now)
    if life.state is not State.STARTING:
        return life, ()
    cause = Cause(Kind.LAUNCH, text)
    if lasting:
        return _ended(life, State.FAILED, cause), ()
    return _death(life, cause, False, process, now)


def _timer(life: Life, process: ResolvedProcess, now: Now) -> Outcome:
    if life.timer is None or now.time < life.timer:
        return life, ()
    if life.state is State.STARTING:
        ready = process.ready
        if ready.awaited:
            text = "say OK" if ready.ok_string else "become ready"
            text = f"did not {text} within {format_duration(ready.timeout)}"
            cause = Cause(Kind.NOT_READY, text)
            return _stopping(life, Next.DEATH, cause, Effect.KILL, now.time + KILL_AGAIN)
        return _running(life, now), ()
    if life.state is State.STOPPING:
        cause = life.cause
        if cause.kind is not Kind.NOT_READY and not cause.text.endswith(KILLED):
            after = f", did not end within {format_duration(process.stop_timeout)}{KILLED}"
            cause = Cause(cause.kind, cause.text + after)
        return replace(life, timer=now.time + KILL_AGAIN, cause=cause), (Effect.KILL,)
    if life.state is State.RESTARTING:
        return _go(replace(life, restarts=life.restarts + 1), now)
    return replace(life, timer=None), ()


def _exited(life: Life, event: Exited, process: ResolvedProcess, now: Now) -> Outcome:
    if life.state is State.STOPPING:
        return _gone(life, process, now)
    if life.state not in (State.STARTING, State.RUNNING):
        return life, ()
    if event.oom:
        cause = Cause(Kind.OOM, event.oom)
    else:
        kind = Kind.SIGNAL if event.exit.signal else Kind.UNKNOWN if event.exit.code is None else Kind.EXIT
        cause = Cause(kind, event.exit.describe())
    success = event.exit.code == 0 and not event.oom
    if life.state is State.STARTING and process.ready.awaited:
        before = "it said OK" if process.ready.ok_string else "it was ready"
        cause = Cause(cause.kind, f"{cause.text} before {before}")
        success = False
    return _death(life, cause, success, process, now)


def _gone(life: Life, process: ResolvedProcess, now: Now) -> Outcome:
    """Everything of a stopping process is gone: what was meant to follow, follows."""
    if life.next is Next.START:
        return _go(life, now)
    if life.next is Next.RESTART:
        return _go(replace(life, restarts=life.restarts + 1), now)
    if life.next is Next.DEATH:
        return _death(life, life.cause, False, process, now)
    return _ended(life, State.STOPPED, life.cause), ()


def _death(life: Life, cause: Cause, success: bool, process: ResolvedProcess, now: Now) -> Outcome:
    """It died by itself: restart by policy, or stay down."""
    restart = process.restart
    if life.running_since is not None and now.time - life.running_since >= restart.backoff.reset_after:
        life = replace(life, tries=0)
    if restart.policy is RestartPolicy.NEVER or (restart.policy is RestartPolicy.ON_FAILURE and success):
        return _ended(life, State.STOPPED if success else State.FAILED, cause, completed=success), ()
    if restart.limit and life.tries >= restart.limit:
        text = f"{cause.text}; gave up after {restart.limit} restart{'s' if restart.limit > 1 else ''}"
        return _ended(life, State.FAILED, Cause(cause.kind, text)), ()
    wait = max(delay(restart, life.tries, now.chance), now.hold)
    down = replace(life, tries=life.tries + 1, cause=cause, running_since=None, next=Next.STAY)
    if wait <= 0:
        return _go(replace(down, restarts=life.restarts + 1), now)
    return replace(down, state=State.RESTARTING, timer=now.time + wait), ()


def delay(restart: Restart, tries: int, chance: float) -> float:
    """Return the seconds to wait before the next restart, after `tries` deaths in a row."""
    if restart.pause is not None:
        return restart.pause
    b = restart.backoff
    wait = b.initial
    for _ in range(min(tries, 64)):  # step by step: a power may overflow, and 64 doublings pass any cap
        wait *= b.factor
        if wait >= b.max:
            break
    wait = min(wait, b.max)
    return wait * (1 + b.jitter * (2 * chance - 1))


def _go(life: Life, now: Now) -> Outcome:
    """Launch now, or wait for dependencies first."""
    if now.deps_ready:
        return _launch(life)
    return replace(life, state=State.WAITING_FOR_DEPS, timer=None, running_since=None, next=Next.STAY), ()


def _launch(life: Life) -> Outcome:
    started = replace(
        life, state=State.STARTING, timer=None, running_since=None, next=Next.STAY, completed=False
    )
    return started, (Effect.LAUNCH,)


def _running(life: Life, now: Now) -> Life:
    return replace(life, state=State.RUNNING, timer=None, running_since=now.time)


def _stopping(life: Life, then: Next, cause: Cause, effect: Effect, timer: float) -> Outcome:
    return replace(life, state=State.STOPPING, next=then, cause=cause, timer=timer), (effect,)


def _ended(life: Life, state: State, cause: Cause, *, completed: bool = False) -> Life:
    return replace(
        life,
        state=state,
        cause=cause,
        timer=None,
        running_since=None,
        next=Next.STAY,
        completed=completed,
    )
