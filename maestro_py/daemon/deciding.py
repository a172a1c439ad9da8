# SPDX-License-Identifier: Apache-2.0
"""What the device is to be, what it is, and what a change of the one would do to the other."""

from __future__ import annotations

import os
import resource
from collections.abc import Collection, Mapping
from dataclasses import replace

from maestro_py.daemon import privileges, wanted
from maestro_py.daemon.supervisor import Supervisor
from maestro_py.daemon.unit import DESCRIPTORS
from maestro_py.daemon.wanted import Sources
from maestro_py.errors import Conflict, InvalidDocument, MaestroError, Problem
from maestro_py.images.store import ImageStore, Version, spec_of
from maestro_py.lifecycle import ALIVE
from maestro_py.plan import Actual, Is, Plan, Wanted, make_plan
from maestro_py.spec.layers import ConfigKey
from maestro_py.spec.model import ConfigSpec, ImageSpec, RunningConfig
from maestro_py.spec.places import Places
from maestro_py.valueclass import valueclass

RESERVE = 400
"""Descriptors kept for clients, databases and helper programs."""


@valueclass(frozen=True)
class Proposal:
    """A checked change that has not begun: what it would be, and what it would do.

    before: what it changes. anew: jobs whose damaged image is fetched again.
    """

    before: Sources
    sources: Sources
    wanted: Wanted
    plan: Plan
    warnings: tuple[Problem, ...]
    broken: Mapping[str, str]
    anew: Collection[str]


class Decider:
    """Knows the wanted state and makes proposals to change it; changes nothing."""

    def __init__(self, supervisor: Supervisor, images: ImageStore, places: Places, sources: Sources) -> None:
        self.supervisor = supervisor
        self.images = images
        self.places = places
        self.sources = sources
        # processes that their stored definition cannot give, with the reason
        self.broken: Mapping[str, str]
        self.wanted, _, self.broken = wanted.resolved_in_part(sources, places)
        self.jobs = sources.in_force().jobs
        self.current: dict[str, ImageSpec] = {}  # version in use, by job
        self.placed: dict[ConfigKey, ConfigSpec] = {}

    def propose(
        self,
        sources: Sources,
        *,
        what: str = "running config",
        revive: bool = True,
        remove_old_images: bool = False,
        in_part: bool = False,
        repair: bool = False,
    ) -> Proposal:
        """Return what a change would do. Raises InvalidDocument.

        revive: whether what is down and unchanged is started as well. in_part: what cannot be resolved
        is left broken, as at a boot, where there is nobody to refuse it to. repair: damaged images come anew.
        """
        broken: dict[str, str] = {}
        sources = sources.settled()
        if in_part:
            want, warnings, broken = wanted.resolved_in_part(sources, self.places)
        else:
            want, warnings = wanted.resolved(sources, self.places, what)
        want = replace(want, remove_old_images=remove_old_images, revive=revive)
        self._check_descriptors(want)
        for process in want.processes.values():
            for sentence in self.supervisor.cgroups.unsupported(process.limits):
                warnings.append(Problem(process.name, sentence))
        for name, held in sources.held.items():
            if held.refused and name in self.sources.held and name in want.processes:
                text = f"stays as it was before: {held.reason}; --force tries it again"
                warnings.append(Problem(name, text))
        anew = {meta["job"] for meta in self.images.versions()} if repair else set()
        plan = make_plan(self.actual(want.images, anew), want)
        return Proposal(self.sources, sources, want, plan, tuple(warnings), broken, anew)

    def planned_again(self, proposal: Proposal) -> Proposal | None:
        """Return a proposal with the plan for what is on the device now; None: it changes what is past."""
        if proposal.before is not self.sources:
            return None
        plan = make_plan(self.actual(proposal.wanted.images, proposal.anew), proposal.wanted)
        return replace(proposal, plan=plan)

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
        sources = self.sources.with_document(document, retry=force)
        proposal = self.propose(sources, remove_old_images=document.remove_old_images, repair=True)
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

    def actual(self, images: Mapping[str, ImageSpec], anew: Collection[str] = ()) -> Is:
        """Return what is on the device now; `images` are the versions that are asked for.

        anew: jobs whose damaged image does not count as installed.
        """
        processes = {}
        for name, unit in self.supervisor.units.items():
            running = unit.running if unit.life.state in ALIVE else unit.process
            processes[name] = Actual(running, unit.life.state, unit.life.completed)
        jobs = {job: process for job, process in self.wanted.jobs.items() if process in processes}
        installed, pinned, previous = set(), set(), {}
        self.current.clear()
        for meta in self.images.versions():
            job, dirname = version = meta["job"], meta["dirname"]
            image = images.get(job)
            whole = not (job in anew and meta.get("damaged"))
            if image is None or image.dirname != dirname or (self.images.installed(image) and whole):
                installed.add(version)
            if meta["current"]:
                self.current[job] = spec_of(meta)
                previous[job] = meta.get("previous", "")
            if meta.get("pinned"):
                pinned.add(version)
        return Is(
            processes=processes,
            jobs=jobs,
            images=self.current,
            installed=frozenset(installed),
            configs=self.placed,
            previous=previous,
            kept=frozenset(pinned | self._gone_back_to()),
        )

    def _gone_back_to(self) -> set[Version]:
        trials = self.sources.trials.values()
        return {(job, image.dirname) for layer in trials for job, image in layer.images.items()}

    def refused(self) -> set[Version]:
        """Return the versions that were rolled back and are not to be tried again."""
        layers = [held.refused for held in self.sources.held.values() if held.refused]
        asked = {(job, image.dirname) for layer in layers for job, image in layer.images.items()}
        return asked - {(job, image.dirname) for job, image in self.wanted.images.items()}

    def used(self) -> set[Version]:
        """Return every version that is asked for, may be gone back to, or has a process running from it."""
        found = self._gone_back_to()
        found |= {(image.job, image.dirname) for image in self.wanted.images.values()}
        for unit in self.supervisor.units.values():
            if unit.life.state in ALIVE:
                found |= {(ref.job, os.path.basename(ref.path)) for ref in unit.running.images}
        return found
