# SPDX-License-Identifier: Apache-2.0
"""The job of the benchmark (probe.c, compiled for each run) and the socket on which it reports."""

from __future__ import annotations

import os
import shutil
import socket
import struct
import subprocess
import time
from collections.abc import Collection
from dataclasses import dataclass

_REPORT = struct.Struct("=Qiii4x")  # struct report of probe.c
LINE = 100
"""Bytes of one line that a writer writes."""


class BenchError(Exception):
    """A measurement that cannot be taken, and why."""


@dataclass(frozen=True)
class Report:
    """What one job said: `ns` is CLOCK_MONOTONIC in the job."""

    ns: int
    index: int
    pid: int
    done: bool  # False: its first instruction; True: its last line has been accepted


class Probe:
    """Compiles the job and receives its reports."""

    def __init__(self, directory: str) -> None:
        if not shutil.which("gcc"):
            raise BenchError(
                "cannot compile the benchmark's job: gcc is not installed (apt-get install gcc libc6-dev)"
            )
        self.program = os.path.join(directory, "probe")
        source = os.path.join(os.path.dirname(__file__), "probe.c")
        subprocess.run(["gcc", "-O2", "-Wall", "-static", "-o", self.program, source], check=True)
        self._path = os.path.join(directory, "s")
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(self._path)
        os.chmod(self._path, 0o777)  # jobs of another user report as well

    def argument(self, index: int, lines: int = 0, chunk: int = 0) -> str:
        """Return the job's one argument (one, so that it fits on a `#!` line)."""
        return f"{self._path}:{index}" + (f":{lines}:{chunk}" if lines else "")

    def drain(self) -> None:
        """Forget reports that nobody asked for."""
        self._socket.setblocking(False)
        try:
            while self._socket.recv(64):
                pass
        except BlockingIOError:
            pass

    def wait(self, indices: Collection[int], timeout: float, *, done: bool = False) -> dict[int, Report]:
        """Return the first report of each of these jobs; BenchError names how many are missing in time."""
        end = time.monotonic() + timeout
        found: dict[int, Report] = {}
        while len(found) < len(indices):
            left = end - time.monotonic()
            if left > 0:
                self._socket.settimeout(left)
                try:
                    ns, index, pid, kind = _REPORT.unpack(self._socket.recv(64))
                except TimeoutError:
                    left = 0
            if left <= 0:
                raise BenchError(
                    f"{len(indices) - len(found)} of {len(indices)} jobs did not report in {timeout:g} s"
                )
            if index in indices and done == (kind == 2):
                found.setdefault(index, Report(ns, index, pid, done))
        return found

    def close(self) -> None:
        """Stop listening."""
        self._socket.close()
