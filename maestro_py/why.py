# SPDX-License-Identifier: Apache-2.0
"""Why is a process in the state it is in? Answered in sentences, from its life and others'. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from maestro_py.lifecycle import Life
from maestro_py.spec.model import RestartPolicy
from maestro_py.spec.resolved import Ready, ResolvedProcess, State
from maestro_py.units import format_duration, format_size

_CARRIES_ON = frozenset({State.NEVER_RAN, State.WAITING_FOR_DEPS, State.STARTING, State.RUNNING})
"""States that the kept cause does not explain: it is what came before them."""


def why(
    process: ResolvedProcess,
    life: Life,
    others: Mapping[str, Life],
    now: float,
    held: str = "",
    *,
    paused: str = "",
    death: str = "",
    needs: Mapping[str, Sequence[str]] | None = None,
    memory: tuple[int | None, int | None, int | None] = (None, None, None),
) -> list[str]:
    """Return sentences.

    others: the lives of all processes. now: seconds on the clock of the lives. held: why its newest
    version is not in force, or nothing. paused: by whom it is frozen, or nothing. death: the last one
    nobody asked for, or nothing. needs: what each of the others depends on. memory: bytes in use, at
    most in use and allowed, as far as known.
    """
    lines = [f"{process.name} {_state(process, life, now)}."]
    if life.state is State.WAITING_FOR_DEPS:
        lines += _waiting(process, others, now, needs or {})
    if paused:
        lines.append(f"It is paused by {paused} and does nothing: `maestro resume` lets it go on.")
    if life.cause.text and life.state in _CARRIES_ON:
        lines.append(f"Before that: {life.cause.text}.")
    if death and death != life.cause.text:
        lines.append(f"Its last death: {death}.")
    if life.restarts:
        times = "once" if life.restarts == 1 else f"{life.restarts} times"
        lines.append(f"It was restarted {times} since it was last started by hand or by an apply.")
    if memory[0] is not None and memory[2]:
        peak = f", peak {format_size(memory[1])}" if memory[1] else ""
        lines.append(f"It uses {format_size(memory[0])} of memory, limit {format_size(memory[2])}{peak}.")
    if held:
        lines.append(f"Its newest version is not in force: {held}.")
    if life.state is State.FAILED:
        lines.append("It is not tried again by itself: mend the cause, then `maestro start` or apply again.")
    return lines


def _state(process: ResolvedProcess, life: Life, now: float) -> str:
    cause = life.cause.text
    match life.state:
        case State.NEVER_RAN:
            return "has not been started" + ("" if process.autostart else ": it is not started by itself")
        case State.WAITING_FOR_DEPS:
            return "waits for what it depends on"
        case State.STARTING:
            return "was launched and is not ready yet" + _readiness(process, life, now)
        case State.RUNNING:
            return f"runs, ready for {format_duration(now - _or(life.running_since, now))}"
        case State.STOPPING:
            return f"is being stopped: {cause}"
        case State.STOPPED:
            return ("ended: " if life.completed else "is stopped: ") + (cause or "nobody started it")
        case State.RESTARTING:
            wait = format_duration(_or(life.timer, now) - now)
            return f"is in back-off for another {wait} after {_deaths(life)}: {cause}" + _limit(process, life)
        case State.FAILED:
            return f"failed: {cause}"


def _or(moment: float | None, now: float) -> float:
    return now if moment is None else moment


def _deaths(life: Life) -> str:
    return "1 death" if life.tries == 1 else f"{life.tries} deaths"


def _limit(process: ResolvedProcess, life: Life) -> str:
    restart = process.restart
    if restart.policy is RestartPolicy.NEVER or not restart.limit:
        return ""
    return f" (it is given up after {restart.limit} restarts)"


def _readiness(process: ResolvedProcess, life: Life, now: float) -> str:
    if process.ready.awaited:
        rest = f", for at most {format_duration(life.timer - now)} more" if life.timer is not None else ""
        return f": {_silence(process.ready)}{rest}"
    if life.timer is not None:
        return f": it counts as ready in {format_duration(life.timer - now)}"
    return ""


def _silence(ready: Ready) -> str:
    probe = ready.probe
    if probe is None:
        return f"it has not said {ready.ok_string}"
    silence = {
        "notify": "it has not sent READY=1",
        "fd": f"it has not written a newline to descriptor {probe.fd}",
        "tcp": f"it does not listen on port {probe.port}",
        "http": f"it does not answer {probe.path} on port {probe.port}",
    }
    return silence.get(probe.type, f"{' '.join(probe.command)} does not succeed")


def _waiting(
    process: ResolvedProcess, others: Mapping[str, Life], now: float, needs: Mapping[str, Sequence[str]]
) -> list[str]:
    return [
        f"It waits for {name}, which {_blocked(name, others, now, needs, {process.name})}."
        for name in process.depends_on
        if name not in others or not others[name].ready
    ]


def _blocked(
    name: str, others: Mapping[str, Life], now: float, needs: Mapping[str, Sequence[str]], passed: set[str]
) -> str:
    """Return why a process is not ready, down to the one that everything waits for."""
    life = others.get(name)
    if life is None:
        return "is not known"
    if life.state is State.RESTARTING:
        wait = format_duration(_or(life.timer, now) - now)
        return f"is in back-off for another {wait} after {_deaths(life)}: {life.cause.text}"
    if life.state is State.WAITING_FOR_DEPS:
        for other in needs.get(name, ()):
            if other not in passed and not (other in others and others[other].ready):
                return f"waits for {other}, which {_blocked(other, others, now, needs, {*passed, name})}"
    cause = f": {life.cause.text}" if life.cause.text and life.state not in _CARRIES_ON else ""
    return f"{_WORDS[life.state]}{cause}"


_WORDS = {
    State.NEVER_RAN: "has not been started",
    State.WAITING_FOR_DEPS: "waits for what it depends on",
    State.STARTING: "is starting and not ready yet",
    State.RUNNING: "runs",
    State.STOPPING: "is being stopped",
    State.STOPPED: "is stopped",
    State.RESTARTING: "is about to be started again",
    State.FAILED: "failed",
}
