# SPDX-License-Identifier: Apache-2.0
"""Brings images and config files to the device, through helper programs, before anything is changed."""

from __future__ import annotations

import os
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from maestro_py.daemon.loop import Loop
from maestro_py.daemon.tasks import Task
from maestro_py.errors import MaestroError
from maestro_py.images.store import ImageStore, sums
from maestro_py.plan import Action, Plan, Wanted
from maestro_py.spec.daemonconfig import DaemonConfig
from maestro_py.spec.model import ImageSpec
from maestro_py.valueclass import valueclass

if TYPE_CHECKING:
    from maestro_py.daemon.arrivals import Arrivals


@valueclass(frozen=True)
class Replacement:
    """A staged image, and what is recorded with it."""

    image: ImageSpec
    tree: str
    meta: Mapping[str, Any]


@dataclass
class Fetched:
    """What came, and what did not.

    failures: process -> why (`/job` for one without a process). files: (job, config, path) -> staged file.
    replacements: job -> its image anew, which comes into the store once nothing runs from the damaged one.
    """

    failures: dict[str, str] = field(default_factory=dict)
    files: dict[tuple[str, str, str], str] = field(default_factory=dict)
    replacements: dict[str, Replacement] = field(default_factory=dict)

    def discard(self, images: ImageStore) -> None:
        """Remove what was staged and not used."""
        for path in self.files.values():
            try:
                os.unlink(path)
            except FileNotFoundError:
                pass
        for each in self.replacements.values():
            images.discard(each.tree, sums(each.tree, staged=True))


class Fetcher:
    """Carries out the fetch steps of a plan.

    make: what brings things to a device with these settings; made when first something is fetched.
    """

    def __init__(self, loop: Loop, config: DaemonConfig, make: Callable[[DaemonConfig], Arrivals]) -> None:
        self.loop = loop
        self._make = make
        self.configure(config)

    def configure(self, config: DaemonConfig) -> None:
        """Take other settings, for what is fetched from now on."""
        self._config = config
        self._made: Arrivals | None = None

    def _arrivals(self) -> Arrivals:
        if self._made is None:
            self._made = self._make(self._config)
        return self._made

    async def fetch(self, plan: Plan, want: Wanted, task: Task, fail_fast: bool) -> Fetched:
        """Fetch everything a plan needs, several at a time. With fail_fast the first failure ends it."""
        fetched = Fetched()
        steps = [step for step in plan.steps if step.action in (Action.FETCH_IMAGE, Action.FETCH_CONFIG)]
        if not steps:
            return fetched
        arrivals = self._arrivals()
        arrivals.clean(want)
        work: list[tuple[str, Coroutine[Any, Any, None]]] = []
        names = {"/".join(key): key for key in want.configs}
        for step in steps:
            process = want.processes.get(step.process)
            if step.action is Action.FETCH_IMAGE:
                # what nobody runs now is no reason to hold a process back
                needed = process is not None and (step.subject in process.members or not process.enabled)
                where = step.process if needed else f"/{step.subject}"
                work.append((where, arrivals.image(want.images[step.subject], process, fetched, task)))
            else:
                job, name = names[step.subject]
                for file in want.configs[job, name].files:
                    coming = arrivals.file(job, name, file, process, fetched.files, task)
                    work.append((step.process or f"/{job}", coming))
        running = [(where, self.loop.spawn(_outcome(each), name=f"fetch {where}")) for where, each in work]
        try:
            for where, each in running:
                error = await each
                if error:
                    known = fetched.failures.get(where)
                    fetched.failures[where] = f"{known}; {error.message}" if known else error.message
                    task.say(error.message)
                    if fail_fast:
                        break
        finally:
            for _, each in running:
                each.cancel()
        return fetched


async def _outcome(work: Coroutine[Any, Any, None]) -> MaestroError | None:
    """Return what went wrong, so that nothing is lost when others are waited for first."""
    try:
        await work
    except MaestroError as error:
        return error
    return None
