# SPDX-License-Identifier: Apache-2.0
"""status, what is done to jobs, and errors: against a socket with canned answers."""

from __future__ import annotations

import json
from typing import Any

# status


def test_status_is_a_sorted_table_within_80_columns(run: Any, daemon: Any, make: Any) -> None:
    daemon.answers["GET", "/v1/status"] = {
        "jobs": [
            make.job("zigbee", memory={"current": 5 << 20, "peak": 6 << 20, "limit": 10 << 20}, restarts=12),
            make.job("a-job-with-a-very-long-name-that-goes-on-and-on", "WAITING_FOR_DEPS"),
            make.job("broken", "FAILED", cause="exit code 3 after a long story " * 5, image_version=""),
            make.job("off", "STOPPED", enabled=False),
        ]
    }
    result = run("status")
    lines = result.out.splitlines()
    assert result.status == 0
    assert lines[0].split() == ["JOB", "STATE", "RDY", "UP", "RST", "MEMORY", "VER", "CAUSE"]
    assert [line.split()[0][:6] for line in lines[1:]] == ["a-job-", "broken", "off", "zigbee"]
    assert all(len(line) <= 80 for line in lines)
    assert "\x1b" not in result.out
    assert "5.0M/10.0M" in lines[4]
    assert " 12 " in lines[4]
    assert "exit code" in lines[2]
    assert lines[3].endswith("disabled")


def test_wide_status_cuts_nothing(run: Any, daemon: Any, make: Any) -> None:
    cause = "a cause that is much longer than a screen is wide, " * 3 + "end"
    daemon.answers["GET", "/v1/status"] = {"jobs": [make.job("web", "FAILED", cause=cause)]}
    assert cause in run("status", "--wide").out
    assert cause not in run("status").out


def test_a_wider_screen_shows_more(run: Any, daemon: Any, make: Any, monkeypatch: Any) -> None:
    cause = "x" * 60
    daemon.answers["GET", "/v1/status"] = {"jobs": [make.job("web", "FAILED", cause=cause)]}
    assert cause not in run("status").out
    monkeypatch.setenv("COLUMNS", "200")
    assert cause in run("status").out


def test_status_of_nothing_says_what_to_do(run: Any, daemon: Any) -> None:
    daemon.answers["GET", "/v1/status"] = {"jobs": []}
    assert run("status").out == "no jobs; apply a running config with `maestro apply FILE`\n"


def test_status_as_json_is_what_the_daemon_said(run: Any, daemon: Any, make: Any) -> None:
    answer = daemon.answers["GET", "/v1/status"] = {"jobs": [make.job("web")]}
    assert run("status", "--json").json == answer


def test_status_asks_for_the_jobs_named(run: Any, daemon: Any, make: Any) -> None:
    daemon.answers["GET", "/v1/status"] = {"jobs": [make.job("web")]}
    run("status", "web", "db")
    assert daemon.requests[0].query == {"job": ["web", "db"], "memory": ["1"]}


def test_patterns_match_jobs(run: Any, daemon: Any, make: Any) -> None:
    daemon.answers["GET", "/v1/status"] = {"jobs": [make.job("web1"), make.job("web2"), make.job("db")]}
    run("status", "web*")
    assert daemon.requests[-1].query["job"] == ["web1", "web2"]
    result = run("status", "x*")
    assert result.status == 1
    assert result.err.startswith("maestro: cannot find a job like 'x*'\n")


def test_the_hint_of_the_daemon_is_passed_on(run: Any, daemon: Any, make: Any) -> None:
    daemon.answers["GET", "/v1/jobs/zigbe/why"] = make.problem(
        404, "not-found", "no job zigbe", "did you mean zigbee?"
    )
    result = run("why", "zigbe")
    assert result.status == 1
    assert result.err == "maestro: no job zigbe\nmaestro: did you mean zigbee?\n"


def test_what_jobs_say_cannot_move_the_cursor(run: Any, daemon: Any, make: Any) -> None:
    daemon.answers["GET", "/v1/status"] = {"jobs": [make.job("web", "FAILED", cause="\x1b[2Jbad\nline\x07")]}
    result = run("status")
    assert "?[2Jbad" in result.out
    assert "\x1b" not in result.out
    assert len(result.out.splitlines()) == 2


# the daemon is away, or says no


def test_no_daemon_is_exit_3_with_a_hint(run: Any) -> None:
    result = run("status")
    assert result.status == 3
    assert result.err.startswith("maestro: cannot reach")
    assert result.out == ""


def test_errors_as_json_go_to_standard_error(run: Any, daemon: Any, make: Any) -> None:
    daemon.answers["GET", "/v1/tasks/x"] = make.problem(
        404, "not-found", "no task x", "`maestro tasks` lists them"
    )
    result = run("task", "x", "--json")
    assert (result.status, result.out) == (1, "")
    error = {"code": "not-found", "message": "no task x", "hint": "`maestro tasks` lists them"}
    assert json.loads(result.err) == {"error": error}


def test_usage_mistakes_are_exit_2(run: Any) -> None:
    result = run("stauts")
    assert result.status == 2
    assert result.err == "maestro: cannot run 'stauts': no such command\nmaestro: did you mean 'status'?\n"
    assert run().status == 2


def test_help_and_version_need_no_daemon(run: Any) -> None:
    assert run("--help").out.startswith("usage: maestro ")
    assert run("apply", "--help").out.startswith("usage: maestro apply ")
    assert run("--version").out.startswith("maestro ")


def test_an_answer_that_makes_no_sense_is_no_traceback(run: Any, daemon: Any) -> None:
    daemon.answers["GET", "/v1/status"] = {"surprise": True}
    result = run("status")
    assert result.status == 1
    assert result.err == "maestro: cannot go on: internal error: KeyError('jobs')\n"


# doing things to jobs


def test_an_action_follows_its_task_to_the_end(run: Any, daemon: Any, make: Any) -> None:
    daemon.answers["POST", "/v1/jobs/web/start"] = 202, {"task_id": "t1"}
    daemon.answers["GET", "/v1/tasks/t1"] = make.lines(
        [make.task("running"), make.task(messages=["web runs in front-end, with api"])]
    )
    result = run("start", "web")
    assert result.status == 0
    assert result.out == "web runs in front-end, with api\nstarted web\n"


def test_all_jobs_are_tried_and_one_failure_counts(run: Any, daemon: Any, make: Any) -> None:
    daemon.answers["POST", "/v1/jobs/a/stop"] = make.problem(
        409, "conflict", "cannot stop a: it is busy", "wait"
    )
    daemon.answers["POST", "/v1/jobs/b/stop"] = 202, {"task_id": "t2"}
    daemon.answers["POST", "/v1/jobs/c/stop"] = 202, {"task_id": "t3"}
    bad = {"code": "failed", "message": "cannot stop b: it ignores SIGKILL", "hint": ""}
    daemon.answers["GET", "/v1/tasks/t2"] = make.lines([make.task("failed", "t2", error=bad)])
    daemon.answers["GET", "/v1/tasks/t3"] = make.lines([make.task("complete", "t3")])
    result = run("stop", "a", "b", "c")
    assert result.status == 1
    assert result.out == "stopped c\n"
    assert "maestro: cannot stop a: it is busy\nmaestro: wait\n" in result.err
    assert "maestro: cannot stop b: it ignores SIGKILL\n" in result.err
    assert "see `maestro why b`, `maestro logs b`" in result.err


def test_an_action_that_is_not_waited_for_names_its_task(run: Any, daemon: Any) -> None:
    daemon.answers["POST", "/v1/jobs/web/restart"] = 202, {"task_id": "t1"}
    assert run("restart", "web", "--no-wait").out == "web: task t1\n"
    assert run("restart", "web", "--no-wait", "--json").json == {
        "tasks": [{"job": "web", "task_id": "t1"}],
        "errors": [],
    }


def test_members_of_one_process_restart_it_once(run: Any, daemon: Any, make: Any) -> None:
    daemon.answers["GET", "/v1/status"] = {
        "jobs": [make.job("a", process="both"), make.job("b", process="both"), make.job("c")]
    }
    for name in "ac":
        daemon.answers["POST", f"/v1/jobs/{name}/restart"] = 202, {"task_id": "t-" + name}
        daemon.answers["GET", f"/v1/tasks/t-{name}"] = make.lines([make.task(task_id="t-" + name)])
    result = run("restart", "a", "b", "c")
    assert result.status == 0
    assert result.out == "restarted a\nrestarted c\n"
    assert result.err == "maestro: b is in one process with a\n"


def test_an_action_gives_up_waiting_when_told_to(run: Any, daemon: Any, make: Any) -> None:
    import threading

    gate = threading.Event()
    daemon.answers["POST", "/v1/jobs/web/stop"] = 202, {"task_id": "t1"}
    daemon.answers["GET", "/v1/tasks/t1"] = make.lines([make.task("running"), gate])
    result = run("stop", "web", "--timeout", "100ms")
    gate.set()
    assert result.status == 1
    assert result.err == "maestro: cannot wait longer to stop web: it goes on\n"


def test_kill_sends_the_signal_by_name(run: Any, daemon: Any) -> None:
    daemon.answers["POST", "/v1/jobs/web/kill"] = {}
    assert run("kill", "-s", "usr1", "web").out == "sent SIGUSR1 to web\n"
    assert daemon.requests[-1].body == {"signal": "SIGUSR1"}
    run("kill", "web")
    assert daemon.requests[-1].body == {"signal": "SIGTERM"}


def test_why_prints_sentences(run: Any, daemon: Any) -> None:
    answer = {"job": "web", "state": "WAITING_FOR_DEPS", "lines": ["web waits.", "It waits for db."]}
    daemon.answers["GET", "/v1/jobs/web/why"] = answer
    assert run("why", "web").out == "web is WAITING_FOR_DEPS\nweb waits.\nIt waits for db.\n"
    assert run("why", "web", "--json").json == answer
