# SPDX-License-Identifier: Apache-2.0
"""Each limit of a running job, changed while it runs: the kernel's files say so, the pid stays."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from support.daemon import Daemon
from support.documents import document, job, python

pytestmark = pytest.mark.root

MIB = 1 << 20
UNLIMITED = str((1 << 63) - os.sysconf("SC_PAGE_SIZE"))

FILES: dict[str, tuple[tuple[str, str], str]] = {
    "mem_limit": (("memory", "memory.limit_in_bytes"), "memory.max"),
    "mem_high": (("", ""), "memory.high"),
    "memory and swap": (("memory", "memory.memsw.limit_in_bytes"), ""),
    "swap_limit": (("", ""), "memory.swap.max"),
    "pids_max": (("pids", "pids.max"), "pids.max"),
    "cpu_weight": (("cpu", "cpu.shares"), "cpu.weight"),
    "cpu_max": (("cpu", "cpu.cfs_quota_us"), "cpu.max"),
    "io_weight": (("blkio", "blkio.bfq.weight"), "io.bfq.weight"),
}
"""Where the kernel keeps each limit: (controller, file) on v1, file on v2."""

HOLDS = """
import sys, time
kept = bytearray(b"x" * (int(sys.argv[1]) << 20))
print("!!OK!!", flush=True)
time.sleep(1000)
"""


def groups(pid: int) -> dict[str, str]:
    """Return the path of a process's group by controller; the v2 tree is ``."""
    lines = (line.split(":", 2) for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines())
    return {name: path for _, names, path in lines for name in names.split(",")}


def kept(pid: int, limit: str) -> str | None:
    """Return what the kernel keeps as that limit of a process; None: it has no such file here."""
    (controller, file), unified = FILES[limit]
    found = groups(pid)
    if controller and controller in found:
        path = Path(f"/sys/fs/cgroup/{controller}{found[controller]}") / file
    else:
        path = Path(f"/sys/fs/cgroup{found['']}") / unified
    return path.read_text().strip() if path.is_file() else None


def apply(daemon: Daemon, limits: Mapping[str, Any], **keys: Any) -> None:
    daemon.run(document(job("app", cgroup=dict(limits), **keys), job("other")))


CHANGES = [
    ("mem_limit", "64M", str(64 * MIB), str(64 * MIB), "80M", str(80 * MIB), str(80 * MIB), UNLIMITED, "max"),
    ("mem_high", "64M", None, str(64 * MIB), "80M", None, str(80 * MIB), None, "max"),
    ("pids_max", 7, "7", "7", 9, "9", "9", "max", "max"),
    ("cpu_weight", 50, "512", "50", 200, "2048", "200", "1024", "100"),
    ("cpu_max", 0.5, "50000", "50000 100000", 1.5, "150000", "150000 100000", "-1", "max 100000"),
    ("io_weight", 50, "50", "50", 200, "109", "109", "100", "100"),
]


@pytest.mark.parametrize(
    ("limit", "one", "one_v1", "one_v2", "two", "two_v1", "two_v2", "none_v1", "none_v2"),
    CHANGES,
    ids=[row[0] for row in CHANGES],
)
@pytest.mark.parametrize("before", [False, True], ids=["it had none", "it had another"])
def test_a_limit_is_given_changed_and_taken_away_while_the_job_runs(
    daemon: Daemon,
    before: bool,
    limit: str,
    one: Any,
    one_v1: str | None,
    one_v2: str,
    two: Any,
    two_v1: str | None,
    two_v2: str,
    none_v1: str | None,
    none_v2: str,
) -> None:
    other = {"pids_max": 50} if limit != "pids_max" else {"cpu_weight": 300}
    base = other if before else {}
    apply(daemon, base)
    pid = daemon.job("app")["pid"]
    controller = FILES[limit][0][0]
    on_v1 = os.path.isdir("/sys/fs/cgroup/memory")
    for value, v1, v2 in ((one, one_v1, one_v2), (two, two_v1, two_v2), (None, none_v1, none_v2)):
        wanted = {**base, limit: value} if value is not None else base
        apply(daemon, wanted)
        found = kept(pid, limit)
        if found is None:
            assert on_v1 or limit == "io_weight"  # v1 has nothing of the kind
        else:
            assert found == (v1 if on_v1 else v2)
        if on_v1 and controller:
            assert groups(pid)[controller].endswith("/app.job")
    row = daemon.job("app")
    assert (row["pid"], row["state"], row["restarts"]) == (pid, "RUNNING", 0)
    if before:
        assert kept(pid, next(iter(other))) in ("50", "3072", "300")


def test_every_process_of_a_job_is_moved_into_a_group_it_needs_now(daemon: Daemon) -> None:
    script = "for i in 1 2 3 4 5; do (sleep 1000 & sleep 1000) & done; echo up; wait"
    daemon.run(document(job("app", script), job("other")))
    daemon.wait_log("app", "up")
    pid = daemon.job("app")["pid"]
    members = wait_members(pid, 11)
    daemon.run(document(job("app", script, cgroup={"mem_limit": "64M", "pids_max": 40}), job("other")))
    for member in members:
        assert kept(member, "mem_limit") == str(64 * MIB)
        assert kept(member, "pids_max") == "40"
    other = groups(daemon.job("other")["pid"])
    assert not other.get("memory", "").endswith(".job")
    assert daemon.do("app", "stop")["status"] == "complete"
    deadline = time.monotonic() + 20
    while left := [member for member in members if os.path.exists(f"/proc/{member}")]:
        # orphans end as zombies of the daemon and are buried a moment later
        assert time.monotonic() < deadline, left
        time.sleep(0.01)


def wait_members(pid: int, count: int) -> list[int]:
    """Return the processes of a process's tracking group once there are so many."""
    tree = "/sys/fs/cgroup/unified" if os.path.isdir("/sys/fs/cgroup/unified") else "/sys/fs/cgroup"
    file = Path(f"{tree}{groups(pid)['']}/cgroup.procs")
    deadline = time.monotonic() + 10
    while len(found := file.read_text().split()) < count:
        assert time.monotonic() < deadline, found
        time.sleep(0.01)
    return [int(word) for word in found]


def test_a_limit_given_later_holds(daemon: Daemon) -> None:
    script = (
        "import signal, time\nwanted = {signal.SIGUSR1}\nsignal.pthread_sigmask(signal.SIG_BLOCK, wanted)\n"
        "print('up', flush=True)\nsignal.sigwait(wanted)\n"
        "kept = bytearray(b'x' * (200 << 20))\ntime.sleep(1000)"
    )
    daemon.run(document(python("app", script)))
    daemon.wait_log("app", "up")
    limits = {"mem_limit": "32M", "swap_limit": 0}
    daemon.run(document(python("app", script, cgroup=limits)))
    daemon.client().kill("app", "SIGUSR1")
    cause = daemon.wait_state("app", "FAILED")["cause"]
    assert cause.startswith("killed for memory, limit 32.0M"), cause


def test_a_limit_taken_away_does_not_hold(daemon: Daemon) -> None:
    script = (
        "import signal, time\nwanted = {signal.SIGUSR1}\nsignal.pthread_sigmask(signal.SIG_BLOCK, wanted)\n"
        "print('up', flush=True)\nsignal.sigwait(wanted)\n"
        "kept = bytearray(b'x' * (100 << 20))\nprint('has it', flush=True)\ntime.sleep(1000)"
    )
    daemon.run(document(python("app", script, cgroup={"mem_limit": "32M", "swap_limit": 0})))
    daemon.wait_log("app", "up")
    daemon.run(document(python("app", script)))
    daemon.client().kill("app", "SIGUSR1")
    daemon.wait_log("app", "has it")


def test_memory_and_swap_go_up_and_down_together_in_any_order(daemon: Daemon) -> None:
    steps = [("32M", "8M"), ("64M", 0), ("16M", "64M"), ("128M", "128M"), ("16M", 0), ("48M", "16M")]
    pid = 0
    for memory, swap in steps:
        apply(daemon, {"mem_limit": memory, "swap_limit": swap})
        pid = pid or daemon.job("app")["pid"]
        size, more = int(memory.rstrip("M")), int(str(swap).rstrip("M"))
        assert kept(pid, "mem_limit") == str(size * MIB)
        for limit, value in (("memory and swap", size + more), ("swap_limit", more)):
            found = kept(pid, limit)
            assert found in (None, str(value * MIB)), limit
    assert daemon.job("app")["pid"] == pid
    apply(daemon, {"mem_limit": "16M"})  # without a limit of swap
    assert kept(pid, "memory and swap") in (None, UNLIMITED)
    assert kept(pid, "swap_limit") in (None, "max")


def test_a_limit_below_what_is_in_use_is_refused_and_the_job_lives(daemon: Daemon) -> None:
    def wanted(size: str) -> dict[str, Any]:
        found = python("app", HOLDS, wait_for_ok=True, cgroup={"mem_limit": size, "swap_limit": 0})
        found["exec_args"].append("48")
        return document(found, job("other"))

    daemon.run(wanted("128M"))
    pid = daemon.job("app")["pid"]
    task = daemon.apply(wanted("16M"))
    assert task["status"] == "failed"
    assert "cannot limit app: mem_limit 16.0M: " in task["error"]["message"]
    assert "are in use" in task["error"]["message"]
    assert kept(pid, "mem_limit") == str(128 * MIB)
    row = daemon.job("app")
    assert (row["pid"], row["state"]) == (pid, "RUNNING")
    assert daemon.plan(wanted("16M")) == [("set-limits", "app")]  # it is not forgotten
    assert daemon.plan(wanted("128M")) == []


def test_what_v1_lacks_is_said_once_for_each_job(daemon: Daemon) -> None:
    if not os.path.isdir("/sys/fs/cgroup/memory"):
        pytest.skip("this device has cgroup v2")
    lacking = {"mem_high": "10M", "swap_limit": "5M", "pids_max": 5}
    many = document(job("a", cgroup=lacking), job("b", cgroup=lacking), job("c", cgroup={"pids_max": 5}))
    answer = daemon.client().apply(many)
    said = [(warning["path"], warning["message"]) for warning in answer["warnings"]]
    swap = "swap_limit: cgroup v1 limits swap only together with mem_limit"
    if not os.path.exists("/sys/fs/cgroup/memory/memory.memsw.limit_in_bytes"):
        swap = "swap_limit: this kernel has no swap accounting"
    high = "mem_high: cgroup v1 has nothing that slows a process down before its memory limit"
    assert sorted(said) == [("a", high), ("a", swap), ("b", high), ("b", swap)]
    task = daemon.client().task(answer["task_id"], wait=20)
    assert task["status"] == "complete"
    assert task["messages"] == [], "the answer has told them already"
