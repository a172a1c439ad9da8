# SPDX-License-Identifier: Apache-2.0
"""Many starts and stops through the API leave nothing: no group, mount, namespace, descriptor, child, timer.

MAESTRO_CYCLES sets how many; `MAESTRO_CYCLES=1000 pytest tests/linux/test_leaks.py` is the long run.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from support.daemon import Daemon
from support.documents import document, job
from support.guarded import patched
from support.leftovers import COUNTS_TIMERS, MOST_GROWTH, KeptAlive, held, memory, new, settled
from support.netlab import lab

CYCLES = int(os.environ.get("MAESTRO_CYCLES", "50"))
WARM_UP = min(300, 3 * CYCLES)
"""Cycles before the first look: caches, modules imported late, the first groups."""

pytestmark = [pytest.mark.root, pytest.mark.timeout(300 + 2 * CYCLES)]

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
        "secrets": [{"name": "key", "data": "hush"}],
        "stop_signal": "SIGKILL",  # process 1 of a namespace heeds no other that it does not handle
    },
    "networked": {
        "network": {"mode": "private", "ports": [{"host": 8000, "inside": 8000}]},
    },
}
DEAR = 10
"""A network of its own costs so many times as much: two helper programs, a bridge, a firewall."""


@pytest.fixture
def device(tmp_path: Path) -> Iterator[Daemon]:
    daemon = Daemon(tmp_path / "device")
    # what others mount meanwhile stays out of its sight, what it leaves mounted does not
    own = ("unshare", "--mount", "--propagation", "private")
    with lab() as world:
        daemon.program = ("nsenter", f"--net={world.device}", *own, *patched(COUNTS_TIMERS))
        yield daemon.start()
        daemon.close()
        assert world.links() == {"lo", "wan0"}
        assert world.tables() == 0


@pytest.mark.parametrize("shape", SHAPES)
def test_starting_and_stopping_leaves_nothing_behind(
    device: Daemon, shape: str, record_property: Any
) -> None:
    device.run(document(job("app", no_autostart=True, **SHAPES[shape]), job("other")))
    assert device.process
    pid = device.process.pid
    dear = DEAR if shape == "networked" and CYCLES < 1000 else 1
    cycles = CYCLES // dear
    with closing(KeptAlive(device.socket)) as api:
        for _ in range(WARM_UP // dear):
            api.do("start", "app")
            api.do("stop", "app")
        before, used = held(device), memory(pid)
        began = time.monotonic()
        for _ in range(cycles):
            api.do("start", "app")
            api.do("stop", "app")
        took = time.monotonic() - began
        after, grown = settled(device, before), memory(pid) - used
    for name in before:
        assert new(before, after, name) == [], name
    record_property("grown", grown)
    print(f"\n{shape}: {cycles} cycles, {took / cycles * 1e3:.2f} ms each, grown by {grown >> 10} KiB")
    assert grown < MOST_GROWTH
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
