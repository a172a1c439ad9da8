# SPDX-License-Identifier: Apache-2.0
"""Carries out changes of the wanted state: plan, fetch, commit, execute, wait until ready.

Everything is fetched while the old versions run. Only then is the new wanted state written, in one
transaction, and the steps carried out. What could not be fetched keeps its old definition (*held*);
with failFast nothing is changed at all.
"""

from __future__ import annotations

import os
import resource
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from maestro_py.daemon import configs, privileges, wanted
from maestro_py.daemon.execute import Execution
from maestro_py.daemon.fetching import Fetcher
from maestro_py.daemon.locks import Semaphore
from maestro_py.daemon.supervisor import Supervisor
from maestro_py.daemon.tasks import Task, Tasks
from maestro_py.daemon.unit import DESCRIPTORS, Unit
from maestro_py.daemon.wanted import Held, Sources
from maestro_py.errors import Conflict, InvalidDocument, MaestroError, NotFound, Problem
from maestro_py.images.store import ImageStore
from maestro_py.lifecycle import ALIVE
from maestro_py.plan import IDLE, Actual, Is, Plan, Wanted, make_plan
from maestro_py.process import kernel
from maestro_py.spec.expand import Places
from maestro_py.spec.layers import ConfigKey
from maestro_py.spec.model import Checksum, ConfigSpec, ImageSpec, Ready, RunningConfig, State
from maestro_py.state.store import Store

GRACE = 0.1
"""Seconds a process that cannot say it is ready must live before a change counts it as up."""

RESERVE = 400
"""Descriptors kept for clients, databases and helper programs."""

KEEPS_DYING = 5
"""Deaths in a row after which waiting for a process is given up; it goes on being restarted."""


@dataclass(frozen=True)
class Proposal:
    """A checked change that has not begun: what it would be, and what it would do."""

    sources: Sources
    wanted: Wanted
    plan: Plan
    warnings: tuple[Problem, ...]
    broken: Mapping[str, str]


class Changer:
    """The one way in which the wanted state changes. One change at a time; others wait their turn."""

    def __init__(
        self,
        supervisor: Supervisor,
        store: Store,
        images: ImageStore,
        fetcher: Fetcher,
        tasks: Tasks,
        places: Places,
        sources: Sources,
    ) -> None:
        self.supervisor = supervisor
        self.store = store
        self.images = images
        self.fetcher = fetcher
        self.tasks = tasks
        self.places = places
        self.sources = sources
        # processes that their stored definition cannot give, with the reason
        self.broken: Mapping[str, str]
        self.wanted, _, self.broken = wanted.resolved_in_part(sources, places)
        self.jobs = sources.in_force().jobs
        self.current: dict[str, ImageSpec] = {}  # version in use, by job
        self.placed: dict[ConfigKey, ConfigSpec] = {}
        self._lock = Semaphore(supervisor.loop)

    # deciding

    def propose(
        self,
        sources: Sources,
        *,
        what: str = "running config",
        revive: bool = True,
        remove_old_images: bool = False,
        in_part: bool = False,
    ) -> Proposal:
        """Return what a change would do. Raises InvalidDocument.

        revive: whether what is down and unchanged is started as well. in_part: what cannot be resolved
        is left broken, as at a boot, where there is nobody to refuse it to.
        """
        broken: dict[str, str] = {}
        if in_part:
            want, warnings, broken = wanted.resolved_in_part(sources, self.places)
        else:
            want, warnings = wanted.resolved(sources, self.places, what)
        want = replace(want, remove_old_images=remove_old_images, revive=revive)
        self._check_descriptors(want)
        for process in want.processes.values():
            for sentence in self.supervisor.cgroups.unsupported(process.limits):
                warnings.append(Problem(process.name, sentence))
        return Proposal(sources, want, make_plan(self.actual(want.images), want), tuple(warnings), broken)

    def _check_descriptors(self, want: Wanted) -> None:
        """Refuse more processes than the daemon could hold open; half of them running helps nobody."""
        count = sum(process.enabled for process in want.processes.values())
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        if count * DESCRIPTORS + RESERVE > limit:
            raise MaestroError(
                f"cannot run {count} processes: they take about {count * DESCRIPTORS + RESERVE} open files,"
                f" maestrod may have {limit}",
                hint="raise its limit (LimitNOFILE= of the service, ulimit -n)",
                code="invalid",
            )

    def propose_document(self, document: RunningConfig, *, force: bool = False) -> Proposal:
        """Return what applying a document would do; an older one is refused unless forced."""
        date = self.sources.date
        if document.date and date and document.date < date and not force:
            older = f"its date {document.date} is older than the applied one's, {date}"
            raise Conflict(
                f"cannot apply running config: {older}",
                hint="--force applies it all the same",
            )
        sources = self.sources.with_document(document)
        proposal = self.propose(sources, remove_old_images=document.remove_old_images)
        jobs = {job.job for job in document.jobs}
        privileges.check(proposal.wanted.processes.values(), jobs, self.supervisor.cgroups)
        return proposal

    def reference_problems(self, document: RunningConfig) -> list[Problem]:
        """Return what is wrong with how a document's parts refer to each other and to what is known."""
        try:
            wanted.resolved(self.sources.with_document(document), self.places)
        except InvalidDocument as error:
            return list(error.problems)
        return []

    def actual(self, images: Mapping[str, ImageSpec]) -> Is:
        """Return what is on the device now; `images` are the versions that are asked for."""
        installed = self._installed(images)
        processes = {}
        for name, unit in self.supervisor.units.items():
            running = unit.running if unit.life.state in ALIVE else unit.process
            processes[name] = Actual(running, unit.life.state, unit.life.completed)
        jobs = {job: process for job, process in self.wanted.jobs.items() if process in processes}
        return Is(
            processes=processes,
            jobs=jobs,
            images=self.current,
            installed=installed,
            configs=self.placed,
        )

    def _installed(self, wanted_images: Mapping[str, ImageSpec]) -> frozenset[tuple[str, str]]:
        """Return the whole versions in the store; one without a checksum counts only with its URL."""
        found = set()
        self.current.clear()
        for row in self.images.list():
            key = (row["job"], os.path.basename(row["path"]))
            image = wanted_images.get(row["job"])
            if image is None or image.dirname != key[1] or self.images.installed(image):
                found.add(key)
            if row["current"]:
                self.current[row["job"]] = _as_spec(row)
        return frozenset(found)

    # changing

    def apply(self, document: RunningConfig, *, force: bool = False) -> tuple[Task, Proposal]:
        """Begin applying a document; raises at once when it is not acceptable."""
        proposal = self.propose_document(document, force=force)

        async def work(task: Task) -> None:
            async with self._lock:
                task.start()
                # another change may have come first
                fresh = self.propose_document(document, force=force)
                await self._carry_out(task, fresh, fail_fast=document.fail_fast)

        return self.tasks.run("apply", "running config", work), proposal

    def change(
        self, kind: str, subject: str, edit: Callable[[Sources], Sources], *, task_id: str = ""
    ) -> Task:
        """Begin a small change of the sources (enable a job, add one, other files)."""
        self.propose(edit(self.sources), what=subject, revive=False, in_part=bool(self.broken))

        async def work(task: Task) -> None:
            async with self._lock:
                task.start()
                proposal = self.propose(
                    edit(self.sources), what=subject, revive=False, in_part=bool(self.broken)
                )
                await self._carry_out(task, proposal, fail_fast=False)

        return self.tasks.run(kind, subject, work, task_id=task_id)

    def set_disabled(self, job: str, off: bool) -> Task:
        """Enable or disable a job, for good."""
        if job not in self.wanted.jobs:
            raise NotFound(f"no job {job}")
        kind = "disable" if off else "enable"
        return self.change(kind, job, lambda s: replace(s, disabled={**s.disabled, job: off}))

    def boot(self) -> Task:
        """Bring the device to its stored state."""
        for process in self.wanted.processes.values():
            for config in process.configs:
                if not configs.missing(process, config):
                    # data is written anew, for a file may say something else now; downloads are kept
                    self.placed[config.job, config.name] = replace(config, data="")

        async def work(task: Task) -> None:
            async with self._lock:
                task.start()
                proposal = self.propose(self.sources, in_part=True)
                await self._carry_out(task, proposal, fail_fast=False, boot=True)

        return self.tasks.run("boot", "stored state", work)

    async def _carry_out(
        self, task: Task, proposal: Proposal, *, fail_fast: bool, boot: bool = False
    ) -> None:
        for warning in (
            proposal.warnings if task.kind != "apply" else ()
        ):  # an apply's answer has them already
            task.say(f"warning: {warning}")
        fetched = await self.fetcher.fetch(proposal.plan, proposal.wanted, task, fail_fast)
        try:
            sources, want = proposal.sources, proposal.wanted
            failed = {name: why for name, why in fetched.failures.items() if name in want.processes}
            if fail_fast and fetched.failures:
                raise MaestroError("; ".join(fetched.failures.values()), hint="failFast: nothing was changed")
            held = {
                name: Held(self.sources.pieces_of(name), why)
                for name, why in failed.items()
                if name in self.supervisor.units
            }
            if held:
                sources = replace(sources, held={**sources.held, **held})
                want, _ = wanted.resolved(sources, self.places)
                was = proposal.wanted
                want = replace(want, remove_old_images=was.remove_old_images, revive=was.revive)
            plan = make_plan(self.actual(want.images), want)
            wanted.save(self.store, sources)
            before, self.sources, self.wanted = self.wanted, sources, want
            self.jobs = sources.in_force().jobs
            if not boot or plan:
                self.supervisor.happen(
                    "change", f"{task.kind} {task.subject}: {_counted(len(plan.steps), 'step')}"
                )
            broken = {name: why for name, why in failed.items() if name not in held}
            self.broken = proposal.broken
            work = Execution(self.supervisor, self.images, plan, want, before.jobs, self.current, self.placed)
            work.files, work.broken, work.boot = fetched.files, {**self.broken, **broken}, boot
            work.say = task.say
            if fail_fast:
                work.after_each = self._must_be_up
            await work.run()
            touched = set(failed) | {step.process for step in plan.steps}
            aside = [why for name, why in fetched.failures.items() if name not in failed]
            aside += work.refused
            names = [n for n in want.processes if want.revive or n in touched]
            await self._settle(f"{task.kind} {task.subject}", names, failed, aside)
            if want.remove_old_images:
                work.remove_unused_images()
                self.supervisor.loop.spawn(self._empty_trash(), name="empty trash")
        finally:
            fetched.discard()
            kernel.trim()  # reading and planning a document takes memory for a moment only

    async def _empty_trash(self) -> None:
        """Delete removed versions bit by bit, between other work."""
        while self.images.empty_trash():
            await self.supervisor.loop.sleep(0.01)

    # waiting

    async def _must_be_up(self, name: str) -> None:
        """With failFast: wait for one process before the next is touched."""
        await self.supervisor.until(lambda: self._settled(name))
        if self._unhappy(name):
            cause = self.supervisor.units[name].life.cause.text
            raise MaestroError(f"{name}: {cause}", hint="failFast: the rest was left as it was")

    async def _settle(self, what: str, names: list[str], failed: dict[str, str], aside: list[str]) -> None:
        """Wait until those that shall run are ready or have failed; raise with what is not running.

        aside: what else went wrong, with no process to show for it.
        """
        processes = self.wanted.processes
        names = [n for n in names if processes[n].enabled and processes[n].autostart]
        await self.supervisor.until(lambda: all(self._settled(name) for name in names))
        if any(self._just_up(name) for name in names):
            # exec is all that tells of a process without a sign of its own: see whether it stays
            await self.supervisor.loop.sleep(GRACE)
            await self.supervisor.until(lambda: all(self._settled(name) for name in names))
        held = self.sources.held
        lines = aside + [f"{n}: {why}; the version before stays" for n, why in failed.items() if n in held]
        for name in names:
            if self._unhappy(name):
                unit = self.supervisor.units[name]
                members = unit.process.members if unit.process.composite_id else ()
                who = f"{name} ({', '.join(members)})" if members else name
                lines.append(f"{who} is {unit.life.state.value}: {self.explain(unit)}")
        if lines:
            count = len(lines)
            head = f"cannot {what}: {count} {'things are' if count > 1 else 'thing is'} not as wanted"
            hint = "`maestro why JOB` and `maestro logs JOB` tell more"
            raise MaestroError("\n  ".join([head, *lines]), hint=hint)

    def explain(self, unit: Unit) -> str:
        """Return why a unit is where it is, in a few words."""
        life = unit.life
        if life.state is State.WAITING_FOR_DEPS:
            missing = [n for n in unit.process.depends_on if not self._is_ready(n)]
            return f"it waits for {', '.join(missing)}"
        return life.cause.text or life.state.value

    def _just_up(self, name: str) -> bool:
        unit = self.supervisor.units.get(name)
        if unit is None or unit.life.running_since is None or unit.process.ready != Ready():
            return False
        return self.supervisor.loop.time() - unit.life.running_since < GRACE

    def _is_ready(self, name: str) -> bool:
        unit = self.supervisor.units.get(name)
        return unit is not None and unit.life.ready

    def _settled(self, name: str) -> bool:
        """Whether waiting for a process is over: ready, down, or hopeless."""
        unit = self.supervisor.units.get(name)
        return unit is None or unit.life.ready or unit.life.state in IDLE or self._unhappy(name)

    def _unhappy(self, name: str, depth: int = 0) -> bool:
        """Whether a process that shall run does not, and will not soon."""
        unit = self.supervisor.units.get(name)
        if unit is None or unit.life.ready:
            return False
        if unit.life.state is State.FAILED or unit.life.tries >= KEEPS_DYING:
            return True
        if unit.life.state is State.WAITING_FOR_DEPS and depth < 100:
            stuck = [self.supervisor.units.get(n) for n in unit.process.depends_on]
            return any(
                dep is None
                or (dep.life.state is State.STOPPED and not dep.life.ready)
                or self._unhappy(dep.name, depth + 1)
                for dep in stuck
            )
        return False


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' if number != 1 else ''}"


def _as_spec(row: Mapping[str, Any]) -> ImageSpec:
    """Return a store's row as the image it was made from; what a plan compares is its version and place."""
    checksum = Checksum(**row["checksum"]) if row["checksum"] else None
    return ImageSpec(row["job"], row["version"], "", checksum=checksum)
