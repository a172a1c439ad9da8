# SPDX-License-Identifier: Apache-2.0
"""A conversation with upstream's daemon, as its documents and sources give it, held with this one.

Every route of upstream's table is asked at least once; statuses and bodies are those upstream documents,
and where it has an empty stub, what its comments and types say it is meant to be.
"""

from __future__ import annotations

import json
import re
import time
from dataclasses import dataclass
from typing import Any

from support.daemon import Daemon
from support.documents import WAIT
from support.rawhttp import Answer, ask

from maestro_py.daemon.router import Router
from maestro_py.daemon.upstream import ROUTES


class Some:
    """Stands for any value of a type in an expected body; a text must match a pattern."""

    def __init__(self, kind: type, pattern: str = ".*") -> None:
        self.kind = kind
        self.pattern = pattern

    def __eq__(self, other: object) -> bool:
        return type(other) is self.kind and re.fullmatch(self.pattern, str(other), re.DOTALL) is not None

    def __hash__(self) -> int:
        return 0

    def __repr__(self) -> str:
        return f"<some {self.kind.__name__} like {self.pattern}>"


NUMBER, TEXT, LIST, OBJECT = Some(int), Some(str), Some(list), Some(dict)
DIGITS = Some(str, "[0-9]+")
PAYLOAD = {
    "job": "zigbee",
    "composite_id": "",
    "container_template": "runner",
    "config": '{"channel": 11}',
    "config_name": "",
    "message": "",
    "wait_for_ok": False,
    "defer_running_status": 0,
    "no_autostart": False,
    "restart": True,
    "restart_on_dependency_fail": False,
    "restart_limit": 5,
    "restart_pause": 10,
    "depends_on": None,
    "exec_cmd": "-c",
    "exec_args": ["echo '!!OK!!'; " + WAIT],
    "pgid": 0,
    "env": None,
    "inherit_env": False,
    "die_on_parent_death": False,
    "daemonize": False,
    "immutable": False,
}
OLD = {"name": "radio", "job": "zigbee", "data": "a", "encoding": "utf8", "files": None, "mod_time": ""}


@dataclass
class Turn:
    """One request, and the answer it gets: bytes, JSON with placeholders, or None for no body."""

    line: str
    body: object
    status: int
    expected: object = None
    after: str = ""  # a task whose end is awaited first


CONVERSATION = [
    Turn("GET /", None, 200, b"Welcome!\n"),
    Turn("GET /hello/relay", None, 200, b"hello, relay!\n"),
    Turn("GET /alive", None, 200, {"ok": True, "uptime": NUMBER}),
    Turn("GET /nothing/here", None, 404, OBJECT),
    Turn("PATCH /alive", None, 405, OBJECT),
    Turn("GET /jobs", None, 200, {}),
    # a template and a job that says OK
    Turn(
        "POST /containerTemplate",
        {"name": "runner", "exec_cmd": "/bin/sh", "uses_ok_string": True},
        200,
        {"task_id": TEXT},
    ),
    Turn("GET /containerTemplate/runner", None, 200, OBJECT),
    Turn("GET /containerTemplate", None, 200, LIST),
    Turn("GET /containerTemplate/none", None, 404, OBJECT),
    Turn(
        "POST /job",
        {"type": "job", "op": "add", "Flags": None, "job": PAYLOAD, "params": None, "task_id": "t1"},
        200,
        {"task_id": "t1"},
    ),
    Turn("GET /status/t1", None, 200, {"task_id": "t1", "status": "complete", "data": ""}, after="t1"),
    Turn("GET /status/none", None, 404, OBJECT),
    Turn(
        "GET /events",
        None,
        200,
        {
            "events": [
                {"name": "process_started", "when": NUMBER, "type": "process_event", "pid": NUMBER, "job": "",
                 "exitVal": 0},
                {"name": "job_started", "when": NUMBER, "type": "process_event", "pid": NUMBER,
                 "job": "zigbee", "exitVal": 0},
                {"name": "job_running", "when": NUMBER, "type": "process_event", "pid": NUMBER,
                 "job": "zigbee", "exitVal": 0},
            ]
        },
    ),
    Turn(
        "GET /job/zigbee",
        None,
        200,
        {
            "status": "RUNNING",
            "def": {**PAYLOAD, "config_name": "default"},
            "restarts": "0",
            "pid": DIGITS,
            "errno": "0",
            "execPath": "/bin/sh",
        },
    ),
    Turn("GET /jobs", None, 200, {"zigbee": OBJECT}),
    Turn("GET /job/none", None, 404, OBJECT),
    Turn(
        "GET /runningProcesses",
        None,
        200,
        {"processes": [{"pid": NUMBER, "job": "zigbee", "path": "/bin/sh"}]},
    ),
    # its configs, as devjs-configurator asks for them
    Turn("GET /jobConfig/zigbee/default", None, 200, {"configs": [OBJECT]}),
    Turn("GET /jobConfig/zigbee/radio", None, 204),
    Turn("POST /jobConfig/zigbee/radio", {"name": "", "job": "", "data": "a", "encoding": "utf8"}, 201, {}),
    Turn("POST /jobConfig/zigbee/radio", {"data": "b"}, 202, {"replaced_configs": [OLD]}),
    Turn("POST /jobConfig/zigbee/radio", b"{", 400, {"error": TEXT, "error_details": TEXT}),
    Turn("GET /jobConfig/zigbee/radio", None, 200, {"configs": [{**OLD, "data": "b"}]}),
    Turn("GET /jobConfig/zigbee", None, 200, {"configs": [OBJECT, OBJECT]}),
    Turn("GET /jobConfig", None, 200, {"configs": [OBJECT, OBJECT]}),
    Turn("DELETE /jobConfig/zigbee/radio", None, 200, {"replaced_configs": [{**OLD, "data": "b"}]}),
    Turn("DELETE /jobConfig/zigbee/radio", None, 200, {}),
    # stop, start, restart, kill
    Turn("PUT /job/zigbee", {"op": "stop"}, 200, {"task_id": TEXT}),
    Turn("PUT /job/zigbee", {"op": "start"}, 200, {"task_id": TEXT}),
    Turn("PUT /job/zigbee", {"op": "restart"}, 200, {"task_id": TEXT}),
    Turn("PUT /job/zigbee", {"op": "kill", "signal": "SIGCONT"}, 200, {}),
    Turn("PUT /job/zigbee", {"op": "fly"}, 406, {"error": "unknown command", "details": TEXT}),
    # mistakes
    Turn("POST /job", b"{", 400, {"error": "Badly formed"}),
    Turn("POST /job", {"op": "rm"}, 406, {"error": "Badly formed", "details": "no job name(s)"}),
    Turn("POST /job", {"op": "fly"}, 406, {"error": "unknown command", "details": TEXT}),
    Turn("POST /job", {"op": "add"}, 406, {"error": "no job data", "details": TEXT}),
    Turn("POST /image", {"type": "job"}, 406, {"error": "Only accept image as .type for this operation"}),
    Turn("POST /image", b"x", 400, {"error": "Badly formed"}),
    Turn("POST /image", {"type": "image", "op": "add"}, 406, {"error": "no image definition"}),
    Turn("POST /ops", b"x", 400, {"error": "Badly formed batch request"}),
    Turn("POST /ops", {"ops": []}, 400, {"error": "Badly formed batch request"}),
    Turn(
        "POST /ops",
        {"ops": [{"type": "net_interface", "op": "add"}]},
        406,
        {"error": "Unknown Op Type in batch request", "details:": 'Op was "net_interface"'},
    ),
    # several at once; the answer has no body
    Turn(
        "POST /ops",
        {
            "task_id": "b1",
            "ops": [
                {"type": "job", "op": "add", "job": {**PAYLOAD, "job": "second", "depends_on": ["zigbee"]}},
                {"type": "job", "op": "add", "job": {**PAYLOAD, "job": "third"}},
            ],
        },
        200,
    ),
    Turn("GET /status/b1", None, 200, {"task_id": "b1", "status": "complete", "data": ""}, after="b1"),
    # a program that is no job
    Turn("POST /process", {"path": "/bin/sh", "arguments": ["-c", "exit 3"]}, 200, {"pid": NUMBER}),
    Turn("POST /process", {"path": "/no/such/program"}, 406, {"error": "exec failed", "errno": 2}),
    Turn("POST /process", {"arguments": ["-l"]}, 400, {"error": "Badly formed"}),
    Turn("POST /process", b"{", 400, {"error": "Badly formed"}),
    Turn("GET /processStarted", None, 200),
    Turn("POST /processFailed", {}, 200),
    # statistics and the network
    Turn("GET /statsConfig", None, 200, {"interval": 300, "check_mem": False, "check_mem_pace": 1}),
    Turn("POST /statsConfig", {"interval": 60, "check_mem": True, "check_mem_pace": 0}, 200),
    Turn("GET /statsConfig", None, 200, {"interval": 60, "check_mem": True, "check_mem_pace": 1}),
    Turn("POST /statsConfig", {"interval": "often"}, 400, {"error": "Badly formed"}),
    Turn("GET /net/interfaces", None, 200, LIST),
    Turn("PUT /net/interfaces", [{"if_name": "lo"}], 400, {"error": TEXT}),
    Turn("GET /net/events", None, 200, {"id": TEXT}),
    Turn("GET /net/events/none", None, 404, {"error": TEXT}),
    Turn("GET /net/dns", None, 200, LIST),
    Turn("POST /net/dns", {"nameservers": ["10.0.0.1"]}, 400, {"error": TEXT}),
    Turn("DELETE /net/dns", {"nameservers": ["10.0.0.1"]}, 400, {"error": TEXT}),
    Turn("POST /reboot", None, 403, {"error": TEXT}),
    # and away with everything
    Turn("PUT /containerTemplate/runner", {"exec_cmd": "/bin/sh", "restart": True}, 200, {"task_id": TEXT}),
    Turn("DELETE /containerTemplate/runner", None, 422, OBJECT),
    Turn("DELETE /job/third", None, 200, {"task_id": TEXT}),
    Turn("DELETE /job", {}, 406, {"error": "Badly formed", "details": "no job name(s)"}),
    Turn("DELETE /job", {"params": ["second", "zigbee"]}, 200, {"task_id": TEXT}),
    Turn("DELETE /containerTemplate/runner", None, 200, {"task_id": TEXT}),
    Turn("GET /jobs", None, 200, {}),
    Turn("POST /shutdown", None, 202, {}),
]  # fmt: skip


def test_the_conversation_goes_as_upstream_documents_it(daemon: Daemon) -> None:
    router = Router(ROUTES)
    asked = set()
    for turn in CONVERSATION:
        method, _, path = turn.line.partition(" ")
        if turn.after:
            assert daemon.client().task(turn.after, wait=20)["status"] == "complete", daemon.output()
        answer = ask(daemon.socket, method, path, turn.body)
        assert answer.status == turn.status, (turn.line, answer)
        assert found(answer) == turn.expected, turn.line
        if isinstance(answer.body, bytes) and answer.body[:1] == b"{" and answer.json.get("task_id"):
            daemon.client().task(answer.json["task_id"], wait=20)
        if turn.status not in (404, 405) or "none" in path:
            asked.add(router.match(method, path)[0])
    assert {f"{r.method} {r.pattern}" for r in ROUTES} == {f"{r.method} {r.pattern}" for r in asked} | {
        "GET /net/events/{id}"  # its answer takes a change of the network: see below
    }
    assert daemon.process
    assert daemon.process.wait(20) == 0


def found(answer: Answer) -> Any:
    if not answer.body:
        return None
    return json.loads(answer.body) if answer.body[:1] in b"{[" else answer.body


def test_the_end_of_a_program_is_an_event_and_its_process_is_buried(daemon: Daemon) -> None:
    pid = ask(daemon.socket, "POST", "/process", {
        "path": "/bin/sh", "arguments": ["-c", 'test "$A" = 1 && exit 7'], "environment": ["A=1"],
        "inheritEnv": False, "pgid": 0, "daemonize": True,
    }).json["pid"]  # fmt: skip
    names: dict[str, Any] = {}
    while "process_ended" not in names:
        events = ask(daemon.socket, "GET", "/events").json["events"]
        names |= {event["name"]: event for event in events if event["pid"] == pid}
    assert (names["process_started"]["exitVal"], names["process_ended"]["exitVal"]) == (0, 7)
    assert ask(daemon.socket, "GET", "/runningProcesses").json == {"processes": []}


def test_reading_events_waits_for_one_and_takes_it(daemon: Daemon) -> None:
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(ask, daemon.socket, "GET", "/events")
        time.sleep(0.1)
        assert not waiting.done()
        ask(daemon.socket, "POST", "/process", {"path": "/bin/true"})
        assert waiting.result(20).json["events"][0]["name"] == "process_started"


def test_interfaces_show_the_addresses_the_kernel_has(daemon: Daemon) -> None:
    found = {row["name"]: row for row in ask(daemon.socket, "GET", "/net/interfaces").json}
    assert found["lo"]["CurrentIPv4Addr"] == "127.0.0.1"
    assert set(found["lo"]) == {
        "name", "CurrentIPv4Addr", "CurrentIPv6Addr", "StoredIfconfig", "RunningIfconfig", "DhcpLease",
        "LastUpdated",
    }  # fmt: skip
