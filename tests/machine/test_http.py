# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import os
import resource
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from support.apiserver import ApiServer

from maestro_py.daemon.http import Peer, Request, Response, Server, Stream, json_response
from maestro_py.daemon.loop import Loop
from maestro_py.daemon.router import Role, Route, Router
from maestro_py.errors import Conflict, Forbidden, InvalidDocument, MaestroError, NotFound, Problem

ME = os.getpid()


class Handlers:
    """The routes of these tests, and what happened in them."""

    def __init__(self) -> None:
        self.loop: Loop
        self.began = threading.Event()
        self.ended = threading.Event()
        self.produced = 0

    async def echo(self, request: Request) -> Response:
        return json_response(
            {
                "method": request.method,
                "path": request.path,
                "query": request.query,
                "params": request.params,
                "size": len(request.body),
                "peer": [request.peer.pid, request.peer.uid, request.peer.gid],
                "agent": dict(request.headers).get(b"user-agent", b"").decode(),
            }
        )

    async def read_json(self, request: Request) -> Response:
        return json_response(
            {"got": request.json(), "force": request.flag("force"), "n": request.number("n", 7)}
        )

    async def wait(self, request: Request) -> Response:
        self.began.set()
        try:
            await self.loop.sleep(float(request.first("s", "3600")))
        finally:
            self.ended.set()
        return json_response("waited")

    async def fail(self, request: Request) -> Response:
        raise {
            "not-found": NotFound("cannot find job web: it is not known", hint="did you mean `web2`?"),
            "conflict": Conflict("cannot do it: busy"),
            "odd": MaestroError("cannot do it: odd", code="never-heard-of"),
            "invalid": InvalidDocument("running config", [Problem("jobs[0]", "is wrong", "do it right", 3)]),
            "bug": ZeroDivisionError("secret detail"),
        }[request.params["how"]]

    async def nothing(self, request: Request) -> Response:
        return Response(204)

    async def count(self, request: Request) -> Stream:
        return Stream(
            self._count(request.number("to", 3), request.number("size", 0)), content_type="text/plain"
        )

    async def _count(self, to: int, size: int) -> AsyncIterator[bytes]:
        try:
            for i in range(to):
                self.produced = i
                self.began.set()
                yield b"%d\n" % i + b"." * size
            if to == 5:
                raise ValueError("broke at five")
        finally:
            self.ended.set()

    async def follow(self, request: Request) -> Stream:
        return Stream(self._follow())

    async def _follow(self) -> AsyncIterator[bytes]:
        try:
            yield b"first\n"
            self.began.set()
            await self.loop.sleep(3600)
        finally:
            await self.loop.sleep(0)
            self.ended.set()

    @staticmethod
    def routes() -> list[Route]:
        return [
            Route("GET", "/echo", "echo", Role.READ),
            Route("POST", "/echo", "echo", Role.OPERATE),
            Route("GET", "/echo/{name}", "echo", Role.READ),
            Route("POST", "/json", "read_json"),
            Route("GET", "/wait", "wait"),
            Route("GET", "/fail/{how}", "fail"),
            Route("GET", "/nothing", "nothing"),
            Route("GET", "/count", "count"),
            Route("GET", "/follow", "follow"),
        ]


Start = Callable[..., ApiServer]


@pytest.fixture
def handlers() -> Handlers:
    return Handlers()


@pytest.fixture
def start(tmp_path: Path, handlers: Handlers) -> Iterator[Start]:
    running: list[ApiServer] = []

    def start(directory: str = str(tmp_path), **options: Any) -> ApiServer:
        api = ApiServer(f"{directory}/s", handlers.routes(), handlers=handlers, **options)
        handlers.loop = api.loop
        running.append(api.__enter__())
        return api

    yield start
    for api in running:
        api.__exit__()
        assert not os.path.exists(api.path)


@pytest.fixture
def api(start: Start) -> Iterator[ApiServer]:
    api = start()
    yield api
    assert api.errors == []


class Wire:
    """A client that says exactly what a test wants said."""

    def __init__(self, path: str) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(10)
        self.sock.connect(path)
        self.file = self.sock.makefile("rb")

    def __enter__(self) -> Wire:
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()
        self.sock.close()

    def send(self, *lines: str, body: bytes = b"") -> None:
        self.sock.sendall("\r\n".join([*lines, "Host: x", "", ""]).encode() + body)

    def head(self) -> tuple[int, dict[str, str]]:
        line = self.file.readline()
        assert line.startswith(b"HTTP/1.1 "), line
        headers = {}
        while (header := self.file.readline().strip()) != b"":
            name, _, value = header.decode().partition(": ")
            headers[name.lower()] = value
        return int(line.split()[1]), headers

    def answer(self) -> tuple[int, dict[str, str], bytes]:
        status, headers = self.head()
        if headers.get("transfer-encoding") == "chunked":
            body = b""
            while size := int(self.file.readline(), 16):
                body += self.file.read(size)
                self.file.readline()
            self.file.readline()
            return status, headers, body
        return status, headers, self.file.read(int(headers.get("content-length", "0")))

    def ask(self, *lines: str, body: bytes = b"") -> tuple[int, dict[str, str], bytes]:
        self.send(*lines, body=body)
        return self.answer()

    def at_end(self) -> bool:
        return self.file.read(1) == b""


@pytest.fixture
def wire(api: ApiServer) -> Iterator[Wire]:
    with Wire(api.path) as wire:
        yield wire


def wait_until_free(api: ApiServer) -> None:
    """Return when the server has no connection left."""
    end = time.monotonic() + 10
    while api.ask(lambda: len(api.server._connections)):
        assert time.monotonic() < end
        time.sleep(0.005)


def title(body: bytes) -> str:
    return str(json.loads(body)["title"])


# Requests


def test_a_handler_sees_the_whole_request_and_who_asks(wire: Wire) -> None:
    status, headers, body = wire.ask("GET /echo/a%2Fb?x=1&x=2&y HTTP/1.1", "User-Agent: me")
    assert status == 200
    assert headers["content-type"] == "application/json"
    assert json.loads(body) == {
        "method": "GET",
        "path": "/echo/a%2Fb",
        "query": {"x": ["1", "2"], "y": [""]},
        "params": {"name": "a/b"},
        "size": 0,
        "peer": [ME, os.getuid(), os.getgid()],
        "agent": "me",
    }


def test_a_connection_serves_many_requests(wire: Wire) -> None:
    for _ in range(50):
        assert wire.ask("GET /echo HTTP/1.1")[0] == 200


def test_requests_sent_ahead_are_answered_in_order(wire: Wire) -> None:
    for i in range(20):
        wire.send(f"GET /echo/{i} HTTP/1.1")
    for i in range(20):
        assert json.loads(wire.answer()[2])["params"]["name"] == str(i)


def test_http_1_0_and_connection_close_end_the_connection(api: ApiServer) -> None:
    for lines in (("GET /echo HTTP/1.0",), ("GET /echo HTTP/1.1", "Connection: close")):
        with Wire(api.path) as wire:
            status, headers, _ = wire.ask(*lines)
            assert (status, headers["connection"]) == (200, "close")
            assert wire.at_end()


def test_bodies_come_with_a_length_or_in_chunks(wire: Wire) -> None:
    body = os.urandom(1 << 20)
    assert (
        json.loads(wire.ask("POST /echo HTTP/1.1", f"Content-Length: {len(body)}", body=body)[2])["size"]
        == 1 << 20
    )
    chunks = b"5\r\nhello\r\n6;x=y\r\n world\r\n0\r\n\r\n"
    assert (
        json.loads(wire.ask("POST /echo HTTP/1.1", "Transfer-Encoding: chunked", body=chunks)[2])["size"]
        == 11
    )


def test_a_client_that_waits_for_100_continue_gets_it(wire: Wire) -> None:
    wire.send("POST /echo HTTP/1.1", "Content-Length: 3", "Expect: 100-continue")
    assert wire.head()[0] == 100
    wire.sock.sendall(b"abc")
    assert json.loads(wire.answer()[2])["size"] == 3


def test_a_request_may_come_byte_by_byte(wire: Wire) -> None:
    for byte in b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nab":
        wire.sock.sendall(bytes((byte,)))
    assert json.loads(wire.answer()[2])["size"] == 2


def test_a_client_that_has_said_all_it_wants_still_gets_its_answer(wire: Wire) -> None:
    wire.send("GET /wait?s=0.02 HTTP/1.1")
    wire.sock.shutdown(socket.SHUT_WR)
    assert wire.answer()[2] == b'"waited"'
    assert wire.at_end()


@pytest.mark.parametrize(
    ("query", "expected"),
    [("", (False, 7)), ("?force", (True, 7)), ("?force=True&n=12", (True, 12)), ("?force=0", (False, 7))],
)
def test_json_flags_and_numbers_are_read(wire: Wire, query: str, expected: tuple[bool, int]) -> None:
    _, _, body = wire.ask(f"POST /json{query} HTTP/1.1", "Content-Length: 9", body=b'{"a": []}')
    assert json.loads(body) == {"got": {"a": []}, "force": expected[0], "n": expected[1]}


@pytest.mark.parametrize(
    ("query", "body", "why"),
    [
        ("", b"", "it is empty"),
        ("", b'{\n "a": 1\n "b"}', "line 3 column 2"),
        ("", b'"\xff"', "not UTF-8"),
        ("", b"[NaN]", "NaN is not a number a document may have"),
        ("", b"[-1e400]", "the number -1e400 is too large"),
        ("", b"[" * 100_000, "nested too deeply"),
        ("?force=maybe", b"1", "expected 1 or 0"),
        ("?n=-1", b"1", "whole number, 0 or more"),
        ("?n=1.5", b"1", "whole number, 0 or more"),
        ("?n=" + "9" * 40, b"1", "whole number, 0 or more"),
        ("?n=%zz", b"1", "percent-encoding"),
    ],
)
def test_what_cannot_be_read_is_a_bad_request(wire: Wire, query: str, body: bytes, why: str) -> None:
    status, headers, answer = wire.ask(
        f"POST /json{query} HTTP/1.1", f"Content-Length: {len(body)}", body=body
    )
    assert status == 400
    assert headers["content-type"] == "application/problem+json"
    assert json.loads(answer)["code"] == "bad-request"
    assert why in title(answer)
    assert wire.ask("GET /echo HTTP/1.1")[0] == 200


# Answers


def test_head_has_the_headers_of_get_and_no_body(wire: Wire, handlers: Handlers) -> None:
    _, get, _ = wire.ask("GET /echo HTTP/1.1")
    wire.send("HEAD /echo HTTP/1.1")
    status, headers = wire.head()
    assert status == 200
    assert int(headers["content-length"]) == int(get["content-length"]) + 1
    wire.send("HEAD /count HTTP/1.1")
    assert wire.head()[1]["content-type"] == "text/plain"
    assert not handlers.began.is_set()
    assert wire.ask("GET /echo HTTP/1.1")[0] == 200


def test_what_cannot_be_read_behind_a_head_request_is_told_why(wire: Wire) -> None:
    wire.sock.sendall(b"HEAD /echo HTTP/1.1\r\nHost: x\r\n\r\nnonsense\r\n\r\n")
    status, headers = wire.head()
    assert (status, int(headers["content-length"]) > 0) == (200, True)
    assert wire.answer()[0] == 400


def test_204_has_neither_body_nor_length(wire: Wire) -> None:
    wire.send("GET /nothing HTTP/1.1")
    status, headers = wire.head()
    assert status == 204
    assert not {"content-length", "content-type", "transfer-encoding"} & set(headers)
    assert wire.ask("GET /echo HTTP/1.1")[0] == 200


def test_unknown_paths_and_methods_are_problems_and_leave_the_connection_open(wire: Wire) -> None:
    status, headers, body = wire.ask("GET /nowhere HTTP/1.1")
    assert status == 404
    assert headers["content-type"] == "application/problem+json"
    assert json.loads(body) == {
        "status": 404,
        "code": "not-found",
        "title": "cannot GET /nowhere: there is no such path",
        "hint": "",
        "problems": [],
    }
    status, headers, body = wire.ask("DELETE /echo HTTP/1.1", "Content-Length: 2", body=b"{}")
    assert (status, headers["allow"]) == (405, "GET, HEAD, POST")
    assert json.loads(body)["code"] == "bad-request"
    assert wire.ask("GET /echo HTTP/1.1")[0] == 200


@pytest.mark.parametrize(
    ("how", "status", "code"),
    [("not-found", 404, "not-found"), ("conflict", 409, "conflict"), ("odd", 500, "never-heard-of")],
)
def test_an_error_of_a_handler_has_the_status_of_its_code(
    wire: Wire, how: str, status: int, code: str
) -> None:
    got, _, body = wire.ask(f"GET /fail/{how} HTTP/1.1")
    assert (got, json.loads(body)["code"]) == (status, code)
    if how == "not-found":
        assert json.loads(body)["hint"] == "did you mean `web2`?"


def test_an_invalid_document_lists_its_problems(wire: Wire) -> None:
    status, _, body = wire.ask("GET /fail/invalid HTTP/1.1")
    assert status == 422
    assert json.loads(body)["problems"] == [
        {"path": "jobs[0]", "message": "is wrong", "hint": "do it right", "line": 3}
    ]


def test_a_bug_is_a_500_without_details_and_reported(start: Start) -> None:
    api = start()
    with Wire(api.path) as wire:
        status, _, body = wire.ask("GET /fail/bug HTTP/1.1")
        assert status == 500
        assert b"secret" not in body
        assert wire.ask("GET /echo HTTP/1.1")[0] == 200
    assert [(what, type(error)) for what, error in api.errors] == [("GET /fail/bug", ZeroDivisionError)]


def test_a_bug_in_role_of_is_a_500_and_reported(start: Start) -> None:
    def broken(peer: Peer) -> Role:
        raise KeyError("groups")

    api = start(role_of=broken)
    with Wire(api.path) as wire:
        assert wire.ask("GET /echo HTTP/1.1")[0] == 500
    assert [type(error) for _, error in api.errors] == [KeyError]


# Streams


def test_a_stream_comes_in_chunks_and_the_connection_goes_on(wire: Wire) -> None:
    status, headers, body = wire.ask("GET /count?to=1000 HTTP/1.1")
    assert (status, headers["content-type"]) == (200, "text/plain")
    assert body == b"".join(b"%d\n" % i for i in range(1000))
    assert wire.ask("GET /echo HTTP/1.1")[0] == 200


def test_the_head_and_first_piece_of_a_stream_come_before_the_next_is_there(wire: Wire) -> None:
    wire.send("GET /follow HTTP/1.1")
    assert wire.head()[0] == 200
    assert wire.file.readline() == b"6\r\n"
    assert wire.file.readline() == b"first\n"


def test_an_error_in_a_stream_cuts_it_off_visibly(start: Start) -> None:
    api = start()
    with Wire(api.path) as wire:
        wire.send("GET /count?to=5 HTTP/1.1")
        wire.head()
        rest = wire.file.read()
        assert rest.endswith(b"4\n\r\n")
        assert b"0\r\n\r\n" not in rest
    assert [str(error) for _, error in api.errors] == ["broke at five"]


def test_http_1_0_gets_a_stream_that_ends_with_the_connection(wire: Wire) -> None:
    wire.send("GET /count HTTP/1.0")
    assert "transfer-encoding" not in wire.head()[1]
    assert wire.file.read() == b"0\n1\n2\n"


def test_a_stream_nobody_reads_is_not_produced_ahead(wire: Wire, handlers: Handlers) -> None:
    wire.send("GET /count?to=100000&size=10000 HTTP/1.1")
    wire.head()
    assert handlers.began.wait(10)
    produced = -1
    while produced != handlers.produced:
        produced = handlers.produced
        time.sleep(0.05)
    assert handlers.produced < 100
    assert not handlers.ended.is_set()


# Clients that go, dawdle or misbehave


@pytest.mark.parametrize("target", ["/wait", "/follow", "/count?to=1000000&size=10000"])
def test_a_client_that_goes_away_ends_the_handler(api: ApiServer, handlers: Handlers, target: str) -> None:
    with Wire(api.path) as wire:
        wire.send(f"GET {target} HTTP/1.1")
        assert handlers.began.wait(10)
    assert handlers.ended.wait(10)
    wait_until_free(api)


def test_a_body_that_is_too_large_is_refused_before_it_comes(start: Start) -> None:
    api = start(max_body=1000)
    with Wire(api.path) as wire:
        wire.send("POST /echo HTTP/1.1", "Content-Length: 1001", "Expect: 100-continue")
        status, headers, body = wire.answer()
        assert (status, headers["connection"], json.loads(body)["code"]) == (413, "close", "too-large")
        assert "1000B" in title(body)
        wire.sock.shutdown(socket.SHUT_WR)
        assert wire.at_end()
    with Wire(api.path) as wire:
        body = b"%x\r\n" % 3000 + b"." * 3000 + b"\r\n0\r\n\r\n"
        assert wire.ask("POST /echo HTTP/1.1", "Transfer-Encoding: chunked", body=body)[0] == 413
    with Wire(api.path) as wire:
        assert wire.ask("POST /echo HTTP/1.1", "Content-Length: 1000", body=b"." * 1000)[0] == 200


def test_a_client_that_sends_all_of_a_refused_body_can_read_why(start: Start) -> None:
    api = start(max_body=1000)
    with Wire(api.path) as wire:
        status, _, _ = wire.ask("POST /echo HTTP/1.1", "Content-Length: 8000000", body=b"." * 8_000_000)
        assert status == 413


@pytest.mark.parametrize(
    ("text", "status"),
    [
        (b"what is this\r\n\r\n", 400),
        (b"GET /echo HTTP/1.1\r\n\r\n", 400),  # no Host
        (b"GET /echo HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n", 400),
        (b"POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),  # TLS
        (b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"y" * 200_000, 431),
        (b"GET /" + b"y" * 200_000, 431),
    ],
)
def test_what_is_not_http_is_refused_and_the_connection_closed(wire: Wire, text: bytes, status: int) -> None:
    wire.sock.sendall(text)
    wire.sock.shutdown(socket.SHUT_WR)
    got, headers, body = wire.answer()
    assert (got, headers["connection"]) == (status, "close")
    assert json.loads(body)["code"] == "bad-request"
    assert wire.at_end()


def test_a_request_that_does_not_arrive_in_time_is_given_up(start: Start) -> None:
    api = start(patience=0.05)
    with Wire(api.path) as wire:
        wire.send("POST /echo HTTP/1.1", "Content-Length: 3")
        wire.sock.sendall(b"ab")
        status, _, body = wire.answer()
        assert (status, json.loads(body)["code"]) == (408, "timeout")
    with Wire(api.path) as wire:
        wire.sock.sendall(b"GET /ec")
        assert wire.answer()[0] == 408
    with Wire(api.path) as wire:
        assert wire.at_end()
    with Wire(api.path) as wire:
        assert wire.ask("GET /echo HTTP/1.1")[0] == 200
        assert wire.at_end()
    with Wire(api.path) as wire:
        assert wire.ask("GET /wait?s=0.2 HTTP/1.1")[0] == 200


def test_an_answer_nobody_takes_is_given_up(start: Start) -> None:
    async def big(request: Request) -> Response:
        return Response(body=b"." * 8_000_000)

    api = start(patience=0.05)
    api.ask(lambda: setattr(api.server, "router", Router([Route("GET", "/big", big)])))
    with Wire(api.path) as wire:
        wire.send("GET /big HTTP/1.1")
        wire.head()
        wait_until_free(api)
        assert len(wire.file.read()) < 8_000_000


def test_too_many_connections_are_told_so(start: Start) -> None:
    api = start(max_connections=4)
    held = [Wire(api.path) for _ in range(4)]
    try:
        for wire in held:
            assert wire.ask("GET /echo HTTP/1.1")[0] == 200
        with Wire(api.path) as wire:
            status, headers, body = wire.answer()
            assert (status, headers["connection"]) == (503, "close")
            assert json.loads(body)["code"] == "unavailable"
            assert wire.at_end()
    finally:
        for wire in held:
            wire.__exit__()
    wait_until_free(api)
    with Wire(api.path) as wire:
        assert wire.ask("GET /echo HTTP/1.1")[0] == 200


def test_running_out_of_descriptors_is_reported_and_survived(start: Start) -> None:
    api = start()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as late:
        late.settimeout(10)
        lowest_free = os.dup(late.fileno())
        os.close(lowest_free)
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free, hard))
        try:
            late.connect(api.path)
            end = time.monotonic() + 10
            while not api.errors and time.monotonic() < end:
                time.sleep(0.005)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        late.sendall(b"GET /echo HTTP/1.1\r\nHost: x\r\n\r\n")
        assert late.recv(100).startswith(b"HTTP/1.1 200")
    assert [what for what, _ in api.errors] == ["accept"]


# Roles


def test_a_role_opens_its_routes_and_no_more(start: Start) -> None:
    role = Role.READ
    api = start(role_of=lambda peer: role)
    with Wire(api.path) as wire:
        assert wire.ask("GET /echo HTTP/1.1")[0] == 200
        status, _, body = wire.ask("POST /echo HTTP/1.1", "Content-Length: 2", body=b"{}")
        assert (status, json.loads(body)["code"]) == (403, "forbidden")
        assert title(body).endswith("it takes the role operate, this user has read")
        role = Role.OPERATE
        assert wire.ask("POST /echo HTTP/1.1", "Content-Length: 2", body=b"{}")[0] == 200


def test_without_a_role_not_even_the_paths_are_told(start: Start) -> None:
    api = start(role_of=lambda peer: Role.NONE)
    with Wire(api.path) as wire:
        for path in ("/echo", "/nowhere"):
            status, _, body = wire.ask(f"GET {path} HTTP/1.1")
            assert status == 403
            assert title(body).startswith(f"cannot use the maestro socket as uid {os.getuid()}: ")


def test_whoever_gives_the_role_can_say_why_there_is_none(start: Start) -> None:
    def refuse(peer: Peer) -> Role:
        raise Forbidden(f"cannot use the maestro socket as uid {peer.uid}: not in group maestro")

    api = start(role_of=refuse)
    with Wire(api.path) as wire:
        status, _, body = wire.ask("GET /echo HTTP/1.1")
        assert status == 403
        assert title(body).endswith("not in group maestro")


def test_the_body_of_a_refused_request_is_not_kept(start: Start) -> None:
    api = start(role_of=lambda peer: Role.NONE)
    with Wire(api.path) as wire:
        wire.send("POST /echo HTTP/1.1", "Content-Length: 1000000", body=b"x")
        assert wire.answer()[0] == 403


def test_the_groups_of_a_peer_are_read_when_asked_for(start: Start) -> None:
    seen: list[frozenset[int]] = []

    def role_of(peer: Peer) -> Role:
        seen.append(peer.groups)
        assert peer.groups is peer.groups
        return Role.READ

    api = start(role_of=role_of)
    with Wire(api.path) as wire:
        assert wire.ask("GET /echo HTTP/1.1")[0] == 200
    assert seen == [frozenset(os.getgroups())]


GREEDY = """
import os, socket, sys
os.setgroups([4711, 4712])
os.setresgid(65533, 65533, 65533)
os.setresuid(65534, 65534, 65534)
held = [socket.socket(socket.AF_UNIX) for _ in range(8)]
answers = []
for sock in held:
    sock.connect(sys.argv[1])
    try:
        sock.sendall(b"GET /echo HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n")
    except BrokenPipeError:
        pass
    answers.append(sock.recv(100).split()[1].decode())
print(*answers, flush=True)
sys.stdin.read()
"""


@pytest.mark.root
def test_another_users_groups_and_share_of_connections(request: pytest.FixtureRequest) -> None:
    """A user who holds all connections she can get leaves some to root."""
    peers: list[tuple[int, int, frozenset[int]]] = []

    def role_of(peer: Peer) -> Role:
        peers.append((peer.uid, peer.gid, peer.groups))
        return Role.READ

    open_to_all = tempfile.mkdtemp()
    request.addfinalizer(lambda: os.rmdir(open_to_all))
    os.chmod(open_to_all, 0o755)
    api = request.getfixturevalue("start")(open_to_all, role_of=role_of, max_connections=8)
    greedy = subprocess.Popen(
        [sys.executable, "-I", "-c", GREEDY, api.path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with greedy:
        assert greedy.stdout is not None
        assert greedy.stdout.readline() == b"200 200 200 200 200 200 503 503\n"
        with Wire(api.path) as wire:
            assert wire.ask("GET /echo HTTP/1.1")[0] == 200
    assert greedy.returncode == 0
    assert peers[0] == (65534, 65533, frozenset((4711, 4712)))
    assert peers[-1][0] == os.getuid()


# Listening


@pytest.fixture
def server() -> Iterator[Server]:
    loop = Loop()
    server = Server(loop, Router([]), on_error=lambda *_: None, role_of=lambda _: Role.ADMIN)
    yield server
    server.close()
    loop.close()


def test_the_socket_has_its_mode_from_the_beginning_and_goes_at_the_end(
    server: Server, tmp_path: Path
) -> None:
    before = os.umask(0o022)
    try:
        server.listen(str(tmp_path / "a"))
        server.listen(str(tmp_path / "b"), 0o600)
        assert os.umask(0o022) == 0o022
    finally:
        os.umask(before)
    assert stat.S_IMODE(os.stat(tmp_path / "a").st_mode) == 0o666
    assert stat.S_IMODE(os.stat(tmp_path / "b").st_mode) == 0o600
    assert len(server.listening) == 2
    assert not any(os.get_inheritable(fd) for fd in server.listening)
    server.close()
    assert list(tmp_path.iterdir()) == []


def test_a_socket_nobody_answers_on_is_replaced(server: Server, tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX) as old:
        old.bind(path)
        old.listen()
    server.listen(path)
    with Wire(path):
        pass


def test_a_socket_somebody_answers_on_is_left_alone(server: Server, tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(path)
        other.listen()
        with pytest.raises(Conflict, match="another daemon answers there"):
            server.listen(path)
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(path)


def test_another_file_is_left_alone(server: Server, tmp_path: Path) -> None:
    path = tmp_path / "s"
    path.write_text("precious")
    with pytest.raises(Conflict, match="not a socket"):
        server.listen(str(path))
    assert path.read_text() == "precious"


def test_a_path_too_long_and_a_missing_directory_are_said_plainly(server: Server, tmp_path: Path) -> None:
    with pytest.raises(MaestroError, match="at most 107 bytes"):
        server.listen("/tmp/" + "x" * 103)
    with pytest.raises(MaestroError, match=r"cannot listen on .*: No such file or directory"):
        server.listen(str(tmp_path / "missing" / "s"))


def test_close_does_not_remove_the_socket_of_a_successor(server: Server, tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    server.listen(path)
    os.unlink(path)
    with socket.socket(socket.AF_UNIX) as successor:
        successor.bind(path)
        server.close()
        assert os.path.exists(path)


def test_a_listening_descriptor_can_be_taken_over(tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        early = Wire(path)
        early.send("GET /nowhere HTTP/1.1")
        loop = Loop()
        server = Server(loop, Router([]), on_error=lambda *_: None, role_of=lambda _: Role.ADMIN)
        server.adopt(os.dup(listener.fileno()))
    loop.call_later(0.05, loop.stop)
    loop.run()
    with early:
        assert early.answer()[0] == 404
    server.close()
    loop.close()
    assert not os.path.exists(path)


def test_close_ends_connections_and_streams(start: Start, handlers: Handlers) -> None:
    api = start()
    with Wire(api.path) as idle, Wire(api.path) as busy:
        assert idle.ask("GET /echo HTTP/1.1")[0] == 200
        busy.send("GET /follow HTTP/1.1")
        assert handlers.began.wait(10)
        api.call(api.server.close)
        assert idle.at_end()
        assert b"first" in busy.file.read()
        assert handlers.ended.wait(10)
    assert api.errors == []


# Conditional requests, and what many clients together may cost


def test_an_answer_has_a_tag_and_is_not_sent_again_while_it_is_the_same(wire: Wire) -> None:
    status, headers, body = wire.ask("GET /echo/a HTTP/1.1")
    tag = headers["etag"]
    assert (status, bool(body)) == (200, True)
    for known in (tag, f'"other", {tag}', f"W/{tag}", "*"):
        status, headers, body = wire.ask("GET /echo/a HTTP/1.1", f"If-None-Match: {known}")
        assert (status, headers["etag"], body) == (304, tag, b"")
    for unknown in ('"other"', tag.strip('"'), ""):
        assert wire.ask("GET /echo/a HTTP/1.1", f"If-None-Match: {unknown}")[0] == 200
    assert wire.ask("GET /echo/b HTTP/1.1", f"If-None-Match: {tag}")[0] == 200
    status, headers, _ = wire.ask("POST /echo HTTP/1.1", "If-None-Match: *", "Content-Length: 0")
    assert (status, "etag" in headers) == (200, False)


def test_a_client_that_never_pauses_leaves_others_their_turn(api: ApiServer) -> None:
    stop = threading.Event()
    greedy = Wire(api.path)

    def send() -> None:
        request = b"GET /echo HTTP/1.1\r\nHost: x\r\n\r\n" * 1000
        try:
            while not stop.is_set():
                greedy.sock.sendall(request)
        except OSError:
            pass

    def read() -> None:
        try:
            while greedy.sock.recv(1 << 20):
                pass
        except OSError:
            pass

    threads = [threading.Thread(target=send), threading.Thread(target=read)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(20):
            with Wire(api.path) as other:
                assert other.ask("GET /nothing HTTP/1.1")[0] == 204
    finally:
        stop.set()
        greedy.sock.shutdown(socket.SHUT_RDWR)
        for thread in threads:
            thread.join(10)
        greedy.__exit__()


def test_bodies_of_all_clients_together_have_a_limit(start: Start) -> None:
    api = start(max_held=200_000)
    head = ("POST /json HTTP/1.1", "Content-Length: 150000")
    with Wire(api.path) as first, Wire(api.path) as second:
        first.send(*head, body=b" " * 140_000)  # it keeps what it has until the rest comes
        while api.ask(lambda: api.server.held) < 140_000:
            time.sleep(0.005)
        status, _, body = second.ask(*head, body=b" " * 149_999 + b"1")
        assert (status, json.loads(body)["code"]) == (503, "unavailable")
        first.sock.sendall(b" " * 9_999 + b"1")
        assert first.answer()[0] == 200
    wait_until_free(api)
    assert api.ask(lambda: api.server.held) == 0
    with Wire(api.path) as third:
        assert third.ask(*head, body=b" " * 149_999 + b"1")[0] == 200


def test_long_answers_nobody_takes_have_a_limit_too(start: Start, handlers: Handlers) -> None:
    big = Response(body=b"x" * (1 << 20), content_type="text/plain")

    async def answer(request: Request) -> Response:
        return big

    handlers.nothing = answer  # type: ignore[method-assign]
    api = start(max_held=5 << 19)
    with ExitStack() as stack:
        slow = [stack.enter_context(Wire(api.path)) for _ in range(4)]
        for wire in slow:
            wire.send("GET /nothing HTTP/1.1")
        statuses = sorted(wire.head()[0] for wire in slow)
    assert statuses == [200, 200, 503, 503]
    wait_until_free(api)
    assert api.ask(lambda: api.server.held) == 0


def test_who_is_no_administrator_may_send_a_quarter(start: Start) -> None:
    api = start(max_body=4000, role_of=lambda _: Role.OPERATE)
    with Wire(api.path) as wire:
        assert wire.ask("POST /echo HTTP/1.1", "Content-Length: 1000", body=b"x" * 1000)[0] == 200
        status, _, body = wire.ask("POST /echo HTTP/1.1", "Content-Length: 1001", body=b"x" * 1001)
        assert (status, json.loads(body)["code"]) == (413, "too-large")


def test_a_body_of_very_many_values_is_refused_before_it_is_taken_apart(wire: Wire) -> None:
    body = b"[" + b"{}," * 1_000_000 + b"{}]"
    status, _, answer = wire.ask("POST /json HTTP/1.1", f"Content-Length: {len(body)}", body=body)
    assert (status, json.loads(answer)["code"]) == (413, "too-large")
    assert "commas, colons and brackets" in title(answer)
