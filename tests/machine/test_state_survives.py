# SPDX-License-Identifier: Apache-2.0
"""What a restart and a crash of the daemon leave as it was, and what is never run twice."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from support.daemon import Daemon
from support.documents import WAIT, document, image, job


def restart(daemon: Daemon) -> None:
    assert daemon.stop() == 0
    daemon.start()


def running_with(mark: str) -> list[int]:
    """Return the pids of all processes that have a text on their command line."""
    found = []
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            line = Path(f"/proc/{entry}/cmdline").read_bytes()
        except OSError:
            continue
        if mark.encode() in line and entry != str(os.getpid()):
            found.append(int(entry))
    return found


def test_jobs_come_back_in_the_order_of_their_dependencies(daemon: Daemon, tmp_path: Path) -> None:
    wanted = document(
        job("app", "cat {{IMAGE}}/f; exec sleep 1000", depends_on=["base"]),
        job("base", f"cat $MAESTRO_CONFIG; echo; {WAIT}", restart=True),
        job("lazy", no_autostart=True),
        images=[image("app", "1.0", tmp_path, {"f": "image\n"})],
        configs=[{"name": "default", "job": "base", "data": "config"}],
        date=7,
    )
    daemon.run(wanted)
    pids = {name: daemon.job(name)["pid"] for name in ("app", "base")}
    (tmp_path / "app-1.0.tar.gz").unlink()  # what is installed is not fetched again
    since = daemon.last_event()
    restart(daemon)
    daemon.wait_state("app", "RUNNING")
    running = [e["process"] for e in daemon.events(since=since) if e["type"] == "process-running"]
    assert running == ["base", "app"]
    assert all(daemon.job(name)["pid"] != pid for name, pid in pids.items())
    assert daemon.job("app")["image_version"] == "1.0"
    assert daemon.job("lazy")["state"] == "NEVER_RAN"
    assert daemon.plan(wanted) == []
    assert daemon.client().running_config()["date"] == 7
    daemon.wait_log("app", "image\n", count=2)
    daemon.wait_log("base", "config\n", count=2)


def test_stopping_the_daemon_stops_the_jobs_dependents_first(daemon: Daemon) -> None:
    daemon.run(document(job("base"), job("app", depends_on=["base"])))
    pids = [daemon.job(name)["pid"] for name in ("base", "app")]
    assert daemon.stop() == 0
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
    log = daemon.output()
    assert log.index("app: STOPPED") < log.index("base: STOPPING")


@pytest.mark.parametrize(
    ("policy", "comes_back"),
    [("always", True), ("unless-stopped", False), ("never", True)],
)
def test_job_stopped_by_hand_stays_down_over_a_restart_only_unless_stopped(
    policy: str, comes_back: bool, daemon: Daemon
) -> None:
    daemon.run(document(job("app", restart_policy=policy), job("other")))
    daemon.do("app", "stop")
    restart(daemon)
    daemon.wait_state("other", "RUNNING")
    row = daemon.wait_state("app", "RUNNING" if comes_back else "STOPPED")
    if not comes_back:
        assert "stopped by" in row["cause"]
        restart(daemon)  # and over the next one
        assert daemon.wait_state("app", "STOPPED")["enabled"]
        daemon.do("app", "start")
        restart(daemon)
        daemon.wait_state("app", "RUNNING")


def test_disabled_and_enabled_by_hand_stay_so(daemon: Daemon) -> None:
    daemon.run(document(job("off"), job("on", disabled=True)))
    daemon.do("off", "disable")
    daemon.do("on", "enable")
    restart(daemon)
    assert daemon.wait_state("on", "RUNNING")["enabled"]
    row = daemon.wait_state("off", "STOPPED")
    assert (row["enabled"], row["cause"]) == (False, "disabled")


def test_config_set_by_hand_stays(daemon: Daemon) -> None:
    daemon.run(document(job("app", f"cat $MAESTRO_CONFIG; echo; {WAIT}")))
    daemon.cli("config", "set", "app", "default", "-", input="by hand")
    daemon.wait_log("app", "by hand")
    restart(daemon)
    daemon.wait_log("app", "by hand", count=2)
    assert daemon.cli("config", "get", "app", "default").stdout == "by hand"


def test_cause_of_a_failure_is_still_known(daemon: Daemon) -> None:
    daemon.apply(document(job("app", "exit 42", no_autostart=True)))
    daemon.do("app", "start")
    daemon.wait_state("app", "FAILED")
    restart(daemon)
    row = daemon.job("app")
    assert "exit code 42" in row["cause"], row
    assert any("exit code 42" in line for line in daemon.client().why("app")["lines"])


def test_events_go_on_where_they_ended(daemon: Daemon) -> None:
    daemon.run(document(job("app")))
    before = daemon.events()
    last = daemon.last_event()
    restart(daemon)
    daemon.wait_state("app", "RUNNING")
    after = daemon.events()
    assert [e["id"] for e in after] == sorted({e["id"] for e in after})
    assert after[: len(before)] == before
    assert all(e["id"] > last for e in daemon.events(since=last))


def test_task_ids_are_not_used_twice(daemon: Daemon) -> None:
    ids = {daemon.do(name, "stop")["task_id"] for name in self_applied(daemon)}
    restart(daemon)
    daemon.wait_state("a", "RUNNING")
    ids |= {daemon.do(name, "stop")["task_id"] for name in ("a", "b")}
    assert len(ids) == 4


def self_applied(daemon: Daemon) -> tuple[str, str]:
    daemon.run(document(job("a"), job("b")))
    return ("a", "b")


def test_removed_jobs_stay_removed(daemon: Daemon) -> None:
    daemon.run(document(job("stays"), job("goes")))
    daemon.run(document(job("stays")))
    restart(daemon)
    daemon.wait_state("stays", "RUNNING")
    assert [row["job"] for row in daemon.client().status()["jobs"]] == ["stays"]


def test_what_a_killed_daemon_left_running_runs_on_and_is_never_doubled(
    daemon: Daemon, tmp_path: Path
) -> None:
    """The job, a child that left its session, and one that lost its parent: each is there once."""
    mark = str(tmp_path / "mark")
    script = (
        f": {mark}; setsid sh -c ': {mark}; sleep 1000; :' & (setsid sh -c ': {mark}; sleep 1000; :' &) ;"
    )
    wanted = document(job("app", f"{script} sleep 1000; : ", restart=True), job("other"))
    daemon.run(wanted)
    first = wait_for_count(mark, 3)
    pids = {name: daemon.job(name)["pid"] for name in ("app", "other")}
    daemon.crash()
    daemon.start()
    assert {name: daemon.job(name)["pid"] for name in ("app", "other")} == pids
    assert set(wait_for_count(mark, 3)) == set(first)
    assert daemon.plan(wanted) == []
    daemon.do("app", "restart")
    assert not set(wait_for_count(mark, 3)) & set(first)  # it ends as a whole
    daemon.stop()
    assert running_with(mark) == []


def wait_for_count(mark: str, count: int) -> list[int]:
    """Nothing announces a process that a job starts by itself: look until there are so many."""
    import time

    deadline = time.monotonic() + 10
    while len(found := running_with(mark)) != count:
        assert time.monotonic() < deadline, found
        time.sleep(0.01)
    return found


def test_jobs_that_were_kept_are_taken_over_by_the_next_daemon(daemon: Daemon, tmp_path: Path) -> None:
    mark = str(tmp_path / "mark")
    daemon.run(document(job("app", f": {mark}; sleep 1000; :")))
    first = wait_for_count(mark, 1)
    assert daemon.cli("shutdown", "--keep-jobs").returncode == 0
    assert running_with(mark) == first
    daemon.start()
    daemon.wait_state("app", "RUNNING")
    assert wait_for_count(mark, 1) == first


def test_config_file_may_say_that_jobs_are_kept(make_daemon: Callable[..., Daemon]) -> None:
    daemon = make_daemon("on_daemon_stop: keep\n")
    daemon.run(document(job("app")))
    pid = daemon.job("app")["pid"]
    daemon.stop()
    os.kill(pid, 0)
    daemon.start()
    assert daemon.wait_state("app", "RUNNING")["pid"] == pid
    assert daemon.cli("shutdown", "--stop-jobs").returncode == 0


def test_jobs_of_the_config_file_and_of_the_document_live_side_by_side(
    make_daemon: Callable[..., Daemon],
) -> None:
    text = "jobs:\n- job: filed\n  exec_cmd: /bin/sleep\n  exec_args: ['1000']\n"
    daemon = make_daemon(text)
    daemon.wait_state("filed", "RUNNING")
    pid = daemon.job("filed")["pid"]
    daemon.run(document(job("declared")))
    daemon.run(document(job("another")))
    assert [row["job"] for row in daemon.client().status()["jobs"]] == ["another", "filed"]
    assert daemon.job("filed")["pid"] == pid
    daemon.stop()
    (daemon.root / "maestro.yaml").write_text(text.replace("filed", "renamed"))
    daemon.start()
    daemon.wait_state("renamed", "RUNNING")
    assert [row["job"] for row in daemon.client().status()["jobs"]] == ["another", "renamed"]


def test_hangup_reads_the_config_file_again_and_applies_the_difference(
    make_daemon: Callable[..., Daemon],
) -> None:
    import signal

    text = "jobs:\n- job: one\n  exec_cmd: /bin/sleep\n  exec_args: ['1000']\n"
    daemon = make_daemon(text)
    pid = daemon.wait_state("one", "RUNNING")["pid"]
    (daemon.root / "maestro.yaml").write_text(text + text[6:].replace("one", "two"))
    assert daemon.process
    since = daemon.last_event()
    daemon.process.send_signal(signal.SIGHUP)
    with daemon.client().events(since, follow=True) as events:
        next(e for e in events if e["process"] == "two" and e["type"] == "process-running")
    assert daemon.job("one")["pid"] == pid


def test_second_daemon_on_the_same_directory_is_refused(daemon: Daemon) -> None:
    assert daemon.process
    other = Daemon(daemon.root)
    with pytest.raises(AssertionError) as refused:
        start_only(other)
    assert f"a maestrod runs already below {daemon.root}/run (pid {daemon.process.pid})" in str(refused.value)
    assert daemon.client().version()["pid"] == daemon.process.pid


def start_only(daemon: Daemon) -> None:
    import subprocess
    import sys

    done = subprocess.run(
        [sys.executable, "-m", "maestro_py.daemon", "--root", str(daemon.root)],
        env=daemon.env, capture_output=True, text=True, timeout=20,
    )  # fmt: skip
    raise AssertionError(f"{done.returncode}: {done.stderr}")


def test_orphan_of_an_apply_cut_short_by_a_crash_is_settled_at_the_next_start(
    daemon: Daemon, tmp_path: Path
) -> None:
    """A crash while an image is fetched leaves the document before in force, whole."""
    from support.httpserver import FileServer

    daemon.run(document(job("app"), date=1))
    served = tmp_path / "served"
    served.mkdir()
    (served / "f").write_bytes(b"x" * 1000)
    server = FileServer(served)
    with server as url:
        slow = {"job": "app", "version": "2", "url": f"{url}/hang-after/10/f", "size": 1000}
        wanted = document(job("app", "echo new; exec sleep 1000"), job("extra"), images=[slow], date=2)
        daemon.client().apply(wanted)
        wait_for_request(server)
        daemon.crash()
    daemon.start()
    daemon.wait_state("app", "RUNNING")
    assert [row["job"] for row in daemon.client().status()["jobs"]] == ["app"]
    assert daemon.client().running_config()["date"] == 1
    assert "new" not in daemon.log_of("app")
    assert daemon.plan(document(job("app"), date=1)) == []


def wait_for_request(server: object) -> None:
    import time

    deadline = time.monotonic() + 10
    while not getattr(server, "requests"):  # noqa: B009
        assert time.monotonic() < deadline
        time.sleep(0.01)
