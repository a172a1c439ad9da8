# SPDX-License-Identifier: Apache-2.0
"""Brings images and config files to the device, through helper programs, before anything is changed."""

from __future__ import annotations

import os
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any

from maestro_py.daemon import helpers
from maestro_py.daemon.locks import Semaphore
from maestro_py.daemon.loop import Loop
from maestro_py.daemon.tasks import Task
from maestro_py.errors import MaestroError
from maestro_py.images.store import ImageStore
from maestro_py.plan import Action, Plan, Step, Wanted
from maestro_py.spec.model import Checksum, ConfigFile

AT_ONCE = 4
"""Downloads at a time (upstream's MAX_CONCURRENT_DOWNLOADS)."""

CONNECT_TIMEOUT = 20.0
READ_TIMEOUT = 30.0
DEADLINE = 6 * 3600.0
"""Seconds to connect, of silence, and for a whole download."""

MAX_ENTRIES = 1_000_000


@dataclass
class Fetched:
    """What came, and what did not.

    failures: process -> why (`/job` for one without a process). files: (job, config, path) -> staged file.
    """

    failures: dict[str, str] = field(default_factory=dict)
    files: dict[tuple[str, str, str], str] = field(default_factory=dict)

    def discard(self) -> None:
        """Remove staged files that were not used."""
        for path in self.files.values():
            try:
                os.unlink(path)
            except FileNotFoundError:
                pass


class Fetcher:
    """Carries out the fetch steps of a plan."""

    def __init__(self, loop: Loop, images: ImageStore, scratch: str) -> None:
        self.loop = loop
        self.images = images
        self.scratch = scratch
        self._slots = Semaphore(loop, AT_ONCE)
        self._count = 0

    async def fetch(self, plan: Plan, want: Wanted, task: Task, fail_fast: bool) -> Fetched:
        """Fetch everything a plan needs, several at a time. With fail_fast the first failure ends it."""
        fetched = Fetched()
        work: list[tuple[str, Coroutine[Any, Any, None]]] = []
        names = {"/".join(key): key for key in want.configs}
        for step in plan.steps:
            if step.action is Action.FETCH_IMAGE:
                process = want.processes.get(step.process)
                # what nobody runs now is no reason to hold a process back
                needed = process is not None and (step.subject in process.members or not process.enabled)
                work.append((step.process if needed else f"/{step.subject}", self._image(want, step, task)))
            elif step.action is Action.FETCH_CONFIG:
                job, name = names[step.subject]
                for item in want.configs[job, name].files:
                    key = (job, name, item.dest_relative_path)
                    work.append((step.process or f"/{job}", self._file(key, item, fetched, task)))
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

    async def _image(self, want: Wanted, step: Step, task: Task) -> None:
        image = want.images[step.subject]
        process = want.processes.get(step.process)
        # an absolute link stays inside only where the image becomes a root of its own
        is_root = process is not None and process.root == self.images.path(image)
        problem = self.images.free_space_problem(image)
        if problem:
            raise MaestroError(problem)
        label = f"{image.job} {image.version}".strip()
        download, tree = self.images.stage(image)
        try:
            async with self._slots:
                # the tree made of it is synced; the archive is gone after that
                await self._download(image.url, download, image.size, image.checksum, label, task, sync=False)
                task.advance(label, "unpack", 0, None, "running")
                request = {
                    "archive": download,
                    "name": f"image {label}",
                    "dest": tree,
                    "image_type": image.image_type,
                    "max_bytes": self.images.unpack_room(),
                    "max_entries": MAX_ENTRIES,
                    "owner": None,
                    "allow": ["absolute-links"] if is_root else [],
                }
                try:
                    result = await helpers.run(self.loop, "maestro_py.images.unpack", request)
                except MaestroError:
                    task.advance(label, "unpack", 0, None, "failed")
                    raise
            self.images.publish(image, tree, result)
            size = os.stat(download).st_size
            task.advance(label, "install", size, size, "complete")
        finally:
            self.images.discard(download, tree)

    async def _file(self, key: tuple[str, str, str], item: ConfigFile, fetched: Fetched, task: Task) -> None:
        self._count += 1
        path = os.path.join(self.scratch, f"config-{self._count}")
        label = "/".join(key)
        try:
            async with self._slots:
                await self._download(item.url, path, item.size, item.checksum, label, task, sync=True)
        except BaseException:
            if os.path.exists(path):
                os.unlink(path)
            raise
        task.advance(label, "download", item.size, item.size or None, "complete")
        fetched.files[key] = path

    async def _download(
        self,
        url: str,
        path: str,
        size: int,
        checksum: Checksum | None,
        label: str,
        task: Task,
        *,
        sync: bool,
    ) -> None:
        task.advance(label, "download", 0, size or None, "running")
        request = {
            "url": url,
            "dest": path,
            "size": size,
            "max_size": self.images.download_room(),
            "sync": sync,
            "checksum": {"type": checksum.type, "value": checksum.value} if checksum else None,
            "connect_timeout": CONNECT_TIMEOUT,
            "read_timeout": READ_TIMEOUT,
            "deadline": DEADLINE,
        }

        def progress(line: dict[str, Any]) -> None:
            task.advance(label, "download", line["bytes"], line.get("total") or size or None, "running")

        try:
            await helpers.run(self.loop, "maestro_py.images.fetch", request, progress=progress)
        except MaestroError:
            task.advance(label, "download", 0, size or None, "failed")
            raise


async def _outcome(work: Coroutine[Any, Any, None]) -> MaestroError | None:
    """Return what went wrong, so that nothing is lost when others are waited for first."""
    try:
        await work
    except MaestroError as error:
        return error
    return None
