# SPDX-License-Identifier: Apache-2.0
"""systemd, where it is process 1: a unit for each job, output to the journal, which is kept on disk."""

from __future__ import annotations

import os
import subprocess
import time

from .base import Job, Peer, write

_UNITS = "/run/systemd/system"
_TARGET = "bench.target"


def _systemctl(*arguments: str) -> str:
    done = subprocess.run(["systemctl", *arguments], check=True, capture_output=True, text=True)
    return done.stdout.strip()


class Systemd(Peer):
    """Process 1 of this machine and its journal; there is no other to be measured."""

    name = "systemd"
    note = "process 1 with all units of the system, and its journal"

    @classmethod
    def missing(cls) -> str:
        if (
            os.path.isdir(_UNITS)
            and os.geteuid() == 0
            and os.path.realpath("/proc/1/exe").endswith("/systemd")
        ):
            return ""
        return "not process 1 here"

    def _path(self, job: Job) -> str:
        return f"{_UNITS}/bench-{job.name}.service"

    def argv(self) -> list[str]:
        return [os.path.realpath("/proc/1/exe")]  # it runs already

    def prepare(self) -> None:
        os.makedirs("/var/log/journal", exist_ok=True)
        _systemctl("restart", "systemd-journald")
        for job in self.jobs:
            command = f"{job.program} {job.argument}"
            write(self._path(job), f"[Service]\nExecStart={command}\nRestart=always\n")
        wants = " ".join(os.path.basename(self._path(job)) for job in self.jobs)
        write(f"{_UNITS}/{_TARGET}", f"[Unit]\nWants={wants}\n")
        _systemctl("daemon-reload")

    def start(self) -> int:
        before = time.monotonic_ns()
        _systemctl("start", "--no-block", _TARGET)
        return before

    def connect(self) -> None:
        """There is nothing to wait for."""

    def stop(self) -> None:
        _systemctl("stop", _TARGET, *(os.path.basename(self._path(job)) for job in self.jobs))
        for path in (f"{_UNITS}/{_TARGET}", *map(self._path, self.jobs)):
            os.unlink(path)
        _systemctl("daemon-reload")

    def stop_job(self, name: str) -> None:
        _systemctl("stop", f"bench-{name}.service")

    def start_job(self, name: str) -> int:
        before = time.monotonic_ns()
        _systemctl("start", "--no-block", f"bench-{name}.service")
        return before

    def status(self) -> tuple[float, int]:
        start = time.perf_counter()
        said = _systemctl(*self.status_command()[1:])
        return time.perf_counter() - start, len(said.splitlines())

    def status_command(self) -> list[str]:
        return ["systemctl", "list-units", "--plain", "--no-legend", "bench-*.service"]

    def pids(self, program: str) -> list[int]:
        return [1, int(_systemctl("show", "--value", "--property=MainPID", "systemd-journald"))]
