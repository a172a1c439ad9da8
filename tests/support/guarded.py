# SPDX-License-Identifier: Apache-2.0
"""A device with one good job, and the proof afterwards that nothing bad ever touched it.

with guarded(tmp_path) as device:
    done = device.apply(device.document({"job": "bad", ...}))
    assert ... in done.stderr
# leaving it asserts: same daemon, same pid of the good job, quick answers, no traceback in the log
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from support.daemon import Daemon

GOOD = {"job": "good", "exec_cmd": "/bin/sh", "exec_args": ["-c", "echo I am well; exec sleep 100000"]}

EMPTY: dict[str, Any] = {"templates": [], "images": [], "configs": []}

QUICK = 1.0
"""Seconds within which the daemon has to answer whatever goes on; the machine may be busy too."""


@dataclass
class Answer:
    """An HTTP answer: status, headers in lower case, body."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Guarded:
    """A daemon that runs the good job as `pid`. calm: it shall meet nothing it did not expect.

    over: it was ended on purpose and is not looked at any more.
    """

    daemon: Daemon
    tmp: Path
    pid: int
    daemon_pid: int
    calm: bool = True
    over: bool = False

    def document(self, *jobs: dict[str, Any], **parts: Any) -> dict[str, Any]:
        """Return a running config with the good job, further jobs and further parts."""
        return {"config": "running", "jobs": [GOOD, *jobs], **parts}

    def write(self, content: str | bytes | dict[str, Any], name: str = "document.json") -> Path:
        """Write a document to a file."""
        file = self.tmp / name
        text = json.dumps(content) if isinstance(content, dict) else content
        file.write_bytes(text.encode() if isinstance(text, str) else text)
        return file

    def apply(
        self, content: str | bytes | dict[str, Any], *options: str, name: str = "document.json"
    ) -> subprocess.CompletedProcess[str]:
        """Apply a document as a person does."""
        return self.daemon.cli("apply", str(self.write(content, name)), *options, timeout=50)

    def refused(
        self, content: str | bytes | dict[str, Any], *options: str, name: str = "document.json"
    ) -> str:
        """Apply a document that must be refused without a trace; return what the person read."""
        before = self.daemon.client().running_config()
        done = self.apply(content, *options, name=name)
        assert done.returncode == 1, done
        assert not done.stdout
        assert "Traceback" not in done.stderr
        assert "internal error" not in done.stderr
        assert self.daemon.client().running_config() == before
        return done.stderr

    def fails(self, *jobs: dict[str, Any], **parts: Any) -> str:
        """Apply a document of which a job cannot run; return what the person read."""
        done = self.apply(self.document(*jobs, **parts))
        assert done.returncode == 1, done
        assert "Traceback" not in done.stderr
        assert "internal error" not in done.stderr
        return done.stderr

    def raw(self, data: bytes, *, end: bool = False) -> bytes:
        """Send bytes to the socket and return all that comes back."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
            sock.settimeout(20)
            sock.connect(str(self.daemon.socket))
            try:
                sock.sendall(data)
                if end:
                    sock.shutdown(socket.SHUT_WR)
            except OSError:
                pass  # it answered before all was sent
            got = b""
            while piece := sock.recv(65536):
                got += piece
        return got

    def call(self, method: str, path: str, body: object = b"") -> Answer:
        """Send one request; bytes go as they are, all else as JSON."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        head = (
            f"{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {len(data)}\r\n\r\n"
        )
        return answer(self.raw(head.encode() + data))

    def output_with(self, text: str, timeout: float = 10) -> str:
        """Return the daemon's log once a text is in it."""
        deadline = time.monotonic() + timeout
        while text not in (said := self.daemon.output()):
            assert time.monotonic() < deadline, said
            time.sleep(0.01)  # nothing announces a line on standard error
        return said

    def quick(self) -> None:
        """Assert that the daemon answers at once."""
        began = time.monotonic()
        self.daemon.client().status()
        took = time.monotonic() - began
        assert took < QUICK, f"status took {took:.2f} s"

    def check(self) -> None:
        """Assert that daemon and good job are who they were, and that the daemon met nothing unexpected."""
        assert self.daemon.process
        assert self.daemon.process.poll() is None, f"the daemon is gone\n{self.daemon.output()}"
        assert self.daemon.client().version()["pid"] == self.daemon_pid
        good = self.daemon.job("good")
        assert (good["state"], good["pid"], good["restarts"]) == ("RUNNING", self.pid, 0)
        os.kill(self.pid, 0)
        assert not self.calm or "Traceback" not in self.daemon.output(), self.daemon.output()
        self.quick()


def answer(data: bytes) -> Answer:
    """Return the HTTP answer in some bytes."""
    head, _, body = data.partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    pairs = (line.partition(":") for line in lines[1:])
    return Answer(int(lines[0].split()[1]), {name.lower(): value.strip() for name, _, value in pairs}, body)


@contextmanager
def guarded(
    tmp_path: Path, config: dict[str, Any] | str = "", *, program: Sequence[str] = ()
) -> Iterator[Guarded]:
    """Start a daemon with the good job; check all of it at the end. program: how to start maestrod."""
    daemon = Daemon(tmp_path / "device", config if isinstance(config, str) else json.dumps(config))
    if program:
        daemon.program = program
    try:
        daemon.start()
        task = daemon.apply({"config": "running", "jobs": [GOOD]})
        assert task["status"] == "complete", task
        pid = daemon.job("good")["pid"]
        device = Guarded(daemon, tmp_path, pid, daemon.client().version()["pid"])
        yield device
        if not device.over:
            device.check()
    finally:
        daemon.close()


class Shared:
    """One guarded daemon for many quick tests; one that failed its check is replaced."""

    def __init__(self, directory: Callable[[], Path]) -> None:
        self._directory = directory
        self._stack = ExitStack()
        self._device: Guarded | None = None

    @contextmanager
    def lend(self) -> Iterator[Guarded]:
        """Return the device for one test; afterwards check it, and put it back if something was applied."""
        if self._device is None:
            self._device = self._stack.enter_context(guarded(self._directory()))
        device = self._device
        try:
            yield device
            device.check()
            if device.daemon.client().running_config() != device.document(date=0, **EMPTY):
                device.daemon.apply(device.document(), force=True)
        except BaseException:
            self._device = None
            device.calm = False
            self._stack, spoilt = ExitStack(), self._stack
            device.daemon.close()
            device.over = True
            spoilt.close()
            raise

    def close(self) -> None:
        """End the daemon."""
        self._stack.close()


def patched(line: str) -> tuple[str, ...]:
    """Return a maestrod in which a line of Python was executed first, for faults nobody can provoke."""
    return (
        sys.executable,
        "-c",
        f"{line}\nfrom maestro_py.daemon import main\nraise SystemExit(main.main())",
    )
