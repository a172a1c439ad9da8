# SPDX-License-Identifier: Apache-2.0
"""The fields of readiness, health and what follows a failure: read, checked, written back, resolved."""

from __future__ import annotations

import json
from typing import Any

import pytest

from maestro_py.differences import How, differences
from maestro_py.errors import InvalidDocument
from maestro_py.spec.documents import read_running_config, read_stored, to_json
from maestro_py.spec.expand import resolve
from maestro_py.spec.model import Health, JobSpec, OnFailure, Probe, TemplateSpec
from maestro_py.spec.places import Places
from maestro_py.spec.resolved import Ready, ResolvedProcess

PLACES = Places("/img", "/conf", "/sock", "/this", "/cwd", {"tools": "/opt/tools"})
CHECK = ["/bin/check", "--quick"]


def job(**fields: Any) -> JobSpec:
    document = {"jobs": [{"job": "j", "exec_cmd": "/bin/x", **fields}]}
    return read_running_config(document)[0].jobs[0]


def process(template: dict[str, Any] | None = None, **fields: Any) -> ResolvedProcess:
    """Resolve one job, with the template when one is given."""
    document: dict[str, Any] = {"jobs": [{"job": "j", "exec_cmd": "/bin/x", **fields}]}
    if template is not None:
        document["jobs"][0]["container_template"] = "t"
        document["templates"] = [{"name": "t", **template}]
    read = read_running_config(document)[0]
    return resolve(read.jobs, read.templates, [], [], PLACES)["j"]


READ = [
    ("ready", "notify", Probe("notify")),
    ("ready", {"type": "ok-string", "ok_string": "up", "timeout": "30s"},
     Probe("ok-string", "up", timeout=30.0)),
    ("ready", {"type": "fd", "fd": 3}, Probe("fd", fd=3)),
    ("ready", {"type": "tcp", "port": 80, "interval": "100ms"}, Probe("tcp", port=80, interval=0.1)),
    ("ready", {"type": "http", "port": 80, "path": "/up?x=1"}, Probe("http", port=80, path="/up?x=1")),
    ("ready", {"type": "exec", "command": CHECK, "timeout": 0},
     Probe("exec", command=tuple(CHECK), timeout=0.0)),
    ("ready", {"type": "none"}, Probe("none")),
    ("health", {"type": "tcp", "port": 80}, Health("tcp", 80)),
    ("health", {"type": "http", "port": 80, "interval": 5, "threshold": 1, "action": "report"},
     Health("http", 80, interval=5.0, threshold=1, action="report")),
    ("health", {"type": "exec", "command": CHECK, "timeout": "1s"},
     Health("exec", command=tuple(CHECK), timeout=1.0)),
    ("watchdog", "1m", 60.0),
    ("pre_start", ["/bin/mkdir", "-p", "/x"], ("/bin/mkdir", "-p", "/x")),
    ("post_stop", ["{{tools}}/clean"], ("{{tools}}/clean",)),
    ("on_failure", {"command": ["/bin/alarm"]}, OnFailure(("/bin/alarm",))),
    ("on_failure", {"job": "rescue"}, OnFailure(job="rescue")),
]  # fmt: skip


@pytest.mark.parametrize(("key", "raw", "value"), READ)
def test_a_field_is_read_and_written_back(key: str, raw: object, value: object) -> None:
    spec = job(**{key: raw})
    assert getattr(spec.settings, key) == value
    assert read_stored("job", json.loads(json.dumps(to_json(spec)))) == spec


WRONG = [
    ("ready", "https",
     'ready.type: expected one of ok-string, notify, none, fd, tcp, http, exec, not "https"'),
    ("ready", "tcp", "ready: `port` is missing, which tcp needs"),
    ("ready", {"type": "fd"}, "ready: `fd` is missing, which fd needs"),
    ("ready", {"type": "fd", "fd": 2}, "ready.fd: expected a whole number from 3 to 1023, not 2"),
    ("ready", {"type": "notify", "port": 1}, "ready.port: notify has no `port`"),
    ("ready", {"port": 80}, "ready: `type` is missing"),
    ("ready", {"type": "tcp", "port": 80, "interval": 0}, "ready.interval: at least 10ms"),
    ("ready", {"type": "http", "port": 80, "path": "up"},
     'ready.path: expected a path that begins with a slash, not "up"'),
    ("health", {"type": "notify"}, 'health.type: expected one of tcp, http, exec, not "notify"'),
    ("health", {"type": "exec", "command": []}, "health: `command` is missing, which exec needs"),
    ("health", {"type": "tcp", "port": 80, "timeout": 0}, "health.timeout: a check needs some time"),
    ("health", {"type": "tcp", "port": 80, "action": "pray"},
     'health.action: expected one of restart, report, not "pray"'),
    ("pre_start", "rm -rf /",
     'pre_start: expected a program\'s absolute path and its arguments, as a list of strings, '
     'not "rm -rf /"'),
    ("pre_start", ["rm"], "pre_start: a command begins with the absolute path of its program"),
    ("on_failure", {}, "on_failure: give one of `command` and `job`"),
    ("on_failure", {"command": ["/x"], "job": "y"}, "on_failure: give one of `command` and `job`"),
]  # fmt: skip


@pytest.mark.parametrize(("key", "raw", "message"), WRONG)
def test_a_mistake_is_named(key: str, raw: object, message: str) -> None:
    with pytest.raises(InvalidDocument) as error:
        job(**{key: raw})
    said = [
        problem.path.removeprefix("jobs[0].") + ": " + problem.message.removeprefix('job "j": ')
        for problem in error.value.problems
    ]
    assert message in said


def test_an_unsaid_readiness_is_none() -> None:
    assert process().ready == Ready()
    assert not process().ready.awaited


@pytest.mark.parametrize(
    ("template", "fields", "ready"),
    [
        ({}, {"ready": "ok-string"}, Ready("!!OK!!")),
        ({}, {"ready": "ok-string", "ok_string": "up", "timeout_for_ok": 500}, Ready("up", 0.5)),
        ({"uses_ok_string": True}, {"ready": "notify"}, Ready(probe=Probe("notify"))),
        ({"ready": "notify"}, {"wait_for_ok": True}, Ready("!!OK!!")),
        ({"ready": "notify"}, {"wait_for_ok": False}, Ready()),
        ({"ready": "notify"}, {"ready": "none"}, Ready()),
        ({"ready": "notify"}, {"ok_string": "up"}, Ready("up")),
        ({"ok_string": "up"}, {"ready": "ok-string"}, Ready("up")),
        ({"timeout_for_ok": 2000}, {"ready": "notify"}, Ready(timeout=2.0, probe=Probe("notify"))),
        ({}, {"defer_running_status": 100, "ready": "none"}, Ready(defer=0.1)),
    ],
)
def test_the_nearest_word_about_readiness_counts(
    template: dict[str, Any], fields: dict[str, Any], ready: Ready
) -> None:
    assert process(template, **fields).ready == ready


def test_names_in_commands_are_filled_in() -> None:
    exec_check = {"type": "exec", "command": ["{{tools}}/check"]}
    found = process(ready=exec_check, health=exec_check, pre_start=["{{tools}}/a"], post_stop=["{{tools}}/b"],
                    on_failure={"command": ["{{tools}}/c"]})  # fmt: skip
    assert found.ready.probe
    assert found.health
    commands = (found.ready.probe.command, found.health.command, found.pre_start, found.post_stop,
                found.on_failure.command)  # fmt: skip
    assert [words[0] for words in commands] == [f"/opt/tools/{n}" for n in ("check", "check", "a", "b", "c")]


@pytest.mark.parametrize("field", ["ready", "health"])
def test_a_port_cannot_be_asked_without_a_network(field: str) -> None:
    with pytest.raises(InvalidDocument, match="cannot reach a process without a network; use exec"):
        process(network="none", **{field: {"type": "tcp", "port": 80}})


def test_only_what_the_running_program_was_told_takes_a_restart() -> None:
    old = process()
    for key, raw in (
        ("health", {"type": "tcp", "port": 1}),
        ("pre_start", ["/x"]),
        ("post_stop", ["/x"]),
        ("on_failure", {"job": "x"}),
    ):
        assert {change.how for change in differences(old, process(**{key: raw}))} == {How.LIVE}, key
    assert {change.how for change in differences(old, process(watchdog=3))} == {How.RESTART}


def test_a_template_can_say_all_of_it() -> None:
    document = {"name": "t", **{key: raw for key, raw, _ in READ}}
    spec = read_running_config({"templates": [document]})[0].templates[0]
    assert isinstance(spec, TemplateSpec)
    assert spec.settings.health is not None
