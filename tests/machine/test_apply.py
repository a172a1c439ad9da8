# SPDX-License-Identifier: Apache-2.0
"""Applying a good document: what changes, what stays, and what is said about it."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from support.daemon import Daemon
from support.documents import WAIT, document, image, job
from support.rawhttp import ask

from maestro_py.errors import Conflict, NotFound

SHOW = "cat {{IMAGE}}/word; exec sleep 1000"


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_second_apply_of_the_same_document_changes_nothing(daemon: Daemon, tmp_path: Path) -> None:
    wanted = document(job("one"), job("two", depends_on=["one"]))
    file = tmp_path / "doc.json"
    file.write_text(json.dumps(wanted))
    before = daemon.cli("diff", str(file))
    assert before.returncode == 1
    assert "one" in before.stdout
    assert "it is new" in before.stdout
    daemon.run(wanted)
    pids = {name: daemon.job(name)["pid"] for name in ("one", "two")}

    again = daemon.cli("diff", str(file))
    assert (again.returncode, again.stdout) == (0, "nothing to change\n")
    applied = daemon.cli("apply", str(file))
    assert applied.returncode == 0
    assert "nothing to change" in applied.stdout
    assert daemon.client().apply(wanted)["plan"] == {"empty": True, "steps": []}
    assert {name: daemon.job(name)["pid"] for name in ("one", "two")} == pids


def test_dry_run_prints_the_plan_and_changes_nothing(daemon: Daemon, tmp_path: Path) -> None:
    file = tmp_path / "doc.json"
    file.write_text(json.dumps(document(job("one"))))
    shown = daemon.cli("apply", str(file), "--dry-run")
    assert shown.returncode == 0
    assert "plan: 1 to start" in shown.stdout
    assert daemon.client().status()["jobs"] == []
    assert daemon.client().running_config()["jobs"] == []


@pytest.mark.parametrize("form", ["flat", "operation", "yaml"])
def test_every_form_of_a_document_is_applied(form: str, daemon: Daemon, tmp_path: Path) -> None:
    flat = document(job("one"), date=5)
    text = json.dumps({"op": "update", "conf": flat, "flags": []} if form == "operation" else flat)
    if form == "yaml":
        text = "date: 5\njobs:\n- job: one\n  exec_cmd: /bin/sh\n  exec_args: [-c, exec sleep 1000]\n"
    file = tmp_path / "doc"
    file.write_text(text)
    applied = daemon.cli("apply", str(file))
    assert applied.returncode == 0, applied.stderr
    assert daemon.job("one")["state"] == "RUNNING"
    assert daemon.client().running_config()["date"] == 5


def test_changed_image_stops_swaps_and_starts_that_process_only(daemon: Daemon, tmp_path: Path) -> None:
    jobs = (job("app", SHOW), job("other"))
    first = document(*jobs, images=[image("app", "1.0", tmp_path, {"word": "first\n"})])
    daemon.run(first)
    app, other = daemon.job("app"), daemon.job("other")
    assert app["image_version"] == "1.0"
    daemon.wait_log("app", "first")

    second = document(*jobs, images=[image("app", "2.0", tmp_path, {"word": "second\n"})])
    assert daemon.plan(second) == [
        ("fetch-image", "app"),
        ("stop", "app"),
        ("switch-image", "app"),
        ("start", "app"),
    ]
    since = daemon.last_event()
    daemon.run(second)
    assert [e["type"] for e in daemon.events("app", since)] == [
        "process-stopping",
        "process-stopped",
        "process-starting",
        "process-running",
    ]
    assert daemon.events("other", since) == []
    assert daemon.job("other")["pid"] == other["pid"]
    assert daemon.job("app")["image_version"] == "2.0"
    assert not alive(app["pid"])
    assert "image app: 1.0 becomes 2.0" in daemon.events("app", since)[0]["message"]
    daemon.wait_log("app", "second")


def test_changed_command_restarts_its_process_only(daemon: Daemon) -> None:
    daemon.run(document(job("one"), job("two")))
    one, two = daemon.job("one"), daemon.job("two")
    changed = document(job("one", "echo changed; " + WAIT), job("two"))
    steps = daemon.client().diff(changed)["plan"]["steps"]
    assert [(s["action"], s["subject"], s["reason"]) for s in steps] == [
        ("stop", "one", "its command line changed"),
        ("start", "one", "its command line changed"),
    ]
    daemon.run(changed)
    assert daemon.job("one")["pid"] != one["pid"]
    assert daemon.job("two")["pid"] == two["pid"]
    daemon.wait_log("one", "changed")


def test_changed_restart_policy_takes_effect_without_a_restart(daemon: Daemon) -> None:
    daemon.run(document(job("one")))
    pid = daemon.job("one")["pid"]
    changed = document(job("one", restart=True, restart_pause=1))
    assert daemon.plan(changed) == [("update", "one")]
    daemon.run(changed)
    assert daemon.job("one")["pid"] == pid
    assert daemon.plan(changed) == []
    daemon.client().kill("one", "SIGKILL")
    after = daemon.wait("one", lambda row: row["state"] == "RUNNING" and row["pid"] not in (None, pid))
    assert after["restarts"] == 1


def test_absent_job_is_stopped_and_removed(daemon: Daemon, tmp_path: Path) -> None:
    config = {"name": "default", "job": "goes", "data": "x"}
    daemon.run(document(job("stays"), job("goes"), configs=[config]))
    stays, goes = daemon.job("stays"), daemon.job("goes")
    directory = daemon.root / "state" / "configs" / "goes"
    assert directory.exists()
    without = document(job("stays"))
    assert daemon.plan(without) == [("stop", "goes"), ("remove-job", "goes")]
    daemon.run(without)
    assert [row["job"] for row in daemon.client().status()["jobs"]] == ["stays"]
    assert daemon.job("stays")["pid"] == stays["pid"]
    assert not alive(goes["pid"])
    assert not directory.exists()
    with pytest.raises(NotFound, match="no job goes"):
        daemon.job("goes")
    assert "no job goes" in daemon.cli("status", "goes").stderr


def test_disabled_job_is_known_and_stopped_and_enabling_it_starts_it(daemon: Daemon) -> None:
    daemon.run(document(job("one"), job("off", disabled=True)))
    off = daemon.job("off")
    assert (off["state"], off["enabled"], off["pid"]) == ("STOPPED", False, None)
    assert off["cause"] == "disabled"
    pid = daemon.job("one")["pid"]

    daemon.run(document(job("one", disabled=True), job("off")))
    one = daemon.job("one")
    assert (one["state"], one["enabled"], one["pid"], one["cause"]) == ("STOPPED", False, None, "disabled")
    assert not alive(pid)
    assert daemon.job("off")["state"] == "RUNNING"


def test_older_document_is_refused_unless_forced(daemon: Daemon, tmp_path: Path) -> None:
    daemon.run(document(job("new"), date=20))
    older = document(job("old"), date=10)
    with pytest.raises(Conflict, match="its date 10 is older than the applied one's, 20"):
        daemon.client().apply(older)
    file = tmp_path / "older.json"
    file.write_text(json.dumps(older))
    refused = daemon.cli("apply", str(file))
    assert refused.returncode == 1
    assert "date 10 is older" in refused.stderr
    assert "--force" in refused.stderr
    assert [row["job"] for row in daemon.client().status()["jobs"]] == ["new"]
    daemon.run(document(job("undated"), job("new")))  # without a date there is nothing to compare
    forced = daemon.cli("apply", str(file), "--force")
    assert forced.returncode == 0, forced.stderr
    assert [row["job"] for row in daemon.client().status()["jobs"]] == ["old"]


@pytest.mark.parametrize("flag", [[], ["removeOldImages"]])
def test_old_images_go_only_when_the_document_says_so(
    flag: list[str], daemon: Daemon, tmp_path: Path
) -> None:
    versions = {v: image("app", v, tmp_path, {"word": v}) for v in ("1", "2", "3")}
    gone = image("gone", "1", tmp_path, {"word": "x"})
    app = job("app", SHOW, probation=0)
    daemon.run(document(app, job("gone", SHOW), images=[versions["1"], gone]))
    daemon.run(document(app, job("gone", SHOW), images=[versions["2"], gone]))
    task = daemon.client().apply(document(app, images=[versions["3"]], flags=flag))
    removals = {(s["subject"]) for s in task["plan"]["steps"] if s["action"] == "remove-image"}
    daemon.client().task(task["task_id"], wait=20)
    left = {(row["job"], row["version"]) for row in daemon.client().images()["images"]}
    if flag:
        assert removals == {"app", "gone"}
        assert left == {("app", "3"), ("app", "2")}, "what it could go back to stays"
    else:
        assert removals == set()
        assert {("app", "3"), ("app", "2")} <= left
    assert daemon.job("app")["state"] == "RUNNING"


def test_fail_fast_changes_nothing_when_a_download_fails(daemon: Daemon, tmp_path: Path) -> None:
    daemon.run(document(job("one")))
    pid = daemon.job("one")["pid"]
    bad = image("app", "1", tmp_path, {"word": "x"})
    bad["url"] = (tmp_path / "absent.tar.gz").as_uri()
    wanted = document(job("one", "echo new; " + WAIT), job("app", SHOW), images=[bad])
    task = daemon.apply({**wanted, "flags": ["failFast"]})
    assert task["status"] == "failed"
    assert "absent.tar.gz" in task["error"]["message"]
    assert "nothing was changed" in task["error"]["hint"]
    assert daemon.job("one")["pid"] == pid
    assert [row["job"] for row in daemon.client().status()["jobs"]] == ["one"]

    task = daemon.apply(wanted)  # without the flag the rest goes on
    assert task["status"] == "failed"
    assert "app" in task["error"]["message"]
    assert daemon.job("one")["pid"] != pid
    assert daemon.job("app")["state"] == "FAILED"
    assert "absent.tar.gz" in daemon.job("app")["cause"]


def test_failed_download_keeps_the_version_that_runs(daemon: Daemon, tmp_path: Path) -> None:
    first = image("app", "1", tmp_path, {"word": "first\n"})
    daemon.run(document(job("app", SHOW), images=[first]))
    pid = daemon.job("app")["pid"]
    bad = image("app", "2", tmp_path, {"word": "second\n"})
    bad["checksum"] = {"type": "sha256sum", "value": "0" * 64}
    task = daemon.apply(document(job("app", SHOW), images=[bad]))
    assert task["status"] == "failed"
    assert "the version before stays" in task["error"]["message"]
    row = daemon.job("app")
    assert (row["pid"], row["image_version"], row["state"]) == (pid, "1", "RUNNING")
    assert any("Its newest version is not in force" in line for line in daemon.client().why("app")["lines"])
    # the good document of the version that runs is again nothing to do
    assert daemon.plan(document(job("app", SHOW), images=[first])) == []


def test_version_that_is_held_stays_held_when_another_download_fails(daemon: Daemon, tmp_path: Path) -> None:
    good = {name: image(name, "1", tmp_path, {"word": name}) for name in ("app", "other")}
    bad = {name: {**good[name], "version": "2", "url": (tmp_path / "absent").as_uri()} for name in good}
    for name in bad:
        bad[name]["checksum"] = {"type": "sha256sum", "value": "0" * 64}
    jobs = (job("app", SHOW), job("other", SHOW))
    daemon.run(document(*jobs, images=list(good.values())))
    pids = {name: daemon.job(name)["pid"] for name in good}
    assert daemon.apply(document(*jobs, images=[bad["app"], good["other"]]))["status"] == "failed"

    answer = ask(daemon.socket, "POST", "/image", {"type": "image", "op": "update", "image": bad["other"]})
    assert daemon.client().task(answer.json["task_id"], wait=20)["status"] == "failed"
    for name in good:
        row = daemon.job(name)
        assert (row["pid"], row["image_version"], row["state"]) == (pids[name], "1", "RUNNING")


def test_image_of_no_job_that_cannot_be_fetched_is_not_passed_over_in_silence(
    daemon: Daemon, tmp_path: Path
) -> None:
    lost = image("nobody", "1", tmp_path, {"word": "x"})
    lost["checksum"] = {"type": "sha256sum", "value": "0" * 64}
    task = daemon.apply(document(job("app"), images=[lost]))
    assert task["status"] == "failed"
    assert "nobody" in task["error"]["message"]
    assert daemon.job("app")["state"] == "RUNNING"


def test_applying_again_starts_what_failed_and_what_was_stopped_by_hand(
    daemon: Daemon, tmp_path: Path
) -> None:
    flag = tmp_path / "flag"
    wanted = document(job("fails", f"test -e {flag} || exit 3; exec sleep 1000"), job("stopped"))
    task = daemon.apply(wanted)
    assert daemon.wait_state("fails", "FAILED")["cause"] == "exit code 3"
    assert task["status"] in ("failed", "complete")  # it may have counted as running for a moment
    daemon.do("stopped", "stop")
    flag.touch()
    assert daemon.plan(wanted) == [("start", "fails"), ("start", "stopped")]
    daemon.run(wanted)
    assert {row["state"] for row in daemon.client().status()["jobs"]} == {"RUNNING"}


def test_job_with_no_autostart_is_known_and_runs_when_asked(daemon: Daemon) -> None:
    wanted = document(job("lazy", no_autostart=True))
    daemon.run(wanted)
    row = daemon.job("lazy")
    assert (row["state"], row["enabled"], row["pid"]) == ("NEVER_RAN", True, None)
    assert daemon.do("lazy", "start")["status"] == "complete"
    assert daemon.job("lazy")["state"] == "RUNNING"
    assert daemon.plan(wanted) == []


def test_two_applies_at_once_are_carried_out_one_after_the_other(daemon: Daemon) -> None:
    client = daemon.client()
    first = client.apply(document(job("one"), job("two")))["task_id"]
    second = client.apply(document(job("two"), job("three")))["task_id"]
    assert first != second
    for task in (first, second):
        assert client.task(task, wait=20)["status"] == "complete"
    states = {row["job"]: row["state"] for row in client.status()["jobs"]}
    assert states == {"two": "RUNNING", "three": "RUNNING"}


def test_changes_that_wait_are_only_so_many(daemon: Daemon) -> None:
    client = daemon.client()
    slow = document(job("slow", WAIT, wait_for_ok=True, timeout_for_ok=60_000))
    first = client.apply(slow)["task_id"]
    daemon.wait_state("slow", "STARTING")
    queued = [client.apply(document(job("late", f"exec sleep {n}")))["task_id"] for n in range(1, 51)]
    with pytest.raises(Conflict, match="cannot apply running config: 50 changes wait already"):
        client.apply(document())
    client.cancel_task(queued.pop())
    queued.append(client.apply(document())["task_id"])
    client.action("slow", "stop")
    assert client.task(queued[-1], wait=120)["status"] == "complete"
    assert client.task(first)["ended"]
    assert client.status()["jobs"] == []


def test_document_template_replaces_a_shipped_one_and_its_change_restarts_its_jobs(
    daemon: Daemon,
) -> None:
    template = {"name": "python", "exec_cmd": "/bin/sh", "exec_pre_args": ["-c"], "add_env": ["WORD=first"]}
    wanted = {"job": "app", "container_template": "python", "exec_cmd": "echo $WORD; exec sleep 1000"}
    daemon.run(document(wanted, job("other"), templates=[template]))
    daemon.wait_log("app", "first")
    other = daemon.job("other")["pid"]
    daemon.run(document(wanted, job("other"), templates=[{**template, "add_env": ["WORD=second"]}]))
    daemon.wait_log("app", "second")
    assert daemon.job("other")["pid"] == other
    daemon.run(document(job("other")))
    assert daemon.client().template("python")["source"] == "shipped"
