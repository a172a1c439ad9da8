# SPDX-License-Identifier: Apache-2.0
"""apply, check and diff: against a socket with canned answers, and without any."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

PLAN = {
    "empty": False,
    "steps": [
        {"action": "fetch-image", "subject": "web", "process": "web", "reason": "version 1 becomes 2"},
        {"action": "stop", "subject": "web", "process": "web", "reason": "image web: 1 becomes 2"},
        {"action": "switch-image", "subject": "web", "process": "web", "reason": "version 1 becomes 2"},
        {"action": "start", "subject": "web", "process": "web", "reason": "image web: 1 becomes 2"},
        {"action": "start", "subject": "db", "process": "db", "reason": "it is new"},
        {"action": "stop", "subject": "old", "process": "old", "reason": "it is not in the new document"},
        {
            "action": "remove-job",
            "subject": "old",
            "process": "old",
            "reason": "it is not in the new document",
        },
    ],
}
EMPTY = {"empty": True, "steps": []}


@pytest.fixture
def document(tmp_path: Path) -> str:
    path = tmp_path / "doc.json"
    path.write_text('{"config": "running", "jobs": []}')
    return str(path)


# documents


def test_diff_shows_the_plan_and_exits_1_when_something_would_change(
    run: Any, daemon: Any, document: str
) -> None:
    warning = {"path": "jobs[0]", "message": "odd", "hint": "", "line": 0}
    daemon.answers["POST", "/v1/diff"] = {"plan": PLAN, "warnings": [warning]}
    result = run("diff", document)
    assert result.status == 1
    assert result.err == "maestro: warning: jobs[0]: odd\n"
    assert result.out.splitlines() == [
        "  + fetch-image   web  version 1 becomes 2",
        "  ~ restart       web  image web: 1 becomes 2",
        "  ~ switch-image  web  version 1 becomes 2",
        "  + start         db   it is new",
        "  - stop          old  it is not in the new document",
        "  - remove-job    old  it is not in the new document",
        "",
        "plan: 1 to start, 1 to restart, 1 to stop, 1 to download, 1 to remove",
    ]
    assert daemon.requests[0].body == {"config": "running", "jobs": []}


def test_diff_of_no_change_exits_0(run: Any, daemon: Any, document: str) -> None:
    daemon.answers["POST", "/v1/diff"] = {"plan": EMPTY, "warnings": []}
    result = run("diff", document)
    assert (result.status, result.out) == (0, "nothing to change\n")


def test_long_reasons_wrap_below_themselves(run: Any, daemon: Any, document: str) -> None:
    step = {"action": "start", "subject": "web", "process": "web", "reason": "because " * 20 + "so"}
    daemon.answers["POST", "/v1/diff"] = {"plan": {"empty": False, "steps": [step]}, "warnings": []}
    lines = run("diff", document).out.splitlines()
    assert all(len(line) <= 80 for line in lines)
    assert lines[1].startswith(" " * 16 + "because")
    assert " ".join(lines[:-2]).split().count("because") == 20


def test_apply_ends_with_what_changed_and_the_states(run: Any, daemon: Any, make: Any, document: str) -> None:
    daemon.answers["POST", "/v1/apply"] = 202, {"task_id": "t1", "plan": PLAN, "warnings": []}
    daemon.answers["GET", "/v1/tasks/t1"] = make.lines(
        [
            make.task("running", progress=[make.part(0)]),
            make.task("running", progress=[make.part(1 << 19)]),
            make.task("complete", progress=[make.part(1 << 20, "complete")]),
        ]
    )
    daemon.answers["GET", "/v1/status"] = {
        "jobs": [make.job("web"), make.job("db"), make.job("idle", "STOPPED")]
    }
    result = run("apply", document)
    lines = result.out.splitlines()
    assert (result.status, result.err) == (0, "")
    assert lines[:3] == [
        "fetch image web, 1.0M",
        "fetch image web: done, 1.0M",
        "applied: 1 started, 1 restarted, 1 stopped, 1 downloaded, 1 removed",
    ]
    assert [line.split()[:2] for line in lines[4:]] == [["db", "RUNNING"], ["web", "RUNNING"]]


def test_apply_names_each_failed_job_and_where_to_look(
    run: Any, daemon: Any, make: Any, document: str
) -> None:
    daemon.answers["POST", "/v1/apply"] = 202, {"task_id": "t1", "plan": PLAN, "warnings": []}
    error = {
        "code": "failed",
        "message": "1 process is not as wanted\n  web is FAILED: exit code 3",
        "hint": "x",
    }
    daemon.answers["GET", "/v1/tasks/t1"] = make.lines([make.task("failed", error=error)])
    daemon.answers["GET", "/v1/status"] = {
        "jobs": [
            make.job("web", "FAILED", cause="exit code 3"),
            make.job("db"),
            make.job("x", "FAILED", enabled=False),
        ]
    }
    result = run("apply", document)
    assert result.status == 1
    assert result.err.splitlines() == [
        "maestro: 1 process is not as wanted",
        "  web is FAILED: exit code 3",
        "maestro: see `maestro why web`, `maestro logs web`",
    ]
    assert "applied" not in result.out


def test_apply_names_a_job_that_failed_for_another_reason(
    run: Any, daemon: Any, make: Any, document: str
) -> None:
    daemon.answers["POST", "/v1/apply"] = 202, {"task_id": "t1", "plan": EMPTY, "warnings": []}
    daemon.answers["GET", "/v1/tasks/t1"] = make.lines([make.task()])
    daemon.answers["GET", "/v1/status"] = {"jobs": [make.job("web", "FAILED", cause="exit code 3")]}
    result = run("apply", document)
    assert (result.status, result.out) == (1, "applied: nothing to change\n")
    assert result.err.splitlines() == [
        "maestro: web is FAILED: exit code 3",
        "maestro: see `maestro why web`, `maestro logs web`",
    ]


def test_apply_out_of_time_says_what_is_pending(run: Any, daemon: Any, make: Any, document: str) -> None:
    import threading

    gate = threading.Event()
    daemon.answers["POST", "/v1/apply"] = 202, {"task_id": "t1", "plan": PLAN, "warnings": []}
    daemon.answers["GET", "/v1/tasks/t1"] = make.lines([make.task("running"), gate])
    daemon.answers["GET", "/v1/status"] = {"jobs": [make.job("web", "STARTING"), make.job("db")]}
    result = run("apply", document, "--timeout", "0.1")
    gate.set()
    assert result.status == 1
    assert result.err.splitlines() == [
        "maestro: cannot wait longer for task t1: it goes on (`maestro task t1 --wait`)",
        "maestro: web is STARTING",
    ]


def test_apply_dry_run_and_no_wait(run: Any, daemon: Any, document: str) -> None:
    daemon.answers["POST", "/v1/apply"] = lambda request: (
        {"plan": EMPTY, "warnings": []}
        if "dry_run" in request.query
        else {"task_id": "t1", "plan": PLAN, "warnings": []}
    )
    result = run("apply", document, "--dry-run")
    assert (result.status, result.out) == (0, "nothing to change\n")
    result = run("apply", document, "--no-wait", "--force")
    assert (result.status, result.out) == (0, "task t1\n")
    assert daemon.requests[-1].query["force"] == ["1"]


def test_apply_as_json_is_one_document(run: Any, daemon: Any, make: Any, document: str) -> None:
    daemon.answers["POST", "/v1/apply"] = 202, {"task_id": "t1", "plan": EMPTY, "warnings": []}
    daemon.answers["GET", "/v1/tasks/t1"] = make.lines([make.task(messages=["hello"])])
    daemon.answers["GET", "/v1/status"] = {"jobs": []}
    answer = run("apply", document, "--json").json
    assert set(answer) == {"task_id", "plan", "warnings", "task", "jobs"}
    assert answer["task"]["status"] == "complete"


def test_apply_lists_every_problem_of_a_document(run: Any, daemon: Any, document: str) -> None:
    problems = [{"path": f"jobs[{i}].job", "message": "wrong", "hint": "", "line": 0} for i in range(2)]
    title = "cannot accept running config: 2 problems\n  jobs[0].job: wrong\n  jobs[1].job: wrong"
    body = {"status": 422, "code": "invalid", "title": title, "hint": "", "problems": problems}
    daemon.answers["POST", "/v1/apply"] = 422, body
    result = run("apply", document)
    assert result.status == 1
    assert result.err.count("jobs[0].job: wrong") == 1
    assert result.err.count("jobs[1].job: wrong") == 1
    told = json.loads(run("apply", document, "--json").err)["error"]["problems"]
    assert told == [{**problem, "line": 1} for problem in problems]


def test_a_document_that_cannot_be_read_is_named(run: Any, tmp_path: Path) -> None:
    result = run("apply", str(tmp_path / "none.json"))
    assert result.status == 1
    assert result.err == f"maestro: cannot read {tmp_path}/none.json: No such file or directory\n"


def test_a_mistyped_file_gets_a_suggestion(run: Any, document: str) -> None:
    result = run("apply", document.replace("doc", "dco"))
    assert result.err.endswith(f"maestro: did you mean {document}?\n")
    result = run("check", "/no/such/doc.json")
    assert result.err.endswith("maestro: there is no directory /no/such\n")


@pytest.mark.parametrize(
    ("text", "option", "hint"),
    [
        ("on_daemon_stop: keep", "", "a daemon's config file is checked with `maestro check --daemon`"),
        (
            '{"templates": [], "jobs": [{"job": "a", "container_template": "b"}]}',
            "--daemon",
            "a running config is checked without --daemon",
        ),
    ],
)
def test_the_wrong_kind_of_document_is_recognized(
    run: Any, tmp_path: Path, text: str, option: str, hint: str
) -> None:
    path = tmp_path / "doc"
    path.write_text(text)
    result = run("check", str(path), *filter(None, [option]))
    assert result.status == 1
    assert result.err.endswith(f"maestro: {hint}\n")


def test_an_empty_daemon_config_is_good_and_an_empty_running_config_is_not(run: Any, tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    assert run("check", "--daemon", str(tmp_path / "empty")).status == 0
    assert run("check", str(tmp_path / "empty")).err.endswith("empty: it is empty\n")


def test_a_yaml_document_is_sent_as_json(run: Any, daemon: Any, tmp_path: Path) -> None:
    (tmp_path / "doc.yaml").write_text("config: running\njobs:\n- job: web\n")
    daemon.answers["POST", "/v1/diff"] = {"plan": EMPTY, "warnings": []}
    assert run("diff", str(tmp_path / "doc.yaml")).status == 0
    assert daemon.requests[0].body == {"config": "running", "jobs": [{"job": "web"}]}


# check, without a daemon


def test_check_accepts_a_good_document(run: Any, tmp_path: Path) -> None:
    path = tmp_path / "good.json"
    path.write_text('{"config": "running", "jobs": [{"job": "web", "exec_cmd": "/bin/true"}]}')
    result = run("check", str(path))
    assert (result.status, result.out, result.err) == (0, f"{path} is good\n", "")
    assert run("check", str(path), "--json").json == {"ok": True, "problems": [], "warnings": []}


def test_check_lists_every_problem_on_its_own_line(run: Any, tmp_path: Path) -> None:
    path = tmp_path / "bad.json"
    path.write_text(
        '{"config": "running", "jobs": [{"job": 5, "exec_cmd": "/x"}, {"job": "b", "exec_cmdd": "/x"}]}'
    )
    result = run("check", str(path))
    lines = result.err.splitlines()
    assert result.status == 1
    assert result.out == ""
    assert lines[0].startswith(f"maestro: cannot accept {path}: ")
    assert any("jobs[0].job" in line for line in lines[1:])
    assert any("exec_cmdd" in line and "exec_cmd" in line for line in lines[1:])
    answer = run("check", str(path), "--json").json
    assert answer["ok"] is False
    assert {"path", "message", "hint", "line"} == set(answer["problems"][0])


def test_check_finds_syntax_errors_with_their_line(run: Any, tmp_path: Path) -> None:
    path = tmp_path / "bad.json"
    path.write_text('{"config": "running",\n "jobs": [}')
    result = run("check", str(path))
    assert result.status == 1
    assert "line 2" in result.err


def test_check_finds_what_cannot_be_expanded(run: Any, tmp_path: Path) -> None:
    path = tmp_path / "doc.json"
    path.write_text('{"config": "running", "jobs": [{"job": "web", "exec_cmd": "{{IMAGE}}/run"}]}')
    result = run("check", str(path))
    assert result.status == 1
    assert "web" in result.err
    assert "{{IMAGE}}" in result.err


def test_check_of_a_daemon_config_file(run: Any, tmp_path: Path) -> None:
    path = tmp_path / "maestro.yaml"
    path.write_text("httpUnixSocket: /tmp/x.sock\njobs:\n- job: web\n  exec_cmd: /bin/true\n")
    result = run("check", "--daemon", str(path))
    assert (result.status, result.out) == (0, f"{path} is good\n")


def test_check_knows_the_templates_that_ship(run: Any, tmp_path: Path) -> None:
    from maestro_py.cli.documents import shipped_templates

    names = [template.name for template in shipped_templates()]
    assert "devicejs" in names
    path = tmp_path / "doc.json"
    for name in names:
        body = {"job": "web", "exec_cmd": "/bin/true", "container_template": name}
        path.write_text(json.dumps({"config": "running", "jobs": [body]}))
        assert "no template" not in run("check", str(path)).err
