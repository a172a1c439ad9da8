# SPDX-License-Identifier: Apache-2.0
"""runit: runsvdir with one runsv per job; svlogd where output is kept."""

from __future__ import annotations

import os
import signal
import time

from .base import Peer, control, find, wait_until, write

_STATE = 19  # byte of supervise/status that holds 0 down, 1 run, 2 finish


class Runit(Peer):
    """Asked through the files and FIFOs of each `supervise` directory, as `sv` does."""

    name = "runit"
    install = "apt-get install runit"
    programs = ("runsvdir", "sv", "svlogd")
    note = "no log process for idle jobs"

    def argv(self) -> list[str]:
        return [find("runsvdir"), self._services]

    @property
    def _services(self) -> str:
        return os.path.join(self.directory, "services")

    def _of(self, name: str, *path: str) -> str:
        return os.path.join(self._services, name, *path)

    def prepare(self) -> None:
        for job in self.jobs:
            write(self._of(job.name, "run"), job.shebang, 0o755)
            if not job.autostart:
                write(self._of(job.name, "down"), "")
            if job.logged:
                directory = os.path.join(self.log_dir, job.name)
                write(os.path.join(directory, "config"), "s10485760\nn20\n")
                write(self._of(job.name, "log", "run"), f"#!{find('svlogd')} {directory}\n", 0o755)
        os.utime(self._services, (0, 0))  # runsvdir waits a second when it was changed within this one

    def connect(self) -> None:
        def up() -> bool:
            return all(os.path.exists(self._of(job.name, "supervise", "status")) for job in self.jobs)

        wait_until(up, "all of runsv")

    def ask_stop(self) -> None:
        self.process.send_signal(signal.SIGHUP)

    def _state(self, name: str) -> int:
        with open(self._of(name, "supervise", "status"), "rb", buffering=0) as file:
            data = file.read(20)
        return data[_STATE] if len(data) == 20 else -1

    def stop_job(self, name: str) -> None:
        control(self._of(name, "supervise", "control"), b"d")
        wait_until(lambda: self._state(name) == 0, f"runit to stop {name}")

    def start_job(self, name: str) -> int:
        return control(self._of(name, "supervise", "control"), b"u")

    def status(self) -> tuple[float, int]:
        start = time.perf_counter()
        count = sum(self._state(job.name) >= 0 for job in self.jobs)
        return time.perf_counter() - start, count

    def status_command(self) -> list[str]:
        return [find("sv"), "status", *(self._of(job.name) for job in self.jobs)]
