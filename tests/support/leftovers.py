# SPDX-License-Identifier: Apache-2.0
"""What a daemon and its jobs could leave behind on the machine, and the memory they take.

The daemon has to be started with `patched(COUNTS_TIMERS)`, and have a mount namespace of its own.
"""

from __future__ import annotations

import http.client
import json
import os
import socket
import time
from collections import Counter
from pathlib import Path
from typing import Any

from support.daemon import Daemon

MOST_GROWTH = 1 << 20
"""Bytes of memory that may be more after whatever went on."""

# The number of pending timers can be seen from inside only: SIGUSR2 writes it to standard error.
COUNTS_TIMERS = (
    "import os, signal; from maestro_py.daemon.loop import Loop;"
    " run = Loop.run;"
    " say = lambda loop: os.write(2, b'timers %d\\n' % sum(e[-1].pending for e in loop._timers));"
    " Loop.run = lambda loop: (loop.add_signal(signal.SIGUSR2, lambda: say(loop)), run(loop))[1]"
)


class KeptAlive(http.client.HTTPConnection):
    """One connection to the daemon's socket for all requests."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=30)
        self._path = str(path)

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(30)
        self.sock.connect(self._path)

    def do(self, verb: str, name: str) -> None:
        """Have a job started or stopped, and wait until it is."""
        task = self._ask("POST", f"/v1/jobs/{name}/{verb}")["task_id"]
        ended = self._ask("GET", f"/v1/tasks/{task}?wait=20")
        deadline = time.monotonic() + 120
        while ended["status"] == "running" and time.monotonic() < deadline:
            ended = self._ask("GET", f"/v1/tasks/{task}?wait=20")
        assert ended["status"] == "complete", ended

    def _ask(self, method: str, path: str) -> Any:
        self.request(method, path)
        answer = self.getresponse()
        data = answer.read()
        assert answer.status in (200, 202), data
        return json.loads(data)


def held(daemon: Daemon) -> dict[str, Any]:
    """Return all that the daemon or its job could have left on the machine."""
    assert daemon.process
    pid = daemon.process.pid
    return {
        "timers": timers(daemon),  # first: it waits until what was put off is done
        "groups": sorted(str(path) for path in daemon.groups()),
        "mounts": Path(f"/proc/{pid}/mountinfo").read_text().splitlines(),
        "descriptors": sorted(_target(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")),
        "children": Path(f"/proc/{pid}/task/{pid}/children").read_text().split(),
        "namespaces": sorted(_target(f"/proc/{pid}/ns/{name}") for name in os.listdir(f"/proc/{pid}/ns")),
        "links": Path(f"/proc/{pid}/net/dev").read_text().count(":"),
        "files": sorted(str(path) for path in (daemon.root / "run").rglob("*")),
    }


def settled(daemon: Daemon, before: dict[str, Any]) -> dict[str, Any]:
    """Return what is held once it is as before, or after a while: networks are taken down by a helper."""
    deadline = time.monotonic() + 30
    while True:
        after = held(daemon)
        if not any(new(before, after, name) for name in before) or time.monotonic() > deadline:
            return after


def _target(link: str) -> str:
    target = os.readlink(link)
    return target.partition(":")[0] if target.startswith(("socket:", "pipe:")) else target


def new(before: dict[str, Any], after: dict[str, Any], name: str) -> list[Any]:
    """Return what is there more than before."""
    if isinstance(after[name], int):
        return [after[name]] if after[name] > before[name] else []
    return sorted((Counter(after[name]) - Counter(before[name])).elements())


def timers(daemon: Daemon) -> int:
    """Return how many timers are pending once those that gather writes have struck."""
    assert daemon.process
    time.sleep(1.5)
    said = daemon.output().count("timers ")
    os.kill(daemon.process.pid, 12)
    deadline = time.monotonic() + 10
    while daemon.output().count("timers ") == said:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return int(daemon.output().rpartition("timers ")[2].split()[0])


def memory(pid: int) -> int:
    """Return the bytes a process has in memory, those it shares included.

    What it has for itself says less: a page of a library becomes private when the last other program ends.
    """
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("Rss:"))
