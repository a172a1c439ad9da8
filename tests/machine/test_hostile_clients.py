# SPDX-License-Identifier: Apache-2.0
"""Clients that are slow, many, greedy or asleep: others are served, and memory stays where it was."""

from __future__ import annotations

import json
import select
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import pytest
from support.daemon import Daemon
from support.documents import document, job
from support.idleness import anonymous, until_calm
from support.rawhttp import ask, ask_as

from maestro_py.errors import Unavailable

MIB = 1 << 10
"""KiB in a MiB: what follows is counted in KiB."""
FOLLOW = b"GET /v1/events?follow=1&since=%d HTTP/1.1\r\nHost: x\r\n\r\n"


def pid_of(daemon: Daemon) -> int:
    assert daemon.process
    return daemon.process.pid


@contextmanager
def client(daemon: Daemon, said: bytes = b"", small: bool = False) -> Iterator[socket.socket]:
    """Connect and say something. small: with a receive buffer that is soon full."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        if small:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.settimeout(20)
        sock.connect(str(daemon.socket))
        if said:  # even nothing cannot be said to one that has hung up
            sock.sendall(said)
        yield sock


def hear(sock: socket.socket, text: bytes) -> None:
    """Read until a text has come, in however many pieces."""
    data = b""
    while text not in data:
        piece = sock.recv(65536)
        assert piece, data
        data += piece


def happen(daemon: Daemon, count: int) -> None:
    for _ in range(count):
        daemon.client().kill("app", "SIGCONT")


def quick(daemon: Daemon) -> float:
    """Return the best of some times an answer took, in seconds."""
    times = []
    for _ in range(5):
        began = time.monotonic()
        daemon.client().status()
        times.append(time.monotonic() - began)
    return min(times)


def until_served(daemon: Daemon) -> None:
    """Return once the daemon has noticed that clients are gone."""
    deadline = time.monotonic() + 20
    while True:
        try:
            daemon.client().status()
            return
        except Unavailable:
            assert time.monotonic() < deadline


def test_a_hundred_followers_cost_little_and_wake_nobody(daemon: Daemon) -> None:
    daemon.run(document(job("app")))
    last = daemon.last_event()
    with client(daemon, FOLLOW % last) as first:  # what one of them brings in is not each one's
        happen(daemon, 1)
        hear(first, b"SIGCONT")
    until_calm(pid_of(daemon))
    before = anonymous(pid_of(daemon))
    with ExitStack() as stack:
        followers = [stack.enter_context(client(daemon, FOLLOW % (last + 1))) for _ in range(100)]
        for follower in followers:
            assert follower.recv(65536).startswith(b"HTTP/1.1 200")
        until_calm(pid_of(daemon))
        cost = anonymous(pid_of(daemon)) - before
        print(f"100 followers of events: {cost} KiB")
        assert cost <= 5 * MIB
        happen(daemon, 1)
        for follower in followers:
            hear(follower, b"SIGCONT")


def test_followers_that_stop_reading_keep_no_events_and_nobody_waiting(daemon: Daemon) -> None:
    daemon.run(document(job("app")))
    last = daemon.last_event()
    with ExitStack() as stack:
        sleepy = [stack.enter_context(client(daemon, FOLLOW % last, small=True)) for _ in range(50)]
        for sock in sleepy:
            sock.recv(10)
        happen(daemon, 200)
        before = anonymous(pid_of(daemon))
        happen(daemon, 3000)  # three times what is kept
        assert anonymous(pid_of(daemon)) - before < 5 * MIB
        assert quick(daemon) < 1
        first = sleepy[0].makefile("rb")
        seen = list(first_records(first, until=daemon.last_event()))
        assert [event["type"] for event in seen].count("lost") >= 1
        assert [event["id"] for event in seen] == sorted({event["id"] for event in seen})


def first_records(file: object, until: int) -> Iterator[dict[str, object]]:
    """Yield the events of a chunked answer up to a number."""
    for line in file:  # type: ignore[attr-defined]
        if line.startswith(b"{"):
            event = json.loads(line)
            yield event
            if event["id"] >= until:
                return


def test_hundreds_of_silent_slow_and_broken_clients_keep_nobody_out(daemon: Daemon) -> None:
    daemon.run(document(job("app")))
    daemon.client().status()
    pieces = [
        b"",
        b"G",
        b"GET /v1/status HTTP/1.1\r\nHost: x\r\nX: ",
        b"POST /v1/apply HTTP/1.1\r\nHost: x\r\nContent-Length: 10000000\r\n\r\n{",
        b"POST /v1/apply HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" * 5,
        b"GET " + b"/" * 20_000,
    ]
    before = anonymous(pid_of(daemon))
    with ExitStack() as stack:
        crowd = [stack.enter_context(client(daemon)) for _ in range(240)]
        for i, sock in enumerate(crowd):
            sock.sendall(pieces[i % len(pieces)])
        assert quick(daemon) < 1
        for sock in crowd[2:200:4]:  # one byte more, now and then
            try:
                sock.sendall(b"x")
            except BrokenPipeError:
                pass  # refused already
        daemon.do("app", "restart")
        assert anonymous(pid_of(daemon)) - before < 20 * MIB
        with ExitStack() as more:  # those beyond the limit are told so, and no others
            extra = [more.enter_context(client(daemon)) for _ in range(30)]
            assert b"503" in extra[-1].recv(1000)
    until_served(daemon)
    assert quick(daemon) < 1
    assert daemon.job("app")["state"] == "RUNNING"


def test_large_bodies_from_many_at_once_are_bounded(daemon: Daemon) -> None:
    body = b'{"jobs": [' + b" " * (8 << 20)
    head = b"POST /v1/check HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % (len(body) + 2)
    before = anonymous(pid_of(daemon))
    with ExitStack() as stack:
        crowd = [stack.enter_context(client(daemon)) for _ in range(12)]
        rest = {sock: memoryview(head + body) for sock in crowd}
        refused = set()
        while rest:
            readable, writable, _ = select.select(list(rest), list(rest), [], 20)
            assert readable or writable
            for sock in readable:  # an answer before all was sent
                refused.add(sock)
                del rest[sock]
            for sock in writable:
                if sock in rest:
                    rest[sock] = rest[sock][sock.send(rest[sock][:65536]) :]
                    if not rest[sock]:
                        del rest[sock]
        assert refused
        assert all(b" 503 " in sock.recv(100) for sock in refused)
        assert anonymous(pid_of(daemon)) - before < 60 * MIB
        for sock in set(crowd) - refused:
            sock.sendall(b"]}")
            assert b" 200 " in sock.recv(100)
    assert ask(daemon.socket, "POST", "/v1/check", {"jobs": []}).status == 200


def test_a_document_of_nothing_but_mistakes_is_answered_in_bounds(daemon: Daemon) -> None:
    before = anonymous(pid_of(daemon))
    for body in (
        b'{"jobs": [' + b"0," * 400_000 + b"0]}",
        b'{"jobs": [' + b'{"x":1},' * 200_000 + b"{}]}",
        b"[" * 100_000,
        b'{"' + b"x" * 4_000_000 + b'": 1}',
    ):
        began = time.monotonic()
        answer = ask(daemon.socket, "POST", "/v1/check", body)
        assert answer.status in (400, 413, 422), answer.status
        assert len(answer.body) < 2 << 20
        print(
            f"{len(body)} bytes: {answer.status} in {time.monotonic() - began:.2f} s, {len(answer.body)} back"
        )
    assert anonymous(pid_of(daemon)) - before < 40 * MIB


@pytest.mark.root
def test_another_user_cannot_fill_what_is_kept_for_root(make_public_daemon: Callable[..., Daemon]) -> None:
    daemon = make_public_daemon()
    refused = ask_as(54321, daemon.socket, "POST", "/v1/apply", {"jobs": []})
    assert refused.status == 403
    assert ask(daemon.socket, "GET", "/v1/status").status == 200
