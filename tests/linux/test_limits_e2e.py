# SPDX-License-Identifier: Apache-2.0
"""Limits of a document in the kernel's control groups: set, changed live, and what exceeding them says."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from support.daemon import Daemon
from support.documents import WAIT, document, job, python

pytestmark = pytest.mark.root

MIB = 1 << 20

EATS = """
import sys, time
print("!!OK!!", flush=True)
kept = []
while True:
    kept.append(bytearray(b"x" * (1 << 20)))
"""

_FILES = {
    "memory": (("memory", "memory.limit_in_bytes"), "memory.max"),
    "pids": (("pids", "pids.max"), "pids.max"),
}


def limit(pid: int, what: str) -> str:
    """Return what the kernel has for a process, on v1 or v2; skip without such a controller."""
    (controller, file), unified = _FILES[what]
    for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
        _, names, path = line.split(":", 2)
        if controller in names.split(","):
            return (Path(f"/sys/fs/cgroup/{controller}{path}") / file).read_text().strip()
    own = next(
        line[3:] for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines() if line.startswith("0::")
    )
    found = Path(f"/sys/fs/cgroup{own}") / unified
    if not found.exists():
        pytest.skip(f"this device has no {what} controller")
    return found.read_text().strip()


def test_limit_is_set_changed_live_and_lifted_without_a_restart(daemon: Daemon) -> None:
    def wanted(size: object) -> dict[str, object]:
        return document(job("app", cgroup={"mem_limit": size}), job("other"))

    daemon.run(wanted("64M"))
    pid, other = daemon.job("app")["pid"], daemon.job("other")["pid"]
    assert limit(pid, "memory") == str(64 * MIB)
    row = daemon.client().status(["app"], memory=True)["jobs"][0]
    assert row["memory"]["limit"] == 64 * MIB
    assert 0 < row["memory"]["current"] < 64 * MIB

    steps = daemon.client().diff(wanted("80M"))["plan"]["steps"]
    assert [(s["action"], s["subject"]) for s in steps] == [("set-limits", "app")]
    assert steps[0]["reason"] == "mem_limit 64.0M becomes 80.0M, no restart needed"
    daemon.run(wanted("80M"))
    assert limit(pid, "memory") == str(80 * MIB)
    assert daemon.plan(wanted("80M")) == []

    daemon.run(wanted(0))
    assert limit(pid, "memory") in ("max", str((1 << 63) - os.sysconf("SC_PAGE_SIZE")))
    assert (daemon.job("app")["pid"], daemon.job("other")["pid"]) == (pid, other)
    assert daemon.job("app")["state"] == "RUNNING"


def test_live_limit_and_changed_command_are_one_restart(daemon: Daemon) -> None:
    daemon.run(document(job("app", cgroup={"mem_limit": "64M"})))
    since = daemon.last_event()
    daemon.run(document(job("app", f"echo new; {WAIT}", cgroup={"mem_limit": "32M"})))
    assert [e["type"] for e in daemon.events("app", since)].count("process-starting") == 1
    assert limit(daemon.job("app")["pid"], "memory") == str(32 * MIB)


def test_limit_holds_over_restarts_of_job_and_daemon(daemon: Daemon) -> None:
    daemon.run(document(job("app", restart=True, restart_pause=1, cgroup={"mem_limit": "32M"})))
    pid = daemon.job("app")["pid"]
    daemon.client().kill("app", "SIGKILL")
    row = daemon.wait("app", lambda row: row["state"] == "RUNNING" and row["pid"] not in (None, pid))
    assert limit(row["pid"], "memory") == str(32 * MIB)
    daemon.stop()
    daemon.start()
    assert limit(daemon.wait_state("app", "RUNNING")["pid"], "memory") == str(32 * MIB)


def test_job_that_exceeds_its_memory_says_so_with_limit_and_peak(daemon: Daemon) -> None:
    # without room in swap: where there is none, or the kernel limits it too
    keys = {"cgroup": {"mem_limit": "32M", "swap_limit": 0}, "wait_for_ok": True}
    daemon.apply(document(python("app", EATS, **keys), job("other")))
    row = daemon.wait_state("app", "FAILED", timeout=30)
    match = re.match(r"killed for memory, limit 32.0M, peak ([0-9.]+)M", row["cause"])
    assert match, row["cause"]
    assert 28 <= float(match[1]) <= 32.1
    assert "killed for memory, limit 32.0M" in daemon.cli("why", "app").stdout
    assert daemon.job("other")["state"] == "RUNNING"
    assert any("killed for memory" in e["message"] for e in daemon.events("app"))


def test_job_killed_for_memory_is_restarted_by_policy(daemon: Daemon) -> None:
    keys = {"cgroup": {"mem_limit": "24M", "swap_limit": 0}, "wait_for_ok": True}
    restart = {"restart_policy": "on-failure", "restart_limit": 1, "restart_pause": 1}
    daemon.apply(document(python("app", EATS, **keys, **restart)))
    row = daemon.wait_state("app", "FAILED", timeout=30)
    assert row["restarts"] == 1
    assert row["cause"].startswith("killed for memory, limit 24.0M")
    assert row["cause"].endswith("gave up after 1 restart")


def test_limit_of_processes_holds(daemon: Daemon) -> None:
    script = "for i in 1 2 3 4 5 6 7 8; do sleep 1000 & done; echo done; wait"
    daemon.run(document(job("app", f"({script}) 2>&1; echo ended; {WAIT}", cgroup={"pids_max": 5})))
    assert limit(daemon.job("app")["pid"], "pids") == "5"
    assert re.search("fork|Cannot|unavailable", daemon.wait_log("app", "ork"))


def test_composite_has_one_limit_for_all_members(daemon: Daemon) -> None:
    template = {"name": "host", "exec_cmd": "/bin/sh", "exec_pre_args": ["-c", WAIT],
                "cgroup": {"mem_limit": "48M"}}  # fmt: skip
    members = [{"job": n, "composite_id": "both", "container_template": "host"} for n in ("a", "b")]
    daemon.run(document(*members, templates=[template]))
    rows = daemon.client().status(["a", "b"], memory=True)["jobs"]
    assert {row["memory"]["limit"] for row in rows} == {48 * MIB}
    assert limit(rows[0]["pid"], "memory") == str(48 * MIB)


def test_groups_are_gone_when_the_daemon_is(daemon: Daemon) -> None:
    daemon.run(document(job("app", cgroup={"mem_limit": "48M"})))
    pid = daemon.job("app")["pid"]
    groups = [line.split(":", 2)[2] for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines()]
    own = {path for path in groups if "maestro" in path}
    assert own
    daemon.stop()
    for top in Path("/sys/fs/cgroup").iterdir():
        for path in own:
            assert not (top / path.lstrip("/")).exists()
