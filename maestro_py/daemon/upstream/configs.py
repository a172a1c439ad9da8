# SPDX-License-Identifier: Apache-2.0
"""Upstream's configs of jobs. A config that is not there answers 204."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from maestro_py.daemon.api import Api
from maestro_py.daemon.change import Changer
from maestro_py.daemon.messages import Request, Response, json_response
from maestro_py.daemon.router import Role
from maestro_py.daemon.upstream.bodies import body_of
from maestro_py.errors import Forbidden, InvalidDocument
from maestro_py.spec.documents import read_config, to_json
from maestro_py.spec.model import ConfigSpec


class Configs:
    """Handlers of configs."""

    def __init__(self, changer: Changer, api: Api) -> None:
        self.changer = changer
        self.supervisor = changer.supervisor
        self.api = api

    async def get_configs(self, request: Request) -> Response:
        job = request.params.get("job", "")
        if job:
            self._may_read(request, job)
        found = [_config(c) for (of, _), c in self.changer.wanted.configs.items() if not job or of == job]
        return json_response({"configs": found}) if found else Response(204)

    async def get_config(self, request: Request) -> Response:
        job, name = request.params["job"], request.params["name"]
        self._may_read(request, job)
        config = self.changer.wanted.configs.get((job, name))
        return json_response({"configs": [_config(config)]}) if config else Response(204)

    def _may_read(self, request: Request, job: str) -> None:
        """A process of a job may read the configs of the jobs it runs, and no others."""
        if request.role >= Role.OPERATE:
            return
        spec = self.changer.jobs.get(job)
        unit = self.supervisor.units.get(spec.process) if spec else None
        if unit and unit.cgroup and (request.peer.pid == unit.pid or request.peer.pid in unit.cgroup.pids()):
            return
        raise Forbidden(f"cannot read the configs of {job}: the caller is not a process of it")

    async def post_config(self, request: Request) -> Response:
        job, name = request.params["job"], request.params["name"]
        body = body_of(request)
        if body is None:
            return json_response({"error": "Badly formed", "error_details": "expected a JSON object"}, 400)
        body["job"], body["name"] = job, name  # the path says whose it is
        try:
            config = read_config(body, "config")
        except InvalidDocument as error:
            return json_response({"error": "Badly formed", "error_details": error.message}, 400)
        old = self.changer.wanted.configs.get((job, name))
        task = self.changer.change(
            "config-set",
            f"{job}/{name}",
            lambda s: replace(s, stored_configs={**s.stored_configs, (job, name): config}),
        )
        await self.changer.tasks.wait(task, 1.0)
        if old:
            return json_response({"replaced_configs": [_config(old)]}, 202)
        return json_response({}, 201)

    async def delete_config(self, request: Request) -> Response:
        key = (request.params["job"], request.params["name"])
        old = self.changer.sources.stored_configs.get(key)
        if old is None:
            return json_response({})
        await self.api.stored.delete_config(request)
        return json_response({"replaced_configs": [_config(old)]})


def _config(config: ConfigSpec) -> dict[str, Any]:
    return {"name": "", "job": "", "data": "", "encoding": "utf8", "files": None, "mod_time": ""} | to_json(
        config
    )
