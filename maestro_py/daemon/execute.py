# SPDX-License-Identifier: Apache-2.0
"""Carries out a plan whose fetches are done: stop, switch, place, start, remove."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping, MutableMapping
from dataclasses import replace

from maestro_py.daemon import configs
from maestro_py.daemon.fetching import Replacement
from maestro_py.daemon.supervisor import Supervisor
from maestro_py.errors import MaestroError
from maestro_py.faultpoint import reach
from maestro_py.images.store import ImageStore
from maestro_py.lifecycle import ALIVE, Cause, Fail, Kind, Stop
from maestro_py.plan import IDLE, Action, Plan, Step, Wanted
from maestro_py.process import launcher
from maestro_py.spec.layers import ConfigKey
from maestro_py.spec.model import ConfigSpec, ImageSpec
from maestro_py.spec.resolved import State

DISABLED = Cause(Kind.DISABLED, "disabled")

_AT_ONCE = 20  # processes changed before whoever asks meanwhile has a turn


class Execution:
    """One plan on its way to be true.

    left: job -> process as it was before. current and placed: version in use and configs in place, kept
    up to date here. files: (job, config, path) -> downloaded file. broken: process -> why it has nothing
    to run. after_each: called after each process; what it raises ends the execution.
    """

    def __init__(
        self,
        supervisor: Supervisor,
        images: ImageStore,
        plan: Plan,
        want: Wanted,
        left: Mapping[str, str],
        current: MutableMapping[str, ImageSpec],
        placed: MutableMapping[ConfigKey, ConfigSpec],
    ) -> None:
        self.supervisor = supervisor
        self.images = images
        self.plan = plan
        self.want = want
        self.left = left
        self.current = current
        self.placed = placed
        self.files: dict[tuple[str, str, str], str] = {}
        self.replacements: Mapping[str, Replacement] = {}  # of damaged images, by job
        self.on_trial: Collection[str] = ()  # processes that may go back to what they are now
        self.refused_images: Collection[tuple[str, str]] = ()  # rolled back: nothing goes back to them
        self.broken: dict[str, str] = {}
        self.refused: list[str] = []  # limits a running process could not be given
        self.boot = False
        self.say: Callable[[str], None] = lambda text: None
        self.changed: Callable[[str], None] = lambda name: None  # told of each process once it is changed
        self.after_each: Callable[[str], Awaitable[None]] | None = None

    async def run(self) -> None:
        """Do it all. A process that cannot be changed is marked FAILED with the reason; the rest goes on."""
        supervisor, want = self.supervisor, self.want
        gone = [name for name in supervisor.units if name not in want.processes]
        for step in self.plan.steps:
            if step.action is Action.STOP and (step.process in gone or not self.after_each):
                self._stop(step)
        await self._remove(gone)
        for step in self.plan.steps:
            if step.action is Action.SWITCH_IMAGE and not step.process:
                self._switch(step.subject)
        for name, process in want.processes.items():
            if name not in supervisor.units:
                supervisor.define(process)
        steps: dict[str, list[Step]] = {}
        for step in self.plan.steps:
            if step.process in want.processes:
                steps.setdefault(step.process, []).append(step)
        for count, name in enumerate(
            dict.fromkeys([*steps, *(n for n in want.processes if n in self.broken)])
        ):
            if count % _AT_ONCE == _AT_ONCE - 1:
                await supervisor.loop.sleep(0)
            try:
                await self._change(name, steps.get(name, []))
            except MaestroError as error:
                self.say(str(error))
                supervisor.feed(supervisor.units[name], Fail(Cause(Kind.LAUNCH, error.message)))
            self.changed(name)
            if self.after_each:
                await self.after_each(name)

    def _stop(self, step: Step) -> None:
        unit = self.supervisor.units.get(step.process)
        if unit and unit.life.state not in IDLE and unit.life.state is not State.STOPPING:
            self.supervisor.stop(step.process, self._cause(step))

    def _cause(self, step: Step) -> Cause:
        process = self.want.processes.get(step.process)
        return Cause(Kind.ASKED, step.reason) if process is None or process.enabled else DISABLED

    async def _remove(self, gone: list[str]) -> None:
        """Forget processes that are in no document any more."""
        for name in gone:
            await self.supervisor.until_stopped(name, Cause(Kind.ASKED, "it was removed"))
            process = self.supervisor.units[name].process
            self.supervisor.forget(name)
            configs.remove(process)
            self.supervisor.happen("process-removed", "removed", process=name)
        for key in [key for key in self.placed if key[0] not in self.want.jobs]:
            del self.placed[key]

    async def _change(self, name: str, steps: list[Step]) -> None:
        """Bring one process to its definition."""
        supervisor, want = self.supervisor, self.want.processes[name]
        actions = {step.action for step in steps}
        broken = self.broken.get(name, "")
        await self._moved_out(name)
        for step in steps:
            if step.action is Action.STOP:
                await supervisor.until_stopped(name, self._cause(step))
                reach("upgrade.stopped")
        before = supervisor.units[name].process
        unit = supervisor.define(want)
        if broken:
            supervisor.feed(unit, Fail(Cause(Kind.IMAGE, broken)))
            return
        self._switch_all([step.subject for step in steps if step.action is Action.SWITCH_IMAGE])
        if before.config_dir and not want.config_dir:
            configs.remove(before)
        if Action.PLACE_CONFIG in actions:
            if name in self.on_trial:
                configs.keep(before)
            configs.place(want, self.files, launcher.owner(want)[1])
            for key in [key for key in self.placed if self.want.jobs.get(key[0]) == name]:
                del self.placed[key]
            self.placed.update({(c.job, c.name): c for c in want.configs})
        if not want.enabled:
            supervisor.feed(unit, Stop(DISABLED))
        elif Action.START in actions:
            if not self.boot or supervisor.may_start_at_boot(unit):
                supervisor.start(name)
                reach("upgrade.started")
            else:
                supervisor.feed(unit, Stop(Cause(Kind.ASKED, "stopped by hand before the daemon started")))
        elif unit.life.state in ALIVE:
            limits, unit.running = unit.running.limits, want
            if Action.RELOAD in actions and want.reload_signal:
                supervisor.control.signal(unit, want.reload_signal)
            if Action.SET_LIMITS in actions:
                try:
                    supervisor.control.set_limits(unit)
                except MaestroError as error:
                    unit.running = replace(want, limits=limits)  # so the next apply tries again
                    self.refused.append(str(error))
            supervisor.record(unit)

    async def _moved_out(self, name: str) -> None:
        """Wait until no other process runs a job that belongs to this one now."""
        moved = {j: self.left[j] for j in self.want.processes[name].members if self.left.get(j, name) != name}
        if not moved:
            return

        def still_in() -> set[str]:
            found = set()
            for job, process in moved.items():
                unit = self.supervisor.units.get(process)
                if unit and unit.life.state in ALIVE and job in unit.running.members:
                    found.add(process)
            return found

        for step in self.plan.steps:
            if step.action is Action.STOP and step.process in still_in():
                self._stop(step)
        await self.supervisor.until(lambda: not still_in())

    def _switch_all(self, jobs: list[str]) -> None:
        """Switch the images of one process, together or not at all."""
        before: list[ImageSpec] = []
        try:
            for job in jobs:
                now = self.current.get(job)
                self._switch(job)
                reach("upgrade.switched")
                if now:
                    before.append(now)
        except MaestroError:
            for image in before:
                self.images.switch(image.job, image, back=True)
                self.current[image.job] = image
            raise

    def _switch(self, job: str) -> None:
        image, now = self.want.images[job], self.current.get(job)
        if job in self.replacements:
            new = self.replacements[job]
            self.images.publish(new.image, new.tree, new.meta)
        if self.images.installed(image):
            back = now is not None and (job, now.dirname) in self.refused_images
            self.images.switch(job, image, back=back)
            self.current[job] = image
