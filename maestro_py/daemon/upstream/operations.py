# SPDX-License-Identifier: Apache-2.0
"""Upstream's operations: images, jobs and batches of both, container templates."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from maestro_py.daemon.change import Changer
from maestro_py.daemon.messages import Request, Response, json_response
from maestro_py.daemon.tasks import Task
from maestro_py.daemon.upstream.bodies import Edit, body_of, error, with_, without
from maestro_py.daemon.wanted import Sources
from maestro_py.errors import MaestroError, NotFound
from maestro_py.spec.documents import public_json, read_image, read_job, read_template


class Operations:
    """Handlers of what changes definitions."""

    def __init__(self, changer: Changer) -> None:
        self.changer = changer

    async def post_image(self, request: Request) -> Response:
        body = body_of(request)
        if body is None:
            return error(400, "Badly formed")
        if body.get("type") != "image":
            return error(406, "Only accept image as .type for this operation")
        try:
            task = self._run("image", str(body.get("task_id") or ""), [self._image_edit(body)])
        except MaestroError as why:
            return error(406, why.message)
        return json_response({"task_id": task.id})

    async def post_job(self, request: Request) -> Response:
        body = body_of(request)
        if body is None:
            return error(400, "Badly formed")
        try:
            self._run("job", str(body.get("task_id") or ""), [self._job_edit(body)])
        except MaestroError as why:
            return json_response({"error": why.message, "details": why.hint}, 406)
        return json_response({"task_id": body.get("task_id") or ""})

    async def post_ops(self, request: Request) -> Response:
        body = body_of(request)
        if body is None or not isinstance(body.get("ops"), list) or not body["ops"]:
            return error(400, "Badly formed batch request")
        edits: list[Edit] = []
        try:
            for op in body["ops"]:
                kind = op.get("type") if isinstance(op, dict) else None
                if kind not in ("image", "job"):
                    raise MaestroError("Unknown Op Type in batch request", hint=f'Op was "{kind}"')
                edits.append(self._image_edit(op) if kind == "image" else self._job_edit(op))
            task = self._run("ops", str(body.get("task_id") or ""), edits)
        except MaestroError as why:
            return json_response({"error": why.message, "details:": why.hint}, 406)
        return Response(headers=(("Maestro-Task-Id", task.id),))

    def _run(self, kind: str, task_id: str, edits: list[Edit]) -> Task:
        def edit(sources: Sources) -> Sources:
            for each in edits:
                sources = each(sources)
            return sources

        return self.changer.change(kind, "operation", edit, task_id=task_id)

    def _image_edit(self, body: Mapping[str, Any]) -> Edit:
        op = body.get("op")
        if op not in ("add", "update", "rm"):
            raise MaestroError("Unknown op type for image op", hint=f'op was "{op}"')
        if not isinstance(body.get("image"), dict):
            raise MaestroError("no image definition")
        image = read_image(body["image"], "image operation")
        if op == "rm":
            return lambda s: without(s, image=image.job)
        return lambda s: with_(s, image=image)

    def _job_edit(self, body: Mapping[str, Any]) -> Edit:
        op = body.get("op")
        if op in ("add", "update"):
            if not isinstance(body.get("job"), dict):
                raise MaestroError("no job data")
            # Go encodes every key; its zero values mean "not said" and do not override a template
            said = {key: value for key, value in body["job"].items() if value}
            job = read_job(said, "job operation")
            return lambda s: with_(s, job=job)
        if op == "rm":
            params = body.get("params")
            if params is not None and not isinstance(params, list):
                raise MaestroError("Badly formed", hint="params is a list of job names")
            names = [str(name) for name in params] if isinstance(params, list) else []
            if not names:
                raise MaestroError("Badly formed", hint="no job name(s)")

            def remove(sources: Sources) -> Sources:
                for name in names:
                    sources = without(sources, job=name)
                return sources

            return remove
        raise MaestroError("unknown command", hint=f'op was "{op}"')

    async def get_templates(self, request: Request) -> Response:
        templates = self.changer.sources.in_force().templates
        return json_response([public_json(templates[name]) for name in sorted(templates)])

    async def get_template(self, request: Request) -> Response:
        name = request.params["name"]
        templates = self.changer.sources.in_force().templates
        if name not in templates:
            raise NotFound(f"no template {name}")
        return json_response(public_json(templates[name]))

    async def post_template(self, request: Request) -> Response:
        body = body_of(request)
        if body is None:
            return error(400, "Badly formed")
        if "name" in request.params:
            body = {**body, "name": request.params["name"]}
        template = read_template(body, "container template")
        task = self.changer.change("template", template.name, lambda s: with_(s, template=template))
        return json_response({"task_id": task.id})

    async def delete_template(self, request: Request) -> Response:
        name = request.params["name"]
        if name not in self.changer.sources.document.templates:
            raise NotFound(f"no template {name} that was added over the API or by a document")
        task = self.changer.change("template", name, lambda s: without(s, template=name))
        return json_response({"task_id": task.id})
