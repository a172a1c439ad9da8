# SPDX-License-Identifier: Apache-2.0
"""maestrod under a private --root, asked over its HTTP socket."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from ..probe import BenchError
from .base import REPO, Job, Peer, UnixHTTP, write

_TEMPLATE = MappingProxyType(
    {"name": "bench", "restart": True, "restart_backoff": {"initial": 0, "jitter": 0}}
)


def _command(script: str, module: str) -> list[str]:
    """Return the installed script beside this interpreter, or the same from the source tree."""
    path = os.path.join(os.path.dirname(sys.executable), script)
    if os.access(path, os.X_OK):
        return [path]
    return ["/usr/bin/env", f"PYTHONPATH={REPO}", sys.executable, "-m", module]


class Maestro(Peer):
    """The default: each job a session of its own as the daemon's user, its output captured, no limits."""

    name = "maestro"
    settings: Mapping[str, Any] = MappingProxyType({})
    _http: UnixHTTP | None = None

    @property
    def _root(self) -> str:
        return os.path.join(self.directory, "root")

    @property
    def socket(self) -> str:
        """Path of the daemon's socket."""
        return os.path.join(self._root, "run", "maestro.sock")

    def argv(self) -> list[str]:
        argv = [*_command("maestrod", "maestro_py.daemon"), "--root", self._root]
        if any(job.logged for job in self.jobs):  # as much kept as by the others
            argv += ["--config", os.path.join(self.directory, "maestro.json")]
        return argv

    def prepare(self) -> None:
        """Let a first daemon take the document; the ones that follow find it stored."""
        self.log_dir = os.path.join(self._root, "log")
        limits = {"log_max_size": 10485760, "log_max_files": 20}
        write(os.path.join(self.directory, "maestro.json"), json.dumps(limits))
        self.start()
        try:
            self.connect()
            self.apply(self.document())
        finally:
            self.stop()

    def document(self) -> dict[str, Any]:
        """Return the running config with all jobs."""
        jobs = [self.job_entry(job) for job in self.jobs]
        template = {**_TEMPLATE, **self.settings}
        return {"config": "running", "date": int(time.time()), "jobs": jobs, "templates": [template]}

    def job_entry(self, job: Job) -> dict[str, Any]:
        """Return one job as a running config has it."""
        return {
            "job": job.name,
            "container_template": _TEMPLATE["name"],
            "exec_cmd": job.program,
            "exec_args": [job.argument],
            "no_autostart": not job.autostart,
        }

    def connect(self) -> None:
        self._http = UnixHTTP(self.socket, self.process)

    def disconnect(self) -> None:
        if self._http:
            self._http.close()
            self._http = None

    def _ask(self, method: str, path: str, body: bytes = b"") -> bytes:
        if self._http is None:
            raise BenchError("not connected to maestrod")
        headers = {"Content-Type": "application/json"} if body else {}
        self._http.request(method, path, body, headers)
        response = self._http.getresponse()
        data = response.read()
        if response.status >= 300:
            raise BenchError(f"{method} {path}: {response.status} {data[:400].decode(errors='replace')}")
        return data

    def _finish(self, accepted: bytes) -> None:
        task = json.loads(accepted)["task_id"]
        answer = json.loads(self._ask("GET", f"/v1/tasks/{task}?wait=55"))
        if answer["status"] != "complete":
            raise BenchError(f"{answer['kind']} {answer['subject']}: {answer['status']}: {answer['error']}")

    def apply(self, document: dict[str, Any]) -> int:
        """Apply a running config to its end; return the monotonic time in ns at which it was sent."""
        body = json.dumps(document).encode()
        before = time.monotonic_ns()
        self._finish(self._ask("POST", "/v1/apply", body))
        return before

    def stop_job(self, name: str) -> None:
        self._finish(self._ask("POST", f"/v1/jobs/{name}/stop"))

    def start_job(self, name: str) -> int:
        before = time.monotonic_ns()
        self._ask("POST", f"/v1/jobs/{name}/start")
        return before

    def status(self) -> tuple[float, int]:
        start = time.perf_counter()
        answer = self._ask("GET", "/v1/status")
        taken = time.perf_counter() - start
        return taken, len(json.loads(answer)["jobs"])

    def status_command(self) -> list[str]:
        return [*_command("maestro", "maestro_py.cli"), "--socket", self.socket, "status"]

    def help_command(self) -> list[str]:
        return [*_command("maestro", "maestro_py.cli"), "--help"]

    def tail_command(self, name: str, lines: int) -> list[str]:
        command = _command("maestro", "maestro_py.cli")
        return [*command, "--socket", self.socket, "logs", "-n", str(lines), name]

    def follow_command(self, name: str) -> list[str]:
        """Command line that prints what a job says, on and on."""
        command = _command("maestro", "maestro_py.cli")
        return [*command, "--socket", self.socket, "logs", "-f", name]

    def upgrade_command(self) -> list[str]:
        """Command line that replaces the daemon in place and returns once the new one serves."""
        return [*_command("maestro", "maestro_py.cli"), "--socket", self.socket, "upgrade"]


class MaestroLimited(Maestro):
    """Isolated: another user, a memory limit and a limit of processes for every job."""

    name = "maestro+limits"
    note = "every job as nobody, with a memory limit and a limit of processes"
    settings: Mapping[str, Any] = MappingProxyType(
        {"user": "nobody", "cgroup": {"mem_limit": "64M", "pids_max": 64}}
    )

    @classmethod
    def missing(cls) -> str:
        return super().missing() or (
            "" if os.geteuid() == 0 else "needs root: another user and limits per job"
        )
