# SPDX-License-Identifier: Apache-2.0
"""A daemon's socket with canned answers: a real Unix socket and real HTTP, no daemon behind it."""

from __future__ import annotations

import json
import os
import socketserver
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

import maestro_py
from maestro_py.cli.main import main


class Lines(list[Any]):
    """An answer sent as a stream: JSON objects as NDJSON, bytes as they are."""


@dataclass
class Request:
    method: str
    path: str
    query: dict[str, list[str]]
    body: Any


class StubDaemon:
    """Answers by (method, path): a dict, (status, dict), Lines, or a function of the request to one."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.answers: dict[tuple[str, str], Any] = {}
        self.requests: list[Request] = []
        stub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def address_string(self) -> str:
                return "socket"

            def log_message(self, *_: object) -> None:
                pass

            def handle_any(self) -> None:
                url = urlsplit(self.path)
                size = int(self.headers.get("content-length") or 0)
                raw = self.rfile.read(size)
                request = Request(
                    self.command, url.path, parse_qs(url.query), json.loads(raw) if raw else None
                )
                stub.requests.append(request)
                answer = stub.answers.get((self.command, url.path))
                if callable(answer):
                    answer = answer(request)
                if answer is None:
                    message = f"cannot find {url.path}: the stub has no answer"
                    answer = (
                        404,
                        {"status": 404, "code": "not-found", "title": message, "hint": "", "problems": []},
                    )
                if isinstance(answer, Lines):
                    self.stream(answer)
                else:
                    self.answer(answer)

            do_GET = do_POST = do_PUT = do_DELETE = handle_any

            def answer(self, answer: Any) -> None:
                status, body = answer if isinstance(answer, tuple) else (200, answer)
                data = json.dumps(body).encode()
                kind = "application/json" if status < 400 else "application/problem+json"
                self.send_response(status)
                self.send_header("content-type", kind)
                self.send_header("content-length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def stream(self, answer: Lines) -> None:
                self.send_response(200)
                self.send_header("content-type", "application/x-ndjson")
                self.send_header("transfer-encoding", "chunked")
                self.end_headers()
                try:
                    for item in answer:
                        if isinstance(item, threading.Event):
                            item.wait(20)
                            continue
                        data = item if isinstance(item, bytes) else json.dumps(item).encode() + b"\n"
                        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
                        self.wfile.flush()
                    self.wfile.write(b"0\r\n\r\n")
                except (BrokenPipeError, ConnectionResetError):
                    pass
                self.close_connection = True

        class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
            daemon_threads = False
            block_on_close = True

        self._server = Server(path, Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def asked(self) -> list[tuple[str, str]]:
        return [(request.method, request.path) for request in self.requests]


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[StubDaemon]:
    stub = StubDaemon(str(tmp_path / "maestro.sock"))
    yield stub
    stub.close()


@dataclass
class Result:
    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Run = Callable[..., Result]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """Run a command line in this process, against the stub when there is one; 80 columns, no terminal."""
    monkeypatch.setenv("MAESTRO_SOCKET", str(tmp_path / "maestro.sock"))
    monkeypatch.setenv("TZ", "UTC")
    monkeypatch.delenv("COLUMNS", raising=False)

    def run_one(*words: str) -> Result:
        capsys.readouterr()
        status = main(list(words))
        out, err = capsys.readouterr()
        return Result(status, out, err)

    return run_one


@pytest.fixture
def spawn(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Start the command as a process of its own; it is ended with the test."""
    started: list[subprocess.Popen[bytes]] = []

    def start(*words: str, env: dict[str, str] | None = None, **how: Any) -> subprocess.Popen[bytes]:
        environment = {**os.environ, "MAESTRO_SOCKET": str(tmp_path / "maestro.sock"), **(env or {})}
        environment.pop("COLUMNS", None)
        places = [os.path.dirname(os.path.dirname(maestro_py.__file__)), environment.get("PYTHONPATH", "")]
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, places))
        process = subprocess.Popen(
            [sys.executable, "-m", "maestro_py.cli", *words],
            env=environment,
            **{"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **how},
        )
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()


def job(name: str, state: str = "RUNNING", **values: Any) -> dict[str, Any]:
    """A job as the API's status has it."""
    running = state == "RUNNING"
    return {
        "job": name,
        "state": state,
        "pid": 100 if running else None,
        "composite_id": "",
        "template": "binary",
        "restarts": 0,
        "image_version": "1.0",
        "since": 1_700_000_000.0,
        "cause": "",
        "memory": None,
        "ready": running,
        "enabled": True,
        "process": name,
        **values,
    }


def task(status: str = "complete", task_id: str = "t1", **values: Any) -> dict[str, Any]:
    """A task as the API has it."""
    return {
        "task_id": task_id,
        "kind": "apply",
        "subject": "running config",
        "status": status,
        "created": 1_700_000_000.0,
        "ended": None if status in ("queued", "running") else 1_700_000_002.5,
        "error": None,
        "progress": [],
        "messages": [],
        "waits_for": [],
        **values,
    }


def part(
    done: int, state: str = "running", subject: str = "web", total: int | None = 1 << 20
) -> dict[str, Any]:
    """One part of a task's progress."""
    return {"subject": subject, "what": "fetch image", "done": done, "total": total, "state": state}


def problem(status: int, code: str, title: str, hint: str = "") -> tuple[int, dict[str, Any]]:
    """An error as the API sends it."""
    return status, {"status": status, "code": code, "title": title, "hint": hint, "problems": []}


@pytest.fixture
def make() -> Any:
    """The makers of canned values, as attributes."""

    class Make:
        pass

    for maker in (job, task, part, problem):
        setattr(Make, maker.__name__, staticmethod(maker))
    Make.lines = Lines  # type: ignore[attr-defined]
    return Make
