# SPDX-License-Identifier: Apache-2.0
"""Requests no daemon should take: too large, not HTTP, to nowhere, by the wrong method."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from support.guarded import Guarded, Shared, answer

MAX_BODY = 16 << 20


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shared]:
    made = Shared(lambda: tmp_path_factory.mktemp("shared"))
    yield made
    made.close()


@pytest.fixture
def device(shared: Shared) -> Iterator[Guarded]:
    with shared.lend() as lent:
        yield lent


def test_a_body_that_says_it_is_too_large_is_refused_before_it_comes(device: Guarded) -> None:
    head = b"POST /v1/apply HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % (MAX_BODY + 1)
    found = answer(device.raw(head))
    assert (found.status, found.json["code"]) == (413, "too-large")
    assert "its body is larger than 16.0M" in found.json["title"]


def test_a_body_that_turns_out_too_large_is_refused_too(device: Guarded) -> None:
    head = b"POST /v1/apply HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    chunk = b"100000\r\n" + b" " * (1 << 20) + b"\r\n"
    assert answer(device.raw(head + chunk * 18)).status == 413


def test_the_command_says_that_a_document_is_too_large(device: Guarded) -> None:
    said = device.refused(device.document(configs=[{"name": "c", "job": "good", "data": "x" * MAX_BODY}]))
    assert "its body is larger than 16.0M" in said


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"nonsense\r\n\r\n", 400),
        (b"\0" * 100, 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
        (b"GET /v1/version HTTP/1.1\r\n\r\n", 400),
        (b"GET /v1/version HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n", 400),
        (b"POST /v1/apply HTTP/1.1\r\nHost: x\r\nContent-Length: -4\r\n\r\n", 400),
        (b"POST /v1/apply HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nContent-Length: 5\r\n\r\naaaaa", 400),
        (b"POST /v1/apply HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 400),
        (b"POST /v1/apply HTTP/1.1\r\nHost: x\r\nContent-Length: " + b"9" * 30 + b"\r\n\r\n", 400),
        (b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 431),
        (b"GET /v1/version HTTP/1.1\r\nHost: x\r\nX: " + b"b" * 200_000 + b"\r\n\r\n", 431),
        (b"GET /v1/%zz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", 400),
        (b"GET /v1/events?since=yesterday HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", 400),
        (b"GET /v1/status?memory=maybe HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", 400),
    ],
)
def test_malformed_requests_are_refused_with_a_reason(device: Guarded, data: bytes, status: int) -> None:
    found = answer(device.raw(data, end=True))
    if b"9999" in data:
        assert found.status in (400, 413)
    else:
        assert found.status == status
    assert found.headers["content-type"] == "application/problem+json"
    assert found.json["title"].startswith("cannot ")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/nope"),
        ("GET", "/v2/status"),
        ("POST", "/v1/jobs/good/dance"),
        ("GET", "/v1/status/"),
        ("GET", "*"),
    ],
)
def test_unknown_paths_are_not_found(device: Guarded, method: str, path: str) -> None:
    found = device.call(method, path)
    assert (found.status, found.json["code"]) == (404, "not-found")
    assert path in found.json["title"]


@pytest.mark.parametrize(
    ("path", "what"),
    [("/v1/jobs/goood/why", "goood"), ("/v1/tasks/zz", "zz"), ("/v1/templates/zz", "zz"), ("/job/zz", "zz")],
)
def test_unknown_things_are_not_found_by_name(device: Guarded, path: str, what: str) -> None:
    found = device.call("GET", path)
    assert (found.status, found.json["code"]) == (404, "not-found")
    assert what in found.json["title"]


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [("DELETE", "/v1/status", "GET"), ("GET", "/v1/apply", "POST"), ("BREW", "/v1/status", "GET")],
)
def test_a_wrong_method_is_told_the_right_ones(device: Guarded, method: str, path: str, allowed: str) -> None:
    found = device.call(method, path)
    assert found.status == 405
    assert allowed in found.headers["allow"].split(", ")
    assert f"this path takes {found.headers['allow']}" in found.json["title"]


def test_clients_that_say_nothing_do_not_keep_others_out(device: Guarded) -> None:
    with ExitStack() as stack:
        for i in range(100):
            sock = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
            sock.connect(str(device.daemon.socket))
            if i % 2:
                sock.sendall(b"POST /v1/apply HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{")
        device.quick()
    device.quick()
