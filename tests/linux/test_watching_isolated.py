# SPDX-License-Identifier: Apache-2.0
"""Readiness and health of processes with a root, a user, a network and pids of their own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.daemon import Daemon
from support.documents import document
from support.jail import PYTHON, make_jail
from support.netlab import lab

pytestmark = pytest.mark.root

NOTIFY = """
import os, socket, time
with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
    s.sendto(b"READY=1", os.environ["NOTIFY_SOCKET"])
print(os.environ["NOTIFY_SOCKET"], os.getuid(), os.getpid(), flush=True)
time.sleep(1000)
"""
SERVER = """
import socket, time
server = socket.create_server(("", 8000))
while True:
    server.accept()[0].close()
"""
CONNECT = "import socket; socket.create_connection(('127.0.0.1', 8000), 5).close()"


def isolated(jail: Path, code: str, **fields: Any) -> dict[str, Any]:
    return {
        "job": "app",
        "exec_cmd": PYTHON,
        "exec_args": ["-I", "-S", "-c", code],
        "user": "nobody",
        "chroot_path": str(jail),
        "read_only_root": True,
        "mounts": [{"source": "/usr", "target": "/usr"}],
        "capabilities": [],
        "stop_signal": "SIGKILL",
        **fields,
    }


@pytest.fixture
def jail(public_path: Path) -> Path:
    return make_jail(public_path / "jail")


def test_the_socket_is_seen_in_a_root_of_its_own(
    make_public_daemon: Callable[..., Daemon], jail: Path
) -> None:
    daemon = make_public_daemon()
    daemon.run(document(isolated(jail, NOTIFY, ready="notify", pids="private", network="none")))
    assert daemon.wait_log("app", "notify").split() == ["/run/maestro/notify/socket", "65534", "1"]


def test_a_daemon_that_comes_back_is_heard_from_there_too(
    make_public_daemon: Callable[..., Daemon], jail: Path
) -> None:
    daemon = make_public_daemon()
    alive = NOTIFY.replace("time.sleep(1000)", "") + (
        "while True:\n"
        "    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:\n"
        "        try: s.sendto(b'WATCHDOG=1', os.environ['NOTIFY_SOCKET'])\n"
        "        except OSError: pass\n"
        "    time.sleep(0.1)\n"
    )
    daemon.run(document(isolated(jail, alive, ready="notify", watchdog=3)))
    pid = daemon.job("app")["pid"]
    assert daemon.process
    daemon.process.kill()
    daemon.start()
    row = daemon.job("app")
    assert (row["pid"], row["state"]) == (pid, "RUNNING")
    with pytest.raises(AssertionError, match="still"):
        daemon.wait("app", lambda row: row["state"] != "RUNNING", timeout=4)


def test_a_command_asks_from_inside(make_public_daemon: Callable[..., Daemon], jail: Path) -> None:
    daemon = make_public_daemon()
    probe = {"type": "exec", "command": [PYTHON, "-I", "-S", "-c", CONNECT]}
    asked = isolated(jail, SERVER, ready=probe, health={**probe, "interval": "200ms", "threshold": 1},
                     network="none", restart=True)  # fmt: skip
    daemon.run(document(asked))
    with pytest.raises(AssertionError, match="still"):
        daemon.wait("app", lambda row: row["restarts"] > 0, timeout=2)


@pytest.fixture
def behind_a_bridge(public_path: Path) -> Iterator[Daemon]:
    daemon = Daemon(public_path / "device")
    with lab() as world:
        daemon.program = world.program()
        yield daemon.start()
        daemon.close()


def test_a_port_in_a_private_network_is_asked_there(behind_a_bridge: Daemon, jail: Path) -> None:
    ready = {"type": "tcp", "port": 8000, "interval": "50ms"}
    behind_a_bridge.run(document(isolated(jail, SERVER, ready=ready, network="private")))
    assert behind_a_bridge.job("app")["state"] == "RUNNING"
