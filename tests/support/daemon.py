# SPDX-License-Identifier: Apache-2.0
"""A real maestrod below a private directory, for tests."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from maestro_py.client import Client
from maestro_py.errors import MaestroError, TimedOut

PROJECT = Path(__file__).parents[2]

LOOK_AGAIN = 0.5
"""Seconds after which a condition is looked at even if nothing happened."""


class Daemon:
    """Starts maestrod, talks to it, and ends it with everything it runs.

    program: the command that starts it; what it needs besides is appended.
    """

    program: Sequence[str] = (sys.executable, "-m", "maestro_py.daemon")

    def __init__(self, root: Path, config: str = "", env: Mapping[str, str] | None = None) -> None:
        self.root = root
        self.socket = root / "run" / "maestro.sock"
        self.log = root / "maestrod.log"
        self.env = {**os.environ, "PYTHONPATH": str(PROJECT), **(env or {})}
        self.process: subprocess.Popen[bytes] | None = None
        root.mkdir(parents=True, exist_ok=True)
        if config:
            (root / "maestro.yaml").write_text(config)

    def launch(self) -> subprocess.Popen[bytes]:
        """Begin to start it; the one before has ended or is about to."""
        if self.process:
            self.process.wait(30)
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*self.program, "--root", str(self.root)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self.env,
                cwd=self.root,
            )
        return self.process

    def start(self) -> Daemon:
        """Start it and wait until it serves its socket."""
        process = self.launch()
        pidfd = os.pidfd_open(process.pid)
        try:
            deadline = time.monotonic() + 60
            while True:
                try:
                    self.client().version()
                    return self
                except MaestroError:
                    if select.select([pidfd], [], [], 0.02)[0] or time.monotonic() > deadline:
                        process.kill()
                        process.wait()
                        raise AssertionError(f"maestrod did not start:\n{self.output()}") from None
        finally:
            os.close(pidfd)

    def client(self) -> Client:
        """Return a client of this daemon."""
        return Client(str(self.socket))

    def output(self) -> str:
        """Return what the daemon logged."""
        return self.log.read_text()

    def stop(self) -> int:
        """End it in order and return its exit status."""
        assert self.process
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(30)

    def close(self) -> None:
        """End whatever is left of it; it must end, and have met nothing that nobody expected."""
        ended = True
        if self.process and self.process.poll() is None:
            try:
                self.stop()
            except subprocess.TimeoutExpired:
                ended = False
                self.process.kill()
                self.process.wait()
        assert ended, f"the daemon did not end: {self.output()}"
        if self.log.exists():
            assert "Traceback" not in self.output(), self.output()

    # what tests say most

    def cli(
        self, *args: str, input: str | None = None, timeout: float = 180
    ) -> subprocess.CompletedProcess[str]:
        """Run the maestro command against this daemon."""
        return subprocess.run(
            [sys.executable, "-m", "maestro_py.cli", "--socket", str(self.socket), *args],
            input=input,
            capture_output=True,
            text=True,
            env=self.env,
            timeout=timeout,
            check=False,
        )

    def apply(
        self, document: Mapping[str, Any], *, timeout: float = 180, force: bool = False
    ) -> dict[str, Any]:
        """Apply a document and return its ended task."""
        answer = self.client().apply(document, force=force)
        task: dict[str, Any] = self.client().task(answer["task_id"], wait=timeout)
        return task

    def job(self, name: str) -> dict[str, Any]:
        """Return the status row of a job."""
        row: dict[str, Any] = self.client().status([name])["jobs"][0]
        return row

    def wait(
        self, name: str, condition: Callable[[dict[str, Any]], bool], timeout: float = 60
    ) -> dict[str, Any]:
        """Return the status row of a job once a condition holds on it; every event is a moment to look."""
        deadline = time.monotonic() + timeout
        while True:
            stream = self.client().stream("GET", "/v1/events", {"n": 1, "follow": True})
            stream._sock.settimeout(LOOK_AGAIN)
            with stream:
                try:
                    while not condition(row := self.job(name)):
                        if time.monotonic() > deadline:
                            raise AssertionError(f"still {json.dumps(row)}\n{self.output()}")
                        next(stream)
                    return row
                except TimedOut:
                    pass  # what nobody announces, as memory in use, is looked at now and then

    def wait_log(self, name: str, text: str, timeout: float = 60, count: int = 1) -> str:
        """Return what a job has printed once a text is `count` times in it."""
        seen = b""
        stream = self.client().logs(name, n=10000, follow=True)
        stream._sock.settimeout(timeout)
        with stream:
            for piece in stream:
                seen += piece
                if seen.count(text.encode()) >= count:
                    return seen.decode()
        raise AssertionError(f"{name} ended its log without {text!r}: {seen.decode()}")

    def log_of(self, name: str, n: int = 1000, *, previous: bool = False) -> str:
        """Return what a job has printed up to now."""
        return b"".join(self.client().logs(name, n=n, previous=previous)).decode()

    def run(self, document: Mapping[str, Any], *, force: bool = False) -> dict[str, Any]:
        """Apply a document that is carried out to the end; return its task."""
        task = self.apply(document, force=force)
        assert task["status"] == "complete", f"{json.dumps(task, indent=1)}\n{self.output()}"
        return task

    def do(self, name: str, verb: str, timeout: float = 60) -> dict[str, Any]:
        """Have something done to a job and return the ended task."""
        task: dict[str, Any] = self.client().task(self.client().action(name, verb)["task_id"], wait=timeout)
        assert task["ended"], task
        return task

    def events(self, name: str = "", since: int = 0) -> list[dict[str, Any]]:
        """Return what happened, to one process or to all."""
        return [e for e in self.client().events(since) if not name or e["process"] == name]

    def last_event(self) -> int:
        """Return the number of the newest event."""
        return max((int(event["id"]) for event in self.client().events(n=1)), default=0)

    def plan(self, document: Mapping[str, Any]) -> list[tuple[str, str]]:
        """Return (action, subject) of every step that applying a document would take."""
        steps = self.client().diff(document)["plan"]["steps"]
        return [(step["action"], step["subject"]) for step in steps]

    def groups(self) -> list[Path]:
        """Return the control groups of this daemon, on every hierarchy."""
        name = f"maestro-{self.root.stat().st_ino:x}"
        return [found for found in Path("/sys/fs/cgroup").glob(f"*/{name}/*") if found.is_dir()]

    def crash(self) -> None:
        """Kill the daemon as a fault would, its jobs live on."""
        assert self.process
        self.process.kill()
        self.process.wait()

    def wait_state(self, name: str, state: str, timeout: float = 60) -> dict[str, Any]:
        """Return the status row of a job once it is in a state."""
        return self.wait(name, lambda row: bool(row["state"] == state), timeout)
