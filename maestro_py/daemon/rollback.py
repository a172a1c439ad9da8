# SPDX-License-Identifier: Apache-2.0
"""A process that runs a new version is on trial; if that fails, what was before comes back by itself."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from maestro_py.daemon import configs, wanted
from maestro_py.daemon.tasks import Task
from maestro_py.daemon.trials import Trials
from maestro_py.daemon.unit import Unit
from maestro_py.daemon.wanted import Held, Sources
from maestro_py.errors import MaestroError
from maestro_py.faultpoint import reach
from maestro_py.plan import Action, Plan, Wanted, make_plan
from maestro_py.probation import Ruling, Verdict
from maestro_py.spec.layers import Layer
from maestro_py.spec.resolved import State

if TYPE_CHECKING:
    from maestro_py.daemon.change import Changer

LAST_MOMENTS = 1.0
"""Seconds a version that is rolled back has to end in: nobody is served meanwhile."""


class RollBack:
    """Puts processes on trial, and carries out the verdicts."""

    def __init__(self, changer: Changer) -> None:
        self.changer = changer
        self.trials = Trials(changer.supervisor, self._decided)

    def on_trial(self, sources: Sources, want: Wanted) -> dict[str, Layer]:
        """Return, for each process that is to run a version not yet proved, what to go back to."""
        found = {}
        for name, process in want.processes.items():
            unit, before = self.changer.supervisor.units.get(name), self.changer.wanted.processes.get(name)
            if unit is None or before is None or not process.enabled or name in sources.held:
                continue
            layer = self.changer.sources.trials.get(name)
            if layer is None:
                if process.images == before.images or not self._was_good(unit):
                    continue
                layer = self.changer.sources.pieces_of(name)
            there = all(self.changer.images.installed(image) for image in layer.images.values())
            if there and layer != sources.defined(name):
                found[name] = layer
        return found

    def _was_good(self, unit: Unit) -> bool:
        return unit.process.enabled and unit.life.state not in (State.NEVER_RAN, State.FAILED)

    def changed(self, name: str) -> None:
        """Hear that the execution has brought a process to its definition."""
        if name in self.changer.sources.trials:
            self.trials.begin(name)

    def _decided(self, name: str, ruling: Ruling) -> None:
        """Hear from the trials: keep the version for good, or bring the one before back."""
        if ruling.verdict is Verdict.KEEP:
            self.trials.end(name)
            configs.let_go(self.changer.wanted.processes[name])
            trials = {n: layer for n, layer in self.changer.sources.trials.items() if n != name}
            sources = replace(self.changer.sources, trials=trials)
            wanted.save(self.changer.store, sources)
            self.changer.sources = sources
            self.changer.supervisor.happen("upgrade-kept", "the new version has proved itself", process=name)
        else:
            self.changer.tasks.run("roll-back", name, lambda task: self._roll_back(task, name, ruling.why))

    async def _roll_back(self, task: Task, name: str, why: str) -> None:
        """Bring back what a process was before its new version."""
        async with self.changer.hands:
            task.start()
            if not self.trials.failed(name):
                return  # a change was quicker and brings something else
            layer, refused = self.changer.sources.trials[name], self.changer.sources.defined(name)
            reason = f"{_versions(refused, layer)} was rolled back: {why}"
            sources = replace(
                self.changer.sources,
                held={**self.changer.sources.held, name: Held(layer, reason, refused)},
                trials={n: each for n, each in self.changer.sources.trials.items() if n != name},
            )
            want = replace(wanted.resolved(sources, self.changer.places)[0], revive=False)
            # what else may be due is for the next change: this one must be quick
            steps = [
                replace(s, reason=reason) for s in make_plan(self.changer.actual(want.images), want).steps
            ]
            fetches = (Action.FETCH_IMAGE, Action.FETCH_CONFIG)
            plan = Plan(tuple(s for s in steps if s.process == name and s.action not in fetches))
            reach("rollback.decided")
            unit = self.changer.supervisor.units[name]
            unit.process = replace(unit.process, stop_timeout=min(LAST_MOMENTS, unit.process.stop_timeout))
            work = self.changer.take(task, sources, want, plan, quiet=True, back=name)
            work.files = configs.kept(want.processes[name])
            reach("rollback.saved")
            self.changer.supervisor.happen("rolled-back", reason, process=name)
            task.say(reason)
            try:
                await work.run()
            finally:
                self.trials.end(name)
                configs.let_go(want.processes[name])
                self.changer.supervisor.changed.notify()
        await self.changer.settling.until_settled([name])
        if self.changer.settling.unhappy(name):
            unit = self.changer.supervisor.units[name]
            raise MaestroError(f"cannot roll back {name}: {self.changer.settling.explain(unit)}")


def _versions(new: Layer, old: Layer) -> str:
    """Return which versions of which images differ, in words."""
    found = [
        f"version {image.version} of {job}"
        for job, image in new.images.items()
        if old.images.get(job) != image
    ]
    return " and ".join(found) or "the new version"
