# SPDX-License-Identifier: Apache-2.0
"""Images in the store, and the update locks that keep new ones waiting."""

from __future__ import annotations

from maestro_py.daemon.change import Changer
from maestro_py.daemon.imagework import ImageWork
from maestro_py.daemon.messages import Request, Response, accepted, json_response, page
from maestro_py.daemon.router import Role
from maestro_py.daemon.view import View
from maestro_py.errors import Forbidden, MaestroError, NotFound
from maestro_py.spec.documents import read_image


class Images:
    """Handlers of images and update locks."""

    def __init__(self, changer: Changer, view: View) -> None:
        self.changer = changer
        self.view = view
        self.work = ImageWork(changer)

    async def images(self, request: Request) -> Response:
        store, refused = self.changer.images, self.changer.refused()
        images = {}
        for meta in store.versions():
            row = {**store.row(meta), "refused": (meta["job"], meta["dirname"]) in refused}
            images[f"{row['job']}/{row['version']}/{row['path']}"] = row
        shown, following = page(request, images)
        return json_response({"images": [images[key] for key in shown], **following})

    async def put_image(self, request: Request) -> Response:
        image = read_image({**request.object(), "job": request.params["job"]}, "image")
        return accepted(self.changer.install(image))

    async def roll_back(self, request: Request) -> Response:
        return accepted(self.work.roll_back(request.params["job"], request.peer.who))

    async def verify(self, request: Request) -> Response:
        jobs = request.query.get("job", [])
        return accepted(self.work.verify(jobs, repair=request.flag("repair")))

    async def pin(self, request: Request) -> Response:
        return json_response(self.work.pin(request.params["job"], _version(request), on=True))

    async def unpin(self, request: Request) -> Response:
        return json_response(self.work.pin(request.params["job"], _version(request), on=False))

    async def remove(self, request: Request) -> Response:
        return json_response({"removed": self.work.remove(request.params["job"], _version(request))})

    async def collect(self, request: Request) -> Response:
        gone = self.changer.upkeep.collect()
        self.changer.upkeep.empty_trash()
        return json_response({"removed": gone})

    # update locks

    async def lock(self, request: Request) -> Response:
        job = self._lockable(request)
        reason = request.object().get("reason", "") if request.body else ""
        if not isinstance(reason, str) or len(reason) > 200:
            raise MaestroError(
                "cannot lock: `reason` is a text of at most 200 characters", code="bad-request"
            )
        return json_response(self.changer.locks.hold(job, self._who(request), reason))

    async def unlock(self, request: Request) -> Response:
        job = self._lockable(request)
        if not self.changer.locks.release(job):
            raise NotFound(f"no update lock of {job} to give back")
        self.changer.unlocked(job)
        return json_response({})

    def _lockable(self, request: Request) -> str:
        """Return the job; people who may operate the device lock any, a job itself and what runs with it."""
        job = self.view.job(request.params["job"])
        if request.role < Role.OPERATE and not self._is_of(request, job.process):
            raise Forbidden(f"cannot lock {job.job}: the caller is not a process of it")
        return job.job

    def _is_of(self, request: Request, process: str) -> bool:
        unit, pid = self.changer.supervisor.units.get(process), request.peer.pid
        return unit is not None and (pid == unit.pid or bool(unit.cgroup and pid in unit.cgroup.pids()))

    def _who(self, request: Request) -> str:
        job = self.view.job(request.params["job"])
        return "the job itself" if self._is_of(request, job.process) else request.peer.who


def _version(request: Request) -> str:
    return "".join(request.query.get("version", [])[:1])
