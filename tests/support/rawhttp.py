# SPDX-License-Identifier: Apache-2.0
"""Plain HTTP on a Unix socket, as a script with curl or a job speaks it; also as another user.

ask(socket, "GET", "/alive").status
ask_as(65534, socket, "GET", "/jobs")
"""

from __future__ import annotations

import http.client
import json
import socket
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Answer:
    status: int
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict, compare=False)

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=20)
        self.path = path

    def connect(self) -> None:
        if ":" in self.path and "/" not in self.path:
            host, _, port = self.path.rpartition(":")
            self.sock = socket.create_connection((host.strip("[]"), int(port)), self.timeout)
            return
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


def ask(path: Path | str, method: str, target: str, body: object = None, **headers: str) -> Answer:
    """Return the answer; a body of bytes is sent as it is, any other as JSON.

    path: of the socket, or host:port. headers: `if_none_match="x"` is sent as If-None-Match: x.
    """
    connection = _Connection(str(path))
    try:
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, target, data, sent)
        response = connection.getresponse()
        got = {name.lower(): value for name, value in response.getheaders()}
        return Answer(response.status, response.read(), got)
    finally:
        connection.close()


def ask_as(
    uid: int, path: Path | str, method: str, target: str, body: object = None,
    *, gid: int = 65534, groups: tuple[int, ...] = (),
) -> Answer:  # fmt: skip
    """Ask as another user; needs root."""
    done = subprocess.run(
        [sys.executable, __file__, str(path), method, target],
        input=b"" if body is None else json.dumps(body).encode(),
        capture_output=True,
        user=uid,
        group=gid,
        extra_groups=list(groups),
        timeout=30,
    )
    assert done.returncode == 0, done.stderr.decode()
    status, _, rest = done.stdout.partition(b"\n")
    return Answer(int(status), rest)


if __name__ == "__main__":
    found = ask(sys.argv[1], sys.argv[2], sys.argv[3], sys.stdin.buffer.read() or None)
    sys.stdout.buffer.write(b"%d\n" % found.status + found.body)
