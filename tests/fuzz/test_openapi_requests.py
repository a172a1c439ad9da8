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
from pathlib import Path

import pytest
from support.daemon import Daemon

SECONDS = float(os.environ.get("MAESTRO_FUZZ_SECONDS", "0"))
CONFIG = Path(__file__).parents[1] / "support" / "schemathesis.toml"
NOBODY = 65534

LEFT_OUT = r"(shutdown|upgrade|^/process$|^/events$|^/net/events/)"
"""What ends the daemon, runs what it is told, or answers only when something happens."""

CONFIG_FILE = """\
http_tcp: 127.0.0.1:{port}
http_anonymous: none
jobs:
  - job: app
    exec_cmd: /bin/sleep
    exec_args: ["1000"]
    reload_signal: SIGCONT
"""


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
        token = (daemon.root / "state" / "http.token").read_text().strip()
        some = (
            ["--phases", "fuzzing,stateful", "-n", "5"] if not SECONDS else ["--max-time", f"{SECONDS:.0f}"]
        )
        done = subprocess.run(
            [
                sys.executable, "-m", "schemathesis.cli", "--config-file", str(CONFIG),
                "run", f"http://127.0.0.1:{port}/v1/openapi.json",
                "--url", f"http://127.0.0.1:{port}",
                "--header", f"Authorization: Bearer {token}",
                "--checks", "all", "--exclude-path-regex", LEFT_OUT,
                "--request-timeout", "60", "--warnings", "off", "--generation-database", "none", *some,
            ],
            capture_output=True, text=True, cwd=public_path, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        print(done.stdout[-300:])
        assert "unexpected in" not in daemon.output()
        assert daemon.process
        assert daemon.process.poll() is None
    finally:
        daemon.close()
