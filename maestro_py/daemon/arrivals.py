# SPDX-License-Identifier: Apache-2.0
"""How one image or one file of a config comes to the device: downloaded, verified, unpacked, stored.

Imported when first something is fetched.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any

from maestro_py.daemon import helpers, items
from maestro_py.daemon.archives import Archives
from maestro_py.daemon.downloads import Downloader
from maestro_py.daemon.fetching import Fetched, Replacement
from maestro_py.daemon.items import Item
from maestro_py.daemon.locks import Semaphore
from maestro_py.daemon.loop import Loop
from maestro_py.daemon.tasks import Task
from maestro_py.errors import MaestroError
from maestro_py.faultpoint import reach
from maestro_py.images.store import ImageStore, sums
from maestro_py.plan import Wanted
from maestro_py.process import launcher
from maestro_py.spec.daemonconfig import DaemonConfig
from maestro_py.spec.model import ConfigFile, Delta, ImageSpec
from maestro_py.spec.resolved import ResolvedProcess
from maestro_py.units import MAX_SIZE

MISMATCH = "mismatch"
"""Code of the error when something is not what it shall be."""

SIGNATURE_SIZE = 4096
"""Bytes of a signature file."""

Use = Callable[[str], Awaitable[None]]
"""What is done with a file that came; raises MaestroError of code `mismatch` when it is not the right one."""

FileKey = tuple[str, str, str]
"""(job, config, path) of a file."""

UNPACK_MEMORY = 1 << 30
"""Bytes of address space the unpacking program and what undoes the compression may each have."""


class Arrivals:
    """Brings images into the store, and files into `scratch`. keys: directory of trusted public keys.

    tell: (what kind of event, sentence) -> None.
    """

    def __init__(
        self,
        loop: Loop,
        images: ImageStore,
        scratch: str,
        config: DaemonConfig,
        keys: str,
        tell: Callable[[str, str], None],
    ) -> None:
        self.loop = loop
        self.images = images
        self.scratch = scratch
        self.config = config
        self.keys = keys
        self._tell = tell
        self._archives = Archives(
            images, os.path.join(scratch, "archives"), wanted=config.downloads.keep_archives
        )
        self._unpacking = Semaphore(loop)  # memory and flash are better used by one at a time
        self.downloads = Downloader(
            loop,
            os.path.join(scratch, "partial"),
            config.downloads,
            tell,
        )

    def clean(self, want: Wanted) -> None:
        """Remove what came of images and files that nobody wants any more."""
        wanted = [items.of_image(image) for image in want.images.values()]
        for (job, name), config in want.configs.items():
            wanted += [items.of_file(job, name, file) for file in config.files]
        self.downloads.clean({item.part for item in wanted})

    # ---- images

    async def image(
        self, image: ImageSpec, process: ResolvedProcess | None, fetched: Fetched, task: Task
    ) -> None:
        """Have an image in the store, complete. process: what it is for, which says how it is unpacked.

        One that is there already, and damaged, is replaced later: it is in `fetched` then.
        """
        if self.config.require_signature and image.signature is None:
            raise MaestroError(
                f"cannot accept image {items.label(image)}: it has no signature, and this device wants one",
                hint="require_signature in the daemon's config file",
            )
        problem = self.images.free_space_problem(image)
        if problem:
            raise MaestroError(problem)
        if image.signature is None and await self._from_twin(image, process, fetched, task):
            return
        item = items.of_image(image, process)

        async def use(path: str) -> None:
            await self._unpack(image, process, path, fetched, task)

        try:
            path = await self._from_delta(image, process, use, task) or await self._accepted(item, use, task)
        except MaestroError as error:
            self._tell("image-failed", error.message)
            raise
        size = os.stat(path).st_size
        task.advance(item.label, "install", size, size, "complete")
        self._tell("image-installed", f"image {item.label} is installed")
        self._archives.keep(image, path)
        if self.images.spend(path):
            self.loop.spawn(self._free_spent(), name="free spent downloads")
        self.downloads.discard(path)

    async def _free_spent(self) -> None:
        """Let a large archive go bit by bit, between other work."""
        while self.images.free_spent():
            await self.loop.sleep(0.01)

    async def _accepted(
        self,
        item: Item,
        use: Use,
        task: Task,
    ) -> str:
        """Download and use an item; one that is not what it shall be is fetched once more from the start."""
        for again in (False, True):
            path = await self.downloads.fetch(item, self.images.download_room(), task)
            reach("arrivals.fetched")
            try:
                await use(path)
                reach("arrivals.used")
                return path
            except MaestroError as error:
                if item.checksum is None or error.code != helpers.INTERRUPTED:
                    self.downloads.discard(path)
                if again or error.code != MISMATCH or item.url.startswith("file:"):
                    raise
                task.say(f"{error.message}; once more from the beginning")
            except BaseException:
                if item.checksum is None:
                    self.downloads.discard(path)
                raise
        raise AssertionError

    async def _from_twin(
        self, image: ImageSpec, process: ResolvedProcess | None, fetched: Fetched, task: Task
    ) -> bool:
        """Take an image from another job's, or another version's, of the same content; say whether it was."""
        made = self._way(image, process)
        twin = self.images.twin(image, made)
        if twin is None:
            return False
        tree = self.images.stage(image)
        try:
            request = {"tree": twin["path"], "dest": tree}
            await helpers.run(self.loop, "maestro_py.images.clone", request)
            os.link(sums(twin["path"]), sums(tree, staged=True))
            self._store(
                image, tree, {**{key: twin.get(key) for key in ("bytes", "entries")}, "made": made}, fetched
            )
        except (MaestroError, OSError) as error:
            self.images.discard(tree, sums(tree, staged=True))
            task.say(f"{error}; it is fetched instead")
            return False
        task.advance(items.label(image), "install", image.size, image.size, "complete")
        self._tell("image-installed", f"image {items.label(image)} is installed, from {twin['job']}'s")
        return True

    def _store(self, image: ImageSpec, tree: str, meta: Mapping[str, Any], fetched: Fetched) -> None:
        """Publish a staged tree, or have it published once nothing runs from the one that is there."""
        if self.images.occupied(image):
            fetched.replacements[image.job] = Replacement(image, tree, meta)
        else:
            self.images.publish(image, tree, meta)

    async def _unpack(
        self,
        image: ImageSpec,
        process: ResolvedProcess | None,
        path: str,
        fetched: Fetched,
        task: Task,
    ) -> None:
        label = items.label(image)
        tree = self.images.stage(image)
        made = self._way(image, process)
        signature = await self._signature(image, process, task)
        limits = self.config.unpacking
        request = {
            "archive": path,
            "name": f"image {label}",
            "dest": tree,
            "image_type": image.image_type,
            "max_bytes": max(1, min(limits.max_size or MAX_SIZE, self.images.unpack_room())),
            "max_entries": limits.max_entries,
            "max_ratio": limits.max_ratio,
            **made,
            "sums": sums(tree, staged=True),
            "checks": {**items.of_image(image).checks(), "signature": signature, "keys": self.keys},
        }
        try:
            async with self._unpacking:
                task.advance(label, "unpack", 0, None, "running")
                result = await helpers.run(
                    self.loop, "maestro_py.images.unpack", request, limits=(("as", UNPACK_MEMORY),)
                )
            self._store(image, tree, {**result, "made": made}, fetched)
        except BaseException as error:
            self.images.discard(tree, sums(tree, staged=True))
            if isinstance(error, MaestroError):
                task.advance(label, "unpack", 0, None, "failed")
            raise

    def _way(self, image: ImageSpec, process: ResolvedProcess | None) -> dict[str, Any]:
        """Return how an image is unpacked for a process."""
        if process is None:
            return {"owner": None, "allow": []}
        owner: object = None
        if process.image_owner == "archive":
            owner = "archive"
        elif process.image_owner == "user":
            uid, gid = launcher.owner(process)
            owner = {"uid": uid, "gid": gid}
        allow = list(process.image_allow)
        if process.root == self.images.path(image):
            allow.append("absolute-links")  # they stay inside only where the image becomes a root of its own
        return {"owner": owner, "allow": allow}

    async def _signature(self, image: ImageSpec, process: ResolvedProcess | None, task: Task) -> str:
        """Return the text of an image's signature file; empty when it has none."""
        if image.signature is None or image.signature.value:
            return image.signature.value if image.signature else ""
        item = items.of_signature(image, image.signature.url, process)
        path = await self.downloads.fetch(item, SIGNATURE_SIZE, task)
        try:
            with open(path, encoding="utf-8", errors="replace") as file:
                text = file.read(SIGNATURE_SIZE)
        finally:
            self.downloads.discard(path)
        return text

    # ---- deltas

    async def _from_delta(
        self, image: ImageSpec, process: ResolvedProcess | None, use: Use, task: Task
    ) -> str:
        """Make the archive of an image, where its download would go, if a delta leads to it, and use it.

        Return its path; empty when there is none. What is wrong with a delta only costs the way round.
        """
        item = items.of_image(image)
        path = os.path.join(self.downloads.directory, item.part)
        if image.checksum is None or os.path.exists(path):
            return ""
        for delta in image.deltas:
            base = self._archives.find(image.job, delta.base)
            if base:
                try:
                    await self._apply(delta, base, image, process, path, task)
                    await use(path)
                    return path
                except MaestroError as error:
                    self.downloads.discard(path)
                    task.say(f"{error.message}; the whole image is fetched instead")
        return ""

    async def _apply(
        self,
        delta: Delta,
        base: str,
        image: ImageSpec,
        process: ResolvedProcess | None,
        path: str,
        task: Task,
    ) -> None:
        item = items.of_delta(image, delta, process)

        async def use(fetched: str) -> None:
            request = {
                **item.checks(),
                "delta": fetched,
                "base": base,
                "part": path,
                "content": image.checksum.value if image.checksum else "",
                "max_size": image.size or self.images.download_room(),
            }
            await helpers.run(
                self.loop, "maestro_py.images.delta", request, limits=(("fsize", request["max_size"]),)
            )

        self.downloads.discard(await self._accepted(item, use, task))

    # ---- files of configs

    async def file(
        self,
        job: str,
        name: str,
        file: ConfigFile,
        process: ResolvedProcess | None,
        files: MutableMapping[FileKey, str],
        task: Task,
    ) -> None:
        """Have a file of a config here, verified, and its path in `files`; the caller takes it away."""
        item = items.of_file(job, name, file, process)

        async def use(path: str) -> None:
            if item.checksum or item.size:
                request = {**item.checks(), "file": path}
                await helpers.run(self.loop, "maestro_py.images.verify", request)

        path = await self._accepted(item, use, task)
        ready = os.path.join(self.scratch, f"config-{os.urandom(6).hex()}")
        os.rename(path, ready)
        self.downloads.discard(path)
        files[job, name, file.dest_relative_path] = ready
