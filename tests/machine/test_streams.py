# SPDX-License-Identifier: Apache-2.0
"""Streams that can be resumed, conditional reading, pages, and tasks that are cancelled."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import pytest
from support.daemon import Daemon
from support.documents import document, image, job
from support.rawhttp import ask

from maestro_py.errors import Conflict, NotFound

NDJSON = "application/x-ndjson"
SSE = "text/event-stream"


@contextmanager
def streaming(daemon: Daemon, target: str, **headers: str) -> Iterator[BinaryIO]:
    """Return the body of an answer that may go on for ever, its chunks already joined."""
    lines = [
        f"GET {target} HTTP/1.0",
        *(f"{key.replace('_', '-')}: {value}" for key, value in headers.items()),
    ]
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.settimeout(20)
        sock.connect(str(daemon.socket))
        sock.sendall("\r\n".join([*lines, "", ""]).encode())
        with sock.makefile("rb") as file:
            status = file.readline()
            assert b" 200 " in status, status + file.read()
            while file.readline().strip():
                pass
            yield file


def sse(file: BinaryIO) -> dict[str, str]:
    """Return the next server-sent event."""
    found = {}
    while line := file.readline().decode().rstrip("\n"):
        name, _, value = line.partition(": ")
        found[name] = value
    return found


def happen(daemon: Daemon, count: int) -> None:
    """Make some events: each signal is one."""
    for _ in range(count):
        daemon.client().kill("app", "SIGCONT")


# Events


def test_events_come_as_server_sent_events_for_who_accepts_them(daemon: Daemon) -> None:
    daemon.run(document(job("app")))
    known = daemon.events()
    with streaming(daemon, "/v1/events", accept=SSE) as file:
        for event in known:
            got = sse(file)
            assert (got["id"], got["event"]) == (str(event["id"]), event["type"])
            assert json.loads(got["data"]) == event
        happen(daemon, 1)  # they go on without being asked to
        assert json.loads(sse(file)["data"])["message"] == "SIGCONT sent by root"


def test_a_client_that_was_cut_off_goes_on_behind_the_last_event_it_has(daemon: Daemon) -> None:
    daemon.run(document(job("app")))
    last = daemon.last_event()
    happen(daemon, 3)
    with streaming(daemon, "/v1/events", accept=SSE, last_event_id=str(last + 1)) as file:
        assert [sse(file)["id"], sse(file)["id"]] == [str(last + 2), str(last + 3)]
    with streaming(daemon, f"/v1/events?since={last + 1}&follow") as file:
        assert [json.loads(file.readline())["id"] for _ in range(2)] == [last + 2, last + 3]
    bad = ask(daemon.socket, "GET", "/v1/events", last_event_id="yesterday")
    assert (bad.status, bad.json["code"]) == (400, "bad-request")


def test_events_that_are_not_kept_any_more_are_said_to_be_lost(daemon: Daemon) -> None:
    daemon.run(document(job("app")))
    first = daemon.last_event()
    happen(daemon, 1005)
    [lost, *rest] = list(daemon.client().events(first))
    assert (lost["type"], lost["id"]) == ("lost", rest[0]["id"] - 1)
    assert len(rest) == 1000
    assert f"before number {rest[0]['id']}" in lost["message"]
    assert [e["type"] for e in daemon.client().events(rest[0]["id"] - 1)].count("lost") == 0
    assert "lost" not in {e["type"] for e in daemon.client().events()}  # who asks for all gets what there is


def test_a_follower_that_sleeps_through_events_is_told_what_it_lost(daemon: Daemon) -> None:
    daemon.run(document(job("app")))
    with streaming(daemon, f"/v1/events?follow&since={daemon.last_event()}") as file:
        happen(daemon, 1)
        json.loads(file.readline())
        happen(daemon, 6000)  # more than its socket holds
        ids = []
        lost = 0
        while not ids or ids[-1] < daemon.last_event():
            event = json.loads(file.readline())
            lost += event["type"] == "lost"
            ids.append(event["id"])
    assert lost <= 2
    assert ids == sorted(set(ids))


# Logs


def test_log_lines_are_records_with_the_place_to_go_on_from(daemon: Daemon) -> None:
    daemon.run(document(job("app", "printf 'one\\ntwo\\nthree\\n'; exec sleep 1000")))
    daemon.wait_log("app", "three")
    answer = ask(daemon.socket, "GET", "/v1/jobs/app/logs", accept=NDJSON)
    rows = [json.loads(line) for line in answer.body.splitlines()]
    assert rows == [
        {"offset": 4, "line": "one"},
        {"offset": 8, "line": "two"},
        {"offset": 14, "line": "three"},
    ]
    rest = ask(daemon.socket, "GET", "/v1/jobs/app/logs?offset=4", accept=NDJSON)
    assert [json.loads(line)["line"] for line in rest.body.splitlines()] == ["two", "three"]
    with streaming(daemon, "/v1/jobs/app/logs", accept=SSE, last_event_id="8") as file:
        assert sse(file) == {"id": "14", "event": "line", "data": '{"offset":14,"line":"three"}'}
    text = ask(daemon.socket, "GET", "/v1/jobs/app/logs?offset=8")
    assert (text.body, text.headers["maestro-offset"]) == (b"three\n", "8")


def test_a_log_is_followed_from_a_place_without_a_gap(daemon: Daemon) -> None:
    daemon.run(document(job("app", "i=0; while :; do i=$((i+1)); echo line $i; sleep 0.01; done")))
    daemon.wait_log("app", "line 3\n")
    stream = daemon.client().logs("app", follow=True)
    seen = next(stream)
    stream.close()
    again = daemon.client().logs("app", follow=True, offset=stream.offset)
    while seen.count(b"\n") < 30:
        seen += next(again)
    again.close()
    lines = seen.decode().splitlines()[:30]
    first = int(lines[0].split()[1])
    assert lines == [f"line {i}" for i in range(first, first + 30)]


def test_an_unfinished_line_ends_the_records_and_a_long_one_is_cut(daemon: Daemon) -> None:
    script = "head -c 100000 /dev/zero | tr '\\0' x; printf '\\nrest'; exec sleep 1000"
    daemon.run(document(job("app", script)))
    daemon.wait_log("app", "rest")
    answer = ask(daemon.socket, "GET", "/v1/jobs/app/logs", accept=NDJSON)
    rows = [json.loads(line) for line in answer.body.splitlines()]
    assert "".join(row["line"] for row in rows) == "x" * 100_000 + "rest"
    assert rows[-1] == {"offset": 100_005, "line": "rest"}


# Conditional reading and pages


def test_a_poll_that_finds_nothing_new_costs_no_body(daemon: Daemon) -> None:
    daemon.run(document(job("app")))
    first = ask(daemon.socket, "GET", "/v1/status")
    again = ask(daemon.socket, "GET", "/v1/status", if_none_match=first.headers["etag"])
    assert (again.status, again.body) == (304, b"")
    daemon.do("app", "stop")
    assert ask(daemon.socket, "GET", "/v1/status", if_none_match=first.headers["etag"]).status == 200


def pages(daemon: Daemon, path: str, name: str, limit: int) -> Iterator[list[Any]]:
    after = ""
    while True:
        answer = ask(daemon.socket, "GET", f"{path}?limit={limit}&after={after}").json
        yield answer[name]
        if "next" not in answer:
            return
        after = answer["next"]


def test_lists_come_in_pages(daemon: Daemon) -> None:
    configs = [{"name": f"c{i}", "job": "a", "data": str(i)} for i in range(5)]
    daemon.run(document(*(job(name, disabled=True) for name in "abcde"), configs=configs))
    found = [[row["job"] for row in page] for page in pages(daemon, "/v1/status", "jobs", 2)]
    assert found == [["a", "b"], ["c", "d"], ["e"]]
    found = [[row["name"] for row in page] for page in pages(daemon, "/v1/configs", "configs", 3)]
    assert found == [["c0", "c1", "c2"], ["c3", "c4"]]
    assert len(list(pages(daemon, "/v1/templates", "templates", 1))) > 2
    whole = ask(daemon.socket, "GET", "/v1/status").json
    assert (len(whole["jobs"]), "next" in whole) == (5, False)
    assert ask(daemon.socket, "GET", "/v1/status?after=zz").json == {"jobs": []}


def test_a_mistyped_parameter_is_refused_with_those_there_are(daemon: Daemon) -> None:
    refused = ask(daemon.socket, "GET", "/v1/events?folow=1")
    assert refused.status == 400
    assert "it takes follow, n, since" in refused.json["title"]
    assert (
        ask(daemon.socket, "GET", "/jobs?what=ever").status == 200
    )  # upstream passes over what it does not know


# Tasks


def test_a_download_is_cancelled_and_nothing_has_changed(daemon: Daemon, tmp_path: Path) -> None:
    daemon.run(document(job("app")))
    pid = daemon.job("app")["pid"]
    with socket.create_server(("127.0.0.1", 0)) as silent:  # accepts, and never answers
        wanted = image("app", "1.0", tmp_path, {"f": "x"})
        wanted["url"] = f"http://127.0.0.1:{silent.getsockname()[1]}/f.tar.gz"
        applied = daemon.client().apply(document(job("app", "exec sleep 999"), images=[wanted]))
        connection, _ = silent.accept()
        task = daemon.client().task(applied["task_id"])
        assert (task["status"], task["cancellable"]) == ("running", True)
        waiting = daemon.client().apply(document())  # it is queued behind the first
        assert daemon.client().cancel_task(waiting["task_id"])["error"]["code"] == "cancelled"
        ended = daemon.client().cancel_task(applied["task_id"])
        assert connection.recv(1 << 16)  # the request
        while connection.recv(1 << 16):  # the downloader is gone
            pass
        connection.close()
    assert (ended["status"], ended["error"]["code"]) == ("failed", "cancelled")
    assert "it was cancelled, nothing was changed" in ended["error"]["message"]
    assert daemon.job("app")["pid"] == pid
    assert daemon.client().images()["images"] == []
    daemon.run(document(job("app")))  # whose turn it was has given it back


def test_what_has_begun_or_ended_cannot_be_cancelled(daemon: Daemon) -> None:
    applied = daemon.client().apply(document(job("app", "exec sleep 1000", wait_for_ok=True)))
    daemon.wait_state("app", "STARTING")
    with pytest.raises(Conflict, match="it is being carried out"):
        daemon.client().cancel_task(applied["task_id"])
    done = daemon.do("app", "stop")
    with pytest.raises(Conflict, match="it has ended"):
        daemon.client().cancel_task(done["task_id"])
    with pytest.raises(NotFound):
        daemon.client().cancel_task("nonesuch")


def test_a_task_is_followed_as_server_sent_events(daemon: Daemon) -> None:
    applied = daemon.client().apply(document(job("app")))
    states = []
    with streaming(daemon, f"/v1/tasks/{applied['task_id']}", accept=SSE) as file:
        while event := sse(file):
            states.append(json.loads(event["data"])["status"])
    assert states[-1] == "complete"
