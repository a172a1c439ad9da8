# SPDX-License-Identifier: Apache-2.0
"""The command as a process of its own: on a terminal, in a pipe, interrupted; what it imports."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import threading
import time
from typing import Any

import pytest

from maestro_py.cli.progress import Progress
from maestro_py.cli.screen import Screen, clean


def on_terminal(spawn: Any, *words: str, **env: str) -> str:
    """Run a command on a terminal of 80 columns and return what it wrote."""
    leader, follower = pty.openpty()
    environment = {"TERM": "xterm", "NO_COLOR": "", **env}
    process = spawn(*words, env=environment, stdout=follower, stderr=follower)
    os.close(follower)
    written = b""
    try:
        while chunk := os.read(leader, 65536):
            written += chunk
    except OSError:  # the other end is closed: how a terminal says it
        pass
    os.close(leader)
    process.wait(20)
    return written.decode()


def test_colour_is_for_terminals_that_want_it(spawn: Any, daemon: Any, make: Any) -> None:
    daemon.answers["GET", "/v1/status"] = {"jobs": [make.job("web"), make.job("db", "FAILED")]}
    coloured = on_terminal(spawn, "status")
    assert "\x1b[32mRUNNING" in coloured
    assert "\x1b[31mFAILED" in coloured
    assert "\x1b" not in on_terminal(spawn, "status", NO_COLOR="1")
    assert "\x1b" not in on_terminal(spawn, "status", TERM="dumb")


def test_downloads_are_bars_on_a_terminal_and_lines_on_a_dumb_one(
    spawn: Any, daemon: Any, make: Any, tmp_path: Any
) -> None:
    document = tmp_path / "doc.json"
    document.write_text("{}")
    plan = {"empty": True, "steps": []}
    daemon.answers["POST", "/v1/apply"] = 202, {"task_id": "t1", "plan": plan, "warnings": []}
    tasks = [make.task("running", progress=[make.part(done << 18)]) for done in range(4)]
    tasks.append(make.task("complete", progress=[make.part(1 << 20, "complete")]))
    daemon.answers["GET", "/v1/tasks/t1"] = make.lines(tasks)
    daemon.answers["GET", "/v1/status"] = {"jobs": []}
    smart = on_terminal(spawn, "apply", str(document))
    assert "[....................]   0%" in smart
    assert "[####################] 100%  1.0M of 1.0M  complete" in smart
    assert "\x1b[1A" in smart
    dumb = on_terminal(spawn, "apply", str(document), TERM="dumb")
    assert dumb.splitlines()[:2] == ["fetch image web, 1.0M", "fetch image web: done, 1.0M"]
    assert "\x1b" not in dumb


def test_what_is_waited_for_is_shown_and_an_interrupt_says_that_it_goes_on(
    spawn: Any, daemon: Any, make: Any
) -> None:
    gate = threading.Event()
    daemon.answers["POST", "/v1/jobs/web/start"] = 202, {"task_id": "t1"}
    daemon.answers["GET", "/v1/tasks/t1"] = make.lines([make.task("running", waits_for=["db", "web"]), gate])
    leader, follower = pty.openpty()
    process = spawn("start", "web", env={"TERM": "xterm"}, stdout=follower, stderr=follower)
    os.close(follower)
    written = b""
    while b"waiting until db, web are ready" not in written:
        written += os.read(leader, 65536)
    process.send_signal(signal.SIGINT)
    assert process.wait(20) == 130
    assert b"maestro: this goes on without you: `maestro task t1 --wait`" in os.read(leader, 65536)
    os.close(leader)
    gate.set()


def test_messages_are_folded_between_words_on_a_terminal_only(spawn: Any, tmp_path: Any) -> None:
    document = tmp_path / "doc.json"
    document.write_text(json.dumps({"jobs": [{"job": "web", "restart_policy": "sometimes"}]}))
    lines = on_terminal(spawn, "check", str(document)).splitlines()
    at = next(number for number, line in enumerate(lines) if line.startswith("  line 1: jobs[0]"))
    assert lines[at + 1].startswith("    ")
    assert all(len(line) <= 80 for line in lines[at:])
    assert 'unless-stopped, not "sometimes"' in " ".join(" ".join(lines).split())
    _, err = spawn("check", str(document)).communicate(timeout=20)
    assert len(err.splitlines()) == 3


def test_events_and_facts_wrap_below_themselves_on_a_terminal(spawn: Any, daemon: Any, make: Any) -> None:
    event = {"id": 7, "time": 1_700_000_000.0, "type": "x", "job": "web", "process": "web"}
    daemon.answers["GET", "/v1/events"] = make.lines([{**event, "message": "RUNNING " * 8}])
    first, second = map(str.rstrip, on_terminal(spawn, "events").splitlines())
    assert len(first) <= 80
    assert second == " " * first.index("RUNNING") + second.strip()
    fact = {"name": "cgroups", "value": "controllers " * 9, "ok": False, "means": "no limits hold " * 9}
    daemon.answers["GET", "/v1/doctor"] = {"facts": [fact]}
    assert all(len(line) <= 80 for line in on_terminal(spawn, "doctor", NO_COLOR="1").splitlines())


@pytest.mark.parametrize(
    ("columns", "left_out"), [("80", ()), ("48", ("VER",)), ("40", ("VER", "MEMORY", "RDY"))]
)
def test_a_narrow_screen_goes_without_some_columns(
    run: Any, daemon: Any, make: Any, monkeypatch: Any, columns: str, left_out: tuple[str, ...]
) -> None:
    memory = {"current": 1 << 20, "limit": 16 << 20, "peak": None}
    since = time.time() - 1103 * 86400 - 22 * 3600
    jobs = [
        make.job("thermostat", memory=memory, since=since),
        make.job("db", "FAILED", cause="exit code 3 before OK", since=since),
    ]
    daemon.answers["GET", "/v1/status"] = {"jobs": jobs}
    monkeypatch.setenv("COLUMNS", columns)
    lines = run("status").out.splitlines()
    assert all(len(line) <= int(columns) for line in lines)
    assert {"JOB", "STATE", "CAUSE"} <= set(lines[0].split())
    assert not {*left_out} & set(lines[0].split())
    assert len(run("status", "--wide").out.splitlines()[0].split()) == 8


def test_an_interrupt_is_quiet(spawn: Any, daemon: Any, make: Any) -> None:
    gate = threading.Event()
    daemon.answers["GET", "/v1/jobs/web/logs"] = make.lines([b"hello\n", gate])
    process = spawn("logs", "-f", "web")
    assert process.stdout.readline() == b"hello\n"
    process.send_signal(signal.SIGINT)
    assert process.wait(20) == 130
    gate.set()
    assert process.stderr.read() == b""


def test_a_reader_that_left_is_quiet(spawn: Any, daemon: Any, make: Any) -> None:
    gate = threading.Event()
    daemon.answers["GET", "/v1/jobs/web/logs"] = make.lines([b"hello\n", gate, *[b"x" * 8000] * 50])
    process = spawn("logs", "-f", "web")
    assert process.stdout.readline() == b"hello\n"
    process.stdout.close()
    gate.set()
    assert process.wait(20) == 141
    assert process.stderr.read() == b""
    process.stdout = None


def test_buffered_output_to_a_reader_that_left_is_quiet(spawn: Any, daemon: Any, make: Any) -> None:
    daemon.answers["GET", "/v1/status"] = {"jobs": [make.job("web")]}
    reader, writer = os.pipe()
    os.close(reader)
    process = spawn("status", stdout=writer, env={"PYTHONUNBUFFERED": ""})
    os.close(writer)
    assert process.wait(20) == 141
    assert process.stderr.read() == b""


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_full_disk_is_said(spawn: Any, daemon: Any, make: Any, unbuffered: str) -> None:
    daemon.answers["GET", "/v1/status"] = {"jobs": [make.job("web")]}
    with open("/dev/full", "w") as full:
        process = spawn("status", stdout=full, env={"PYTHONUNBUFFERED": unbuffered})
    assert process.wait(20) == 1
    assert process.stderr.read() == b"maestro: cannot go on: No space left on device\n"


def test_a_closed_standard_output_is_no_traceback(spawn: Any) -> None:
    process = spawn("--help", preexec_fn=lambda: os.close(1))
    assert process.wait(20) == 0
    assert process.stderr.read() == b""


def test_text_a_terminal_cannot_show_is_replaced(spawn: Any, daemon: Any, make: Any) -> None:
    daemon.answers["GET", "/v1/status"] = {"jobs": [make.job("wéb", "FAILED", cause="x" * 90)]}
    process = spawn("status", env={"PYTHONIOENCODING": "ascii"})
    out, err = process.communicate(timeout=20)
    assert (process.returncode, err) == (0, b"")
    assert b"w?b" in out
    assert out.endswith(b"x~\n")


HEAVY = (
    "argparse",
    "asyncio",
    "subprocess",
    "urllib",
    "http",
    "email",
    "logging",
    "yaml",
    "inspect",
    "difflib",
)


@pytest.mark.parametrize("words", [("--help",), ("status",), ("apply", "--help")], ids=" ".join)
def test_quick_commands_import_little(daemon: Any, make: Any, words: tuple[str, ...]) -> None:
    daemon.answers["GET", "/v1/status"] = {"jobs": [make.job("web")]}
    code = (
        "import sys\nfrom maestro_py.cli.main import main\n"
        f"status = main({list(words)!r})\nprint(*sys.modules, file=sys.stderr)\nsys.exit(status)"
    )
    env = {**os.environ, "MAESTRO_SOCKET": daemon.path}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=20)
    assert done.returncode == 0
    modules = set(done.stderr.split())
    # errors.py is dataclasses, and dataclasses are inspect
    allowed = {"inspect"} if "maestro_py.errors" in modules else set()
    assert modules & set(HEAVY) <= allowed


def test_bars_that_look_the_same_are_not_drawn_again(make: Any, capsys: Any) -> None:
    screen = Screen(sys.stdout, sys.stderr)
    screen.moves = True
    progress = Progress(screen)
    progress.update(make.task("running", progress=[make.part(0, subject="a"), make.part(0, subject="b")]))
    capsys.readouterr()
    progress.update(
        make.task("running", progress=[make.part(0, subject="a"), make.part(1 << 20, "complete", "b")])
    )
    again = capsys.readouterr().out
    assert "fetch image a" not in again
    assert "fetch image b" in again
    progress.update(
        make.task("running", progress=[make.part(1, subject="a"), make.part(1 << 20, "complete", "b")])
    )
    assert capsys.readouterr().out == ""


def test_clean_text_is_printable() -> None:
    assert clean("a\x1b[31mb\nc\td\x9b") == "a?[31mb c d?"
    assert clean("é…漢") == "é…漢"
