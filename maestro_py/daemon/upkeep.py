# SPDX-License-Identifier: Apache-2.0
"""Keeps the image store from growing: what nobody can need goes, when asked to or when room is needed."""

from __future__ import annotations

from collections.abc import Collection

from maestro_py.daemon.deciding import Decider, Proposal
from maestro_py.daemon.tasks import Task
from maestro_py.images.store import Version
from maestro_py.plan import Action


class Upkeep:
    """Removes versions from the store."""

    def __init__(self, decider: Decider) -> None:
        self.decider = decider
        self.images = decider.images
        self.loop = decider.supervisor.loop

    def collect(self, coming: Collection[Version] = ()) -> list[str]:
        """Remove versions that nobody can need, now or when those come; return `job version` of each."""
        used, gone = self.decider.used() | {*coming}, []
        for meta in self.images.unused(used, self.decider.wanted.images):
            self.images.remove_version(meta["job"], meta["dirname"])
            gone.append(f"{meta['job']} {meta.get('version', '')}".rstrip())
        return gone

    async def make_room(self, proposal: Proposal, task: Task) -> None:
        """Collect if an image that a proposal fetches would not fit."""
        coming = [s.subject for s in proposal.plan.steps if s.action is Action.FETCH_IMAGE]
        images = proposal.wanted.images
        if any(self.images.free_space_problem(images[job]) for job in coming):
            gone = self.collect({(job, image.dirname) for job, image in images.items()})
            if gone:
                task.say(f"removed {', '.join(gone)} to make room")
            await self._empty_trash()

    def empty_trash(self) -> None:
        """Begin to delete what was removed."""
        # not at once: at the very end of a daemon there is no loop to run it any more
        self.loop.call_soon(lambda: self.loop.spawn(self._empty_trash(), name="empty trash"))

    async def _empty_trash(self) -> None:
        """Delete removed versions bit by bit, between other work."""
        while self.images.empty_trash():
            await self.loop.sleep(0.01)
