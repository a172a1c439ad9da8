# SPDX-License-Identifier: Apache-2.0
"""Requests nobody would send, by the thousand, over the socket and over TCP: each is answered or hung up on.

MAESTRO_FUZZ_SECONDS says how long (default 3); MAESTRO_FUZZ_SEED makes a run again. What breaks a rule is
printed with its seed, and once understood belongs to test_bad_requests.py.
"""

from __future__ import annotations

import json
import os
import random
import re
import socket
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from support.daemon import Daemon

from maestro_py.daemon import api, upstream

SECONDS = float(os.environ.get("MAESTRO_FUZZ_SECONDS", "3"))
SEED = int(os.environ.get("MAESTRO_FUZZ_SEED", "0")) or random.SystemRandom().randrange(1 << 32)

ENDS_IT = ("/v1/shutdown", "/shutdown", "/v1/upgrade", "/process", "/v1/apply", "/ops", "/job")
"""What a lucky guess could harm this test with; their readers are fuzzed by /v1/check and the others."""

CONFIG = """\
http_tcp: 127.0.0.1:{port}
jobs:
  - job: app
    exec_cmd: /bin/sleep
    exec_args: ["1000"]
"""

ROUTES = [route for route in (*api.ROUTES, *upstream.ROUTES) if route.pattern not in ENDS_IT]
METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "TRACE", "CONNECT", "PATCH", "get", "G\0T", "")
SEGMENTS = (
    "app",
    "nonesuch",
    "default",
    "%00",
    "%2f..%2f",
    "..",
    "%ff%fe",
    "a" * 3000,
    "%zz",
    "%",
    " ",
    "é",
    "*",
)
QUERIES = (
    "", "?", "?n=5", "?n=-1", "?n=", "?n=1e9", "?n=99999999999999999999", "?since=0&since=1", "?limit=1",
    "?after=%zz", "?wait=0.01", "?memory=2", "?job=app&job=app", "?&&&=&", "?force", "?" + "a=b&" * 500,
    "?offset=5", "?until=nan", "?since=inf", "?previous=1", "?format=x",
)  # fmt: skip
HEADERS = (
    b"Accept: text/event-stream", b"Accept: application/x-ndjson", b"If-None-Match: *",
    b"If-None-Match: \xff",
    b"Last-Event-ID: 1", b"Last-Event-ID: \xb2", b"Content-Length: 0", b"Content-Length: -1",
    b"Content-Length: 1, 1", b"Transfer-Encoding: chunked", b"Transfer-Encoding: gzip, chunked",
    b"Expect: 100-continue", b"Connection: close", b"Connection: upgrade", b"Upgrade: h2c",
    b"Host: localhost",
    b"Authorization: Bearer x", b"Authorization: \xff", b"X: " + b"y" * 9000, b"nonsense", b": empty",
    b"A:\0",
    b"Cookie: a=b", b" folded",
)  # fmt: skip
BODIES = (
    b"", b"{}", b"[]", b"null", b"1e999", b"NaN", b'{"a":1,"a":2}', b'"\\ud800"', b"[" * 5000, b"\xff\xfe",
    b'{"signal": 1e308}', b'{"op": {}}', b'{"jobs": [{"job": "x", "exec_cmd": []}]}', b'{"data": null}',
    b'{"type":"image","op":"add","image":{}}', b'{"name": "\\u0000"}', b'{"params": [1]}',
    b"5\r\nabcde\r\n0\r\n\r\n",
    b"zz\r\n", b"ffffffffffffffff\r\n", b'{"jobs": ' + b"[0]" * 100,
)  # fmt: skip


def request(rng: random.Random) -> bytes:
    """Return the bytes of a request that is well formed in most ways, or of none at all."""
    if rng.random() < 0.05:
        return rng.randbytes(rng.randrange(1, 3000))
    route = rng.choice(ROUTES)
    path = re.sub(r"\{\w+\}", lambda _: rng.choice(SEGMENTS), route.pattern)
    method = route.method if rng.random() < 0.8 else rng.choice(METHODS)
    headers = [b"Host: localhost"] if rng.random() < 0.95 else []
    headers += rng.sample(HEADERS, rng.choice((0, 0, 1, 1, 2, 5)))
    body = rng.choice(BODIES) if method in ("POST", "PUT", "DELETE") or rng.random() < 0.1 else b""
    if body and rng.random() < 0.8:
        headers.append(b"Content-Length: %d" % len(body))
    version = rng.choice((b"HTTP/1.1",) * 9 + (b"HTTP/1.0", b"HTTP/2.0", b"HTTP/1.1 x", b""))
    query = rng.choice(QUERIES) if rng.random() < 0.4 else ""
    line = f"{method} {path}{query} ".encode() + version
    data = b"\r\n".join([line, *headers, b"", b""]) + body
    if rng.random() < 0.15:  # and then something breaks on the way
        at = rng.randrange(len(data))
        data = rng.choice((data[:at], data[:at] + rng.randbytes(3) + data[at:], data[:at] + data[at + 1 :]))
    return data * rng.choice((1, 1, 1, 1, 2, 5))


def answers(sock: socket.socket, data: bytes) -> bytes:
    """Send and return what comes back until the daemon has hung up, or has nothing more to say."""
    try:
        sock.sendall(data)
        sock.shutdown(socket.SHUT_WR)
    except OSError:
        pass  # refused before all was sent
    got = b""
    try:
        while piece := sock.recv(1 << 16):
            got += piece
    except OSError:
        pass
    return got


def descriptors(pid: int) -> Counter[str]:
    """Return how many descriptors of each kind a process has."""
    found = []
    for link in Path(f"/proc/{pid}/fd").iterdir():
        try:
            found.append(re.sub(r"\[.*\]|\d+", "", str(link.readlink())))
        except OSError:
            pass  # closed meanwhile
    return Counter(found)


@pytest.mark.timeout(120 + 2 * SECONDS)
def test_whatever_is_sent_gets_an_http_answer_or_none(make_daemon: Callable[..., Daemon]) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    daemon = make_daemon(CONFIG.format(port=port))
    assert daemon.process
    pid = daemon.process.pid
    before = descriptors(pid)
    rng = random.Random(SEED)
    end = time.monotonic() + SECONDS
    count = 0
    statuses: dict[bytes, int] = {}
    while time.monotonic() < end:
        data = request(rng)
        tcp = rng.random() < 0.3
        with socket.socket(socket.AF_INET if tcp else socket.AF_UNIX, socket.SOCK_STREAM) as sock:
            sock.settimeout(0.5)  # what goes on for ever has begun by then
            sock.connect(("127.0.0.1", port) if tcp else str(daemon.socket))
            got = answers(sock, data)
        said = f"seed {SEED}, request {count}: {data[:500]!r} got {got[:500]!r}"
        assert not got or re.match(rb"HTTP/1\.1 [1-5]\d\d ", got), said
        assert not got.startswith(b"HTTP/1.1 500"), said + daemon.output()[-3000:]
        if got.startswith(b"HTTP/1.1 ") and b"application/problem+json" in got.partition(b"\r\n\r\n")[0]:
            body = got.partition(b"\r\n\r\n")[2]
            if body[:1] == b"{" and not re.search(rb"HTTP/1\.1 \d\d\d", body):
                assert json.loads(body)["code"], said
        statuses[got[9:12]] = statuses.get(got[9:12], 0) + 1
        count += 1
        assert daemon.process.poll() is None, said
    print(f"{count} requests, seed {SEED}: {dict(sorted(statuses.items()))}")
    assert "unexpected in" not in daemon.output()
    assert daemon.job("app")["job"] == "app"  # it belongs to the file, nothing said over the API removes it
    deadline = time.monotonic() + 180  # the kernel speaks for a client that left for a minute
    while (left := descriptors(pid) - before).total() > 3:
        assert time.monotonic() < deadline, f"descriptors are left open: {left}"
        time.sleep(0.1)
