# SPDX-License-Identifier: Apache-2.0
"""Single jobs: their state, what can be done to them, and why they are as they are."""

from __future__ import annotations

from collections.abc import Callable
from signal import SIGKILL

from maestro_py.daemon import pausing
from maestro_py.daemon.change import Changer
from maestro_py.daemon.messages import Request, Response, accepted, json_response, page
from maestro_py.daemon.tasks import Task
from maestro_py.daemon.view import View
from maestro_py.errors import MaestroError
from maestro_py.lifecycle import Cause, Kind
from maestro_py.process.kernel import boot_id
from maestro_py.spec.resolved import State
from maestro_py.units import parse_signal, signal_name


class Jobs:
    """Handlers of single jobs. What takes time is a task; it has begun when the answer is sent."""

    def __init__(self, changer: Changer, view: View) -> None:
        self.changer = changer
        self.supervisor = changer.supervisor
        self.tasks = changer.tasks
        self.view = view

    async def status(self, request: Request) -> Response:
        memory = request.flag("memory")
        names = [self.view.job(name).job for name in request.query.get("job", [])] or self.changer.jobs
        shown, following = page(request, set(names))
        rows = self.view.rows(shown, memory=memory) if shown else []
        warnings = {"warnings": self.supervisor.warnings} if self.supervisor.warnings else {}
        return json_response({"jobs": rows, **following, **warnings})

    async def start(self, request: Request) -> Response:
        job = self.view.job(request.params["job"])
        if job.disabled:
            raise MaestroError(
                f"cannot start {job.job}: it is disabled", hint=f"maestro enable {job.job}", code="conflict"
            )

        def act(process: str) -> None:
            pausing.resume(self.supervisor, process, request.peer.who)
            self.supervisor.start(process)

        return self._job_task("start", request, act, up=True)

    async def stop(self, request: Request) -> Response:
        cause = Cause(Kind.ASKED, f"stopped by {request.peer.who}")
        return self._job_task(
            "stop", request, lambda process: self.supervisor.stop(process, cause, by_hand=True), up=False
        )

    async def restart(self, request: Request) -> Response:
        job = self.view.job(request.params["job"])
        if job.disabled:
            raise MaestroError(
                f"cannot restart {job.job}: it is disabled", hint=f"maestro enable {job.job}", code="conflict"
            )
        cause = Cause(Kind.ASKED, f"restarted by {request.peer.who}")
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

        return accepted(self.tasks.run(kind, job.job, work))

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
            raise MaestroError(f"cannot {kind} {process}: {self.changer.settling.explain(unit)}{again}")

    async def reload(self, request: Request) -> Response:
        job = self.view.job(request.params["job"])
        unit = self.view.unit(job.job)
        number = unit.process.reload_signal
        if number is None:
            raise MaestroError(
                f"cannot reload {job.job}: it has no reload_signal",
                hint=f"maestro restart {job.job}",
                code="conflict",
            )

        async def work(task: Task) -> None:
            task.start()
            self._signal(job.job, number)

        return accepted(self.tasks.run("reload", job.job, work))

    async def pause(self, request: Request) -> Response:
        return self._freeze("pause", request, pausing.pause)

    async def resume(self, request: Request) -> Response:
        return self._freeze("resume", request, pausing.resume)

    def _freeze(self, kind: str, request: Request, act: Callable[..., None]) -> Response:
        job = self.view.job(request.params["job"])
        unit = self.view.unit(job.job)
        act(self.supervisor, unit.name, request.peer.who)

        async def work(task: Task) -> None:
            task.start()
            if job.composite_id:
                task.say(f"{job.job} is in {unit.name}: this concerns {', '.join(unit.process.members)}")
            if kind == "pause":
                await pausing.until_frozen(self.supervisor, unit.name)

        return accepted(self.tasks.run(kind, job.job, work))

    async def kill(self, request: Request) -> Response:
        job = self.view.job(request.params["job"])
        body = request.object(optional=True)
        try:
            number = parse_signal(body.get("signal", "SIGTERM"))
        except ValueError as error:
            raise MaestroError(f"cannot signal {job.job}: expected {error}", code="bad-request") from None
        unit, who = self.view.unit(job.job), request.peer.who
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
        self.supervisor.control.signal(unit, number)

    async def enable(self, request: Request) -> Response:
        return accepted(self.changer.set_disabled(self.view.job(request.params["job"]).job, False))

    async def disable(self, request: Request) -> Response:
        return accepted(self.changer.set_disabled(self.view.job(request.params["job"]).job, True))

    async def why(self, request: Request) -> Response:
        name = request.params["job"]
        row = self.view.rows([name], memory=False)[0]
        return json_response({"job": name, "state": row["state"], "lines": self.view.why(name)})

    async def process(self, request: Request) -> Response:
        job = self.view.job(request.params["job"])
        unit = self.view.unit(job.job)
        if unit.pid is None or unit.launch is None:
            raise MaestroError(
                f"cannot enter {job.job}: it does not run", hint=f"maestro why {job.job}", code="conflict"
            )
        if unit.paused:
            raise MaestroError(
                f"cannot enter {job.job}: it is paused, and so would be what enters it",
                hint=f"maestro resume {job.job}",
                code="conflict",
            )
        running = unit.running
        return json_response(
            {
                "job": job.job,
                "process": unit.name,
                "pid": unit.pid,
                "start_ticks": unit.launch.start_ticks,
                "boot_id": boot_id(),
                "capabilities": running.capabilities,
                "seccomp": running.seccomp,
            }
        )
