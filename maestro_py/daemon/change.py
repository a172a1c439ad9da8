# SPDX-License-Identifier: Apache-2.0
"""Carries out changes of the wanted state: plan, fetch, commit, execute, wait until ready.

Everything is fetched while the old versions run. Only then is the new wanted state written, in one
transaction, and the steps carried out. What could not be fetched keeps its old definition (*held*);
with failFast nothing is changed at all. A process that runs a new version of an image is on trial: should
it not prove itself, its old definition comes back, and the new one is not tried again while it is the same.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from maestro_py.daemon import configs, log, wanted
from maestro_py.daemon.deciding import Decider, Proposal
from maestro_py.daemon.execute import Execution
from maestro_py.daemon.fetching import Fetched, Fetcher
from maestro_py.daemon.locks import Semaphore
from maestro_py.daemon.rollback import RollBack
from maestro_py.daemon.settle import Settling
from maestro_py.daemon.supervisor import Supervisor
from maestro_py.daemon.tasks import Task, Tasks
from maestro_py.daemon.updatelocks import UpdateLocks
from maestro_py.daemon.upkeep import Upkeep
from maestro_py.daemon.wanted import Held, Sources
from maestro_py.errors import MaestroError, NotFound
from maestro_py.faultpoint import reach
from maestro_py.images.store import ImageStore
from maestro_py.plan import Action, Plan, Wanted, make_plan
from maestro_py.process import kernel, launcher
from maestro_py.spec.model import ImageSpec, RunningConfig
from maestro_py.spec.places import Places
from maestro_py.state.store import Store

PLAN_SHOWN = 100
"""Steps of the last plan that are kept to be looked at."""

MANY = 500
"""Processes from which on others have a turn between the parts of a change."""


class Changer(Decider):
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
        super().__init__(supervisor, images, places, sources)
        self.store = store
        self.fetcher = fetcher
        self.tasks = tasks
        self.last_plan: dict[str, Any] = {}  # the one carried out last, as the API shows it
        self.locks = UpdateLocks(store)
        self.upkeep = Upkeep(self)
        self.roll_backs = RollBack(self)
        self.trials = self.roll_backs.trials
        self.settling = Settling(supervisor, self.trials)
        self._turn = Semaphore(supervisor.loop)  # of whole changes: they fetch, and wait for what they did
        self.hands = Semaphore(supervisor.loop)  # of carrying out: a roll-back waits for no download

    # changing

    def apply(self, document: RunningConfig, *, force: bool = False) -> tuple[Task, Proposal]:
        """Begin applying a document; raises at once when it is not acceptable.

        force: also an older one; what was rolled back is tried again, update locks do not hold.
        """
        proposal = self.propose_document(document, force=force)

        async def work(task: Task) -> None:
            await self._pause(len(document.jobs))
            await self._carry_out(
                task,
                # another change may have come first
                lambda: self.planned_again(proposal) or self.propose_document(document, force=force),
                fail_fast=document.fail_fast,
                force=force,
            )

        return self.tasks.run("apply", "running config", work, cancellable=True), proposal

    def change(
        self,
        kind: str,
        subject: str,
        edit: Callable[[Sources], Sources],
        *,
        task_id: str = "",
        revive: bool = False,
    ) -> Task:
        """Begin a small change of the sources (enable a job, add one, other files)."""

        def propose() -> Proposal:
            return self.propose(edit(self.sources), what=subject, revive=revive, in_part=bool(self.broken))

        propose()

        async def work(task: Task) -> None:
            await self._carry_out(task, propose)

        return self.tasks.run(kind, subject, work, task_id=task_id, cancellable=True)

    async def repair(self, task: Task) -> None:
        """Fetch damaged images that are in use anew, and restart what runs from them."""
        await self._carry_out(
            task, lambda: self.propose(self.sources, revive=False, in_part=bool(self.broken), repair=True)
        )

    def set_disabled(self, job: str, off: bool) -> Task:
        """Enable or disable a job, for good."""
        if job not in self.wanted.jobs:
            raise NotFound(f"no job {job}")
        kind = "disable" if off else "enable"
        return self.change(kind, job, lambda s: replace(s, disabled={**s.disabled, job: off}))

    def install(self, image: ImageSpec) -> Task:
        """Make an image its job's, until a document says otherwise. What was held back is tried again."""
        process = self.wanted.jobs.get(image.job)
        if process is None:
            raise NotFound(f"cannot install an image of {image.job}: no job is called so")

        def edit(sources: Sources) -> Sources:
            document = replace(sources.document, images={**sources.document.images, image.job: image})
            held = {name: held for name, held in sources.held.items() if name != process}
            return replace(sources, document=document, held=held)

        def propose() -> Proposal:
            return self.propose(edit(self.sources), what="image", revive=False, in_part=bool(self.broken))

        async def work(task: Task) -> None:
            await self._carry_out(task, propose, fail_fast=True)

        propose()
        what = f"{image.job} {image.version}".rstrip()
        return self.tasks.run("image-install", what, work, cancellable=True)

    def boot(self) -> Task:
        """Bring the device to its stored state."""
        for process in self.wanted.processes.values():
            if process.name not in self.sources.trials and configs.kept(process):  # cut off on its way back
                try:
                    configs.place(process, configs.kept(process), launcher.owner(process)[1])
                    configs.let_go(process)
                except MaestroError as error:
                    log.error(error.message)
            for config in process.configs:
                if not configs.missing(process, config):
                    # data is written anew, for a file may say something else now; downloads are kept
                    self.placed[config.job, config.name] = replace(config, data="")
        for unit in self.supervisor.units.values():  # taken over: what it was launched with lies there
            self.placed.update({(c.job, c.name): c for c in unit.running.configs if unit.pid})
        revive = not self.supervisor.continues

        async def work(task: Task) -> None:
            await self._carry_out(
                task, lambda: self.propose(self.sources, in_part=True, revive=revive), boot=True
            )

        return self.tasks.run("boot", "stored state", work)

    async def _carry_out(
        self,
        task: Task,
        propose: Callable[[], Proposal],
        *,
        fail_fast: bool = False,
        boot: bool = False,
        force: bool = False,
    ) -> None:
        if not self._turn.free:
            task.say("waits for an earlier task to end: `maestro tasks` has them")
        async with self._turn:
            task.start()
            proposal, seen = propose(), self.sources
            await self._pause(len(proposal.wanted.processes))
            for warning in (
                proposal.warnings if task.kind != "apply" else ()
            ):  # an apply's answer has them already
                task.say(f"warning: {warning}")
            await self.upkeep.make_room(proposal, task)
            fetched = await self.fetcher.fetch(proposal.plan, proposal.wanted, task, fail_fast)
            reach("upgrade.fetched")
            try:
                async with self.hands:
                    if self.sources is not seen:  # something was rolled back meanwhile
                        proposal = propose()
                    task.commit()
                    work = self._commit(task, proposal, fetched, fail_fast=fail_fast, force=force, boot=boot)
                    await work.run()
                    for name in self.sources.trials:
                        if not self.trials.known(name):  # as after a boot
                            self.trials.begin(name)
                await self._settle(task, proposal, work, fetched)
                if proposal.wanted.remove_old_images:
                    self.upkeep.collect()
            finally:
                fetched.discard(self.images)
                self.upkeep.empty_trash()
                kernel.trim()  # reading and planning a document takes memory for a moment only

    def _commit(
        self, task: Task, proposal: Proposal, fetched: Fetched, *, fail_fast: bool, force: bool, boot: bool
    ) -> Execution:
        """Make a proposal the wanted state; return what is to be done for it."""
        sources, want = proposal.sources, proposal.wanted
        if not boot:
            self._respect_locks(proposal, fetched, force=force)
        if fail_fast and fetched.failures:
            raise MaestroError("; ".join(fetched.failures.values()), hint="failFast: nothing was changed")
        failed = {name: why for name, why in fetched.failures.items() if name in want.processes}
        held = {
            name: Held(self.sources.pieces_of(name), why)
            for name, why in failed.items()
            if name in self.supervisor.units
        }
        if held:
            sources = replace(sources, held={**sources.held, **held})
            want = replace(
                wanted.resolved(sources, self.places)[0],
                remove_old_images=want.remove_old_images,
                revive=want.revive,
            )
        plan = make_plan(self.actual(want.images, fetched.replacements), want)
        sources = replace(sources, trials=self.roll_backs.on_trial(sources, want))
        work = self.take(task, sources, want, plan, quiet=boot)
        self.broken = proposal.broken
        work.broken = {**self.broken, **{name: why for name, why in failed.items() if name not in held}}
        work.files, work.replacements, work.boot = fetched.files, fetched.replacements, boot
        if fail_fast:
            work.after_each = self._must_be_up
        return work

    def _respect_locks(self, proposal: Proposal, fetched: Fetched, *, force: bool) -> None:
        """Have what would take down a process with an update lock wait, as if it could not be fetched."""
        for step in make_plan(
            self.actual(proposal.wanted.images, fetched.replacements), proposal.wanted
        ).steps:
            name = step.process
            process = proposal.wanted.processes.get(name)
            if step.action is not Action.STOP or process is None or not process.enabled:
                continue
            who = self.locks.of(self.supervisor.units[name].running)
            if who and force:
                text = f"its update lock, held by {who}, was overridden by force"
                self.supervisor.happen("lock-overridden", text, process=name)
            elif who:
                fetched.failures[name] = f"an update lock is held by {who}"

    def unlocked(self, job: str) -> None:
        """Hear that a lock was given back: what waited for it is carried out."""
        process = self.jobs[job].process
        held = self.sources.held.get(process)
        if held and held.refused is None:

            def edit(sources: Sources) -> Sources:
                return replace(sources, held={n: h for n, h in sources.held.items() if n != process})

            self.change("unlock", job, edit, revive=True)

    def take(
        self, task: Task, sources: Sources, want: Wanted, plan: Plan, *, quiet: bool = False, back: str = ""
    ) -> Execution:
        """Store what is wanted from now on; return its execution. back: a process on its way back."""
        wanted.save(self.store, sources)
        reach("upgrade.saved")
        for name in {*self.sources.trials} - {*sources.trials, back}:
            self.trials.end(name)
            configs.let_go(self.wanted.processes[name])
        before, self.sources, self.wanted = self.wanted, sources, want
        self.jobs = sources.in_force().jobs
        if plan or not quiet:
            count = len(plan.steps)
            self.supervisor.happen("change", f"{task.kind} {task.subject}: {_counted(count, 'step')}")
            first = [step.to_json() for step in plan.steps[:PLAN_SHOWN]]
            what = f"{task.kind} {task.subject}"
            self.last_plan = {"what": what, "time": time.time(), "count": count, "steps": first}
        work = Execution(self.supervisor, self.images, plan, want, before.jobs, self.current, self.placed)
        work.say, work.changed, work.on_trial = task.say, self.roll_backs.changed, sources.trials
        work.refused_images = self.refused()
        return work

    async def _pause(self, jobs: int) -> None:
        """Let others have a turn when what was done took its time, as it does for thousands of jobs."""
        if jobs > MANY:
            await self.supervisor.loop.sleep(0)

    # waiting

    async def _must_be_up(self, name: str) -> None:
        """With failFast: wait for one process before the next is touched."""
        await self.settling.until_known(name)
        if self.trials.failed(name) or self.settling.unhappy(name):
            cause = self.supervisor.units[name].life.cause.text
            raise MaestroError(f"{name}: {cause}", hint="failFast: the rest was left as it was")

    async def _settle(self, task: Task, proposal: Proposal, work: Execution, fetched: Fetched) -> None:
        """Wait until those that shall run are ready or have failed; raise with what is not running."""
        processes = work.want.processes
        touched = {*fetched.failures, *(step.process for step in work.plan.steps)}
        names = [n for n, p in processes.items() if p.enabled and p.autostart]
        names = [n for n in names if proposal.wanted.revive or n in touched]
        await self.settling.until_settled(names, task.wait_for)
        # of what has no process to show for it
        lines = [why for name, why in fetched.failures.items() if name not in processes] + work.refused
        for name, held in self.sources.held.items():
            if name in fetched.failures:
                lines.append(f"{name}: {held.reason}; the version before stays")
            elif held.refused and name in touched and name not in proposal.sources.held:
                lines.append(f"{name}: {held.reason}")
        for name in names:
            unit = self.supervisor.units.get(name)
            if unit and self.settling.unhappy(name):
                members = unit.process.members if unit.process.composite_id else ()
                who = f"{name} ({', '.join(members)})" if members else name
                lines.append(f"{who} is {unit.life.state.value}: {self.settling.explain(unit)}")
        if lines:
            count = len(lines)
            head = f"cannot {task.kind} {task.subject}: {count}"
            head += f" {'things are' if count > 1 else 'thing is'} not as wanted"
            hint = "`maestro why JOB` and `maestro logs JOB` tell more"
            raise MaestroError("\n  ".join([head, *lines]), hint=hint)


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' if number != 1 else ''}"
