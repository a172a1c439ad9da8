# SPDX-License-Identifier: Apache-2.0
"""Pausing and resuming real jobs: they stand still, and whatever ends them is not held up by it."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest
from support.daemon import Daemon
from support.documents import document, job, python

from maestro_py.errors import Conflict

pytestmark = pytest.mark.root

COUNTS = """
import mmap, os, sys
page = mmap.mmap(os.open(sys.argv[1], os.O_RDWR), 8)
print("!!OK!!", flush=True)
while True:
    page[:] = (int.from_bytes(page[:], "little") + 1).to_bytes(8, "little")
"""
"""Counts in a shared page, as fast as it can: whether it stands still is seen at once."""

LIMITED = {"cgroup": {"mem_limit": "64M", "pids_max": 50}}

both = pytest.mark.parametrize("keys", [{}, LIMITED], ids=["without limits", "with limits"])


class Counter:
    """A job that counts, in a file of its own."""

    def __init__(self, place: Path) -> None:
        self.file = place / "count"
        self.file.write_bytes(bytes(8))

    def job(self, **keys: Any) -> dict[str, Any]:
        found = python("app", COUNTS, wait_for_ok=True, **keys)
        found["exec_args"].append(str(self.file))
        return found

    def value(self) -> int:
        return int.from_bytes(self.file.read_bytes(), "little")

    def counts(self, seconds: float = 5.0) -> bool:
        """Whether it goes on within that time."""
        before, deadline = self.value(), time.monotonic() + seconds
        while time.monotonic() < deadline:
            if self.value() != before:
                return True
            time.sleep(0.001)
        return False


@pytest.fixture
def counter(tmp_path: Path) -> Counter:
    return Counter(tmp_path)


def paused(daemon: Daemon, counter: Counter, **keys: Any) -> int:
    """Run the counting job and pause it; return its pid."""
    daemon.run(document(counter.job(**keys)))
    pid: int = daemon.job("app")["pid"]
    assert counter.counts()
    assert daemon.do("app", "pause")["status"] == "complete"
    assert not counter.counts(0.1)
    return pid


@both
def test_a_paused_job_stands_still_says_so_and_goes_on(
    daemon: Daemon, counter: Counter, keys: dict[str, Any]
) -> None:
    pid = paused(daemon, counter, **keys)
    row = daemon.job("app")
    assert (row["state"], row["pid"], row["paused"], row["cause"]) == ("RUNNING", pid, True, "paused by root")
    assert "paused by root" in daemon.cli("status").stdout
    assert "It is paused by root and does nothing: `maestro resume`" in daemon.cli("why", "app").stdout
    assert daemon.do("app", "resume")["status"] == "complete"
    assert counter.counts()
    row = daemon.job("app")
    assert (row["state"], row["pid"], row["paused"], row["cause"]) == ("RUNNING", pid, False, "")
    types = [event["type"] for event in daemon.events("app")]
    assert types[-2:] == ["process-paused", "process-resumed"]


def test_pause_and_resume_are_commands_and_saying_them_twice_is_no_mistake(
    daemon: Daemon, counter: Counter
) -> None:
    daemon.run(document(counter.job()))
    for _ in range(2):
        done = daemon.cli("pause", "app")
        assert (done.returncode, done.stdout.strip()) == (0, "paused app"), done.stderr
        assert not counter.counts(0.05)
    for _ in range(2):
        done = daemon.cli("resume", "app")
        assert (done.returncode, done.stdout.strip()) == (0, "resumed app"), done.stderr
        assert counter.counts()
    types = [event["type"] for event in daemon.events("app")]
    assert (types.count("process-paused"), types.count("process-resumed")) == (1, 1)


def test_start_lets_a_paused_job_go_on(daemon: Daemon, counter: Counter) -> None:
    pid = paused(daemon, counter)
    assert daemon.do("app", "start")["status"] == "complete"
    assert counter.counts()
    assert daemon.job("app")["pid"] == pid


@pytest.mark.parametrize("script", ["exit 0", "sleep 1000"])
def test_only_what_is_ready_can_be_paused(daemon: Daemon, script: str) -> None:
    daemon.client().apply(document(job("app", script, wait_for_ok=True)))
    state = "STARTING" if script.startswith("sleep") else "FAILED"
    daemon.wait_state("app", state)
    with pytest.raises(Conflict, match=f"cannot pause app: it is {state}, not RUNNING"):
        daemon.client().action("app", "pause")


@both
def test_a_paused_job_stops_by_its_signal_without_waiting_for_its_timeout(
    daemon: Daemon, tmp_path: Path, keys: dict[str, Any]
) -> None:
    script = "trap 'echo said goodbye; exit 0' TERM; echo up; while :; do sleep 0.05; done"
    daemon.run(document(job("app", script, stop_timeout=30, **keys)))
    daemon.wait_log("app", "up")
    daemon.do("app", "pause")
    began = time.monotonic()
    assert daemon.do("app", "stop")["status"] == "complete"
    assert time.monotonic() - began < 5
    assert "said goodbye" in daemon.log_of("app")
    row = daemon.job("app")
    assert (row["state"], row["paused"], row["cause"]) == ("STOPPED", False, "stopped by root")


@both
def test_a_paused_job_that_ignores_its_signal_is_killed(daemon: Daemon, keys: dict[str, Any]) -> None:
    script = "trap '' TERM; (trap '' TERM; sleep 1000) & echo up; sleep 1000"
    daemon.run(document(job("app", script, **{"stop_timeout": 0.2, **keys})))
    daemon.wait_log("app", "up")
    pid = daemon.job("app")["pid"]
    daemon.do("app", "pause")
    assert daemon.do("app", "stop")["status"] == "complete"
    assert not os.path.exists(f"/proc/{pid}")


@both
def test_a_restart_of_a_paused_job_leaves_it_running(
    daemon: Daemon, counter: Counter, keys: dict[str, Any]
) -> None:
    pid = paused(daemon, counter, **keys)
    assert daemon.do("app", "restart")["status"] == "complete"
    row = daemon.job("app")
    assert (row["state"], row["paused"]) == ("RUNNING", False)
    assert row["pid"] != pid
    assert counter.counts()


@both
def test_a_paused_job_that_is_killed_is_restarted_and_not_frozen(
    daemon: Daemon, counter: Counter, keys: dict[str, Any]
) -> None:
    pid = paused(daemon, counter, restart=True, restart_pause=1, **keys)
    daemon.client().kill("app", "SIGKILL")
    row = daemon.wait("app", lambda row: row["state"] == "RUNNING" and row["pid"] not in (None, pid))
    assert row["paused"] is False
    assert "killed by SIGKILL, sent by root" in row["cause"]
    assert counter.counts()


def test_a_paused_job_that_a_stranger_kills_is_restarted_and_not_frozen(
    daemon: Daemon, counter: Counter
) -> None:
    pid = paused(daemon, counter, restart=True, restart_pause=1)
    os.kill(pid, 9)
    daemon.wait("app", lambda row: row["state"] == "RUNNING" and row["pid"] not in (None, pid))
    assert counter.counts()


def test_a_signal_by_hand_meets_a_paused_job_when_it_goes_on(daemon: Daemon) -> None:
    daemon.run(document(job("app", "trap 'echo met' USR1; echo up; while :; do sleep 0.02; done")))
    daemon.wait_log("app", "up")
    daemon.do("app", "pause")
    daemon.client().kill("app", "SIGUSR1")
    assert "it is paused and meets it when it goes on" in daemon.events("app")[-1]["message"]
    assert "met" not in daemon.log_of("app")
    daemon.do("app", "resume")
    daemon.wait_log("app", "met")


def test_limits_of_a_paused_job_change_and_it_stays_paused(daemon: Daemon, counter: Counter) -> None:
    pid = paused(daemon, counter)
    daemon.run(document(counter.job(**LIMITED)))
    row = daemon.client().status(["app"], memory=True)["jobs"][0]
    assert (row["pid"], row["paused"], row["memory"]["limit"]) == (pid, True, 64 << 20)
    wait_frozen(counter)
    daemon.do("app", "resume")
    assert counter.counts()


def wait_frozen(counter: Counter) -> None:
    deadline = time.monotonic() + 5
    while counter.counts(0.1):
        assert time.monotonic() < deadline


def test_the_daemon_ends_with_its_paused_jobs(daemon: Daemon, counter: Counter) -> None:
    pid = paused(daemon, counter)
    began = time.monotonic()
    assert daemon.stop() == 0
    assert time.monotonic() - began < 5
    assert not os.path.exists(f"/proc/{pid}")


def test_a_paused_job_stays_paused_over_a_crash_of_the_daemon(daemon: Daemon, counter: Counter) -> None:
    pid = paused(daemon, counter)
    daemon.crash()
    daemon.start()
    row = daemon.wait_state("app", "RUNNING")
    assert row["pid"] == pid
    assert row["paused"]
    assert not counter.counts(0.1)
    daemon.do("app", "resume")
    assert counter.counts()
    daemon.do("app", "pause")
    daemon.crash()
    daemon.start()
    assert daemon.do("app", "stop")["status"] == "complete"
    assert not lives(pid)


def lives(pid: int) -> bool:
    """Whether a process is there and no zombie: an orphan's burial is not up to us."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_a_composite_is_paused_as_one(daemon: Daemon) -> None:
    template = {"name": "host", "exec_cmd": "/bin/sh", "exec_pre_args": ["-c", "exec sleep 1000"]}
    members = [{"job": n, "composite_id": "both", "container_template": "host"} for n in ("a", "b")]
    daemon.run(document(*members, templates=[template]))
    task = daemon.do("a", "pause")
    assert task["messages"] == ["a is in both: this concerns a, b"]
    assert [daemon.job(name)["paused"] for name in ("a", "b")] == [True, True]
    assert daemon.cli("resume", "a", "b").returncode == 0
    assert [daemon.job(name)["paused"] for name in ("a", "b")] == [False, False]


def test_a_job_that_is_not_there_cannot_be_paused(daemon: Daemon) -> None:
    done = daemon.cli("pause", "nobody")
    assert done.returncode == 1
    assert "no job nobody" in done.stderr
