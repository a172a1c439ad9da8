# SPDX-License-Identifier: Apache-2.0
"""What a job and its template say, merged. A level is one of them; the first that says something wins."""

from __future__ import annotations

from dataclasses import replace

from maestro_py.spec.model import Limits, Probe, RestartPolicy, Settings
from maestro_py.spec.resolved import Probation, Ready

_NOTHING = Settings()
_LIFTED_BY_ZERO = ("mem_limit", "mem_high", "pids_max")


def implied(level: Settings) -> Settings:
    """Return the level with what it says indirectly: an OK string means waiting, restart is a policy."""
    changes: dict[str, object] = {}
    if level.ok_string is not None and level.wait_for_ok is None:
        changes["wait_for_ok"] = True
    waits = level.wait_for_ok if level.wait_for_ok is not None else changes.get("wait_for_ok")
    if waits is not None and level.ready is None:
        changes["ready"] = Probe("ok-string", level.ok_string or "") if waits else Probe("none")
    if level.restart is not None and level.restart_policy is None:
        changes["restart_policy"] = RestartPolicy.ALWAYS if level.restart else RestartPolicy.NEVER
    return replace(level, **changes) if changes else level  # type: ignore[arg-type]


def merge(levels: list[Settings]) -> Settings:
    """Return each setting from the first level that says it."""
    speaking = [level for level in levels if level != _NOTHING]
    if len(speaking) == 1:  # most jobs leave it all to their template
        return speaking[0]
    said: dict[str, object] = {}
    for level in reversed(speaking):
        said.update((name, value) for name, value in vars(level).items() if value is not None)
    return Settings(**said)  # type: ignore[arg-type]


def limits(levels: list[Settings]) -> Limits:
    """Return each limit from the first level that says it; 0 lifts what a template has set."""
    said: dict[str, object] = {}
    for level in reversed(levels):
        if level.cgroup is not None:
            said.update((name, value) for name, value in vars(level.cgroup).items() if value is not None)
    lifted = {name: None for name in _LIFTED_BY_ZERO if said.get(name) == 0}
    return Limits(**{**said, **lifted})  # type: ignore[arg-type]


READY_FIRST = 0.5
"""Seconds by which a new version's deadline is behind that for its readiness, whose message tells more."""


def probation(settings: Settings, ready: Ready) -> Probation:
    """Return how a new version of an image proves itself."""
    timeout = settings.upgrade_timeout
    if timeout is None and ready.awaited and ready.timeout:
        timeout = ready.timeout + READY_FIRST
    return Probation(
        timeout=timeout or Probation.timeout,
        duration=Probation.duration if settings.probation is None else settings.probation,
        deaths=settings.probation_deaths or Probation.deaths,
    )
