# SPDX-License-Identifier: Apache-2.0
"""What people ask of the image store: verify, roll back, pin, remove, collect."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import Any

from maestro_py.daemon import helpers
from maestro_py.daemon.change import Changer
from maestro_py.daemon.tasks import Task
from maestro_py.daemon.wanted import Held, Sources
from maestro_py.errors import Conflict, MaestroError, NotFound
from maestro_py.images.store import Row, Rows, spec_of, sums

VERIFY = "maestro_py.images.manifest"


class ImageWork:
    """Works on the versions in the store; what a process runs changes through the changer alone."""

    def __init__(self, changer: Changer) -> None:
        self.changer = changer
        self.images = changer.images

    def roll_back(self, job: str, who: str) -> Task:
        """Begin to bring the version before the current one back. Raises NotFound.

        As after a bad upgrade, the document stays and the newer version waits until it changes.
        """
        process = self.changer.wanted.jobs.get(job)
        before, now = self.images.previous(job), self.images.current(job)
        if process is None or now is None:
            raise NotFound(
                f"cannot roll back {job}: there is no such job with an image",
                hint="`maestro image list` has them",
            )
        if before is None:
            raise NotFound(
                f"cannot roll back {job}: there is no version before {now.get('version', '')}",
                hint="`maestro image list` has those that are installed",
            )
        image = spec_of(before)
        reason = f"version {now.get('version', '')} of {job} was rolled back: {who} asked for it"

        def edit(sources: Sources) -> Sources:
            layer = sources.pieces_of(process)
            layer = replace(layer, images={**layer.images, job: image})
            held = {**sources.held, process: Held(layer, reason, sources.defined(process))}
            return replace(
                sources, held=held, trials={n: old for n, old in sources.trials.items() if n != process}
            )

        return self.changer.change("image-rollback", job, edit, revive=True)

    def verify(self, jobs: Collection[str], *, repair: bool) -> Task:
        """Begin to compare what is installed of some jobs, or of all, with its checksums.

        A damaged version is marked, and with `repair` fetched anew when it is in use, else removed.
        """
        for job in jobs:
            self._versions(job)

        async def work(task: Task) -> None:
            task.start()
            damaged = []
            chosen = [meta for meta in self.images.versions() if not jobs or meta["job"] in jobs]
            for meta in chosen:
                sentence = await self._look_at(meta, task)
                if sentence:
                    damaged.append(f"{_name(meta)} is damaged: {sentence}")
                    task.say(damaged[-1])
            counted = "1 image" if len(chosen) == 1 else f"{len(chosen)} images"
            task.say(f"{counted} looked at, {len(damaged)} damaged")
            if damaged and repair:
                await self._repair(task)
            elif damaged:
                raise MaestroError(
                    "\n  ".join(["cannot trust every image:", *damaged]), hint="--repair fetches them"
                )

        return self.changer.tasks.run("image-verify", ", ".join(jobs) or "all images", work)

    async def _look_at(self, meta: Row, task: Task) -> str:
        """Return what is damaged of one version, and mark it."""
        subject = _name(meta)
        request = {"tree": meta["path"], "manifest": sums(meta["path"])}

        def progress(line: dict[str, Any]) -> None:
            task.advance(subject, "verify", line["bytes"], meta.get("bytes"), "running")

        try:
            found = await helpers.run(self.changer.supervisor.loop, VERIFY, request, progress=progress)
        except MaestroError as error:
            task.advance(subject, "verify", 0, None, "failed")
            return error.message
        done = found["bytes"]
        task.advance(subject, "verify", done, done, "failed" if found["damaged"] else "complete")
        sentence = "; ".join(found["damaged"])
        try:
            if sentence != (meta.get("damaged") or ""):
                self.images.mark(meta["job"], meta["dirname"], damaged=sentence or None)
        except NotFound:
            return ""  # it was removed meanwhile
        return sentence

    async def _repair(self, task: Task) -> None:
        for meta in [meta for meta in self.images.versions() if meta.get("damaged")]:
            if (meta["job"], meta["dirname"]) not in self.changer.used():
                self.images.remove_version(meta["job"], meta["dirname"])
                task.say(f"{_name(meta)} was removed: nobody uses it")
        await self.changer.repair(task)

    def pin(self, job: str, version: str, *, on: bool) -> Row:
        """Keep a version from every removal, or allow it again; return its row."""
        meta = self._one(job, version)
        self.images.mark(job, meta["dirname"], pinned=on or None)
        return self.images.row(self.images.version(job, meta["dirname"]))

    def remove(self, job: str, version: str) -> Rows:
        """Remove one version, or all that nobody uses when none is named; return the rows of those gone."""
        used, rows = self.changer.used(), []
        chosen = [self._one(job, version)] if version else self._versions(job)
        for meta in chosen:
            row = self.images.row(meta)
            busy = row["current"] or (job, meta["dirname"]) in used
            if busy and version:
                raise Conflict(f"cannot remove image {_name(meta)}: it is in use")
            if not busy and not (row["pinned"] and not version):
                self.images.remove_version(job, meta["dirname"])
                rows.append(row)
        self.changer.upkeep.empty_trash()
        return rows

    def _versions(self, job: str) -> Rows:
        found = [meta for meta in self.images.versions() if meta["job"] == job]
        if not found:
            raise NotFound(f"no image of {job}", hint="`maestro image list` lists them")
        return found

    def _one(self, job: str, version: str) -> Row:
        """Return the version of this name, or that in the directory of this name."""
        known = self._versions(job)
        found = [m for m in known if version in (m.get("version"), m["dirname"])]
        if not version:
            found = [m for m in known if m["current"]]
        if not found:
            raise NotFound(f"no image {job} {version}".rstrip(), hint="`maestro image list` lists them")
        if len(found) > 1:
            names = ", ".join(m["dirname"] for m in found)
            raise Conflict(f"cannot tell which image {job} {version} is meant", hint=f"one of {names}")
        return found[0]


def _name(meta: Row) -> str:
    return f"{meta['job']} {meta.get('version', '')}".rstrip()
