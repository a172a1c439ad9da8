# SPDX-License-Identifier: Apache-2.0
"""From what is and what is wanted to ordered steps, each with its reason. Pure.

A plan is data: it can be printed before it runs, sent over the API, and compared in a test. Steps
come in the order in which they are carried out: everything is fetched first, while the old
versions run; then each process is stopped, changed and started, dependencies first; then what is
no longer wanted is removed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from enum import Enum
from typing import Any

from maestro_py.differences import Change, How, differences
from maestro_py.spec.graph import start_order
from maestro_py.spec.model import ConfigSpec, ImageSpec
from maestro_py.spec.resolved import ResolvedProcess, State
from maestro_py.valueclass import valueclass


class Action(str, Enum):
    """What a step does."""

    FETCH_IMAGE = "fetch-image"
    FETCH_CONFIG = "fetch-config"
    STOP = "stop"
    SWITCH_IMAGE = "switch-image"
    PLACE_CONFIG = "place-config"
    SET_LIMITS = "set-limits"
    UPDATE = "update"
    RELOAD = "reload"
    START = "start"
    REMOVE_JOB = "remove-job"
    REMOVE_IMAGE = "remove-image"


@valueclass(frozen=True)
class Step:
    """One thing to do. subject: job, image or config; process: the process it concerns, if any."""

    action: Action
    subject: str
    reason: str
    process: str = ""

    def to_json(self) -> dict[str, str]:
        """Return the step as the API sends it."""
        return {
            "action": self.action.value,
            "subject": self.subject,
            "process": self.process,
            "reason": self.reason,
        }


@valueclass(frozen=True)
class Plan:
    """Ordered steps; empty when nothing has to change."""

    steps: tuple[Step, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.steps)

    def of(self, process: str) -> set[Action]:
        """Return what happens to one process."""
        return {step.action for step in self.steps if step.process == process}

    def to_json(self) -> dict[str, Any]:
        """Return the plan as the API sends it."""
        return {"empty": not self.steps, "steps": [step.to_json() for step in self.steps]}


@valueclass(frozen=True)
class Actual:
    """A process as it is: the definition it runs with (or last ran with) and its state."""

    process: ResolvedProcess
    state: State
    completed: bool = False


@valueclass(frozen=True)
class Is:
    """What is on the device.

    jobs: every job known. images: version in use per job; previous: ImageSpec.dirname of the one before.
    installed: (job, ImageSpec.dirname) of whole versions in the store. kept: those of them that are never
    removed. configs: as placed for the job's process, by (job, name).
    """

    processes: Mapping[str, Actual]
    jobs: Mapping[str, str]  # job -> its process
    images: Mapping[str, ImageSpec]
    installed: frozenset[tuple[str, str]]
    configs: Mapping[tuple[str, str], ConfigSpec]
    previous: Mapping[str, str] = field(default_factory=dict)
    kept: frozenset[tuple[str, str]] = frozenset()


@valueclass(frozen=True)
class Wanted:
    """What a document asks for, resolved.

    configs: every one that is declared; those are placed that a process holds.
    revive: start also what is down and unchanged, as an apply and a boot do; without it only changes count.
    """

    processes: Mapping[str, ResolvedProcess]
    jobs: Mapping[str, str]
    images: Mapping[str, ImageSpec]
    configs: Mapping[tuple[str, str], ConfigSpec]
    remove_old_images: bool = False
    revive: bool = True


IDLE = frozenset({State.NEVER_RAN, State.STOPPED, State.FAILED})


def make_plan(have: Is, want: Wanted) -> Plan:
    """Return the steps from what is to what is wanted."""
    steps, places = _fetches_and_places(have, want)
    renewed = _renewed(have, want)
    gone = {name for name in have.processes if name not in want.processes}
    for name in _stop_order(gone, have):
        if have.processes[name].state not in IDLE:
            steps.append(Step(Action.STOP, name, "it is not in the new document", name))
    # a job that moves must be gone from its old process before anything starts it elsewhere
    left = {process for job, process in have.jobs.items() if want.jobs.get(job, process) != process}
    later: list[Step] = []
    for name in start_order({name: p.depends_on for name, p in want.processes.items()}):
        actual = have.processes.get(name)
        for step in _process_steps(
            actual, want.processes[name], places.get(name, []), want.revive, renewed.get(name, [])
        ):
            (steps if step.action is Action.STOP and name in left else later).append(step)
    steps += later
    steps += places.get("", [])  # images of jobs that nobody defines (any more): no process uses them by now
    for job, process in sorted(have.jobs.items()):
        if job not in want.jobs:
            steps.append(Step(Action.REMOVE_JOB, job, "it is not in the new document", process))
        elif want.jobs[job] != process:
            moved = want.jobs[job]
            steps.append(Step(Action.UPDATE, job, f"it moves from {process} to {moved}", moved))
    if want.remove_old_images:
        for job, dirname in sorted(have.installed - _kept_images(have, want)):
            steps.append(Step(Action.REMOVE_IMAGE, job, f"version {dirname} is no longer used"))
    return Plan(tuple(steps))


def _kept_images(have: Is, want: Wanted) -> set[tuple[str, str]]:
    """Return what stays in the store: what is asked for, and what each job can go back to."""
    kept = set(have.kept)
    for job, image in want.images.items():
        kept.add((job, image.dirname))
        now = have.images.get(job)
        if now is not None:
            kept.add((job, now.dirname if now.dirname != image.dirname else have.previous.get(job, "")))
    return kept


def _renewed(have: Is, want: Wanted) -> dict[str, list[Change]]:
    """Return, by process, which versions in use are fetched once more, because they are damaged."""
    found: dict[str, list[Change]] = {}
    for job, image in want.images.items():
        if _is_damaged(have, image):
            text = f"image {job} {image.version} is damaged and comes anew"
            found.setdefault(want.jobs.get(job, ""), []).append(Change(How.RESTART, text))
    return found


def _is_damaged(have: Is, image: ImageSpec) -> bool:
    now = have.images.get(image.job)
    in_use = now is not None and now.dirname == image.dirname
    return in_use and (image.job, image.dirname) not in have.installed


def _fetches_and_places(have: Is, want: Wanted) -> tuple[list[Step], dict[str, list[Step]]]:
    """Return what to download, and per process what to put into place once it is stopped."""
    fetch: list[Step] = []
    places: dict[str, list[Step]] = {}
    for job, image in sorted(want.images.items()):
        old, process = have.images.get(job), want.jobs.get(job, "")
        if (job, image.dirname) not in have.installed:
            fetch.append(Step(Action.FETCH_IMAGE, job, _image_reason(old, image), process))
        if old is None or old.dirname != image.dirname or _is_damaged(have, image):
            switch = Step(Action.SWITCH_IMAGE, job, _image_reason(old, image), process)
            places.setdefault(process, []).append(switch)
    placed: dict[str, dict[tuple[str, str], ConfigSpec]] = {}
    for (job, config_name), config in have.configs.items():
        placed.setdefault(want.jobs.get(job, ""), {})[job, config_name] = config
    for name, resolved in want.processes.items():
        was = placed.get(name, {})
        for config in resolved.configs:
            before = was.pop((config.job, config.name), None)
            if have.jobs.get(config.job, name) != name:
                before = None  # the job moves, and its configs lie where it comes from
            if config == before:
                continue
            reason = "the config is new" if before is None else "the config changed"
            subject = f"{config.job}/{config.name}"
            if config.files and (before is None or before.files != config.files):
                fetch.append(Step(Action.FETCH_CONFIG, subject, f"{reason}, with files", name))
            places.setdefault(name, []).append(Step(Action.PLACE_CONFIG, subject, reason, name))
        for job, config_name in sorted(was):
            gone = Step(Action.PLACE_CONFIG, f"{job}/{config_name}", "the config is gone", name)
            places.setdefault(name, []).append(gone)
    return fetch, places


def _stop_order(names: set[str], have: Is) -> list[str]:
    """Dependents before what they depend on."""
    deps = {name: actual.process.depends_on for name, actual in have.processes.items()}
    return [name for name in reversed(start_order(deps)) if name in names]


def _process_steps(
    actual: Actual | None, want: ResolvedProcess, places: list[Step], revive: bool, renewed: list[Change]
) -> list[Step]:
    """Return what happens to one process; `places` is what must be in place before it starts."""
    name = want.name
    if actual is None:
        if not want.enabled:
            return [*places, Step(Action.UPDATE, name, "it is new, and disabled", name)]
        if not want.autostart:
            return [*places, Step(Action.UPDATE, name, "it is new, and not started by itself", name)]
        return [*places, Step(Action.START, name, "it is new", name)]
    changes = differences(actual.process, want) + renewed
    every = _joined(changes)
    update = [Step(Action.UPDATE, name, every, name)] if changes else []
    up = actual.state not in IDLE
    if not want.enabled:
        return [*([Step(Action.STOP, name, "it is disabled now", name)] if up else update), *places]
    if not up:
        reason = _start_reason(actual, want, changes, revive)
        if actual.state is State.FAILED and want.autostart and not reason:
            switched = any(step.action is Action.SWITCH_IMAGE for step in places)
            reason = "it failed, and has another image now" if switched else ""
        return [*places, *([Step(Action.START, name, reason, name)] if reason else update)]
    if any(c.how is How.RESTART for c in changes):
        # what forces the restart comes first
        hard = _joined(sorted(changes, key=lambda c: c.how is not How.RESTART))
        return [Step(Action.STOP, name, hard, name), *places, Step(Action.START, name, hard, name)]
    steps = list(places)
    for how, action in (
        (How.LIMITS, Action.SET_LIMITS),
        (How.LIVE, Action.UPDATE),
        (How.RELOAD, Action.RELOAD),
    ):
        text = _joined([c for c in changes if c.how is how])
        if text:
            note = "" if how is How.RELOAD else ", no restart needed"
            steps.append(Step(action, name, text + note, name))
    return steps


def _joined(changes: list[Change]) -> str:
    return "; ".join(c.text for c in changes)


def _start_reason(actual: Actual, want: ResolvedProcess, changes: list[Change], revive: bool) -> str:
    """Return why a process that is down shall be started, or nothing when it shall stay down."""
    if not want.autostart:
        return ""
    if not actual.process.enabled:
        return "it is enabled now"
    if any(c.how in (How.RESTART, How.RELOAD) for c in changes):
        return _joined(changes)
    if actual.completed or not revive:
        return ""
    return f"it is {actual.state.value} and shall run"


def _image_reason(old: ImageSpec | None, new: ImageSpec) -> str:
    if old is None:
        return f"version {new.version} is not installed"
    if old.dirname == new.dirname:
        return f"version {new.version} is damaged"
    if old.version == new.version:
        return f"version {new.version} has new content"
    return f"version {old.version} becomes {new.version}"
