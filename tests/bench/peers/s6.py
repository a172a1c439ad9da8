# SPDX-License-Identifier: Apache-2.0
"""s6: s6-svscan with one s6-supervise per job; s6-log where output is kept."""

from __future__ import annotations

import os
import subprocess
import time

from ..probe import BenchError
from .base import Peer, control, find, wait_until, write


class S6(Peer):
    """Asked through the files and FIFOs of each `supervise` directory, as `s6-svc` and `s6-svstat` do."""

    name = "s6"
    install = "apt-get install s6"
    programs = ("s6-svscan", "s6-svscanctl", "s6-svc", "s6-svstat", "s6-log")
    note = "no log process for idle jobs; never starts a job twice within 1 s"

    def argv(self) -> list[str]:
        return [find("s6-svscan"), self._services]

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
                logger = f"exec {find('s6-log')} n20 s10000000 {os.path.join(self.log_dir, job.name)}"
                write(self._of(job.name, "log", "run"), f"#!/bin/sh\n{logger}\n", 0o755)

    def connect(self) -> None:
        def up() -> bool:
            return all(os.path.exists(self._of(job.name, "supervise", "status")) for job in self.jobs)

        wait_until(up, "all of s6-supervise")

    def ask_stop(self) -> None:
        subprocess.run([find("s6-svscanctl"), "-t", self._services], check=True, timeout=5)

    def stop_job(self, name: str) -> None:
        command = [find("s6-svc"), "-wd", "-T5000", "-d", self._of(name)]
        if subprocess.run(command, timeout=10).returncode:
            raise BenchError(f"s6-svc cannot stop {name}")

    def start_job(self, name: str) -> int:
        return control(self._of(name, "supervise", "control"), b"u")

    def status(self) -> tuple[float, int]:
        start = time.perf_counter()
        count = 0
        for job in self.jobs:
            with open(self._of(job.name, "supervise", "status"), "rb", buffering=0) as file:
                count += bool(file.read(64))
        return time.perf_counter() - start, count

    def status_command(self) -> list[str]:
        loop = 'stat=$1; shift; for d; do printf "%s " "${d##*/}"; "$stat" "$d"; done'
        return ["/bin/sh", "-c", loop, "sh", find("s6-svstat"), *(self._of(job.name) for job in self.jobs)]
