# SPDX-License-Identifier: Apache-2.0
"""logs, events, tasks, configs, templates, images, the daemon: against a socket with canned answers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

# logs, events, tasks


def test_logs_are_the_bytes_of_the_job(run: Any, daemon: Any, make: Any) -> None:
    daemon.answers["GET", "/v1/jobs/web/logs"] = make.lines([b"one\n", b"two \xc3", b"\xa9\nno end"])
    assert run("logs", "web", "-n", "5").out == "one\ntwo é\nno end"
    assert daemon.requests[0].query["n"] == ["5"]
    assert run("logs", "web", "--json").json == {"job": "web", "lines": ["one", "two é", "no end"]}
    run("logs", "web", "--previous")
    assert daemon.requests[-1].query["previous"] == ["1"]


def test_followed_logs_as_json_are_lines(run: Any, daemon: Any, make: Any) -> None:
    answers = [make.lines([b"one\ntw", b"o\n"]), make.problem(404, "not-found", "no job web")]
    daemon.answers["GET", "/v1/jobs/web/logs"] = lambda _: answers.pop(0)
    result = run("logs", "web", "-f", "--json")
    assert result.status == 0
    assert [json.loads(line)["line"] for line in result.out.splitlines()] == ["one", "two"]
    assert daemon.requests[0].query["follow"] == ["1"]


def test_events_are_one_line_each(run: Any, daemon: Any, make: Any) -> None:
    event = {"id": 7, "time": 1_700_000_000.0, "type": "process-running", "job": "web", "process": "web"}
    daemon.answers["GET", "/v1/events"] = make.lines([{**event, "message": "RUNNING"}])
    result = run("events", "--since", "6", "-n", "10")
    assert result.out.split()[2:] == ["7", "web", "RUNNING"]
    assert daemon.requests[0].query == {"since": ["6"], "n": ["10"]}
    assert run("events", "--json").json["events"][0]["id"] == 7
    assert json.loads(run("events", "--json", "-f").out)["id"] == 7


def test_tasks_are_a_table(run: Any, daemon: Any, make: Any) -> None:
    error = {"code": "failed", "message": "cannot fetch http://x/" + "y" * 80, "hint": ""}
    daemon.answers["GET", "/v1/tasks"] = {"tasks": [make.task(), make.task("failed", "b" * 16, error=error)]}
    lines = run("tasks").out.splitlines()
    assert len(lines) == 3
    assert all(len(line) <= 80 for line in lines)
    daemon.answers["GET", "/v1/tasks"] = {"tasks": []}
    assert run("tasks").out == "no tasks\n"


def test_a_task_shown_is_exit_0_and_a_failed_one_waited_for_is_1(run: Any, daemon: Any, make: Any) -> None:
    error = {"code": "failed", "message": "cannot do it: no", "hint": "try again"}
    failed = make.task("failed", error=error)
    daemon.answers["GET", "/v1/tasks/t1"] = lambda request: (
        make.lines([make.task("running"), failed]) if "follow" in request.query else failed
    )
    result = run("task", "t1")
    assert result.status == 0
    assert result.out.startswith("apply running config: failed\n")
    result = run("task", "t1", "--wait")
    assert result.status == 1
    assert result.err == "maestro: cannot do it: no\nmaestro: try again\n"


def test_a_daemon_that_leaves_during_a_task_is_exit_3(run: Any, daemon: Any, make: Any) -> None:
    running = make.task("running")
    daemon.answers["GET", "/v1/tasks/t1"] = lambda request: (
        make.lines([running]) if "follow" in request.query else running
    )
    result = run("task", "t1", "--wait")
    assert result.status == 3
    assert result.err.startswith("maestro: cannot follow task t1: ")


def test_a_task_whose_end_was_not_streamed_is_asked_for(run: Any, daemon: Any, make: Any) -> None:
    daemon.answers["GET", "/v1/tasks/t1"] = lambda request: (
        make.lines([make.task("running")]) if "follow" in request.query else make.task()
    )
    assert run("task", "t1", "--wait").status == 0


# data and device


def test_configs_are_listed_read_stored_and_removed(run: Any, daemon: Any, tmp_path: Path) -> None:
    config = {"name": "main", "job": "web", "data": "{}", "encoding": "utf8", "files": [], "mod_time": ""}
    other = {**config, "job": "db", "data": "/wA=", "encoding": "base64"}
    daemon.answers["GET", "/v1/configs"] = {"configs": [config, other]}
    daemon.answers["GET", "/v1/configs/web/main"] = config
    daemon.answers["PUT", "/v1/configs/web/main"] = {}
    daemon.answers["DELETE", "/v1/configs/web/main"] = {}
    lines = run("config", "list").out.splitlines()
    assert [line.split()[:3] for line in lines] == [
        ["JOB", "NAME", "SIZE"],
        ["db", "main", "2B"],
        ["web", "main", "2B"],
    ]
    assert len(run("config", "list", "db").out.splitlines()) == 2
    assert run("config", "get", "web", "main").out == "{}"
    (tmp_path / "data").write_bytes(b"\xff\x00")
    assert run("config", "set", "web", "main", str(tmp_path / "data")).out == "config main of web is stored\n"
    assert daemon.requests[-1].body["data"] == "/wA="
    assert daemon.requests[-1].body["encoding"] == "base64"
    assert run("config", "remove", "web", "main").out == "config main of web is removed\n"


def test_templates_are_listed_and_shown(run: Any, daemon: Any) -> None:
    template = {"name": "binary", "source": "shipped", "exec_cmd": "/bin/x"}
    daemon.answers["GET", "/v1/templates"] = {"templates": [template]}
    daemon.answers["GET", "/v1/templates/binary"] = template
    assert run("template", "list").out.splitlines()[1].split() == ["binary", "shipped", "/bin/x"]
    assert run("template", "show", "binary").json == {"name": "binary", "exec_cmd": "/bin/x"}


def test_images_are_listed(run: Any, daemon: Any) -> None:
    image = {
        "job": "web",
        "version": "1",
        "checksum": {"type": "sha256sum", "value": "ab" * 32},
        "path": "/i",
        "size": 1 << 20,
        "current": True,
    }
    daemon.answers["GET", "/v1/images"] = {"images": [{**image, "previous": False}]}
    assert run("image", "list").out.splitlines()[1].split() == ["web", "1", "current", "1.0M", "ab" * 6]


def test_doctor_says_what_is_missing_and_what_that_means(run: Any, daemon: Any) -> None:
    facts = [
        {"name": "cgroups", "value": "v2", "ok": True, "means": "limits hold"},
        {
            "name": "root",
            "value": "no",
            "ok": False,
            "means": "jobs run as this user; " + "no isolation " * 5,
        },
    ]
    daemon.answers["GET", "/v1/doctor"] = {"facts": facts}
    lines = run("doctor").out.splitlines()
    assert lines[0] == "ok       cgroups  v2  limits hold"
    assert lines[1] == "missing  root     no"
    assert lines[2].startswith(" " * 9 + "jobs run as this user")


def test_version_names_both_ends(run: Any, daemon: Any) -> None:
    daemon.answers["GET", "/v1/version"] = {"version": "9.9", "pid": 7, "uptime": 61.0, "root": "/x"}
    assert "maestrod  9.9  pid 7, up 1m1s, root /x\n" in run("version").out


def test_version_without_a_daemon_names_ours_and_exits_3(run: Any) -> None:
    result = run("version")
    assert result.status == 3
    assert result.out.startswith("maestro   ")


def test_shutdown_says_what_happens_to_the_jobs(run: Any, daemon: Any) -> None:
    daemon.answers["GET", "/v1/version"] = {"version": "9.9", "pid": 2**22 + 1, "uptime": 1.0, "root": ""}
    daemon.answers["POST", "/v1/shutdown"] = 202, {}
    assert run("shutdown", "--keep-jobs").status == 0
    assert daemon.requests[-1].body == {"jobs": "keep"}
    assert run("shutdown", "--keep-jobs", "--stop-jobs").status == 2


def test_words_of_upstreams_shell_about_the_network(run: Any, daemon: Any) -> None:
    daemon.answers["GET", "/net/dns"] = ["192.0.2.1"]
    assert run("net", "get-dns").json == ["192.0.2.1"]
    refused = run("net", "add-dns", "192.0.2.1")
    assert refused.status == 1
    assert refused.err.startswith("maestro: cannot run net add-dns: maestro does not manage the network")
    assert "it needs one of get-interfaces, get-dns, events" in run("net").err


def test_changes_of_the_network_are_followed(run: Any, daemon: Any) -> None:
    daemon.answers["GET", "/net/events"] = {"id": "a1"}
    answers = [[{"data": {"n": 1}}], [{"data": {"n": 2}}]]
    gone = 404, {"error": "no such subscription"}
    daemon.answers["GET", "/net/events/a1"] = lambda _: answers.pop(0) if answers else gone
    result = run("net", "events")
    assert result.status == 1
    assert result.out == '{"data": {"n": 1}}\n{"data": {"n": 2}}\n'
