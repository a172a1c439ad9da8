# SPDX-License-Identifier: Apache-2.0
"""Upstream maestro's routes, asked as its own scripts and modules ask them: bodies and status codes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.daemon import Daemon
from support.documents import WAIT, document, image, job
from support.rawhttp import Answer, ask

SHELL = {"exec_cmd": "/bin/sh", "exec_args": ["-c", WAIT]}

PAYLOAD_KEYS = [
    "job", "composite_id", "container_template", "config", "config_name", "message", "wait_for_ok",
    "defer_running_status", "no_autostart", "restart", "restart_on_dependency_fail", "restart_limit",
    "restart_pause", "depends_on", "exec_cmd", "exec_args", "pgid", "env", "inherit_env",
    "die_on_parent_death", "daemonize", "immutable",
]  # fmt: skip


def go_payload(name: str, **said: Any) -> dict[str, Any]:
    """Return a job as a Go program encodes it: every key there, what was not said as its zero value."""
    zero: dict[str, Any] = dict.fromkeys(PAYLOAD_KEYS)
    for key in ("composite_id", "container_template", "config", "config_name", "message", "exec_cmd"):
        zero[key] = ""
    for key in ("defer_running_status", "restart_limit", "restart_pause", "pgid"):
        zero[key] = 0
    for key in ("wait_for_ok", "no_autostart", "restart", "restart_on_dependency_fail", "inherit_env",
                "die_on_parent_death", "daemonize", "immutable"):  # fmt: skip
        zero[key] = False
    return {**zero, "job": name, **SHELL, **said}


def ended(daemon: Daemon, task_id: str) -> dict[str, Any]:
    task: dict[str, Any] = daemon.client().task(task_id, wait=20)
    assert task["ended"], task
    return task


def get(daemon: Daemon, path: str) -> Answer:
    return ask(daemon.socket, "GET", path)


def test_greetings_and_alive(daemon: Daemon) -> None:
    assert get(daemon, "/") == Answer(200, b"Welcome!\n")
    assert get(daemon, "/hello/Ed") == Answer(200, b"hello, Ed!\n")
    first = get(daemon, "/alive")
    assert first.status == 200
    assert first.json["ok"] is True
    assert isinstance(first.json["uptime"], int)
    assert get(daemon, "/alive").json["uptime"] > first.json["uptime"] > 0  # nanoseconds


def test_unknown_path_is_404_and_wrong_method_405(daemon: Daemon) -> None:
    assert get(daemon, "/nonesuch").status == 404
    assert ask(daemon.socket, "DELETE", "/alive").status == 405


def test_jobs_have_strings_for_numbers_and_all_keys_of_the_definition(daemon: Daemon) -> None:
    template = {"name": "host", "exec_cmd": "/bin/sh", "exec_pre_args": ["-c", WAIT]}
    member = {"job": "member", "composite_id": "c", "container_template": "host"}
    daemon.run(document(job("one", depends_on=["member"]), member, templates=[template]))
    jobs = get(daemon, "/jobs").json
    assert sorted(jobs) == ["member", "one"]
    one = jobs["one"]
    pid = daemon.job("one")["pid"]
    assert {k: v for k, v in one.items() if k != "def"} == {
        "status": "RUNNING",
        "restarts": "0",
        "pid": str(pid),
        "errno": "0",
        "execPath": "/bin/sh",
    }
    assert list(one["def"]) == PAYLOAD_KEYS
    assert one["def"]["depends_on"] == ["member"]
    assert one["def"]["env"] is None
    assert one["def"]["config_name"] == "default"
    assert jobs["member"]["compositeId"] == "c"
    assert jobs["member"]["compositeContainerTemplate"] == "host"
    assert jobs["member"]["pid"] == str(daemon.job("member")["pid"])
    assert get(daemon, "/job/one").json == one
    assert get(daemon, "/job/nonesuch").status == 404


def test_job_that_could_not_be_executed_shows_its_errno(daemon: Daemon) -> None:
    daemon.apply(document({"job": "app", "exec_cmd": "/nonesuch"}))
    found = get(daemon, "/job/app").json
    assert (found["status"], found["pid"], found["errno"]) == ("FAILED", "0", "2")


@pytest.mark.parametrize("body", [go_payload("app"), {"job": "app", **SHELL}], ids=["go", "short"])
def test_job_is_added_runs_is_updated_and_removed(body: dict[str, Any], daemon: Daemon) -> None:
    added = ask(daemon.socket, "POST", "/job", {"type": "job", "op": "add", "job": body, "task_id": "t-1"})
    assert (added.status, added.json) == (200, {"task_id": "t-1"})
    assert ended(daemon, "t-1")["status"] == "complete"
    first = daemon.wait_state("app", "RUNNING")

    changed = {**body, "exec_args": ["-c", f"echo changed; {WAIT}"]}
    updated = ask(daemon.socket, "POST", "/job", {"type": "job", "op": "update", "job": changed})
    assert (updated.status, updated.json) == (200, {"task_id": ""})
    daemon.wait("app", lambda row: row["state"] == "RUNNING" and row["pid"] not in (None, first["pid"]))
    daemon.wait_log("app", "changed")

    removed = ask(
        daemon.socket, "POST", "/job", {"type": "job", "op": "rm", "params": ["app"], "task_id": "t-2"}
    )
    assert (removed.status, removed.json) == (200, {"task_id": "t-2"})
    assert ended(daemon, "t-2")["status"] == "complete"
    assert get(daemon, "/jobs").json == {}


def test_zero_values_of_a_go_program_do_not_hide_what_the_template_says(daemon: Daemon) -> None:
    daemon.run(document(templates=[{"name": "t", "restart": True, "restart_pause": 1}]))
    body = go_payload("app", container_template="t")
    ask(daemon.socket, "POST", "/job", {"type": "job", "op": "add", "job": body, "task_id": "t"})
    ended(daemon, "t")
    pid = daemon.wait_state("app", "RUNNING")["pid"]
    daemon.client().kill("app", "SIGKILL")
    daemon.wait("app", lambda row: row["state"] == "RUNNING" and row["pid"] not in (None, pid))


def test_inline_config_of_a_job_is_its_default_config(daemon: Daemon) -> None:
    body = go_payload("app", config='{"a": 1}')
    ask(daemon.socket, "POST", "/job", {"type": "job", "op": "add", "job": body, "task_id": "t"})
    ended(daemon, "t")
    found = get(daemon, "/jobConfig/app/default")
    assert found.status == 200
    assert found.json["configs"][0]["data"] == '{"a": 1}'


@pytest.mark.parametrize(
    ("path", "body", "status", "answer"),
    [
        ("/job", b"{", 400, {"error": "Badly formed"}),
        ("/job", {"op": "rm", "params": []}, 406, {"error": "Badly formed", "details": "no job name(s)"}),
        ("/job", {"op": "dance"}, 406, {"error": "unknown command", "details": 'op was "dance"'}),
        ("/job", {"op": "add"}, 406, {"error": "no job data", "details": ""}),
        ("/image", b"not json", 400, {"error": "Badly formed"}),
        ("/image", {"type": "job"}, 406, {"error": "Only accept image as .type for this operation"}),
        ("/ops", b"[", 400, {"error": "Badly formed batch request"}),
        ("/ops", {"ops": []}, 400, {"error": "Badly formed batch request"}),
        (
            "/ops",
            {"ops": [{"type": "net", "op": "add"}]},
            406,
            {"error": "Unknown Op Type in batch request", "details:": 'Op was "net"'},
        ),
        ("/process", {"path": 7}, 400, {"error": "Badly formed"}),
        ("/process", {"path": "/bin/true", "environment": ["nameless"]}, 400, {"error": "Badly formed"}),
        (
            "/process",
            b'{"path": "/bin/true", "arguments": ["\\ud800"]}',
            422,
            {"error": "not valid text: '\\ud800'"},
        ),
    ],
)
def test_malformed_operations_get_upstreams_answers(
    path: str, body: object, status: int, answer: dict[str, str], daemon: Daemon
) -> None:
    found = ask(daemon.socket, "POST", path, body)
    assert (found.status, found.json) == (status, answer)
    assert get(daemon, "/jobs").json == {}


def test_bad_job_is_refused_with_its_problems(daemon: Daemon) -> None:
    bad = {**go_payload("app"), "depends_on": ["nonesuch"]}
    found = ask(daemon.socket, "POST", "/job", {"type": "job", "op": "add", "job": bad})
    assert found.status == 406
    assert 'no job is called "nonesuch"' in found.json["error"]
    assert get(daemon, "/jobs").json == {}
    removed = ask(daemon.socket, "POST", "/job", {"op": "rm", "params": ["nonesuch"]})
    assert removed.status in (404, 406)
    assert "no job nonesuch" in removed.body.decode()


def test_image_is_installed_for_its_job_and_removed(daemon: Daemon, tmp_path: Path) -> None:
    wanted = image("app", "1.0", tmp_path, {"f": "hello\n"})
    body = {"type": "image", "op": "add", "image": wanted, "task_id": "i-1"}
    found = ask(daemon.socket, "POST", "/image", body)
    assert (found.status, found.json) == (200, {"task_id": "i-1"})
    assert ended(daemon, "i-1")["status"] == "complete"
    images = daemon.client().images()["images"]
    assert [(row["job"], row["version"]) for row in images] == [("app", "1.0")]
    status = get(daemon, "/status/i-1")
    assert (status.status, status.json) == (200, {"task_id": "i-1", "status": "complete", "data": ""})
    again = ask(daemon.socket, "POST", "/image", body)
    assert again.status in (200, 406)  # a known id is never carried out twice
    made = ask(daemon.socket, "POST", "/image", {**body, "task_id": ""}).json["task_id"]
    assert made
    assert ended(daemon, made)["status"] == "complete"


def test_image_that_cannot_be_fetched_fails_its_task(daemon: Daemon, tmp_path: Path) -> None:
    wanted = image("app", "1.0", tmp_path, {"f": "x"})
    wanted["checksum"]["value"] = "0" * 64
    task = ask(daemon.socket, "POST", "/image", {"type": "image", "op": "add", "image": wanted}).json[
        "task_id"
    ]
    assert ended(daemon, task)["status"] == "failed"
    status = get(daemon, f"/status/{task}").json
    assert status["status"] == "failed"
    assert "app" in status["data"]
    assert daemon.client().images()["images"] == []


def test_status_of_an_unknown_task_is_404(daemon: Daemon) -> None:
    assert get(daemon, "/status/nonesuch").status == 404


def test_batch_of_operations_is_carried_out_in_order(daemon: Daemon, tmp_path: Path) -> None:
    """Image and job together: the job never starts without its image."""
    wanted = image("app", "1.0", tmp_path, {"f": "from the image\n"})
    body = go_payload("app", exec_args=["-c", f"cat {{{{IMAGE}}}}/f; {WAIT}"])
    ops = [
        {"type": "image", "op": "add", "image": wanted},
        {"type": "job", "op": "add", "job": body},
        {"type": "job", "op": "add", "job": go_payload("second", depends_on=["app"])},
    ]
    found = ask(daemon.socket, "POST", "/ops", {"type": "batch", "task_id": "b-1", "ops": ops})
    assert (found.status, found.body) == (200, b"")
    assert ended(daemon, "b-1")["status"] == "complete"
    daemon.wait_log("app", "from the image")
    assert daemon.job("second")["state"] == "RUNNING"
    assert daemon.job("app")["image_version"] == "1.0"


def test_job_is_stopped_started_restarted_killed_and_deleted(daemon: Daemon) -> None:
    daemon.run(document(job("app", restart=True, restart_pause=1)))
    first = daemon.job("app")["pid"]

    def put(op: str) -> Answer:
        return ask(daemon.socket, "PUT", "/job/app", {"op": op})

    stopped = put("stop")
    assert stopped.status == 200
    ended(daemon, stopped.json["task_id"])
    assert get(daemon, "/job/app").json["status"] == "STOPPED"
    ended(daemon, put("start").json["task_id"])
    second = daemon.job("app")["pid"]
    assert second != first
    ended(daemon, put("restart").json["task_id"])
    third = daemon.job("app")["pid"]
    assert third != second
    assert put("kill").status == 200
    daemon.wait("app", lambda row: row["state"] == "RUNNING" and row["pid"] not in (None, third))
    odd = put("dance")
    assert (odd.status, odd.json) == (406, {"error": "unknown command", "details": 'op was "dance"'})
    deleted = ask(daemon.socket, "DELETE", "/job/app")
    assert deleted.status == 200
    assert ended(daemon, deleted.json["task_id"])["status"] == "complete"
    assert get(daemon, "/jobs").json == {}


def test_kill_route_takes_a_signal(daemon: Daemon) -> None:
    daemon.run(document(job("app", "trap 'echo got it' USR1; echo '!!OK!!'; while :; do sleep 0.05; done",
                            wait_for_ok=True)))  # fmt: skip
    assert ask(daemon.socket, "PUT", "/job/app", {"op": "kill", "signal": "SIGUSR1"}).status == 200
    daemon.wait_log("app", "got it")
    assert daemon.job("app")["state"] == "RUNNING"


def test_templates_are_added_shown_replaced_and_removed(daemon: Daemon) -> None:
    added = ask(daemon.socket, "POST", "/containerTemplate", {"name": "t", "exec_cmd": "/bin/echo"})
    assert added.status == 200
    ended(daemon, added.json["task_id"])
    assert get(daemon, "/containerTemplate/t").json["exec_cmd"] == "/bin/echo"
    names = [each["name"] for each in get(daemon, "/containerTemplate").json]
    assert {"t", "devicejs"} <= set(names)
    replaced = ask(daemon.socket, "PUT", "/containerTemplate/t", {"exec_cmd": "/bin/true"})
    ended(daemon, replaced.json["task_id"])
    assert get(daemon, "/containerTemplate/t").json["exec_cmd"] == "/bin/true"
    removed = ask(daemon.socket, "DELETE", "/containerTemplate/t")
    ended(daemon, removed.json["task_id"])
    assert get(daemon, "/containerTemplate/t").status == 404
    assert ask(daemon.socket, "DELETE", "/containerTemplate/devicejs").status == 404


def test_template_in_use_cannot_be_removed(daemon: Daemon) -> None:
    daemon.run(document(job("app", container_template="t"), templates=[{"name": "t"}]))
    refused = ask(daemon.socket, "DELETE", "/containerTemplate/t")
    assert refused.status == 422
    assert 'no template is called "t"' in refused.json["title"]
    assert "app" in refused.json["title"]
    assert get(daemon, "/containerTemplate/t").status == 200


def test_configs_are_stored_replaced_served_and_deleted(daemon: Daemon) -> None:
    daemon.run(document(job("app"), job("other")))
    path = "/jobConfig/app/main"
    assert get(daemon, path) == Answer(204, b"")
    assert get(daemon, "/jobConfig/app") == Answer(204, b"")
    assert get(daemon, "/jobConfig") == Answer(204, b"")

    new = ask(daemon.socket, "POST", path, {"data": "one", "encoding": "utf8"})
    assert (new.status, new.json) == (201, {})
    one = {"name": "main", "job": "app", "data": "one", "encoding": "utf8", "files": None, "mod_time": ""}
    found = get(daemon, path)
    assert (found.status, found.json) == (200, {"configs": [one]})
    assert get(daemon, "/jobConfig/app").json == {"configs": [one]}
    assert get(daemon, "/jobConfig").json == {"configs": [one]}
    assert get(daemon, "/jobConfig/other").status == 204

    replaced = ask(daemon.socket, "POST", path, {"name": "", "job": "", "data": "two"})
    assert (replaced.status, replaced.json) == (202, {"replaced_configs": [one]})
    assert get(daemon, path).json["configs"][0]["data"] == "two"

    bad = ask(daemon.socket, "POST", path, b"{")
    assert bad.status == 400
    assert bad.json["error"]
    assert "error_details" in bad.json

    gone = ask(daemon.socket, "DELETE", path)
    assert gone.status == 200
    assert [c["data"] for c in gone.json["replaced_configs"]] == ["two"]
    assert get(daemon, path).status == 204
    absent = ask(daemon.socket, "DELETE", path)
    assert (absent.status, absent.json) == (200, {})


def test_posted_config_is_given_to_a_job_that_runs(daemon: Daemon) -> None:
    daemon.run(document(job("app", f"cat $MAESTRO_CONFIG; {WAIT}")))
    assert ask(daemon.socket, "POST", "/jobConfig/app/default", {"data": "posted\n"}).status == 201
    daemon.wait_log("app", "posted")


def test_stored_config_is_found_by_its_path_whatever_names_its_body_has(daemon: Daemon) -> None:
    """The key is always the path; it is still that after a restart, and what is placed follows it."""
    daemon.run(document(job("app")))
    sent = {"name": "sent", "job": "elsewhere", "data": "x"}
    assert ask(daemon.socket, "POST", "/jobConfig/app/main", sent).status == 201
    assert get(daemon, "/jobConfig/app/main").json["configs"][0]["data"] == "x"
    assert (daemon.root / "state/configs/app/main").read_text() == "x"
    daemon.stop()
    daemon.start()
    daemon.wait_state("app", "RUNNING")
    found = get(daemon, "/jobConfig/app/main")
    assert found.status == 200, found
    assert found.json["configs"][0]["data"] == "x"


def test_shutdown_route_ends_the_daemon(daemon: Daemon) -> None:
    assert ask(daemon.socket, "POST", "/shutdown").status in (200, 202)
    assert daemon.process
    assert daemon.process.wait(10) == 0
