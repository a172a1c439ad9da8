# SPDX-License-Identifier: Apache-2.0
"""After kill -9 of the daemon its jobs run on, and the next daemon goes on with them where they are."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.daemon import Daemon
from support.documents import WAIT, document, job, python
from support.processes import wait_gone

LINES = "n=0; while :; do echo line $n; n=$((n+1)); sleep 0.002; done"


def again(daemon: Daemon) -> None:
    daemon.crash()
    daemon.start()


def numbers(daemon: Daemon, name: str = "app") -> list[int]:
    """Return the numbers of all lines a job has logged, oldest first."""
    files = sorted((daemon.root / "log").glob(f"{name}.log*"), key=lambda f: -int(f.suffix[1:] or 0)
                   if f.suffix != ".log" else 0)  # fmt: skip
    text = b"".join(file.read_bytes() for file in files).decode()
    return [int(line.split()[1]) for line in text.splitlines() if line.startswith("line ")]


def test_jobs_run_on_and_no_line_of_theirs_is_lost(daemon: Daemon) -> None:
    daemon.run(document(job("app", LINES, restart=True)))
    pid = daemon.job("app")["pid"]
    for round in range(4):
        daemon.wait_log("app", f"line {round * 50}\n")
        again(daemon)
        assert daemon.job("app")["pid"] == pid
    daemon.wait_log("app", "line 300\n")
    row = daemon.job("app")
    assert (row["state"], row["restarts"]) == ("RUNNING", 0)
    found = numbers(daemon)
    assert found == list(range(len(found)))
    assert any(e["type"] == "process-adopted" for e in daemon.events("app"))


def test_every_rotation_and_ok_string_under_fire_loses_no_line(make_daemon: Callable[..., Daemon]) -> None:
    daemon = make_daemon("log_max_size: 4k\nlog_max_files: 500\n")
    flood = "n=0; while [ $n -lt 4000 ]; do echo line $n; n=$((n+1)); done; echo '!!OK!!'; exec sleep 1000"
    daemon.client().apply(document(job("app", flood, uses_ok_string=True)))
    with daemon.client().events(follow=True) as events:
        next(event for event in events if event["type"] == "process-starting")
    for _ in range(4):
        again(daemon)
    daemon.wait_state("app", "RUNNING", 60)
    assert numbers(daemon) == list(range(4000))


def test_a_job_that_died_meanwhile_is_noticed_at_once_and_restarted_as_its_policy_says(
    daemon: Daemon,
) -> None:
    always = {"restart_policy": "always"}
    daemon.run(document(job("again", WAIT, **always), job("once", WAIT), job("after", depends_on=["once"])))
    pids = {name: daemon.job(name)["pid"] for name in ("again", "once", "after")}
    daemon.crash()
    for name in ("again", "once"):
        os.kill(pids[name], signal.SIGKILL)
        wait_gone(pids[name])
    since = last_event(daemon)
    daemon.start()
    row = daemon.wait("again", lambda row: row["state"] == "RUNNING")
    assert row["pid"] != pids["again"]
    assert row["restarts"] == 1
    assert "while the daemon was down" in row["last_death"] or "SIGKILL" in row["last_death"]
    once = daemon.job("once")
    assert once["state"] == "FAILED"
    assert once["pid"] is None
    assert daemon.job("after")["pid"] == pids["after"]
    assert all(event["id"] > since for event in daemon.events(since=since))


def last_event(daemon: Daemon) -> int:
    """Return the number of the newest event of a daemon that is down."""
    db = sqlite3.connect(daemon.root / "run" / "run.db")
    try:
        return int(db.execute("SELECT max(id) FROM events").fetchone()[0])
    finally:
        db.close()


def test_a_job_taken_over_still_tells_how_it_ends(daemon: Daemon) -> None:
    daemon.run(document(*(job(name, "trap 'exit 7' TERM; while :; do sleep 0.05; done") for name in "ab")))
    again(daemon)
    os.kill(daemon.job("a")["pid"], signal.SIGTERM)
    os.kill(daemon.job("b")["pid"], signal.SIGKILL)
    causes = [daemon.wait_state(name, "FAILED")["cause"] for name in "ab"]
    assert causes == ["exit code 7", "killed by SIGKILL"]


def test_restart_counter_and_back_off_go_on(daemon: Daemon) -> None:
    backoff = {"initial": "20s", "jitter": 0}
    daemon.client().apply(
        document(
            job("waits", "exit 1", restart_policy="always", restart_backoff=backoff),
            job("gives-up", "exit 1", restart_policy="always", restart_limit=2, restart_pause=1),
        )
    )
    daemon.wait_state("waits", "RESTARTING")
    gave_up = daemon.wait_state("gives-up", "FAILED")
    before = deadline(daemon, "waits")
    again(daemon)
    assert daemon.job("waits")["state"] == "RESTARTING"
    assert deadline(daemon, "waits") == before
    assert daemon.job("gives-up")["cause"] == gave_up["cause"]
    assert daemon.job("gives-up")["state"] == "FAILED"


def deadline(daemon: Daemon, name: str) -> float:
    db = sqlite3.connect(daemon.root / "run" / "run.db")
    try:
        kept = db.execute("SELECT kept FROM records WHERE process=?", (name,)).fetchone()[0]
    finally:
        db.close()
    return float(json.loads(kept)["life"]["timer"])


def test_a_stop_that_was_under_way_is_carried_to_its_end(daemon: Daemon) -> None:
    stubborn = "trap '' TERM; echo ready; while :; do sleep 0.05; done"
    daemon.run(document(job("app", stubborn, stop_timeout=2, restart_policy="always")))
    daemon.wait_log("app", "ready")
    pid = daemon.job("app")["pid"]
    daemon.client().action("app", "stop")
    daemon.wait_state("app", "STOPPING")
    again(daemon)
    row = daemon.wait_state("app", "STOPPED")
    assert "was killed" in row["cause"]
    wait_gone(pid)


def test_a_job_that_was_not_ready_yet_becomes_ready_or_is_late(daemon: Daemon) -> None:
    daemon.client().apply(
        document(
            job("later", "sleep 1; echo '!!OK!!'; exec sleep 1000", uses_ok_string=True),
            job("never", WAIT, uses_ok_string=True, timeout_for_ok=2500),
        )
    )
    for name in ("later", "never"):
        daemon.wait(name, lambda row: row["state"] == "STARTING" and row["pid"])
    pid = daemon.job("later")["pid"]
    again(daemon)
    assert daemon.wait_state("later", "RUNNING")["pid"] == pid
    row = daemon.wait("never", lambda row: row["state"] in ("FAILED", "RESTARTING"))
    assert "did not say OK within" in row["cause"]


def test_what_was_configured_while_the_daemon_was_down_is_all_that_changes(
    make_daemon: Callable[..., Daemon],
) -> None:
    line = "- {{job: {0}, exec_cmd: /bin/sleep, exec_args: ['{1}']}}\n"
    daemon = make_daemon(
        "jobs:\n" + line.format("same", 1000) + line.format("other", 1000) + line.format("gone", 9999)
    )
    pids = {name: daemon.wait_state(name, "RUNNING")["pid"] for name in ("same", "other", "gone")}
    daemon.crash()
    config = "jobs:\n" + line.format("same", 1000) + line.format("other", 2000) + line.format("new", 1000)
    (daemon.root / "maestro.yaml").write_text(config)
    daemon.start()
    daemon.wait_state("new", "RUNNING")
    daemon.wait("other", lambda row: row["state"] == "RUNNING" and row["pid"] != pids["other"])
    assert daemon.job("same")["pid"] == pids["same"]
    wait_gone(pids["gone"])
    assert {row["job"] for row in daemon.client().status()["jobs"]} == {"same", "other", "new"}


def test_stopped_by_hand_stays_stopped_over_a_crash(daemon: Daemon) -> None:
    daemon.run(document(job("app", restart=True), job("ends", "exit 0")))
    daemon.do("app", "stop")
    daemon.wait_state("ends", "STOPPED")
    again(daemon)
    assert daemon.job("app")["state"] == "STOPPED"
    assert "stopped by" in daemon.job("app")["cause"]
    assert daemon.job("ends")["state"] == "STOPPED"
    assert daemon.do("app", "start")["status"] == "complete"


# Strangers


@pytest.fixture
def stranger() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(["/bin/sleep", "1000"])
    yield process
    process.kill()
    process.wait()


def forge(daemon: Daemon, **values: object) -> None:
    """Change what is recorded of a process while no daemon runs."""
    db = sqlite3.connect(daemon.root / "run" / "run.db")
    for name, value in values.items():
        db.execute(f"UPDATE records SET {name}=? WHERE process='app'", (value,))
    db.commit()
    db.close()


def ticks_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])


@pytest.mark.parametrize("same_tick", [False, True])
def test_a_recycled_pid_is_never_signalled(
    daemon: Daemon, stranger: subprocess.Popen[bytes], same_tick: bool
) -> None:
    """Even one that was started in the very tick: it is in no group of ours, where there are groups."""
    daemon.run(document(job("app", WAIT, restart_policy="always")))
    if same_tick and not daemon.groups():
        pytest.skip("no control groups here to tell them apart")
    daemon.crash()
    pid = recorded_pid(daemon)
    os.kill(pid, signal.SIGKILL)
    wait_gone(pid)
    forge(daemon, pid=stranger.pid, **({"ticks": ticks_of(stranger.pid)} if same_tick else {}))
    daemon.start()
    row = daemon.wait("app", lambda row: row["state"] == "RUNNING" and row["restarts"] == 1)
    assert row["pid"] != stranger.pid
    daemon.do("app", "stop")
    daemon.stop()
    assert stranger.poll() is None


def recorded_pid(daemon: Daemon) -> int:
    db = sqlite3.connect(daemon.root / "run" / "run.db")
    try:
        return int(db.execute("SELECT pid FROM records WHERE process='app'").fetchone()[0])
    finally:
        db.close()


def test_a_record_of_another_boot_means_nothing(daemon: Daemon, stranger: subprocess.Popen[bytes]) -> None:
    daemon.run(document(job("app", WAIT)))
    pid = daemon.job("app")["pid"]
    daemon.crash()
    os.kill(pid, signal.SIGKILL)
    wait_gone(pid)
    forge(daemon, boot_id="another", pid=stranger.pid, ticks=ticks_of(stranger.pid))
    daemon.start()
    assert daemon.wait_state("app", "RUNNING")["restarts"] == 0
    daemon.stop()
    assert stranger.poll() is None


@pytest.mark.parametrize("damage", [b"", b"no database " * 1000])
def test_processes_without_a_record_are_taken_over_as_what_they_are(daemon: Daemon, damage: bytes) -> None:
    """The run database is lost: what runs as the document says goes on, anything else is ended."""
    daemon.run(document(job("app", "exec /bin/sleep 1000"), python("py", "import time; time.sleep(1000)")))
    pids = {name: daemon.job(name)["pid"] for name in ("app", "py")}
    daemon.crash()
    for tail in ("-wal", "-shm"):
        (daemon.root / "run" / f"run.db{tail}").unlink()
    (daemon.root / "run" / "run.db").write_bytes(damage)
    daemon.start()
    # a shell that became its program cannot be told from another: it is started anew
    assert daemon.wait_state("app", "RUNNING")["pid"] != pids["app"]
    assert daemon.wait_state("py", "RUNNING")["pid"] == pids["py"]
    wait_gone(pids["app"])
    assert daemon.do("py", "stop")["status"] == "complete"
    wait_gone(pids["py"])
    if damage:
        assert "run.db is damaged" in daemon.output()


def test_a_launch_cut_off_before_it_was_recorded_leaves_nothing_behind(tmp_path: Path) -> None:
    """The child waits for its record to be written, and goes when nobody will write it."""
    mark = tmp_path / "ran"
    points = ("process.launch.forked", "process.launch.recorded", "runner.launch.started")
    for number, point in enumerate(points):
        daemon = Daemon(tmp_path / str(number), env={"MAESTRO_FAULT_POINT": point})
        daemon.start()
        # not a helper's launch: those are not recorded
        daemon.client().apply(document(job("app", f"echo ran >>{mark}; {WAIT}")))
        assert daemon.process
        assert daemon.process.wait(20) == -signal.SIGKILL
        del daemon.env["MAESTRO_FAULT_POINT"]
        daemon.start()
        try:
            daemon.wait_state("app", "RUNNING")
            deadline = time.monotonic() + 10
            while not mark.exists() and time.monotonic() < deadline:
                time.sleep(0.01)
            assert mark.read_text() == "ran\n"
        finally:
            daemon.close()
            mark.unlink()
