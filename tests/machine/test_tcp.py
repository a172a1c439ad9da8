# SPDX-License-Identifier: Apache-2.0
"""The optional TCP listener: off by default, on loopback only, reading without a token, all else with it."""

from __future__ import annotations

import json
import signal
import socket
import stat
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from support.daemon import Daemon
from support.documents import document, job
from support.guarded import patched
from support.rawhttp import Answer, ask

Make = Callable[..., Daemon]


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


class Door:
    """A daemon with a TCP listener, and how one asks there."""

    def __init__(self, make: Make, extra: str = "") -> None:
        self.port = free_port()
        self.daemon = make(f"http_tcp: 127.0.0.1:{self.port}\n{extra}")
        self.token_file = self.daemon.root / "state" / "http.token"

    def ask(self, method: str, target: str, body: object = None, token: str = "", **headers: str) -> Answer:
        if token:
            headers["authorization"] = f"Bearer {token}"
        return ask(f"127.0.0.1:{self.port}", method, target, body, **headers)

    @property
    def token(self) -> str:
        return self.token_file.read_text().strip()


@pytest.fixture
def door(make_daemon: Make) -> Door:
    return Door(make_daemon)


def listening(daemon: Daemon) -> set[str]:
    """Return the inodes of the daemon's TCP sockets."""
    assert daemon.process
    proc = Path(f"/proc/{daemon.process.pid}")
    mine = {link.readlink().name for link in (proc / "fd").iterdir() if link.is_symlink()}
    rows = [line.split() for line in (proc / "net/tcp").read_text().splitlines()[1:]]
    return {row[1] for row in rows if row[3] == "0A" and f"socket:[{row[9]}]" in mine}


def test_a_follower_that_shut_its_side_and_left_is_noticed(tmp_path: Path) -> None:
    port = free_port()
    daemon = Daemon(tmp_path / "device", f"http_tcp: 127.0.0.1:{port}\n")
    daemon.program = patched("from maestro_py.daemon import http; http.SILENCE = 1")
    try:
        daemon.start()
        assert daemon.process
        fds = Path(f"/proc/{daemon.process.pid}/fd")
        before = len(list(fds.iterdir()))
        with socket.create_connection(("127.0.0.1", port)) as sock:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_LINGER2, 1)  # seconds its kernel speaks for it
            sock.sendall(b"GET /v1/events?follow=1 HTTP/1.1\r\nHost: localhost\r\n\r\n")
            sock.shutdown(socket.SHUT_WR)
            assert sock.recv(12) == b"HTTP/1.1 200"
            while sock.recv(1 << 16).find(b"\r\n\r\n") < 0:
                pass
        deadline = time.monotonic() + 20
        while len(list(fds.iterdir())) > before:
            assert time.monotonic() < deadline
            time.sleep(0.1)
    finally:
        daemon.close()


def test_there_is_no_listener_by_default(daemon: Daemon) -> None:
    assert listening(daemon) == set()
    assert not (daemon.root / "state" / "http.token").exists()


def test_without_a_token_one_may_read_and_nothing_else(door: Door) -> None:
    door.daemon.run(document(job("app")))
    assert door.ask("GET", "/v1/status").json["jobs"][0]["job"] == "app"
    for method, path in (
        ("POST", "/v1/apply"), ("POST", "/v1/jobs/app/stop"), ("GET", "/v1/configs"), ("DELETE", "/job/app"),
        ("POST", "/process"), ("POST", "/v1/shutdown"),
    ):  # fmt: skip
        refused = door.ask(method, path, {})
        assert (refused.status, refused.json["code"]) == (401, "unauthorized"), path
        assert refused.headers["www-authenticate"] == "Bearer"
        assert str(door.token_file) in refused.json["hint"]
    assert door.daemon.job("app")["state"] == "RUNNING"


def test_the_token_lets_everything_through(door: Door) -> None:
    assert stat.S_IMODE(door.token_file.stat().st_mode) == 0o600
    assert len(door.token) == 48
    applied = door.ask("POST", "/v1/apply", document(job("app")), token=door.token)
    assert applied.status == 202
    door.daemon.wait_state("app", "RUNNING")
    door.token_file.write_text("another-token-of-mine\n")  # it holds at once
    assert door.ask("POST", "/v1/jobs/app/stop", token="another-token-of-mine").status == 202
    door.daemon.wait_state("app", "STOPPED")
    assert "stopped by a client on TCP" in door.daemon.job("app")["cause"]


@pytest.mark.parametrize("given", ["Bearer x", "Bearer ", "Basic eDp5", "nonsense"])
def test_a_wrong_token_lets_nothing_through_not_even_reading(given: str, door: Door) -> None:
    refused = door.ask("GET", "/v1/status", authorization=given)
    assert (refused.status, refused.json["code"]) == (401, "unauthorized")
    assert door.token not in refused.body.decode()


def test_anonymous_none_shows_nothing_without_a_token(make_daemon: Make) -> None:
    door = Door(make_daemon, "http_anonymous: none\n")
    for path in ("/v1/status", "/jobs", "/nonesuch", "/v1/openapi.json"):
        assert door.ask("GET", path).status == 401, path
    assert door.ask("GET", "/v1/status", token=door.token).status == 200
    assert door.ask("GET", "/nonesuch", token=door.token).status == 404


def test_a_foreign_host_is_refused_whatever_the_token(door: Door) -> None:
    for host in ("evil.example", f"evil.example:{door.port}", "127.0.0.1.evil.example", "10.0.0.1", ""):
        refused = door.ask("GET", "/v1/status", token=door.token, host=host)
        assert refused.status == 403, host
    for host in ("localhost", f"LOCALHOST:{door.port}", "127.0.0.1", f"[::1]:{door.port}"):
        assert door.ask("GET", "/v1/status", host=host).status == 200, host


@pytest.mark.parametrize("address", ["0.0.0.0:80", "192.168.0.1:80", "[::]:80", "example.org:80", "8080", ""])
def test_other_addresses_than_loopback_are_refused_by_the_config_file(
    address: str, tmp_path: Path, make_daemon: Make
) -> None:
    if not address:
        assert listening(make_daemon('http_tcp: ""\n')) == set()
        return
    device = Daemon(tmp_path / "device", f'http_tcp: "{address}"\n')
    with pytest.raises(AssertionError, match=r"http_tcp: .*loopback"):
        device.start()
    device.close()


def test_a_token_others_may_read_opens_no_door_and_harms_no_job(make_daemon: Make, tmp_path: Path) -> None:
    port, token = free_port(), tmp_path / "token"
    token.write_text("a-token-for-everybody\n")
    token.chmod(0o644)
    daemon = make_daemon(f"http_tcp: 127.0.0.1:{port}\nhttp_token_file: {token}\n")
    assert listening(daemon) == set()
    assert f"cannot use the token {token}: others may read it" in daemon.output()
    daemon.run(document(job("app")))


def test_a_port_that_is_taken_is_said_and_harms_no_job(make_daemon: Make) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        daemon = make_daemon(f"http_tcp: 127.0.0.1:{port}\n")
        assert f"cannot listen on 127.0.0.1 port {port}: Address already in use" in daemon.output()
        daemon.run(document(job("app")))


def test_a_reload_opens_moves_and_closes_the_door(make_daemon: Make) -> None:
    daemon = make_daemon("log_max_files: 4\n")
    assert daemon.process
    ports = [free_port(), free_port()]

    def reload(text: str) -> set[str]:
        (daemon.root / "maestro.yaml").write_text(text)
        before = len(daemon.client().tasks()["tasks"])
        assert daemon.process
        daemon.process.send_signal(signal.SIGHUP)
        # the door is seen to before the change begins that a reload makes
        while len(tasks := daemon.client().tasks()["tasks"]) == before:
            assert daemon.process.poll() is None
        assert daemon.client().task(tasks[-1]["task_id"], wait=20)["status"] == "complete"
        return listening(daemon)

    for port in ports:
        assert reload(f"http_tcp: 127.0.0.1:{port}\n") == {f"0100007F:{port:04X}"}
        assert ask(f"127.0.0.1:{port}", "GET", "/alive").status == 200
    assert reload(f"http_tcp: 127.0.0.1:{ports[1]}\nlog_max_files: 3\n") == {f"0100007F:{ports[1]:04X}"}
    assert reload("log_max_files: 3\n") == set()


def test_ipv6_loopback_is_served_too(make_daemon: Make) -> None:
    try:
        with socket.socket(socket.AF_INET6) as sock:
            sock.bind(("::1", 0))
            port = sock.getsockname()[1]
    except OSError:
        pytest.skip("needs IPv6 on loopback")
    make_daemon(f'http_tcp: "[::1]:{port}"\n')
    assert ask(f"[::1]:{port}", "GET", "/alive").json["ok"] is True


def test_what_the_token_is_never_shows(door: Door) -> None:
    door.ask("POST", "/v1/apply", document(job("app")), token=door.token)
    door.daemon.wait_state("app", "RUNNING")
    shown = [door.daemon.output(), json.dumps(door.daemon.events()), json.dumps(door.daemon.client().tasks())]
    assert not [text for text in shown if door.token in text]
