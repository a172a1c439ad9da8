# SPDX-License-Identifier: Apache-2.0
"""Carries out a plan whose fetches are done: stop, switch, place, start, remove."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from dataclasses import replace

from maestro_py.daemon import configs
from maestro_py.daemon.supervisor import Supervisor
from maestro_py.errors import MaestroError
from maestro_py.images.store import ImageStore
from maestro_py.lifecycle import ALIVE, Cause, Fail, Kind, Stop
from maestro_py.plan import IDLE, Action, Plan, Step, Wanted
from maestro_py.process import launcher
from maestro_py.spec.layers import ConfigKey
from maestro_py.spec.model import ConfigSpec, ImageSpec, State

DISABLED = Cause(Kind.DISABLED, "disabled")


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
        self.broken: dict[str, str] = {}
        self.refused: list[str] = []  # limits a running process could not be given
        self.boot = False
        self.say: Callable[[str], None] = lambda text: None
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
        for name in dict.fromkeys([*steps, *(n for n in want.processes if n in self.broken)]):
            try:
                await self._change(name, steps.get(name, []))
            except MaestroError as error:
                self.say(str(error))
                supervisor.feed(supervisor.units[name], Fail(Cause(Kind.LAUNCH, error.message)))
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
        before = supervisor.units[name].process
        unit = supervisor.define(want)
        if broken:
            supervisor.feed(unit, Fail(Cause(Kind.IMAGE, broken)))
            return
        for step in steps:
            if step.action is Action.SWITCH_IMAGE:
                self._switch(step.subject)
        if before.config_dir and not want.config_dir:
            configs.remove(before)
        if Action.PLACE_CONFIG in actions:
            configs.place(want, self.files, launcher.owner(want)[1])
            for key in [key for key in self.placed if self.want.jobs.get(key[0]) == name]:
                del self.placed[key]
            self.placed.update({(c.job, c.name): c for c in want.configs})
        if not want.enabled:
            supervisor.feed(unit, Stop(DISABLED))
        elif Action.START in actions:
            if not self.boot or supervisor.may_start_at_boot(unit):
                supervisor.start(name)
            else:
                supervisor.feed(unit, Stop(Cause(Kind.ASKED, "stopped by hand before the daemon started")))
        elif unit.life.state in ALIVE:
            limits, unit.running = unit.running.limits, want
            if Action.RELOAD in actions and want.reload_signal:
                supervisor.runner.signal(unit, want.reload_signal)
            if Action.SET_LIMITS in actions:
                try:
                    supervisor.runner.set_limits(unit)
                except MaestroError as error:
                    unit.running = replace(want, limits=limits)  # so the next apply tries again
                    self.refused.append(str(error))

    async def _moved_out(self, name: str) -> None:
        """Wait until no other process runs a job that belongs to this one now."""
        moved = {j: self.left[j] for j in self.want.processes[name].members if self.left.get(j, name) != name}

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

    def _switch(self, job: str) -> None:
        image = self.want.images[job]
        if self.images.installed(image):
            self.images.switch(job, image)
            self.current[job] = image

    def remove_unused_images(self) -> None:
        """Remove every version that nothing uses any more."""
        for row in self.images.list():
            job, image = row["job"], self.want.images.get(row["job"])
            dirname = os.path.basename(row["path"])
            if image is None:
                self.images.remove(job)
            elif image.dirname != dirname and not row["current"]:
                self.images.remove_version(job, dirname)
