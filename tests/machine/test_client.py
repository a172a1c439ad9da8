# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.apiserver import ApiServer

from maestro_py.client import Client
from maestro_py.client.lines import Lines
from maestro_py.client.stream import Stream
from maestro_py.daemon.http import Request, Response, json_response
from maestro_py.daemon.http import Stream as Answer
from maestro_py.daemon.loop import Loop
from maestro_py.daemon.router import Role, Route
from maestro_py.errors import (
    Conflict,
    Forbidden,
    InvalidDocument,
    MaestroError,
    NotFound,
    Problem,
    TimedOut,
    Unavailable,
    Unsupported,
)


class Handlers:
    """Tell what was asked, or answer in the ways a daemon may."""

    def __init__(self) -> None:
        self.loop: Loop
        self.ended = threading.Event()

    async def tell(self, request: Request) -> Response:
        body = request.json() if request.body else None
        return json_response([request.method, request.path, request.query, body])

    async def nothing(self, request: Request) -> Response:
        return Response(204)

    async def raw(self, request: Request) -> Response:
        return Response(body=request.body[::-1], content_type="application/octet-stream")

    async def slow(self, request: Request) -> Response:
        await self.loop.sleep(request.number("wait", 0.3))
        return json_response("late")

    async def fail(self, request: Request) -> Response:
        problems = [Problem("jobs[0].x", "is wrong", "do it right", 3), Problem("", "is odd")]
        raise {
            "not-found": NotFound("cannot find it", hint="look there"),
            "conflict": Conflict("cannot do it"),
            "forbidden": Forbidden("cannot do it"),
            "unsupported": Unsupported("cannot do it"),
            "timeout": TimedOut("cannot wait"),
            "failed": MaestroError("cannot do it"),
            "odd": MaestroError("cannot do it", code="odd"),
            "invalid": InvalidDocument("/etc/x: y.json", problems),
        }[request.params["how"]]

    async def plain_failure(self, request: Request) -> Response:
        return Response(502, b"Bad gateway", "text/plain")

    async def logs(self, request: Request) -> Answer:
        return Answer(self._logs(request.flag("follow"), request.number("n", 3)), content_type="text/plain")

    async def _logs(self, follow: bool, count: int) -> AsyncIterator[bytes]:
        try:
            for i in range(count):
                yield b"line %d\n" % i
            if follow:
                await self.loop.sleep(3600)
        finally:
            self.ended.set()

    async def events(self, request: Request) -> Answer:
        async def chunks() -> AsyncIterator[bytes]:
            text = b"".join(json.dumps({"id": i, "message": "ü" * i}).encode() + b"\n" for i in range(1, 30))
            for i in range(0, len(text), 7):  # cuts lines wherever it likes
                yield text[i : i + 7]
            if request.flag("cut"):
                raise ValueError("cut")

        return Answer(chunks(), content_type="application/x-ndjson")


@pytest.fixture
def handlers() -> Handlers:
    return Handlers()


@pytest.fixture
def api(tmp_path: Path, handlers: Handlers) -> Iterator[ApiServer]:
    routes = [
        Route("GET", "/nothing", "nothing"),
        Route("POST", "/raw", "raw"),
        Route("GET", "/fail/{how}", "fail"),
        Route("GET", "/plain", "plain_failure"),
        Route("GET", "/v1/version", "slow"),
        Route("GET", "/v1/tasks/slow", "slow"),
        Route("GET", "/v1/jobs/{job}/logs", "logs"),
        Route("GET", "/v1/events", "events"),
    ]
    segments = ("", "/{a}", "/{a}/{b}", "/{a}/{b}/{c}", "/{a}/{b}/{c}/{d}")
    routes += [
        Route(method, s or "/", "tell", Role.READ)
        for s in segments
        for method in ("GET", "POST", "PUT", "DELETE")
    ]
    api = ApiServer(str(tmp_path / "s"), routes, handlers=handlers, max_body=1 << 20)
    handlers.loop = api.loop
    with api:
        yield api


@pytest.fixture
def client(api: ApiServer) -> Client:
    return Client(api.path, timeout=10)


DOC = {"jobs": [{"job": "wéb"}]}


@pytest.mark.parametrize(
    ("call", "method", "path", "query", "body"),
    [
        (lambda c: c.doctor(), "GET", "/v1/doctor", {}, None),
        (lambda c: c.shutdown(), "POST", "/v1/shutdown", {}, {"jobs": None}),
        (lambda c: c.shutdown("keep"), "POST", "/v1/shutdown", {}, {"jobs": "keep"}),
        (lambda c: c.apply(DOC), "POST", "/v1/apply", {}, DOC),
        (lambda c: c.apply(DOC, dry_run=True), "POST", "/v1/apply", {"dry_run": ["1"]}, DOC),
        (lambda c: c.apply(DOC, force=True), "POST", "/v1/apply", {"force": ["1"]}, DOC),
        (lambda c: c.check(DOC), "POST", "/v1/check", {}, DOC),
        (lambda c: c.diff(DOC), "POST", "/v1/diff", {}, DOC),
        (lambda c: c.running_config(), "GET", "/v1/running-config", {}, None),
        (lambda c: c.status(), "GET", "/v1/status", {}, None),
        (lambda c: c.status(["a b", "c&d"]), "GET", "/v1/status", {"job": ["a b", "c&d"]}, None),
        (lambda c: c.action("a/b", "restart"), "POST", "/v1/jobs/a%2Fb/restart", {}, None),
        (lambda c: c.kill("web", "SIGHUP"), "POST", "/v1/jobs/web/kill", {}, {"signal": "SIGHUP"}),
        (lambda c: c.why("é"), "GET", "/v1/jobs/%C3%A9/why", {}, None),
        (lambda c: c.tasks(), "GET", "/v1/tasks", {}, None),
        (lambda c: c.task("7"), "GET", "/v1/tasks/7", {}, None),
        (lambda c: c.task("7", wait=2.5), "GET", "/v1/tasks/7", {"wait": ["2.5"]}, None),
        (lambda c: c.images(), "GET", "/v1/images", {}, None),
        (lambda c: c.configs(), "GET", "/v1/configs", {}, None),
        (lambda c: c.config_get("a", "b"), "GET", "/v1/configs/a/b", {}, None),
        (lambda c: c.config_put("a", "b", {"data": "x"}), "PUT", "/v1/configs/a/b", {}, {"data": "x"}),
        (lambda c: c.config_delete("a", "b"), "DELETE", "/v1/configs/a/b", {}, None),
        (lambda c: c.templates(), "GET", "/v1/templates", {}, None),
        (lambda c: c.template("x?"), "GET", "/v1/templates/x%3F", {}, None),
        (
            lambda c: c.request("PUT", "/a", {"x": 0, "y": None, "z": False}, []),
            "PUT",
            "/a",
            {"x": ["0"]},
            [],
        ),
    ],
)
def test_each_call_asks_what_the_api_says(
    client: Client, call: Callable[[Client], Any], method: str, path: str, query: Any, body: Any
) -> None:
    assert call(client) == [method, path, query, body]


def test_answers_without_json_are_bytes_or_none(client: Client) -> None:
    assert client.request("GET", "/nothing") is None
    assert client.request("POST", "/raw", body=b"abc") == b"cba"
    data = os.urandom(1 << 20)
    assert client.request("POST", "/raw", body=data) == data[::-1]


@pytest.mark.parametrize(
    ("how", "kind"),
    [
        ("not-found", NotFound),
        ("conflict", Conflict),
        ("forbidden", Forbidden),
        ("unsupported", Unsupported),
        ("timeout", TimedOut),
        ("failed", MaestroError),
        ("odd", MaestroError),
    ],
)
def test_an_error_arrives_as_it_was_raised(client: Client, how: str, kind: type[MaestroError]) -> None:
    with pytest.raises(MaestroError) as caught:
        client.request("GET", f"/fail/{how}")
    assert type(caught.value) is kind
    assert caught.value.code == how
    if how == "not-found":
        assert (caught.value.message, caught.value.hint) == ("cannot find it", "look there")


def test_an_invalid_document_arrives_with_its_problems(client: Client) -> None:
    with pytest.raises(InvalidDocument) as caught:
        client.request("GET", "/fail/invalid")
    error = caught.value
    assert error.source == "/etc/x: y.json"
    assert error.problems == (Problem("jobs[0].x", "is wrong", "do it right", 3), Problem("", "is odd"))
    assert str(error) == str(InvalidDocument("/etc/x: y.json", error.problems))


def test_a_failure_that_is_no_problem_document_names_the_status(client: Client) -> None:
    with pytest.raises(MaestroError, match="answered with status 502"):
        client.request("GET", "/plain")


def test_a_body_that_is_refused_while_it_is_sent_gives_the_reason(client: Client) -> None:
    with pytest.raises(MaestroError, match=r"larger than 1\.0M") as caught:
        client.request("POST", "/raw", body=b"." * 50_000_000)
    assert caught.value.code == "too-large"


def test_names_that_are_no_utf8_are_refused_by_the_daemon_not_by_a_traceback(client: Client) -> None:
    with pytest.raises(MaestroError, match="percent-encoding"):
        client.why("caf\udce9")


# Streams


def test_logs_come_in_pieces(client: Client) -> None:
    assert list(client.logs("web")) == [b"line 0\n", b"line 1\n", b"line 2\n"]
    assert b"".join(client.logs("web", 1)) == b"line 0\n"


def test_closing_a_stream_ends_it_at_the_daemon(client: Client, handlers: Handlers) -> None:
    with client.logs("web", follow=True) as stream:
        assert next(stream) == b"line 0\n"
    assert handlers.ended.wait(10)
    assert list(stream) == []
    stream.close()


def test_a_stream_may_pause_longer_than_the_timeout(api: ApiServer, handlers: Handlers) -> None:
    read: list[bytes] = []

    def read_all() -> None:
        with Client(api.path, timeout=0.05).logs("web", follow=True) as stream:
            try:
                read.extend(stream)
            except Unavailable as error:
                read.append(error.message.encode())

    waiting = threading.Thread(target=read_all)
    waiting.start()
    waiting.join(0.2)
    assert waiting.is_alive()
    api.call(api.server.close)
    waiting.join(10)
    assert not waiting.is_alive()
    assert b"".join(read).startswith(b"line 0\nline 1\nline 2\ncannot read the answer")


def test_a_stream_that_breaks_off_is_an_error(api: ApiServer, client: Client) -> None:
    with (
        client.stream("GET", "/v1/events", {"cut": True}) as stream,
        pytest.raises(Unavailable, match="too early"),
    ):
        list(stream)
    assert len(api.errors) == 1


def test_events_are_whole_values_however_they_were_cut(client: Client) -> None:
    events = list(client.events())
    assert [event["id"] for event in events] == list(range(1, 30))
    assert events[4]["message"] == "üüüüü"
    with client.events() as lines:
        assert next(lines)["id"] == 1


def test_following_a_task_takes_the_task_path(client: Client) -> None:
    with client.stream("GET", "/v1/tasks/7", {"follow": True}) as stream:
        assert json.loads(b"".join(stream)) == ["GET", "/v1/tasks/7", {"follow": ["1"]}, None]
    with client.follow_task("7") as lines:
        assert isinstance(lines, Lines)


# When there is no daemon, or none that answers


def test_no_daemon_says_where_it_was_sought_and_what_to_do(tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    with pytest.raises(Unavailable) as caught:
        Client(path).status()
    assert caught.value.message == f"cannot reach maestrod at {path}: No such file or directory"
    assert "start it with `maestrod`" in caught.value.hint
    assert "--socket" in caught.value.hint
    with pytest.raises(Unavailable) as caught:
        Client(str(tmp_path / "device" / "run" / "maestro.sock")).status()
    assert f"start it with `maestrod --root {tmp_path / 'device'}`" in caught.value.hint
    with pytest.raises(Unavailable, match="No such file"):
        Client(path).logs("web")


def test_other_reasons_not_to_reach_it_are_told_too(tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX) as old:
        old.bind(path)
    with pytest.raises(Unavailable, match="Connection refused"):
        Client(path).version()
    with pytest.raises(Unavailable, match="too long"):
        Client("/" + "x" * 200).version()


def test_a_daemon_that_does_not_answer_is_given_up(api: ApiServer) -> None:
    with pytest.raises(TimedOut, match=f"cannot get an answer from maestrod at {api.path}"):
        Client(api.path, timeout=0.05).version()
    assert Client(api.path, timeout=None).version() == "late"


def test_waiting_for_a_task_is_given_its_time_on_top(api: ApiServer) -> None:
    assert Client(api.path, timeout=0.2).task("slow", wait=0.4) == "late"


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (b"", "too early"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "not HTTP"),
        (b"HTTP/1.1 200 OK\r\nContent-Le", "too early"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc", "too early"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", "no size"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: soon\r\n\r\n", "no number"),
        (b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 1\r\n\r\n{", "not JSON"),
        (b"HTTP/1.1 500 X\r\nContent-Type: application/json\r\nContent-Length: 1\r\n\r\n{", "not JSON"),
    ],
)
def test_an_answer_that_makes_no_sense_is_an_error_for_people(tmp_path: Path, said: bytes, why: str) -> None:
    path = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()

        def answer() -> None:
            sock, _ = listener.accept()
            with sock:
                sock.recv(1000)
                sock.sendall(said)

        thread = threading.Thread(target=answer)
        thread.start()
        try:
            with pytest.raises(Unavailable, match=why):
                Client(path, timeout=10).status()
        finally:
            thread.join(10)


def test_an_informational_answer_is_passed_over(tmp_path: Path) -> None:
    mine, other = socket.socketpair()
    with other:
        other.sendall(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n\r\nall there is")
        other.shutdown(socket.SHUT_WR)
        with Stream(mine, "x") as stream:
            assert b"".join(stream) == b"all there is"


def test_the_socket_is_named_by_argument_environment_or_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MAESTRO_SOCKET", raising=False)
    assert Client().socket_path == "/run/maestro/maestro.sock"
    monkeypatch.setenv("MAESTRO_SOCKET", "/tmp/x")
    assert Client().socket_path == "/tmp/x"
    assert Client("/tmp/y").socket_path == "/tmp/y"


def test_importing_the_client_stays_cheap() -> None:
    heavy = {
        "http",
        "urllib",
        "email",
        "ssl",
        "asyncio",
        "logging",
        "subprocess",
        "threading",
        "typing",
        "h11",
    }
    code = (
        "import sys; before = set(sys.modules); import maestro_py.client; print(*set(sys.modules) - before)"
    )
    found = subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.PIPE, text=True)
    assert not heavy & {name.partition(".")[0] for name in found.stdout.split()}
