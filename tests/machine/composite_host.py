# SPDX-License-Identifier: Apache-2.0
"""A composite host under test: the real program, its stdin as the daemon writes it, a socket with configs."""

from __future__ import annotations

import json
import os
import signal
import socketserver
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

TEMPLATES = Path(__file__).resolve().parents[2] / "templates"
WAIT = 20.0


class Configs:
    """`GET /jobConfig/<job>/<name>` on a socket: 200 with what is there, else 204; `broken` gets 500."""

    def __init__(self, path: str, stored: Mapping[tuple[str, str], Mapping[str, str]]) -> None:
        self.path = path
        self.stored = stored
        self.asked: list[str] = []


@contextmanager
def config_socket(tmp_path: Path, stored: Mapping[tuple[str, str], Mapping[str, str]]) -> Iterator[Configs]:
    configs = Configs(str(tmp_path / "api.sock"), stored)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            configs.asked.append(self.path)
            _, _, job, name = self.path.split("/")
            found = stored.get((job, name))
            if name == "broken":
                self.send_error(500)
                return
            self.send_response(200 if found else 204)
            body = json.dumps({"configs": [{"name": name, "job": job, **found}]}).encode() if found else b""
            if found:
                self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def address_string(self) -> str:
            return "unix"

        def log_message(self, *args: Any) -> None:
            pass

    class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
        daemon_threads = False

    with Server(configs.path, Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield configs
        finally:
            server.shutdown()
            thread.join()


class Host:
    """A running host. `out` holds the lines read from stdout so far."""

    def __init__(
        self,
        argv: list[str],
        modules: Mapping[str, Mapping[str, Any]] | str,
        *,
        socket: str = "",
        process_config: Any = None,
        env: Mapping[str, str] | None = None,
        errors: Path,
    ) -> None:
        if isinstance(modules, str):
            message = modules
        else:
            message = json.dumps(
                {
                    "moduleconfigs": {name: {"job": name, **rest} for name, rest in modules.items()},
                    "process_config": process_config,
                    "maestro_user_socket_path": socket,
                }
            )
        self.errors = errors
        self.out: list[str] = []
        with errors.open("w") as stderr:
            self.process = subprocess.Popen(
                argv,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                env={"PATH": os.environ["PATH"], **(env or {})},
                text=True,
            )
        # A host that waits for ever would hold the test: the deadline ends it and the reads below see EOF.
        self.deadline = threading.Timer(WAIT, self.process.kill)
        self.deadline.start()
        assert self.process.stdin
        self.process.stdin.write(message)
        self.process.stdin.close()

    def until(self, text: str) -> list[str]:
        """Read stdout until a line is `text`; return the lines before it."""
        assert self.process.stdout
        start = len(self.out)
        for line in self.process.stdout:
            self.out.append(line.rstrip("\n"))
            if self.out[-1] == text:
                return self.out[start:-1]
        raise AssertionError(f"no line {text!r}; stdout {self.out}, stderr {self.stderr}")

    def end(self, signum: signal.Signals | None = None) -> int:
        """Send a signal if one is named, read stdout to its end and return the exit status."""
        if signum:
            self.process.send_signal(signum)
        assert self.process.stdout
        self.out += [line.rstrip("\n") for line in self.process.stdout]
        return self.process.wait()

    @property
    def stderr(self) -> str:
        return self.errors.read_text()

    def close(self) -> None:
        self.deadline.cancel()
        self.deadline.join()
        self.process.kill()
        self.process.wait()
        assert self.process.stdout
        self.process.stdout.close()


def python_host() -> list[str]:
    return [sys.executable, str(TEMPLATES / "python-modules" / "host.py")]


def devicejs_host() -> list[str]:
    return ["node", str(TEMPLATES / "devicejs" / "host.js")]
