# SPDX-License-Identifier: Apache-2.0
"""Jobs that wait for others: order, readiness, and what follows when one of them dies."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from support.daemon import Daemon
from support.documents import WAIT, document, job

from maestro_py.errors import InvalidDocument


def gate(path: Path) -> str:
    """Return a script that says OK once somebody writes to a FIFO."""
    os.mkfifo(path)
    return f"read go < {path}; echo '!!OK!!'; {WAIT}"


def order(daemon: Daemon, kind: str) -> list[str]:
    return [e["process"] for e in daemon.events() if e["type"] == f"process-{kind}"]


def test_dependents_wait_until_what_they_depend_on_is_ready(daemon: Daemon, tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    client = daemon.client()
    task = client.apply(
        document(
            job("last", depends_on=["middle"]),
            job("middle", depends_on=["base"]),
            job("base", gate(fifo), wait_for_ok=True),
        )
    )["task_id"]
    daemon.wait_state("base", "STARTING")
    assert daemon.wait_state("middle", "WAITING_FOR_DEPS")["pid"] is None
    assert daemon.wait_state("last", "WAITING_FOR_DEPS")["pid"] is None
    assert "It waits for base, which is starting and not ready yet." in client.why("middle")["lines"]
    fifo.write_text("go\n")
    assert client.task(task, wait=20)["status"] == "complete"
    assert order(daemon, "running") == ["base", "middle", "last"]
    since = {name: next(e["time"] for e in daemon.events(name) if e["type"] == "process-running")
             for name in ("base", "middle")}  # fmt: skip
    launched = next(e["time"] for e in daemon.events("middle") if e["type"] == "process-starting")
    assert since["base"] <= launched <= since["middle"]


def test_job_that_ran_to_a_successful_end_counts_as_ready(daemon: Daemon) -> None:
    daemon.run(document(job("once", "exit 0", restart_policy="on-failure"), job("app", depends_on=["once"])))
    assert daemon.wait_state("once", "STOPPED")["cause"] == "exit code 0"
    assert daemon.job("app")["state"] == "RUNNING"


def test_template_may_name_what_its_jobs_depend_on(daemon: Daemon) -> None:
    template = {"name": "t", "depends_on": ["base"]}
    daemon.run(document(job("app", container_template="t"), job("base"), templates=[template]))
    assert order(daemon, "running") == ["base", "app"]


def test_dependent_of_a_failed_job_waits_and_apply_says_for_whom(daemon: Daemon, tmp_path: Path) -> None:
    wanted = document(job("base", "exit 3", wait_for_ok=True), job("app", depends_on=["base"]))
    file = tmp_path / "doc.json"
    file.write_text(json.dumps(wanted))
    applied = daemon.cli("apply", str(file))
    assert applied.returncode == 1
    assert "base is FAILED: exit code 3 before it said OK" in applied.stderr
    assert "app is WAITING_FOR_DEPS: it waits for base" in applied.stderr
    assert daemon.job("app")["cause"] == "waits for base"
    why = daemon.cli("why", "app")
    assert "It waits for base, which failed: exit code 3 before it said OK." in why.stdout


def test_starting_a_job_starts_what_it_depends_on_first(daemon: Daemon) -> None:
    daemon.run(document(job("base"), job("middle", depends_on=["base"]), job("app", depends_on=["middle"])))
    for name in ("app", "middle", "base"):
        daemon.do(name, "stop")
    since = daemon.last_event()
    assert daemon.do("app", "start")["status"] == "complete"
    running = [e["process"] for e in daemon.events(since=since) if e["type"] == "process-running"]
    assert running == ["base", "middle", "app"]


def test_starting_a_job_whose_dependency_fails_says_so(daemon: Daemon) -> None:
    daemon.apply(document(job("base", "exit 3", wait_for_ok=True), job("app", depends_on=["base"])))
    started = daemon.cli("start", "app", timeout=20)
    assert started.returncode == 1
    assert "cannot start app: it waits for base" in started.stderr


def test_disabled_dependency_is_a_warning_and_the_apply_says_who_waits(
    daemon: Daemon, tmp_path: Path
) -> None:
    wanted = document(job("base", disabled=True), job("app", depends_on=["base"]))
    file = tmp_path / "doc.json"
    file.write_text(json.dumps(wanted))
    applied = daemon.cli("apply", str(file), timeout=20)
    assert applied.returncode == 1
    assert '"base" is disabled, so "app" will wait for it' in applied.stderr
    assert daemon.job("app")["state"] == "WAITING_FOR_DEPS"
    assert daemon.do("base", "enable")["status"] == "complete"
    assert daemon.wait_state("app", "RUNNING")["ready"]


@pytest.mark.parametrize("follows", [True, False])
def test_death_of_a_dependency_restarts_dependents_that_say_so(follows: bool, daemon: Daemon) -> None:
    daemon.run(
        document(
            job("base", restart=True, restart_pause=50),
            job("app", depends_on=["base"], restart_on_dependency_fail=follows),
        )
    )
    base, app = daemon.job("base"), daemon.job("app")
    since = daemon.last_event()
    daemon.client().kill("base", "SIGKILL")
    daemon.wait("base", lambda row: row["state"] == "RUNNING" and row["pid"] not in (None, base["pid"]))
    if follows:
        row = daemon.wait(
            "app", lambda row: row["state"] == "RUNNING" and row["pid"] not in (None, app["pid"])
        )
        assert row["restarts"] == 1
        assert row["cause"] == "its dependency base is gone"
        events = [(e["process"], e["type"]) for e in daemon.events(since=since)]
        assert events.index(("base", "process-running")) < events.index(("app", "process-starting"))
        assert ("app", "process-waiting-for-deps") in events
    else:
        assert daemon.job("app")["pid"] == app["pid"]
        assert daemon.events("app", since) == []


def test_stopping_a_dependency_by_hand_leaves_dependents_running(daemon: Daemon) -> None:
    daemon.run(document(job("base"), job("app", depends_on=["base"])))
    pid = daemon.job("app")["pid"]
    daemon.do("base", "stop")
    assert daemon.job("app")["pid"] == pid


def test_removed_dependents_are_stopped_before_what_they_depend_on(daemon: Daemon) -> None:
    daemon.run(document(job("base"), job("app", depends_on=["base"]), job("stays")))
    plan = daemon.plan(document(job("stays")))
    assert plan[:2] == [("stop", "app"), ("stop", "base")]


def test_dependency_between_composites_is_between_their_processes(daemon: Daemon) -> None:
    template = {"name": "host", "exec_cmd": "/bin/sh", "exec_pre_args": ["-c", WAIT]}
    member = {"container_template": "host", "exec_cmd": "x"}
    daemon.run(
        document(
            {"job": "a", "composite_id": "first", **member, "depends_on": ["c"]},
            {"job": "b", "composite_id": "first", **member, "depends_on": ["a"]},
            {"job": "c", "composite_id": "second", **member},
            templates=[template],
        )
    )
    assert order(daemon, "running") == ["second", "first"]


@pytest.mark.parametrize(
    ("jobs", "message"),
    [
        (
            [job("a", depends_on=["b"]), job("b", depends_on=["c"]), job("c", depends_on=["a"])],
            "jobs depend on each other in a circle: a -> b -> c -> a",
        ),
        ([job("a", depends_on=["a"])], "a -> a"),
        ([job("database"), job("a", depends_on=["databse"])], 'no job is called "databse"'),
    ],
    ids=["circle", "itself", "unknown"],
)
def test_circles_and_unknown_names_are_refused_and_named(
    jobs: list[dict[str, object]], message: str, daemon: Daemon, tmp_path: Path
) -> None:
    daemon.run(document(job("before")))
    with pytest.raises(InvalidDocument) as refused:
        daemon.client().apply(document(*jobs))
    assert message in str(refused.value)
    file = tmp_path / "doc.json"
    file.write_text(json.dumps(document(*jobs)))
    for command in ("apply", "diff", "check"):
        said = daemon.cli(command, str(file))
        assert said.returncode == 1
        assert message in said.stderr
    if "database" in message or "databse" in message:
        assert "did you mean `database`?" in said.stderr
    assert [row["job"] for row in daemon.client().status()["jobs"]] == ["before"]
