# SPDX-License-Identifier: Apache-2.0
"""What the harness asks of every supervisor."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from http.client import HTTPConnection

from .. import proc
from ..probe import BenchError

REPO = os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))


@dataclass(frozen=True)
class Job:
    """One job to supervise: always restarted, at once where the supervisor lets one say so."""

    name: str
    program: str
    argument: str
    autostart: bool = True
    logged: bool = False  # its output goes to rotated files below Peer.log_dir, nothing is dropped

    @property
    def shebang(self) -> str:
        """A script that becomes the job without a shell between."""
        return f"#!{self.program} {self.argument}\n"


class Peer(ABC):
    """A supervisor in its own directory. `start_job` and `status` are its quickest programmatic way."""

    name = ""
    install = ""  # how to get it
    programs: tuple[str, ...] = ()
    note = ""  # what a reader of its figures has to know
    stop_timeout = 10.0

    def __init__(self, directory: str, jobs: Sequence[Job]) -> None:
        self.directory = directory
        self.log_dir = os.path.join(directory, "log")
        self.jobs = list(jobs)
        self.daemon: subprocess.Popen[bytes] | None = None
        os.makedirs(self.log_dir)

    @classmethod
    def missing(cls) -> str:
        """Return why this supervisor cannot take part; empty when it can."""
        absent = [name for name in cls.programs if not find(name)]
        return f"not installed: {cls.install}" if absent else ""

    # what each adapter says
    @abstractmethod
    def argv(self) -> list[str]:
        """Command of the supervisor in the foreground."""

    @abstractmethod
    def prepare(self) -> None:
        """Make it know its jobs: write its configuration."""

    @abstractmethod
    def connect(self) -> None:
        """Open the control connection; return when the supervisor answers."""

    def disconnect(self) -> None:  # noqa: B027 - some have none
        """Close the control connection."""

    def ask_stop(self) -> None:
        """Tell the supervisor to end with all its jobs."""
        self.process.send_signal(signal.SIGTERM)

    @abstractmethod
    def stop_job(self, name: str) -> None:
        """Stop a job and return when the supervisor regards it as stopped."""

    @abstractmethod
    def start_job(self, name: str) -> int:
        """Start a stopped job; return the monotonic time in ns at which the command was sent."""

    @abstractmethod
    def status(self) -> tuple[float, int]:
        """Ask for the state of all jobs; return seconds taken and how many jobs the answer held."""

    @abstractmethod
    def status_command(self) -> list[str]:
        """Command line that prints the state of all jobs, naming each."""

    def help_command(self) -> list[str]:
        """Command line that prints the help of its command; nothing where there is none."""
        return []

    def tail_command(self, name: str, lines: int) -> list[str]:
        """Command line that prints the last lines of a job; nothing where there is none."""
        return []

    # the same for all
    @property
    def process(self) -> subprocess.Popen[bytes]:
        """The running supervisor."""
        if self.daemon is None:
            raise BenchError(f"{self.name} is not running")
        return self.daemon

    def start(self) -> int:
        """Start the supervisor; return the monotonic time in ns just before its exec."""
        self.daemon, before = proc.spawn(self.argv(), self.directory)
        return before

    def stop(self) -> None:
        """End the supervisor and everything below it."""
        if self.daemon is None:
            return
        daemon = self.daemon
        below = proc.handles(proc.descendants(daemon.pid))  # before some of them lose their parent
        try:
            if daemon.poll() is None:
                self.ask_stop()
        finally:
            self.daemon = None
            self.disconnect()
            proc.end(daemon, below, self.stop_timeout)

    def pids(self, program: str) -> list[int]:
        """Return the supervisor's own processes: everything below and with it that is not a job."""
        found = []
        for pid in [self.process.pid, *proc.descendants(self.process.pid)]:
            try:
                if os.readlink(f"/proc/{pid}/exe") != program:
                    found.append(pid)
            except OSError:
                pass
        return found

    @staticmethod
    def output_tail(directory: str) -> str:
        """Return the last lines the supervisor itself wrote: what to show when it failed."""
        try:
            with open(os.path.join(directory, "out"), errors="replace") as file:
                return "".join(file.readlines()[-8:]).strip()
        except OSError:
            return ""


class UnixHTTP(HTTPConnection):
    """HTTP over a Unix socket; connects at once, waiting for a server that is just starting."""

    def __init__(self, path: str, server: subprocess.Popen[bytes], timeout: float = 60.0) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path
        self._server = server
        wait_until(self._try, f"a server on {path}")

    def _try(self) -> bool:
        try:
            self.connect()
        except (FileNotFoundError, ConnectionRefusedError):
            if self._server.poll() is not None:
                raise BenchError(f"the daemon ended with status {self._server.returncode}") from None
            return False
        return True

    def connect(self) -> None:
        """Connect to the socket."""
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def find(program: str) -> str:
    """Return the path of a program: from .venv-bench beside the repository's own, else from PATH."""
    own = os.path.join(REPO, ".venv-bench", "bin", program)
    return own if os.access(own, os.X_OK) else shutil.which(program) or ""


def wait_until(condition: Callable[[], bool], what: str, timeout: float = 120.0) -> None:
    """Poll each millisecond; only for what is not being timed and cannot be waited for otherwise."""
    end = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > end:
            raise BenchError(f"waited {timeout:g} s in vain for {what}")
        time.sleep(0.001)


def write(path: str, text: str, mode: int = 0o644) -> None:
    """Write a file and the directories above it."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w") as file:
        file.write(text)
    os.chmod(path, mode)


def control(path: str, command: bytes) -> int:
    """Write a command to a FIFO that a supervisor reads; return the monotonic time in ns just before."""
    fd = os.open(path, os.O_WRONLY | os.O_NONBLOCK)
    try:
        before = time.monotonic_ns()
        os.write(fd, command)
    finally:
        os.close(fd)
    return before
