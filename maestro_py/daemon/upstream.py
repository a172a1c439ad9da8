# SPDX-License-Identifier: Apache-2.0
"""Upstream maestro's routes beside /v1: same paths, bodies and status codes, with the stubs made real.

Source of the shapes: PelionIoT/maestro v3 and maestroSpecs. Restarts, pid and errno of `/jobs` are
strings there, `details:` carries a stray colon on `/ops`, and a missing config answers 204.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from maestro_py.daemon.api import Api
from maestro_py.daemon.change import Changer
from maestro_py.daemon.http import Handler, Request, Response, json_response
from maestro_py.daemon.router import Role, Route
from maestro_py.daemon.tasks import Task
from maestro_py.daemon.view import View
from maestro_py.daemon.wanted import Sources
from maestro_py.errors import Forbidden, InvalidDocument, MaestroError, NotFound
from maestro_py.spec.documents import public_json, read_config, read_image, read_job, read_template, to_json
from maestro_py.spec.layers import Layer
from maestro_py.spec.model import ConfigSpec, ImageSpec, JobSpec, TemplateSpec, job_payload

Edit = Callable[[Sources], Sources]


class Upstream:
    """Handlers of upstream's routes."""

    def __init__(self, changer: Changer, api: Api) -> None:
        self.changer = changer
        self.supervisor = changer.supervisor
        self.view = View(changer)
        self.api = api
        self._started = self.supervisor.loop.time()

    def routes(self) -> list[Route]:
        """Return the route table of the upstream surface."""
        read, operate, admin = Role.READ, Role.OPERATE, Role.ADMIN
        table: list[tuple[str, str, Handler, Role, str]] = [
            ("GET", "/", self.welcome, read, "Greeting"),
            ("GET", "/hello/{name}", self.hello, read, "Greeting by name"),
            ("GET", "/alive", self.alive, read, "Whether the daemon lives"),
            ("POST", "/image", self.post_image, admin, "Install an image"),
            ("POST", "/ops", self.post_ops, admin, "Several operations in order"),
            ("POST", "/job", self.post_job, admin, "Add, update or remove jobs"),
            ("GET", "/jobs", self.get_jobs, read, "All jobs"),
            ("GET", "/job/{job}", self.get_job, read, "One job"),
            ("PUT", "/job/{job}", self.put_job, operate, "Start, stop, restart or kill a job"),
            ("DELETE", "/job/{job}", self.delete_job, admin, "Stop and remove a job"),
            ("GET", "/containerTemplate", self.get_templates, read, "All container templates"),
            ("POST", "/containerTemplate", self.post_template, admin, "Add a container template"),
            ("GET", "/containerTemplate/{name}", self.get_template, read, "One container template"),
            ("PUT", "/containerTemplate/{name}", self.post_template, admin, "Replace a container template"),
            ("DELETE", "/containerTemplate/{name}", self.delete_template, admin, "Remove a template"),
            ("GET", "/jobConfig", self.get_configs, operate, "All configs"),
            ("GET", "/jobConfig/{job}", self.get_configs, Role.JOB, "Configs of a job"),
            ("GET", "/jobConfig/{job}/{name}", self.get_config, Role.JOB, "One config of a job"),
            ("POST", "/jobConfig/{job}/{name}", self.post_config, operate, "Store a config"),
            ("DELETE", "/jobConfig/{job}/{name}", self.delete_config, operate, "Remove a stored config"),
            ("GET", "/status/{task}", self.get_status, read, "Status of a task"),
            ("POST", "/shutdown", self.api.shutdown, admin, "Stop the daemon"),
        ]
        return [Route(*row) for row in table]

    async def welcome(self, request: Request) -> Response:
        return Response(body=b"Welcome!\n", content_type="text/plain")

    async def hello(self, request: Request) -> Response:
        return Response(body=f"hello, {request.params['name']}!\n".encode(), content_type="text/plain")

    async def alive(self, request: Request) -> Response:
        return json_response(
            {"ok": True, "uptime": round((self.supervisor.loop.time() - self._started) * 1e9)}
        )

    # operations

    async def post_image(self, request: Request) -> Response:
        body = _object(request)
        if body is None:
            return _error(400, "Badly formed")
        if body.get("type") != "image":
            return _error(406, "Only accept image as .type for this operation")
        try:
            task = self._run("image", str(body.get("task_id") or ""), [self._image_edit(body)])
        except MaestroError as error:
            return _error(406, error.message)
        return json_response({"task_id": task.id})

    async def post_job(self, request: Request) -> Response:
        body = _object(request)
        if body is None:
            return _error(400, "Badly formed")
        try:
            self._run("job", str(body.get("task_id") or ""), [self._job_edit(body)])
        except MaestroError as error:
            return json_response({"error": error.message, "details": error.hint}, 406)
        return json_response({"task_id": body.get("task_id") or ""})

    async def post_ops(self, request: Request) -> Response:
        body = _object(request)
        if body is None or not isinstance(body.get("ops"), list) or not body["ops"]:
            return _error(400, "Badly formed batch request")
        edits: list[Edit] = []
        try:
            for op in body["ops"]:
                kind = op.get("type") if isinstance(op, dict) else None
                if kind not in ("image", "job"):
                    raise MaestroError("Unknown Op Type in batch request", hint=f'Op was "{kind}"')
                edits.append(self._image_edit(op) if kind == "image" else self._job_edit(op))
            task = self._run("ops", str(body.get("task_id") or ""), edits)
        except MaestroError as error:
            return json_response({"error": error.message, "details:": error.hint}, 406)
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
            return lambda s: _without(s, image=image.job)
        return lambda s: _with(s, image=image)

    def _job_edit(self, body: Mapping[str, Any]) -> Edit:
        op = body.get("op")
        if op in ("add", "update"):
            if not isinstance(body.get("job"), dict):
                raise MaestroError("no job data")
            # Go encodes every key; its zero values mean "not said" and do not override a template
            said = {key: value for key, value in body["job"].items() if value}
            job = read_job(said, "job operation")
            return lambda s: _with(s, job=job)
        if op == "rm":
            params = body.get("params")
            if params is not None and not isinstance(params, list):
                raise MaestroError("Badly formed", hint="params is a list of job names")
            names = [str(name) for name in params] if isinstance(params, list) else []
            if not names:
                raise MaestroError("Badly formed", hint="no job name(s)")

            def remove(sources: Sources) -> Sources:
                for name in names:
                    sources = _without(sources, job=name)
                return sources

            return remove
        raise MaestroError("unknown command", hint=f'op was "{op}"')

    # jobs

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
        body = _object(request) if request.body else {}
        op = request.first("op", "") or str((body or {}).get("op", ""))
        handlers: dict[str, Handler] = {
            "start": self.api.start,
            "stop": self.api.stop,
            "restart": self.api.restart,
            "kill": self.api.kill,
        }
        if op not in handlers:
            return json_response({"error": "unknown command", "details": f'op was "{op}"'}, 406)
        answer = await handlers[op](request)
        assert isinstance(answer, Response)
        return replace(answer, status=200)

    async def delete_job(self, request: Request) -> Response:
        name = self.view.job(request.params["job"]).job
        if name not in self.changer.sources.document.jobs:
            raise MaestroError(f"cannot remove {name}: the daemon's config file defines it", code="conflict")
        task = self.changer.change("remove", name, lambda s: _without(s, job=name))
        return json_response({"task_id": task.id})

    # templates

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
        body = _object(request)
        if body is None:
            return _error(400, "Badly formed")
        if "name" in request.params:
            body = {**body, "name": request.params["name"]}
        template = read_template(body, "container template")
        task = self.changer.change("template", template.name, lambda s: _with(s, template=template))
        return json_response({"task_id": task.id})

    async def delete_template(self, request: Request) -> Response:
        name = request.params["name"]
        if name not in self.changer.sources.document.templates:
            raise NotFound(f"no template {name} that was added over the API or by a document")
        task = self.changer.change("template", name, lambda s: _without(s, template=name))
        return json_response({"task_id": task.id})

    # configs

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
        body = _object(request)
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
        await self.api.delete_config(request)
        return json_response({"replaced_configs": [_config(old)]})

    # tasks

    async def get_status(self, request: Request) -> Response:
        task = self.changer.tasks.get(request.params["task"])
        data = task.error["message"] if task.error else ""
        return json_response({"task_id": task.id, "status": task.status, "data": data})


def _config(config: ConfigSpec) -> dict[str, Any]:
    return {"name": "", "job": "", "data": "", "encoding": "utf8", "files": None, "mod_time": ""} | to_json(
        config
    )


def _object(request: Request) -> dict[str, Any] | None:
    """Return the body when it is a JSON object, else None: upstream answers 400 to all others alike."""
    try:
        body = request.json()
    except MaestroError:
        return None
    return {str(k).lower(): v for k, v in body.items()} if isinstance(body, dict) else None


def _error(status: int, text: str) -> Response:
    return json_response({"error": text}, status)


def _with(
    sources: Sources,
    *,
    job: JobSpec | None = None,
    image: ImageSpec | None = None,
    template: TemplateSpec | None = None,
) -> Sources:
    old = sources.document
    new = Layer(
        {**old.jobs, job.job: job} if job else old.jobs,
        {**old.templates, template.name: template} if template else old.templates,
        {**old.images, image.job: image} if image else old.images,
        old.configs,
    )
    held = dict(sources.held)
    for process in {job.process if job else "", _process_of(sources, image.job if image else "")}:
        held.pop(process, None)
    return replace(sources, document=new, held=held)


def _process_of(sources: Sources, job: str) -> str:
    spec = sources.in_force().jobs.get(job)
    return spec.process if spec else ""


def _without(sources: Sources, *, job: str = "", image: str = "", template: str = "") -> Sources:
    old = sources.document
    for name, known, what in (
        (job, old.jobs, "job"),
        (image, old.images, "image"),
        (template, old.templates, "template"),
    ):
        if name and name not in known:
            raise NotFound(f"no {what} {name}")
    return replace(
        sources,
        document=Layer(
            {k: v for k, v in old.jobs.items() if k != job},
            {k: v for k, v in old.templates.items() if k != template},
            {k: v for k, v in old.images.items() if k != image and k != job},
            {k: v for k, v in old.configs.items() if k[0] != job},
        ),
    )
