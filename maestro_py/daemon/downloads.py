# SPDX-License-Identifier: Apache-2.0
"""One file after the other over a bad line: tries, growing pauses, and what is kept for going on later.

What has come so far stays in `<scratch>/partial`, over the end of the daemon and of the device, while
something proves in the end that it is the right content. Each try is a helper program without rights.
Imported when first something is fetched.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection
from typing import Any

from maestro_py.daemon import helpers
from maestro_py.daemon.items import Item
from maestro_py.daemon.locks import Semaphore
from maestro_py.daemon.loop import Loop
from maestro_py.daemon.tasks import Task
from maestro_py.errors import MaestroError, Passing
from maestro_py.images.files import entries, unlink
from maestro_py.spec.daemonconfig import Downloads
from maestro_py.units import MAX_SIZE, format_duration, format_size

LONGEST_PAUSE = 300.0
LONGEST_ASKED = 3600.0
"""Seconds between two tries at most, and when a server asks for more."""

EVENT_PAUSE = 10.0
"""Seconds between two events about how far a download is, at least: a quick one is not worth any."""

ADDRESS_SPACE = 1 << 30
OPEN_FILES = 64
CPU_SECONDS = 3600
"""What the program that talks to servers may use."""


class Milestones:
    """Says when it deserves an event how far a download is: each tenth; of an unknown size, by time alone."""

    def __init__(self, now: float) -> None:
        self._last = now
        self._tenth = 0

    def due(self, done: int, total: int | None, now: float) -> bool:
        """Return whether to tell now; times are monotonic seconds."""
        tenth = done * 10 // total if total else self._tenth + 1
        if now - self._last < EVENT_PAUSE or tenth <= self._tenth:
            return False
        self._last, self._tenth = now, tenth
        return True


class Downloader:
    """Fetches items into `directory`, a few at a time. tell: called with (kind of event, sentence)."""

    def __init__(
        self, loop: Loop, directory: str, options: Downloads, tell: Callable[[str, str], None]
    ) -> None:
        self.loop = loop
        self.directory = directory
        self.options = options
        self._tell = tell
        self._slots = Semaphore(loop, options.parallel)

    async def fetch(self, item: Item, room: int, task: Task) -> str:
        """Return the path of the file as it came. Nothing is checked yet; the caller discards it.

        room: bytes it may have. Raises MaestroError once there is no hope or no time left.
        """
        os.makedirs(self.directory, 0o700, exist_ok=True)
        path = os.path.join(self.directory, item.part)
        if item.checksum is None:
            self.discard(path)  # nothing would show that two halves do not fit
        until = self.loop.time() + self.options.deadline
        tries, best, milestones = 0, _size(path), Milestones(self.loop.time())
        task.advance(item.label, "download", best, item.size or None, "running")
        while True:
            try:
                async with self._slots:
                    await self._try(item, path, room, until - self.loop.time(), task, milestones)
                came = _size(path)
                task.advance(item.label, "download", came, came, "complete")
                return path
            except MaestroError as error:
                if not isinstance(error, Passing) and error.code != helpers.INTERRUPTED:
                    proved = error.code == "timeout" and item.checksum is not None
                    self._give_up(item, path, task, keep=proved)
                    raise
                after = error.after if isinstance(error, Passing) else 0.0
                tries = tries + 1 if _size(path) <= best else 1
                best = max(best, _size(path))
                pause = pause_before(tries, self.options.retry_pause, after, os.urandom(1)[0] / 255)
                if tries > self.options.retries or self.loop.time() + pause >= until:
                    self._give_up(item, path, task, keep=item.checksum is not None)
                    raise
                said = f"{error.message}; again in {format_duration(round(pause, 1))}"
                task.say(said)
                self._tell("download-retry", said)
                task.advance(item.label, "download", best, item.size or None, "waiting")
                await self.loop.sleep(pause)
            except BaseException:
                if item.checksum is None:
                    self.discard(path)
                raise

    async def _try(
        self, item: Item, path: str, room: int, left: float, task: Task, milestones: Milestones
    ) -> None:
        options, size = self.options, item.size or None

        def progress(line: dict[str, Any]) -> None:
            done, total, rate = line["bytes"], line.get("total") or size, line.get("rate")
            task.advance(item.label, "download", done, total, "running", rate=rate)
            if milestones.due(done, total, self.loop.time()):
                self._tell("download-progress", how_far(item.label, done, total, rate))

        # what is here already takes no more room
        largest = max(1, min(room + _size(path), options.max_size or MAX_SIZE))
        request = {
            "url": item.url,
            "part": path,
            "content": item.checksum.value if item.checksum else "",
            "size": item.size,
            "max_size": largest,
            "connect_timeout": options.connect_timeout,
            "read_timeout": options.read_timeout,
            "deadline": max(left, 0.001),
            "tls": {
                "ca_file": options.ca_file,
                "client_cert": options.client_cert,
                "client_key": options.client_key,
            },
            "credentials": item.credentials,
            "user": options.user,
            "sync": item.sync,
        }
        limits = (
            ("as", ADDRESS_SPACE),
            ("fsize", largest + (1 << 20)),
            ("cpu", CPU_SECONDS),
            ("nofile", OPEN_FILES),
        )
        await helpers.run(self.loop, "maestro_py.images.fetch", request, progress=progress, limits=limits)

    def _give_up(self, item: Item, path: str, task: Task, *, keep: bool) -> None:
        task.advance(item.label, "download", _size(path), item.size or None, "failed")
        if not keep:
            self.discard(path)

    def discard(self, path: str) -> None:
        """Remove what came of a file."""
        for each in (path, path + ".json"):
            unlink(each)

    def clean(self, wanted: Collection[str]) -> None:
        """Remove what came of files that nobody wants any more; `wanted` are `Item.part`s."""
        for path in entries(self.directory):
            if os.path.basename(path).removesuffix(".json") not in wanted:
                unlink(path)


def pause_before(tries: int, first: float, asked: float, dice: float) -> float:
    """Return the seconds before the next try: doubled with each, between half and all of it by the dice.

    asked: what the server wants at least. dice: 0 to 1.
    """
    pause: float = min(first * 2.0 ** min(tries - 1, 30), LONGEST_PAUSE) * (1 + dice) / 2
    return max(pause, min(asked, LONGEST_ASKED))


def how_far(label: str, done: int, total: int | None, rate: int | None) -> str:
    """Return how far a download is, in words; rate in bytes a second."""
    said = f"{label}: {format_size(done)}" + (f" of {format_size(total)}" if total else "") + " arrived"
    if rate:
        said += f", {format_size(rate)}/s"
        if total:
            said += f", {format_duration(round((total - done) / rate))} left"
    return said


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except FileNotFoundError:
        return 0
