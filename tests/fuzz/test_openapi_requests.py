# SPDX-License-Identifier: Apache-2.0
"""Requests made from the OpenAPI document, and the answers held against it.

MAESTRO_FUZZ_SECONDS makes it long and uses all of schemathesis' phases.
"""

from __future__ import annotations

import importlib.util
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support.daemon import Daemon

SECONDS = float(os.environ.get("MAESTRO_FUZZ_SECONDS", "0"))
CONFIG = Path(__file__).parents[1] / "support" / "schemathesis.toml"
NOBODY = 65534

LATER = r"(shutdown|upgrade)"
"""What ends or replaces the daemon: asked last, while somebody starts it again."""

WAITS = r"^/net/events/"
"""What waits for 20 seconds when nothing happens: asked when there is time."""

CONFIG_FILE = """\
http_tcp: 127.0.0.1:{port}
http_anonymous: none
restart_rate: 0
jobs:
  - job: app
    exec_cmd: /bin/sleep
    exec_args: ["1000"]
    reload_signal: SIGCONT
  - job: pulse
    exec_cmd: /bin/sleep
    exec_args: ["0.5"]
    restart: true
    restart_backoff: {{initial: 0.5, max: 0.5}}
"""
"""The pulse is there for `/events`, which answers when something happens."""


@pytest.mark.skipif(not importlib.util.find_spec("schemathesis"), reason="needs schemathesis")
@pytest.mark.timeout(600 + 2 * SECONDS)
def test_the_daemon_keeps_to_its_document_whatever_it_is_asked(public_path: Path) -> None:
    """Schemathesis with all its checks. As root the daemon is nobody's: it is told to run anything."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    nowhere = "http://127.0.0.1:9"  # where downloads go that it makes up
    env = {"http_proxy": nowhere, "https_proxy": nowhere, "no_proxy": ""}
    daemon = Daemon(public_path / "device", CONFIG_FILE.format(port=port), env)
    if os.geteuid() == 0:
        os.chown(daemon.root, NOBODY, NOBODY)
        as_nobody = ("setpriv", "--reuid", str(NOBODY), "--regid", str(NOBODY), "--clear-groups")
        daemon.program = (*as_nobody, *daemon.program)
    daemon.start()
    try:
        left_out = LATER if SECONDS else f"{LATER}|{WAITS}"
        few = ["--phases", "fuzzing,stateful", "-n", "5", "--generation-deterministic"]
        many = ["--max-time", f"{SECONDS:.0f}", "--generation-database", "none"]
        asked(daemon, port, "--exclude-path-regex", left_out, *(many if SECONDS else few))
        assert daemon.process
        assert daemon.process.poll() is None
        with started_again(daemon):
            asked(daemon, port, "--include-path-regex", LATER, "--request-retries", "50", *few)
        assert "unexpected in" not in daemon.output()
    finally:
        daemon.close()


def asked(daemon: Daemon, port: int, *how: str) -> None:
    """Run schemathesis against the daemon with all its checks; it must find nothing."""
    token = (daemon.root / "state" / "http.token").read_text().strip()
    done = subprocess.run(
        [
            sys.executable, "-m", "schemathesis.cli", "--config-file", str(CONFIG),
            "run", f"http://127.0.0.1:{port}/v1/openapi.json",
            "--url", f"http://127.0.0.1:{port}",
            "--header", f"Authorization: Bearer {token}",
            "--checks", "all",
            "--request-timeout", "60", "--warnings", "off", *how,
        ],
        capture_output=True, text=True, cwd=daemon.root.parent, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    print(done.stdout[-300:])


@contextmanager
def started_again(daemon: Daemon) -> Iterator[None]:
    """Start the daemon again whenever it ended, which it may before anybody asked it a thing."""
    over = threading.Event()
    statuses: list[int] = []

    def watch() -> None:
        assert daemon.process
        while not over.is_set():
            status = daemon.process.wait()
            if not over.is_set():
                statuses.append(status)
                daemon.launch()

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield
    finally:
        over.set()
        daemon.stop()
        thread.join()
    assert set(statuses) == {0}, daemon.output()
