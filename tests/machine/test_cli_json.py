# SPDX-License-Identifier: Apache-2.0
"""What `--json` prints is what the table of answers says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from support.daemon import Daemon
from support.documents import document, job

from maestro_py.cli.answers import ANSWERS, FAILURE
from maestro_py.cli.table import COMMANDS
from maestro_py.daemon.api import ROUTES

SILENT = {"exec", "shell"}
"""Commands whose output is another program's."""


def test_every_command_says_what_it_prints() -> None:
    assert {name.split(" -")[0] for name in ANSWERS} == {command.name for command in COMMANDS} - SILENT


def test_every_route_that_is_named_exists() -> None:
    routes = {f"{route.method} {route.pattern}" for route in ROUTES}
    named = {answer.split(":")[0] for answer in ANSWERS.values() if isinstance(answer, str)}
    assert named <= routes


def keys(daemon: Daemon, *args: str) -> set[str]:
    done = daemon.cli("--json", *args)
    found: dict[str, Any] = json.loads(done.stdout)
    return set(found)


def test_keys_are_those_of_the_table(daemon: Daemon, tmp_path: Path) -> None:
    file = tmp_path / "doc.json"
    file.write_text(json.dumps(document(job("app"), job("other"))))
    plan, apply = {"plan", "warnings"}, set(ANSWERS["apply"])
    assert keys(daemon, "apply", str(file), "--dry-run") == plan
    assert keys(daemon, "diff", str(file)) == plan
    assert keys(daemon, "apply", str(file)) == apply == {*plan, "task_id", "task", "jobs"}
    assert keys(daemon, "apply", str(file), "--no-wait") == apply - {"task", "jobs"}
    assert keys(daemon, "check", str(file)) == set(ANSWERS["check"])
    for verb in ("stop", "start", "restart", "pause", "resume", "disable", "enable"):
        assert keys(daemon, verb, "app") == set(ANSWERS[verb]), verb
    assert keys(daemon, "kill", "-s", "CONT", "app") == set(ANSWERS["kill"])
    assert keys(daemon, "logs", "app") == {"job", "lines"}
    assert keys(daemon, "logs", "app", "other") == {"jobs"}
    assert keys(daemon, "top") == set(ANSWERS["top"])
    assert keys(daemon, "events") == set(ANSWERS["events"])
    assert keys(daemon, "version") == set(ANSWERS["version"])
    assert keys(daemon, "why", "app") == {"job", "state", "lines"}
    assert keys(daemon, "status") >= {"jobs"}
    told = json.loads(daemon.cli("--json", "top").stdout)["jobs"][0]
    assert all(f"`{key}`" in str(ANSWERS["top"]) for key in told)


def test_a_failure_is_one_document_on_standard_error(daemon: Daemon) -> None:
    said = daemon.cli("--json", "why", "nobody")
    assert (said.returncode, said.stdout) == (1, "")
    error = json.loads(said.stderr)["error"]
    assert set(json.loads(said.stderr)) == set(FAILURE)
    assert set(error) == {"code", "message", "hint"}


def test_words_of_the_shell_of_upstream_are_understood(daemon: Daemon) -> None:
    daemon.run(document(job("app")))
    assert daemon.cli("jobs", "get").stdout.splitlines()[1].split()[:2] == ["app", "RUNNING"]
    assert daemon.cli("jobs", "stop", "app").stdout == "stopped app\n"
    assert daemon.cli("jobs", "start", "app").stdout == "started app\n"
    assert "maestrod" in daemon.cli("alive").stdout
    interfaces = json.loads(daemon.cli("net", "get-interfaces").stdout)
    assert interfaces
    json.loads(daemon.cli("net", "get-dns").stdout)
