# SPDX-License-Identifier: Apache-2.0
"""Upstream's view of jobs: all of them, one, and what can be done to one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from maestro_py.daemon.api import Api
from maestro_py.daemon.change import Changer
from maestro_py.daemon.messages import Handler, Request, Response, json_response
from maestro_py.daemon.upstream.bodies import body_of, error, without
from maestro_py.daemon.wanted import Sources
from maestro_py.errors import MaestroError
from maestro_py.spec.payload import job_payload


class Jobs:
    """Handlers of jobs and tasks."""

    def __init__(self, changer: Changer, api: Api) -> None:
        self.changer = changer
        self.supervisor = changer.supervisor
        self.view = api.view
        self.api = api

    async def get_jobs(self, request: Request) -> Response:
        return json_response({name: self._job(name) for name in sorted(self.changer.jobs)})

    async def get_job(self, request: Request) -> Response:
        return json_response(self._job(self.view.job(request.params["job"]).job))

    def _job(self, name: str) -> dict[str, Any]:
        job = self.view.job(name)
        row = self.view.rows([name], memory=False)[0]
        unit = self.supervisor.units.get(job.process)
        found: dict[str, Any] = {
            "status": row["state"],
            "def": job_payload(job),
            "restarts": str(row["restarts"]),
            "pid": str(row["pid"] or 0),
            "errno": str(unit.failure.errno if unit and unit.failure else 0),
        }
        if job.composite_id:
            found |= {
                "compositeId": job.composite_id,
                "compositeContainerTemplate": job.container_template,
            }
        found["execPath"] = unit.running.argv[0] if unit and unit.running.argv else ""
        return found

    async def put_job(self, request: Request) -> Response:
        body = body_of(request) if request.body else {}
        if body is None:
            return error(400, "Badly formed")
        op = request.first("op", "") or str(body.get("op") or "")
        handlers: dict[str, Handler] = {
            "start": self.api.jobs.start,
            "stop": self.api.jobs.stop,
            "restart": self.api.jobs.restart,
            "kill": self.api.jobs.kill,
        }
        if op not in handlers:
            return json_response({"error": "unknown command", "details": f'op was "{op}"'}, 406)
        answer = await handlers[op](request)
        assert isinstance(answer, Response)
        return replace(answer, status=200)

    async def delete_job(self, request: Request) -> Response:
        return self._delete([self.view.job(request.params["job"]).job])

    async def delete_jobs(self, request: Request) -> Response:
        body = body_of(request)
        names = body.get("params") if body else None
        if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
            return json_response({"error": "Badly formed", "details": "no job name(s)"}, 406)
        return self._delete([self.view.job(name).job for name in dict.fromkeys(names)])

    def _delete(self, names: list[str]) -> Response:
        for name in names:
            if name not in self.changer.sources.document.jobs:
                raise MaestroError(
                    f"cannot remove {name}: the daemon's config file defines it", code="conflict"
                )

        def edit(sources: Sources) -> Sources:
            for name in names:
                sources = without(sources, job=name)
            return sources

        return json_response({"task_id": self.changer.change("remove", ", ".join(names), edit).id})

    async def get_status(self, request: Request) -> Response:
        task = self.changer.tasks.get(request.params["task"])
        data = task.error["message"] if task.error else ""
        return json_response({"task_id": task.id, "status": task.status, "data": data})
