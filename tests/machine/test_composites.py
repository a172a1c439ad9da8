# SPDX-License-Identifier: Apache-2.0
"""Several jobs in one process: what the host is told, who restarts, and the shipped host for Python."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from support.daemon import Daemon
from support.documents import document, image, job

EXPECTED = (
    Path(__file__).parents[3] / "shared/samples/maestro/payloads/expected-composite-stdin.test1.derived.json"
)

# prints what it is told on standard input, byte for byte, between marks
ECHO = {
    "name": "echo",
    "exec_cmd": "/bin/sh",
    "exec_pre_args": ["-c", "printf '<<'; cat; echo '>>'; exec sleep 1000"],
    "send_composite_jobs_to_stdin": True,
}

PAYLOAD_KEYS = [
    "job", "composite_id", "container_template", "config", "config_name", "message", "wait_for_ok",
    "defer_running_status", "no_autostart", "restart", "restart_on_dependency_fail", "restart_limit",
    "restart_pause", "depends_on", "exec_cmd", "exec_args", "pgid", "env", "inherit_env",
    "die_on_parent_death", "daemonize", "immutable",
]  # fmt: skip


def member(name: str, **keys: object) -> dict[str, object]:
    return {
        "job": name,
        "composite_id": "both",
        "container_template": "echo",
        "exec_cmd": f"/m/{name}",
        **keys,
    }


def told(daemon: Daemon, name: str) -> str:
    log = daemon.wait_log(name, ">>\n")
    return log[log.rindex("<<") + 2 : log.rindex(">>")]


def test_members_are_told_to_the_host_in_the_exact_form(daemon: Daemon) -> None:
    template = {**ECHO, "composite_config": '{"debug": "<&>"}'}
    daemon.run(
        document(
            member("b", exec_args=["x"], env=["K=é"], restart=True, restart_pause=1500, restart_limit=3),
            member("a", config="std"),
            templates=[template],
        )
    )
    text = told(daemon, "a")
    found = json.loads(text)
    assert list(found) == ["moduleconfigs", "process_config", "maestro_user_socket_path"]
    assert found["process_config"] == template["composite_config"]
    assert found["maestro_user_socket_path"] == str(daemon.socket)
    assert list(found["moduleconfigs"]) == ["a", "b"]
    for payload in found["moduleconfigs"].values():
        assert list(payload) == PAYLOAD_KEYS
    a, b = found["moduleconfigs"]["a"], found["moduleconfigs"]["b"]
    assert (a["config"], a["config_name"], a["depends_on"], a["env"]) == ("", "std", None, None)
    assert (b["config_name"], b["exec_args"], b["env"]) == ("default", ["x"], ["K=é"])
    assert (b["restart"], b["restart_pause"], b["restart_limit"]) == (True, 1500, 3)
    # minified, no newline at the end, HTML's characters escaped as Go does
    assert text == json.dumps(found, separators=(",", ":"), ensure_ascii=False).replace(
        "<", "\\u003c").replace("&", "\\u0026").replace(">", "\\u003e")  # fmt: skip


def test_upstream_example_composite_is_told_byte_for_byte(make_daemon: Callable[..., Daemon]) -> None:
    if not EXPECTED.exists():
        pytest.skip("the upstream sample is not here")
    wanted = json.loads(EXPECTED.read_text())
    jobs = []
    for payload in wanted["moduleconfigs"].values():
        said = ("job", "composite_id", "container_template", "config", "exec_cmd", "immutable")
        jobs.append({key: payload[key] for key in said})
    template = {**ECHO, "name": "deviceJS_process", "composite_config": wanted["process_config"]}
    daemon = make_daemon(json.dumps({"jobs": jobs, "container_templates": [template]}))
    daemon.wait_state("test_basic_devjs_1", "RUNNING")
    expected = EXPECTED.read_text().rstrip("\n").replace("/tmp/maestroapi.sock", str(daemon.socket))
    assert told(daemon, "test_basic_devjs_1") == expected


def test_members_share_one_process_and_its_state(daemon: Daemon) -> None:
    daemon.run(document(member("a"), member("b"), job("single"), templates=[ECHO]))
    a, b, single = (daemon.job(name) for name in ("a", "b", "single"))
    assert a["pid"] == b["pid"] != single["pid"]
    assert a["process"] == b["process"] == a["composite_id"] == "both"
    assert a["state"] == b["state"] == "RUNNING"
    daemon.client().kill("b", "SIGKILL")
    for name in ("a", "b"):
        row = daemon.wait_state(name, "FAILED")
        assert row["cause"].startswith("killed by SIGKILL, sent by ")
    assert daemon.job("single")["pid"] == single["pid"]
    assert "a runs in the composite both (a, b)." in daemon.client().why("a")["lines"]


def test_change_of_one_member_restarts_the_process_once(daemon: Daemon) -> None:
    daemon.run(document(member("a"), member("b"), job("single"), templates=[ECHO]))
    before, single = daemon.job("a")["pid"], daemon.job("single")["pid"]
    changed = document(member("a"), member("b", exec_args=["new"]), job("single"), templates=[ECHO])
    assert daemon.plan(changed) == [("stop", "both"), ("start", "both")]
    since = daemon.last_event()
    daemon.run(changed)
    assert [e["type"] for e in daemon.events("both", since)].count("process-starting") == 1
    assert daemon.job("a")["pid"] == daemon.job("b")["pid"] != before
    assert daemon.job("single")["pid"] == single
    assert json.loads(told(daemon, "b"))["moduleconfigs"]["b"]["exec_args"] == ["new"]


def test_members_come_and_go_with_one_restart_each(daemon: Daemon) -> None:
    daemon.run(document(member("a"), member("b", disabled=True), templates=[ECHO]))
    first = daemon.job("a")["pid"]
    b = daemon.job("b")
    assert (b["state"], b["pid"], b["enabled"], b["cause"]) == ("STOPPED", None, False, "disabled")
    assert list(json.loads(told(daemon, "a"))["moduleconfigs"]) == ["a"]

    steps = daemon.client().diff(document(member("a"), member("b"), templates=[ECHO]))["plan"]["steps"]
    assert {step["reason"] for step in steps} == {"b joins"}
    assert daemon.do("b", "enable")["status"] == "complete"
    assert daemon.job("a")["pid"] == daemon.job("b")["pid"] != first

    second = daemon.job("a")["pid"]
    daemon.run(document(member("a"), templates=[ECHO]))
    assert daemon.job("a")["pid"] != second
    assert [row["job"] for row in daemon.client().status()["jobs"]] == ["a"]
    assert [e["type"] for e in daemon.events("both")].count("process-starting") == 3


def test_disabling_every_member_stops_the_process(daemon: Daemon) -> None:
    daemon.run(document(member("a"), member("b"), templates=[ECHO]))
    pid = daemon.job("a")["pid"]
    daemon.do("a", "disable")
    daemon.do("b", "disable")
    for name in ("a", "b"):
        assert (daemon.job(name)["state"], daemon.job(name)["pid"]) == ("STOPPED", None)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_job_that_leaves_its_composite_gets_a_process_of_its_own(daemon: Daemon) -> None:
    daemon.run(document(member("a"), member("b"), templates=[ECHO]))
    daemon.run(document(member("a"), job("b"), templates=[ECHO]))
    a, b = daemon.job("a"), daemon.job("b")
    assert a["pid"] != b["pid"]
    assert (a["process"], b["process"]) == ("both", "b")
    assert daemon.plan(document(member("a"), job("b"), templates=[ECHO])) == []


def test_every_member_restarts_as_the_one_that_asks_for_most_says(daemon: Daemon) -> None:
    daemon.run(document(member("a"), member("b", restart=True, restart_pause=1), templates=[ECHO]))
    pid = daemon.job("a")["pid"]
    daemon.client().kill("a", "SIGKILL")
    row = daemon.wait("a", lambda row: row["state"] == "RUNNING" and row["pid"] not in (None, pid))
    assert row["restarts"] == daemon.job("b")["restarts"] == 1


def test_acting_on_one_member_says_that_it_concerns_all(daemon: Daemon) -> None:
    daemon.run(document(member("a"), member("b"), templates=[ECHO]))
    task = daemon.do("a", "stop")
    assert task["messages"] == ["a is in both: this concerns a, b"]
    assert daemon.job("b")["state"] == "STOPPED"
    said = daemon.cli("start", "a", "b")
    assert said.returncode == 0, said.stderr
    assert "this concerns a, b" in said.stdout + said.stderr


MODULE = """
import os, threading
def start(config, context):
    print(context.name, "is up in", os.getpid(), "with", config, flush=True)
"""


def test_python_modules_share_a_process_and_a_broken_one_is_named(daemon: Daemon, tmp_path: Path) -> None:
    """Two modules from images with configs fetched over the socket, a third that cannot be loaded."""
    names = ("first", "second", "broken")
    sources = dict.fromkeys(names, MODULE) | {"broken": "import absent_module\n"}
    wanted = document(
        *({"job": n, "composite_id": "modules", "container_template": "python-modules"} for n in names),
        images=[image(name, "1", tmp_path, {"__init__.py": sources[name]}) for name in names],
        configs=[{"name": "default", "job": "first", "data": '{"word": "hello"}'}],
    )
    task = daemon.run(wanted)
    assert task["status"] == "complete"
    pid = daemon.job("first")["pid"]
    assert {daemon.job(name)["pid"] for name in names} == {pid}
    log = daemon.log_of("second")
    assert f"first is up in {pid} with {{'word': 'hello'}}" in log
    assert f"second is up in {pid} with" in log
    assert "cannot load module broken: ModuleNotFoundError: No module named 'absent_module'" in log
    assert "!!OK!!" not in log

    wanted["images"][2] = image("broken", "2", tmp_path, {"__init__.py": MODULE})
    daemon.run(wanted)
    log = daemon.log_of("broken")
    mended = daemon.job("broken")["pid"]
    assert mended != pid
    assert f"broken is up in {mended} with" in log
