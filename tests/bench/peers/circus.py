# SPDX-License-Identifier: Apache-2.0
"""circus, asked over ZeroMQ by a small helper that runs in circus's own environment."""

from __future__ import annotations

import json
import os
import subprocess
from typing import Any

from ..probe import BenchError
from .base import Peer, find, write

_HELPER = os.path.join(os.path.dirname(__file__), "circus_client.py")


class Circus(Peer):
    """One Python process on tornado; polls its jobs once a second here (every five by default)."""

    name = "circus"
    install = "python3 -m venv .venv-bench; .venv-bench/bin/pip install circus"
    programs = ("circusd", "circusctl")
    note = "captures no output of idle jobs; check_delay 1 s (default 5)"
    _helper: subprocess.Popen[bytes] | None = None

    @property
    def _endpoint(self) -> str:
        return f"ipc://{self.directory}/ctl"

    def argv(self) -> list[str]:
        return [find("circusd"), os.path.join(self.directory, "circus.ini")]

    def prepare(self) -> None:
        text = f"""[circus]
endpoint = {self._endpoint}
pubsub_endpoint = ipc://{self.directory}/pub
warmup_delay = 0
check_delay = 1
"""
        for job in self.jobs:
            text += f"""[watcher:{job.name}]
cmd = {job.program} {job.argument}
autostart = {job.autostart}
warmup_delay = 0
max_retry = -1
"""
            if job.logged:
                text += f"""stdout_stream.class = FileStream
stdout_stream.filename = {self.log_dir}/{job.name}.log
stdout_stream.max_bytes = 10485760
stdout_stream.backup_count = 20
"""
        write(os.path.join(self.directory, "circus.ini"), text)

    def connect(self) -> None:
        python = os.path.join(os.path.dirname(os.path.realpath(find("circusd"))), "python")
        argv = [python if os.path.exists(python) else "python3", _HELPER, self._endpoint]
        self._helper = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self._call("numwatchers")

    def disconnect(self) -> None:
        if self._helper:
            self._helper.communicate()
            self._helper = None

    def _call(self, command: str, **properties: Any) -> dict[str, Any]:
        if self._helper is None or self._helper.stdin is None or self._helper.stdout is None:
            raise BenchError("not connected to circus")
        line = json.dumps({"id": "1", "command": command, "properties": properties})
        self._helper.stdin.write(line.encode() + b"\n")
        self._helper.stdin.flush()
        answer: dict[str, Any] = json.loads(
            self._helper.stdout.readline() or b'{"error": "its client ended"}'
        )
        if "error" in answer:
            raise BenchError(f"circus: {answer['error']}")
        return answer

    def stop_job(self, name: str) -> None:
        self._call("stop", name=name, waiting=True)

    def start_job(self, name: str) -> int:
        return int(self._call("start", name=name, waiting=False)["sent"])

    def status(self) -> tuple[float, int]:
        answer = self._call("status")
        return (answer["received"] - answer["sent"]) / 1e9, len(answer["answer"]["statuses"])

    def status_command(self) -> list[str]:
        return [find("circusctl"), "--endpoint", self._endpoint, "status"]

    def help_command(self) -> list[str]:
        return [find("circusctl"), "--help"]
