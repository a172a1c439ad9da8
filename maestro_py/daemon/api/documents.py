# SPDX-License-Identifier: Apache-2.0
"""Running configs: apply, check, diff, and the one in force."""

from __future__ import annotations

from typing import Any

from maestro_py.daemon.change import Changer
from maestro_py.daemon.messages import Request, Response, json_response
from maestro_py.errors import Problem
from maestro_py.spec.documents import public_json, read_running_config, to_json
from maestro_py.spec.model import RunningConfig


class Documents:
    """Handlers of running configs."""

    def __init__(self, changer: Changer) -> None:
        self.changer = changer

    async def apply(self, request: Request) -> Response:
        document, warnings = self._document(request)
        await self.changer.supervisor.loop.sleep(0)  # a large one has taken its time
        force = request.flag("force")
        if request.flag("dry_run"):
            proposal = self.changer.propose_document(document, force=force)
            answer: dict[str, Any] = {"plan": proposal.plan.to_json()}
        else:
            task, proposal = self.changer.apply(document, force=force)
            answer = {"plan": proposal.plan.to_json(), "task_id": task.id}
        problems = [p.to_json() for p in (*warnings, *proposal.warnings)]
        return json_response({**answer, "warnings": problems}, 202 if "task_id" in answer else 200)

    async def check(self, request: Request) -> Response:
        document, warnings = self._document(request)
        await self.changer.supervisor.loop.sleep(0)  # a large one has taken its time
        proposal = self.changer.propose_document(document, force=True)
        return json_response({"ok": True, "warnings": [p.to_json() for p in (*warnings, *proposal.warnings)]})

    async def diff(self, request: Request) -> Response:
        document, warnings = self._document(request)
        await self.changer.supervisor.loop.sleep(0)  # a large one has taken its time
        proposal = self.changer.propose_document(document, force=request.flag("force"))
        problems = [p.to_json() for p in (*warnings, *proposal.warnings)]
        return json_response({"plan": proposal.plan.to_json(), "warnings": problems})

    def _document(self, request: Request) -> tuple[RunningConfig, list[Problem]]:
        return read_running_config(request.json(), references=self.changer.reference_problems)

    async def last_plan(self, request: Request) -> Response:
        none: dict[str, Any] = {"what": "", "time": None, "count": 0, "steps": []}
        return json_response(self.changer.last_plan or none)

    async def running_config(self, request: Request) -> Response:
        sources = self.changer.sources
        layer = sources.document
        return json_response(
            {
                "config": "running",
                "date": sources.date,
                "jobs": [public_json(job) for job in layer.jobs.values()],
                "templates": [public_json(template) for template in layer.templates.values()],
                "images": [to_json(image) for image in layer.images.values()],
                "configs": [to_json(config) for config in layer.configs.values()],
            }
        )
