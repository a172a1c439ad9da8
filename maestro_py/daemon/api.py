# SPDX-License-Identifier: Apache-2.0
"""The /v1 routes: thin handlers over the changer, the supervisor and the view."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from signal import SIGKILL
from typing import Any

import maestro_py
from maestro_py.daemon import pausing
from maestro_py.daemon.change import Changer
from maestro_py.daemon.http import Handler, Peer, Request, Response, Stream, json_response
from maestro_py.daemon.router import Role, Route
from maestro_py.daemon.tasks import Task
from maestro_py.daemon.view import View
from maestro_py.errors import MaestroError, NotFound, Problem
from maestro_py.lifecycle import Cause, Kind
from maestro_py.process import logfile
from maestro_py.spec.documents import public_json, read_config, read_running_config, to_json
from maestro_py.spec.model import RunningConfig, State
from maestro_py.units import parse_signal, signal_name

_NDJSON = "application/x-ndjson"


class Api:
    """Handlers of /v1. Each takes a request and answers it, or raises MaestroError."""

    def __init__(self, changer: Changer, shut_down: Callable[[str | None], None]) -> None:
        self.changer = changer
        self.supervisor = changer.supervisor
        self.tasks = changer.tasks
        self.view = View(changer)
        self._shut_down = shut_down
        self._started = self.supervisor.loop.time()

    def routes(self) -> list[Route]:
        """Return the route table of /v1."""
        read, operate, admin = Role.READ, Role.OPERATE, Role.ADMIN
        table: list[tuple[str, str, Handler, Role, str]] = [
            ("GET", "/v1/version", self.version, read, "Version, pid and uptime of the daemon"),
            ("GET", "/v1/status", self.status, read, "State of jobs"),
            ("POST", "/v1/apply", self.apply, admin, "Apply a running config"),
            ("POST", "/v1/check", self.check, read, "Check a running config, change nothing"),
            ("POST", "/v1/diff", self.diff, read, "Plan a running config, change nothing"),
            ("POST", "/v1/jobs/{job}/start", self.start, operate, "Start a job and what it depends on"),
            ("POST", "/v1/jobs/{job}/stop", self.stop, operate, "Stop a job"),
            ("POST", "/v1/jobs/{job}/restart", self.restart, operate, "Restart a job"),
            ("POST", "/v1/jobs/{job}/reload", self.reload, operate, "Send a job its reload signal"),
            ("POST", "/v1/jobs/{job}/pause", self.pause, operate, "Freeze a job; it stays RUNNING"),
            ("POST", "/v1/jobs/{job}/resume", self.resume, operate, "Let a paused job go on"),
            ("POST", "/v1/jobs/{job}/enable", self.enable, operate, "Let a job run"),
            ("POST", "/v1/jobs/{job}/disable", self.disable, operate, "Keep a job stopped"),
            ("POST", "/v1/jobs/{job}/kill", self.kill, operate, "Send a job a signal"),
            ("GET", "/v1/jobs/{job}/why", self.why, read, "Why a job is in its state"),
            ("GET", "/v1/jobs/{job}/logs", self.logs, read, "Output of a job"),
            ("GET", "/v1/events", self.events, read, "What happened"),
            ("GET", "/v1/tasks", self.list_tasks, read, "What is being done"),
            ("GET", "/v1/tasks/{task}", self.task, read, "One task"),
            ("GET", "/v1/images", self.images, read, "Installed images"),
            ("GET", "/v1/configs", self.configs, operate, "Configs with their data"),
            ("GET", "/v1/configs/{job}/{name}", self.config, operate, "One config"),
            ("PUT", "/v1/configs/{job}/{name}", self.put_config, operate, "Store a config"),
            ("DELETE", "/v1/configs/{job}/{name}", self.delete_config, operate, "Remove a stored config"),
            ("GET", "/v1/templates", self.templates, read, "Templates in force"),
            ("GET", "/v1/templates/{name}", self.template, read, "One template"),
            ("GET", "/v1/running-config", self.running_config, operate, "The document in force"),
            ("GET", "/v1/doctor", self.doctor, read, "What this device offers"),
            ("POST", "/v1/shutdown", self.shutdown, admin, "Stop the daemon"),
        ]
        return [Route(*row) for row in table]

    # documents

    async def version(self, request: Request) -> Response:
        uptime = self.supervisor.loop.time() - self._started
        root = self.supervisor.paths.root
        return json_response(
            {"version": maestro_py.__version__, "pid": os.getpid(), "uptime": uptime, "root": root}
        )

    async def apply(self, request: Request) -> Response:
        document, warnings = self._document(request)
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
        proposal = self.changer.propose_document(document, force=True)
        return json_response({"ok": True, "warnings": [p.to_json() for p in (*warnings, *proposal.warnings)]})

    async def diff(self, request: Request) -> Response:
        document, warnings = self._document(request)
        proposal = self.changer.propose_document(document, force=request.flag("force"))
        problems = [p.to_json() for p in (*warnings, *proposal.warnings)]
        return json_response({"plan": proposal.plan.to_json(), "warnings": problems})

    def _document(self, request: Request) -> tuple[RunningConfig, list[Problem]]:
        return read_running_config(request.json(), references=self.changer.reference_problems)

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

    # jobs

    async def status(self, request: Request) -> Response:
        rows = self.view.rows(request.query.get("job", []), memory=request.flag("memory"))
        return json_response({"jobs": rows})

    async def start(self, request: Request) -> Response:
        job = self.view.job(request.params["job"])
        if job.disabled:
            raise MaestroError(
                f"cannot start {job.job}: it is disabled", hint=f"maestro enable {job.job}", code="conflict"
            )

        def act(process: str) -> None:
            pausing.resume(self.supervisor, process, _who(request.peer))
            self.supervisor.start(process)

        return self._job_task("start", request, act, up=True)

    async def stop(self, request: Request) -> Response:
        cause = Cause(Kind.ASKED, f"stopped by {_who(request.peer)}")
        return self._job_task(
            "stop", request, lambda process: self.supervisor.stop(process, cause, by_hand=True), up=False
        )

    async def restart(self, request: Request) -> Response:
        job = self.view.job(request.params["job"])
        if job.disabled:
            raise MaestroError(
                f"cannot restart {job.job}: it is disabled", hint=f"maestro enable {job.job}", code="conflict"
            )
        cause = Cause(Kind.ASKED, f"restarted by {_who(request.peer)}")
        return self._job_task(
            "restart", request, lambda process: self.supervisor.restart(process, cause), up=True
        )

    def _job_task(self, kind: str, request: Request, act: Callable[[str], None], *, up: bool) -> Response:
        job = self.view.job(request.params["job"])
        unit = self.view.unit(job.job)

        act(unit.name)  # at once: the task is what waits for the outcome

        async def work(task: Task) -> None:
            task.start()
            if job.composite_id:
                task.say(f"{job.job} is in {unit.name}: this concerns {', '.join(unit.process.members)}")
            if up:
                await self._until_up(kind, unit.name)
            else:
                await self.supervisor.until_down([unit.name])

        return _accepted(self.tasks.run(kind, job.job, work))

    async def _until_up(self, kind: str, process: str) -> None:
        """Wait until a process is ready; its first death, or a dependency's failure, ends the wait."""
        unit = self.supervisor.unit(process)
        bad = (State.FAILED, State.RESTARTING)

        def stuck() -> bool:
            deps = [self.supervisor.units.get(name) for name in unit.process.depends_on]
            return unit.life.state is State.WAITING_FOR_DEPS and any(
                dep is None
                or (dep.life.state in (*bad, State.NEVER_RAN, State.STOPPED) and not dep.life.ready)
                for dep in deps
            )

        await self.supervisor.until(
            lambda: unit.life.ready or unit.life.state in (*bad, State.STOPPED) or stuck()
        )
        if not unit.life.ready:
            again = "; it is tried again" if unit.life.state is State.RESTARTING else ""
            raise MaestroError(f"cannot {kind} {process}: {self.changer.explain(unit)}{again}")

    async def reload(self, request: Request) -> Response:
        job = self.view.job(request.params["job"])
        unit = self.view.unit(job.job)
        number = unit.process.reload_signal
        if number is None:
            raise MaestroError(
                f"cannot reload {job.job}: it has no reload_signal", hint=f"maestro restart {job.job}"
            )

        async def work(task: Task) -> None:
            task.start()
            self._signal(job.job, number)

        return _accepted(self.tasks.run("reload", job.job, work))

    async def pause(self, request: Request) -> Response:
        return self._freeze("pause", request, pausing.pause)

    async def resume(self, request: Request) -> Response:
        return self._freeze("resume", request, pausing.resume)

    def _freeze(self, kind: str, request: Request, act: Callable[..., None]) -> Response:
        job = self.view.job(request.params["job"])
        unit = self.view.unit(job.job)
        act(self.supervisor, unit.name, _who(request.peer))

        async def work(task: Task) -> None:
            task.start()
            if job.composite_id:
                task.say(f"{job.job} is in {unit.name}: this concerns {', '.join(unit.process.members)}")
            if kind == "pause":
                await pausing.until_frozen(self.supervisor, unit.name)

        return _accepted(self.tasks.run(kind, job.job, work))

    async def kill(self, request: Request) -> Response:
        job = self.view.job(request.params["job"])
        body = _body(request)
        try:
            number = parse_signal(body.get("signal", "SIGTERM"))
        except ValueError as error:
            raise MaestroError(f"cannot signal {job.job}: expected {error}", code="bad-request") from None
        unit, who = self.view.unit(job.job), _who(request.peer)
        text = f"{signal_name(number)} sent by {who}"
        if unit.paused and number != SIGKILL:
            text += "; it is paused and meets it when it goes on"
        self._signal(job.job, number)
        unit.asked = (number, who)
        self.supervisor.happen("signal", text, process=job.process)
        return json_response({})

    def _signal(self, job: str, number: int) -> None:
        unit = self.view.unit(job)
        if unit.pid is None:
            raise MaestroError(f"cannot signal {job}: it does not run", code="conflict")
        self.supervisor.runner.signal(unit, number)

    async def enable(self, request: Request) -> Response:
        return _accepted(self.changer.set_disabled(self.view.job(request.params["job"]).job, False))

    async def disable(self, request: Request) -> Response:
        return _accepted(self.changer.set_disabled(self.view.job(request.params["job"]).job, True))

    async def why(self, request: Request) -> Response:
        name = request.params["job"]
        row = self.view.rows([name], memory=False)[0]
        return json_response({"job": name, "state": row["state"], "lines": self.view.why(name)})

    async def logs(self, request: Request) -> Response | Stream:
        unit = self.view.unit(request.params["job"])
        directory, name = self.supervisor.paths.log, unit.name
        count = request.number("n", 100)
        if request.flag("previous"):
            return Response(
                body=logfile.previous(directory, name, count), content_type="text/plain; charset=utf-8"
            )
        follow = request.flag("follow")

        async def chunks() -> AsyncIterator[bytes]:
            follower = logfile.Follower(directory, name)
            yield logfile.tail(directory, name, count)
            while follow:
                data = follower.read_new()
                if data:
                    yield data
                elif self.supervisor.units.get(name) is unit:
                    await unit.written.wait()
                else:
                    return

        return Stream(chunks(), content_type="text/plain; charset=utf-8")

    # events and tasks

    async def events(self, request: Request) -> Stream:
        history, follow = self.supervisor.history, request.flag("follow")
        since = request.number("since", 0)
        limit = request.number("n", 0) or None

        async def chunks() -> AsyncIterator[bytes]:
            last, count = since, limit
            while True:
                for event in history.since(last, count):
                    last = event.id
                    yield _line(event.to_json())
                count = None
                if not follow:
                    return
                if history.last_id <= last:
                    last = max(last, 0)
                    await self.supervisor.happened.wait()

        return Stream(chunks(), content_type=_NDJSON)

    async def list_tasks(self, request: Request) -> Response:
        return json_response({"tasks": [task.to_json() for task in self.tasks.all()]})

    async def task(self, request: Request) -> Response | Stream:
        task = self.tasks.get(request.params["task"])
        if request.flag("follow"):

            async def chunks() -> AsyncIterator[bytes]:
                async for state in self.tasks.follow(task):
                    yield _line(state)

            return Stream(chunks(), content_type=_NDJSON)
        wait = request.number("wait", 0)
        if wait:
            await self.tasks.wait(task, wait)
        return json_response(task.to_json())

    # data

    async def images(self, request: Request) -> Response:
        return json_response({"images": self.changer.images.list()})

    async def configs(self, request: Request) -> Response:
        return json_response({"configs": [to_json(c) for c in self.changer.wanted.configs.values()]})

    async def config(self, request: Request) -> Response:
        key = (request.params["job"], request.params["name"])
        try:
            return json_response(to_json(self.changer.wanted.configs[key]))
        except KeyError:
            raise NotFound(f"no config {key[1]} of {key[0]}") from None

    async def put_config(self, request: Request) -> Response:
        job, name = request.params["job"], request.params["name"]
        config = read_config({**_body(request), "job": job, "name": name}, "config")
        return _accepted(
            self.changer.change(
                "config-set",
                f"{job}/{name}",
                lambda s: replace(s, stored_configs={**s.stored_configs, (job, name): config}),
            )
        )

    async def delete_config(self, request: Request) -> Response:
        key = (request.params["job"], request.params["name"])
        if key not in self.changer.sources.stored_configs:
            where = " (the document defines it)" if key in self.changer.wanted.configs else ""
            raise NotFound(f"no stored config {key[1]} of {key[0]}{where}")

        def edit(sources: Any) -> Any:
            return replace(
                sources, stored_configs={k: c for k, c in sources.stored_configs.items() if k != key}
            )

        return _accepted(self.changer.change("config-remove", "/".join(key), edit))

    async def templates(self, request: Request) -> Response:
        return json_response({"templates": [self._template(n) for n in sorted(self._templates())]})

    async def template(self, request: Request) -> Response:
        name = request.params["name"]
        if name not in self._templates():
            raise NotFound(f"no template {name}", hint="`maestro template list` lists them")
        return json_response(self._template(name))

    def _templates(self) -> Any:
        return self.changer.sources.in_force().templates

    def _template(self, name: str) -> dict[str, Any]:
        sources = self.changer.sources
        source = "shipped"
        if name in sources.document.templates:
            source = "document"
        elif name in sources.file.templates:
            source = "file"
        return {"source": source, **public_json(self._templates()[name])}

    async def doctor(self, request: Request) -> Response:
        from maestro_py.daemon.doctor import facts  # rarely asked for

        return json_response({"facts": facts(self.supervisor.cgroups, self.supervisor.paths.state)})

    async def shutdown(self, request: Request) -> Response:
        jobs = _body(request).get("jobs")
        if jobs not in (None, "stop", "keep"):
            raise MaestroError("cannot shut down: jobs is `stop` or `keep`", code="bad-request")
        self._shut_down(jobs)
        return json_response({}, 202)


def _body(request: Request) -> dict[str, Any]:
    """Return the body as an object, an empty one when there is none."""
    body = request.json() if request.body else {}
    if not isinstance(body, dict):
        raise MaestroError("cannot read the request body: expected a JSON object", code="bad-request")
    return body


def _accepted(task: Task) -> Response:
    return json_response({"task_id": task.id}, 202)


def _line(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def _who(peer: Peer) -> str:
    return "root" if peer.uid == 0 else f"uid {peer.uid}"
