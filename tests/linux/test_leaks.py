# SPDX-License-Identifier: Apache-2.0
"""Many starts and stops through the API leave nothing: no group, mount, namespace, descriptor, child, timer.

MAESTRO_CYCLES sets how many; `MAESTRO_CYCLES=1000 pytest tests/linux/test_leaks.py` is the long run.
"""

from __future__ import annotations

import http.client
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from support.daemon import Daemon
from support.documents import document, job
from support.guarded import patched

pytestmark = [pytest.mark.root, pytest.mark.timeout(600)]

CYCLES = int(os.environ.get("MAESTRO_CYCLES", "100"))
WARM_UP = 300
"""Cycles before the first look: caches, modules imported late, the first groups."""

MIB = 1 << 20

# The number of pending timers can be seen from inside only: SIGUSR2 writes it to standard error.
COUNTS_TIMERS = (
    "import os, signal; from maestro_py.daemon.loop import Loop;"
    " run = Loop.run;"
    " say = lambda loop: os.write(2, b'timers %d\\n' % sum(e[-1].pending for e in loop._timers));"
    " Loop.run = lambda loop: (loop.add_signal(signal.SIGUSR2, lambda: say(loop)), run(loop))[1]"
)

SHAPES: dict[str, dict[str, Any]] = {
    "plain": {},
    "limited": {"cgroup": {"mem_limit": "64M", "pids_max": 20, "cpu_weight": 50}},
    "isolated": {
        "user": "nobody",
        "cgroup": {"mem_limit": "64M"},
        "pids": "private",
        "tmpfs": ["/mnt"],
        "read_only_root": True,
        "network": "none",
        "stop_signal": "SIGKILL",  # process 1 of a namespace heeds no other that it does not handle
    },
}


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
        assert ended["status"] == "complete", ended

    def _ask(self, method: str, path: str) -> Any:
        self.request(method, path)
        answer = self.getresponse()
        data = answer.read()
        assert answer.status in (200, 202), data
        return json.loads(data)


@pytest.fixture
def device(tmp_path: Path) -> Iterator[Daemon]:
    daemon = Daemon(tmp_path / "device")
    # what others mount meanwhile stays out of its sight, what it leaves mounted does not
    daemon.program = ("unshare", "--mount", "--propagation", "private", *patched(COUNTS_TIMERS))
    yield daemon.start()
    daemon.close()


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
        "files": sorted(str(path) for path in (daemon.root / "run").rglob("*")),
    }


def _target(link: str) -> str:
    target = os.readlink(link)
    return target.partition(":")[0] if target.startswith(("socket:", "pipe:")) else target


def new(before: dict[str, Any], after: dict[str, Any], name: str) -> list[Any]:
    """Return what is there more than before; of mounts others may take theirs away meanwhile."""
    if name == "mounts":
        return [line for line in after[name] if line not in before[name]]
    return [] if after[name] == before[name] else [before[name], after[name]]


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
    """Return the bytes that are a process's own."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    sizes = {line.split(":")[0]: int(line.split()[1]) << 10 for line in lines[1:]}
    return sizes["Private_Dirty"] + sizes["Private_Clean"]


@pytest.mark.parametrize("shape", SHAPES)
def test_starting_and_stopping_leaves_nothing_behind(
    device: Daemon, shape: str, record_property: Any
) -> None:
    device.run(document(job("app", no_autostart=True, **SHAPES[shape]), job("other")))
    assert device.process
    pid = device.process.pid
    with closing(KeptAlive(device.socket)) as api:
        for _ in range(WARM_UP):
            api.do("start", "app")
            api.do("stop", "app")
        before, used = held(device), memory(pid)
        began = time.monotonic()
        for _ in range(CYCLES):
            api.do("start", "app")
            api.do("stop", "app")
        took = time.monotonic() - began
        after, grown = held(device), memory(pid) - used
    for name in before:
        assert new(before, after, name) == [], name
    record_property("grown", grown)
    print(f"\n{shape}: {CYCLES} cycles, {took / CYCLES * 1e3:.2f} ms each, grown by {grown >> 10} KiB")
    assert grown < MIB
    assert device.job("other")["restarts"] == 0
    assert device.stop() == 0
    assert device.groups() == []


def test_deaths_and_restarts_leave_nothing_behind(device: Daemon) -> None:
    """Five a second, each with a helper that outlives the main process."""
    script = "sleep 1000 & exit 3"
    device.run(document(job("other")))
    before = held(device)
    dying = job("app", script, restart=True, restart_pause=1, restart_limit=CYCLES)
    device.client().apply(document(job("other"), dying))
    device.wait_state("app", "FAILED", timeout=120)
    device.run(document(job("other")))
    after = held(device)
    for name in ("groups", "mounts", "descriptors", "children", "namespaces", "timers"):
        assert new(before, after, name) == [], name


def test_launches_that_fail_leave_nothing_behind(device: Daemon) -> None:
    broken = {"job": "app", "exec_cmd": "/nowhere/program", **SHAPES["limited"]}
    device.run(document(job("other")))
    before = held(device)
    for _ in range(20):
        device.apply(document(job("other"), broken))
        device.run(document(job("other")))
    after = held(device)
    for name in ("groups", "mounts", "descriptors", "children", "namespaces", "timers"):
        assert new(before, after, name) == [], name
