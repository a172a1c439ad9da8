# SPDX-License-Identifier: Apache-2.0
"""Upstream's processes: programs run directly, what runs, and the queue of their events."""

from __future__ import annotations

import os
import time
from collections import deque
from typing import Any

from maestro_py.daemon import helpers
from maestro_py.daemon.change import Changer
from maestro_py.daemon.messages import Request, Response, json_response
from maestro_py.daemon.unit import Unit
from maestro_py.daemon.upstream.bodies import body_of, error
from maestro_py.daemon.waiting import Signal
from maestro_py.lifecycle import ALIVE
from maestro_py.process import launcher, reaper
from maestro_py.spec.resolved import ResolvedProcess, State

MAX_EVENTS = 100
"""Events kept for whoever asks; the oldest go first (upstream's MAX_QUEUED_PROCESS_EVENTS)."""
STATS: dict[str, Any] = {"interval": 300, "check_mem": False, "check_mem_pace": 1}
"""Upstream's defaults (DEFAULT_STATS_INTERVAL)."""


class Processes:
    """Handlers of processes. Reading events takes them out of the one queue, as upstream's does."""

    def __init__(self, changer: Changer) -> None:
        self.supervisor = changer.supervisor
        self.loop = self.supervisor.loop
        self.store = changer.store
        self._events: deque[dict[str, Any]] = deque(maxlen=MAX_EVENTS)
        self._queued = Signal(self.loop)
        self._programs: dict[int, str] = {}  # pid -> path of what is no job
        self.supervisor.observers.append(self._observe)

    async def start(self, request: Request) -> Response:
        body = body_of(request)
        if body is None or not isinstance(body.get("path"), str) or not body["path"]:
            return error(400, "Badly formed")
        try:
            process = _process(body)
        except UnicodeEncodeError as wrong:  # half of a surrogate pair: JSON can say it, argv cannot
            return error(422, f"not valid text: {wrong.object!a}")
        except (TypeError, ValueError, OverflowError):
            return error(400, "Badly formed")
        null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
        try:
            spec = launcher.prepare(
                process,
                daemon_env=self.supervisor.runner.environ,
                stdin_fd=null,
                stdout_fd=null,
                stderr_fd=null,
            )
            launch = launcher.start(spec)
        finally:
            os.close(null)
        helpers.running.add(launch.pid)  # it is buried below, not as a stranger
        try:
            await self.loop.readable(launch.report_fd)
            failure = launcher.read_report(launch.report_fd)
            if failure is None:
                self._programs[launch.pid] = body["path"]
                self._queue("process_started", launch.pid)
        finally:
            os.close(launch.report_fd)
            self.loop.add_reader(launch.pidfd, lambda: self._ended(launch))
        if failure:
            return json_response({"error": "exec failed", "errno": failure.errno}, 406)
        return json_response({"pid": launch.pid})

    def _ended(self, launch: launcher.Launch) -> None:
        exit = reaper.wait(launch.pid, launch.pidfd)
        if exit is None:
            return
        self.loop.remove_reader(launch.pidfd)
        os.close(launch.pidfd)
        helpers.running.discard(launch.pid)
        if self._programs.pop(launch.pid, None) and exit.code is not None:
            self._queue("process_ended", launch.pid, value=exit.code)

    async def running(self, request: Request) -> Response:
        found: list[dict[str, Any]] = [
            {"pid": unit.pid, "job": unit.name, "path": unit.running.argv[0] if unit.running.argv else ""}
            for unit in self.supervisor.units.values()
            if unit.pid is not None
        ]
        found += [{"pid": pid, "job": "", "path": path} for pid, path in self._programs.items()]
        return json_response({"processes": sorted(found, key=lambda each: each["pid"])})

    async def events(self, request: Request) -> Response:
        while not self._events:
            await self._queued.wait()
        taken = list(self._events)
        self._events.clear()
        return json_response({"events": taken})

    async def ignored(self, request: Request) -> Response:
        return Response()

    def _observe(self, unit: Unit, before: State) -> None:
        """Queue what upstream tells of a process that changed its state."""
        state, pid = unit.life.state, unit.launch.pid if unit.launch else 0
        if before in ALIVE and state not in ALIVE and unit.exit and unit.exit.code is not None:
            self._queue("process_ended", pid, value=unit.exit.code)
        elif state is State.STARTING and unit.process.ready.ok_string:
            self._queue("process_started", pid)
            self._queue("job_started", pid, unit.name)
        elif state is State.RUNNING and before is State.STARTING:
            if not unit.process.ready.ok_string:
                self._queue("process_started", pid)
            self._queue("job_running", pid, unit.name)

    def _queue(self, name: str, pid: int, job: str = "", value: int = 0) -> None:
        self._events.append(
            {
                "name": name,
                "when": time.time_ns(),
                "type": "process_event",
                "pid": pid,
                "job": job,
                "exitVal": value,
            }
        )
        self._queued.notify()

    # statistics: kept and shown; metrics are read when somebody asks for them, so no interval has an effect

    async def get_stats(self, request: Request) -> Response:
        stored = self.store.entries("stats").get("config")
        return json_response({**STATS, **(stored if isinstance(stored, dict) else {})})

    async def post_stats(self, request: Request) -> Response:
        body = body_of(request)
        said = {key: (body or {}).get(key, value) for key, value in STATS.items()}
        if body is None or any(type(said[key]) is not type(value) for key, value in STATS.items()):
            return error(400, "Badly formed")
        if not 0 <= said["interval"] < 1 << 53 or not abs(said["check_mem_pace"]) < 1 << 53:
            return error(400, "Badly formed")
        # upstream: an interval of 0 is the default one, a pace below 1 is 1
        said["interval"] = said["interval"] or STATS["interval"]
        said["check_mem_pace"] = max(1, said["check_mem_pace"])
        self.store.change({("stats", "config"): said})
        return Response()


def _process(body: dict[str, Any]) -> ResolvedProcess:
    """Return the process of a request's body. Raises TypeError, ValueError or OverflowError."""
    words = [body["path"], *(body.get("arguments") or ())]
    entries = body.get("environment") or ()
    flags = [body.get("inheritenv") or False, body.get("daemonize") or False]
    pgid = body.get("pgid") or 0
    texts = [*words, *entries]
    if not all(isinstance(text, str) and "\0" not in text for text in texts):
        raise TypeError
    if not all(isinstance(flag, bool) for flag in flags) or type(pgid) is not int or pgid >= 1 << 31:
        raise TypeError
    for text in texts:
        os.fsencode(text)
    env = []
    for entry in entries:
        name, equals, value = entry.partition("=")
        if not name or not equals:
            raise ValueError
        env.append((name, value))
    return ResolvedProcess(
        name=body["path"],
        members=(),
        argv=tuple(words),
        env=tuple(env),
        inherit_env=flags[0],
        new_session=flags[1],
        pgid=pgid,
    )
