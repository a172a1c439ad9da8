# SPDX-License-Identifier: Apache-2.0
"""Hours of ordinary life, and thousands of deaths, leave no more behind than the first minute did.

MAESTRO_SOAK_SECONDS says how long the churn lasts (default 5, the full run is 3600), MAESTRO_CRASHES
how many deaths there are (default 200, the full run is 10000).
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.daemon import Daemon
from support.documents import WAIT, Document, document, job
from support.guarded import patched
from support.leftovers import COUNTS_TIMERS, MOST_GROWTH, held, memory, new, settled

from maestro_py.errors import MaestroError

SECONDS = float(os.environ.get("MAESTRO_SOAK_SECONDS", "5"))
CRASHES = int(os.environ.get("MAESTRO_CRASHES", "200"))

CONFIG = """
restart_rate: 0
log_level: error
log_max_size: 16k
log_max_files: 2
"""

ROOT = os.geteuid() == 0
LIMITS = {"cgroup": {"pids_max": 20, "mem_limit": "64M"}} if ROOT else {}

STEADY = job("steady", "exec sleep 1000000")
"""Outlives the longest run."""


@pytest.fixture
def device(tmp_path: Path) -> Iterator[Daemon]:
    daemon = Daemon(tmp_path / "device", CONFIG)
    # what others mount meanwhile stays out of its sight, what it leaves mounted does not
    own = ("unshare", "--mount", "--propagation", "private") if ROOT else ()
    daemon.program = (*own, *patched(COUNTS_TIMERS))
    yield daemon.start()
    daemon.close()


def wanted(chance: random.Random) -> Document:
    """Return a few jobs of each kind: quiet, noisy, dying, never ready, not to be started."""
    quick = {"restart_policy": "always", "restart_backoff": {"initial": "20ms", "max": "200ms"}, **LIMITS}
    version = chance.randrange(3)
    jobs = [
        STEADY,
        job("quiet", f": {version}; sleep 1000", **LIMITS),
        job("noisy", "while :; do echo some words to log; sleep 0.01; done", **LIMITS),
        job("dying", f"sleep 0.0{chance.randrange(9)}; sleep 1000 & exit {version}", **quick),
        job("killed", "kill -9 $$", **quick),
        job("never", WAIT, uses_ok_string=True, timeout_for_ok=50, **quick),
        job("absent", **{"exec_cmd": "/nowhere/program", **quick}),
        job("later", no_autostart=True, depends_on=["quiet"]),
    ]
    if ROOT:
        inside = {"tmpfs": ["/mnt"], "read_only_root": True, "network": "none", "pids": "private"}
        jobs.append(job("inside", f": {version}; sleep 1000", stop_signal="SIGKILL", user="nobody", **inside))
    some = [each for each in jobs if each is STEADY or chance.random() < 0.8]
    names = {each["job"] for each in some}
    return document(*(each for each in some if set(each.get("depends_on", ())) <= names))


def churn(daemon: Daemon, chance: random.Random, seconds: float, least: int) -> int:
    """Do what people do to a daemon, one after the other; return how many things were done."""
    until, count = time.monotonic() + seconds, 0
    client = daemon.client()
    while count < least or time.monotonic() < until:
        count += 1
        name = chance.choice(["quiet", "noisy", "dying", "later", "inside"])
        try:
            what = chance.randrange(10)
            if what < 3:
                task = client.apply(wanted(chance), force=True)
                if chance.randrange(3) == 0:  # some are sent while others wait, but not ever more
                    client.task(task["task_id"], wait=60)
            elif what < 7:
                client.action(name, chance.choice(["start", "stop", "restart", "pause", "resume"]))
            elif what == 7:
                client.status()
                list(client.events(n=100))
            elif what == 8:
                b"".join(client.logs(name, n=100))
            else:
                os.kill(daemon.job(name)["pid"] or 0x3FFFFFFF, 9)
        except (MaestroError, ProcessLookupError):
            pass  # it is not there, or has ended by now
        time.sleep(chance.random() * 0.05)
    for task in client.tasks()["tasks"]:  # those that wait come first
        client.task(task["task_id"], wait=300)
    daemon.run(document(STEADY), force=True)
    return count


@pytest.mark.timeout(240 + SECONDS * 2)
def test_a_long_life_leaves_nothing_behind(device: Daemon) -> None:
    assert device.process
    pid, chance = device.process.pid, random.Random(1)
    device.run(document(STEADY))
    steady = device.job("steady")["pid"]
    churn(device, chance, max(SECONDS / 10, 3), 80)  # histories and caches fill
    before, used = held(device), memory(pid)
    count = churn(device, chance, SECONDS, 50)
    after, grown = settled(device, before), memory(pid) - used
    for name in before:
        assert new(before, after, name) == [], name
    print(f"\n| {SECONDS:g} s of churn | {count} | memory {grown >> 10:+} KiB | nothing left |")
    assert grown < MOST_GROWTH
    row = device.job("steady")
    assert (row["pid"], row["restarts"]) == (steady, 0)


def dying(daemon: Daemon, deaths: int) -> None:
    """Let a job die and be started again until there were so many deaths."""
    count = 0
    with daemon.client().events(daemon.last_event(), follow=True) as events:
        for event in events:
            count += event["type"] == "process-starting"
            if count >= deaths:
                return


@pytest.mark.timeout(240 + CRASHES // 5)
def test_deaths_and_restarts_leave_nothing_behind(device: Daemon) -> None:
    """Each leaves a descendant that outlives the main process."""
    assert device.process
    pid = device.process.pid
    keys = {"restart_policy": "always", "restart_pause": 1, **LIMITS}
    jobs = [job(f"dies{i}", "sleep 1000 & exit 1", **keys) for i in range(5)]

    def die(deaths: int) -> None:
        device.client().apply(document(STEADY, *jobs))
        dying(device, deaths)
        device.run(document(STEADY), force=True)

    device.run(document(STEADY))
    die(max(200, CRASHES // 10))  # histories and caches fill
    before, used = held(device), memory(pid)
    die(CRASHES)
    after, grown = settled(device, before), memory(pid) - used
    for name in before:
        assert new(before, after, name) == [], name
    print(f"\n| crash and restart of a job | {CRASHES} | memory {grown >> 10:+} KiB | nothing left |")
    assert grown < MOST_GROWTH
    assert device.job("steady")["restarts"] == 0
