# SPDX-License-Identifier: Apache-2.0
"""supervisord, asked by XML-RPC over its Unix socket."""

from __future__ import annotations

import os
import time
import xmlrpc.client
from typing import Any

from ..probe import BenchError
from .base import Peer, UnixHTTP, find, write


class Supervisord(Peer):
    """One Python process; it captures every job's output by default, as here."""

    name = "supervisord"
    install = "python3 -m venv .venv-bench; .venv-bench/bin/pip install supervisor"
    programs = ("supervisord", "supervisorctl")
    _http: UnixHTTP | None = None

    @property
    def _config(self) -> str:
        return os.path.join(self.directory, "supervisord.conf")

    @property
    def _socket(self) -> str:
        return os.path.join(self.directory, "rpc")

    def argv(self) -> list[str]:
        return [find("supervisord"), "-n", "-c", self._config]

    def prepare(self) -> None:
        text = f"""[unix_http_server]
file={self._socket}
[supervisord]
logfile={self.directory}/supervisord.log
pidfile={self.directory}/pid
childlogdir={self.log_dir}
user={os.geteuid()}
[rpcinterface:supervisor]
supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface
[supervisorctl]
serverurl=unix://{self._socket}
"""
        for job in self.jobs:
            text += f"""[program:{job.name}]
command={job.program} {job.argument}
autostart={str(job.autostart).lower()}
autorestart=true
startsecs=0
startretries=999
stdout_logfile={self.log_dir}/{job.name}.log
stdout_logfile_maxbytes=10MB
stdout_logfile_backups={20 if job.logged else 1}
"""
        write(self._config, text)

    def connect(self) -> None:
        self._http = UnixHTTP(self._socket, self.process)

    def disconnect(self) -> None:
        if self._http:
            self._http.close()
            self._http = None

    def _post(self, body: bytes) -> bytes:
        if self._http is None:
            raise BenchError("not connected to supervisord")
        self._http.request("POST", "/RPC2", body, {"Content-Type": "text/xml"})
        return self._http.getresponse().read()

    def _call(self, method: str, *arguments: Any) -> Any:
        body = xmlrpc.client.dumps(arguments, method).encode()
        return xmlrpc.client.loads(self._post(body))[0][0]

    def stop_job(self, name: str) -> None:
        self._call("supervisor.stopProcess", name, True)

    def start_job(self, name: str) -> int:
        body = xmlrpc.client.dumps((name, False), "supervisor.startProcess").encode()
        before = time.monotonic_ns()
        self._post(body)
        return before

    def status(self) -> tuple[float, int]:
        body = xmlrpc.client.dumps((), "supervisor.getAllProcessInfo").encode()
        start = time.perf_counter()
        answer = self._post(body)
        taken = time.perf_counter() - start
        return taken, answer.count(b"<name>statename</name>")

    def status_command(self) -> list[str]:
        return [find("supervisorctl"), "-c", self._config, "status"]

    def help_command(self) -> list[str]:
        return [find("supervisorctl"), "--help"]
