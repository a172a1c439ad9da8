# SPDX-License-Identifier: Apache-2.0
"""`status` with its filters, `status --watch` and `top`: in a pipe, and on a terminal of 80x24."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager

from support.daemon import Daemon
from support.documents import WAIT, document, job

BUSY = "while :; do :; done"


class OnTerminal:
    """A command on a terminal; `page` is all it wrote so far."""

    def __init__(self, daemon: Daemon, *args: str, **env: str) -> None:
        self.leader, follower = pty.openpty()
        fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("4H", 24, 80, 0, 0))
        self.process = subprocess.Popen(
            [sys.executable, "-m", "maestro_py.cli", "--socket", str(daemon.socket), *args],
            stdin=follower,
            stdout=follower,
            stderr=follower,
            start_new_session=True,
            env={**daemon.env, "TERM": "xterm", "NO_COLOR": "1", **env},
        )
        self.settings = termios.tcgetattr(follower)
        self.follower = follower
        self.page = ""

    def wait(self, pattern: str, timeout: float = 20) -> str:
        deadline = time.monotonic() + timeout
        while not (found := re.search(pattern, self.page)):
            left = deadline - time.monotonic()
            assert left > 0, f"no {pattern!r} in {self.page!r}"
            if select.select([self.leader], [], [], left)[0]:
                self.page += os.read(self.leader, 65536).decode()
        seen, self.page = self.page[: found.end()], self.page[found.end() :]
        return seen

    def type(self, keys: str) -> None:
        os.write(self.leader, keys.encode())


@contextmanager
def on_terminal(daemon: Daemon, *args: str, **env: str) -> Iterator[OnTerminal]:
    terminal = OnTerminal(daemon, *args, **env)
    try:
        yield terminal
    finally:
        if terminal.process.poll() is None:
            terminal.process.kill()
        terminal.process.wait()
        os.close(terminal.leader)
        os.close(terminal.follower)


def shown(text: str) -> list[str]:
    return [line.split()[0] for line in text.splitlines()[1:]]


def test_status_is_filtered_by_state_composite_and_name(daemon: Daemon) -> None:
    daemon.apply(document(job("web"), job("wet", "exit 1"), job("db", "exit 3")))
    for name in ("wet", "db"):
        daemon.wait_state(name, "FAILED")
    assert shown(daemon.cli("status", "--state", "failed").stdout) == ["db", "wet"]
    assert shown(daemon.cli("status", "--state=Running,FAILED", "we*").stdout) == ["web", "wet"]
    assert daemon.cli("status", "--composite", "none").stdout == "no such jobs; `maestro status` shows all\n"
    assert json.loads(daemon.cli("--json", "status", "--state", "stopped").stdout)["jobs"] == []
    wrong = daemon.cli("status", "--state", "runing")
    assert wrong.returncode == 2
    assert "did you mean running?" in wrong.stderr


def test_watching_in_a_pipe_tells_what_changes(daemon: Daemon) -> None:
    daemon.run(document(job("web")))
    command = [sys.executable, "-m", "maestro_py.cli", "--socket", str(daemon.socket), "status", "--watch"]
    process = subprocess.Popen(
        [*command, "--interval", "50ms"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=daemon.env,
    )
    try:
        assert process.stdout
        assert process.stdout.readline().startswith("JOB ")
        assert process.stdout.readline().split()[:2] == ["web", "RUNNING"]
        daemon.do("web", "stop")
        assert re.match(r"\d\d:\d\d:\d\d  web is STOP", process.stdout.readline())
        daemon.run(document())
        while "web is gone" not in (line := process.stdout.readline()):
            assert line
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 130
        assert process.stderr
        assert process.stderr.read() == ""
    finally:
        process.kill()
        process.communicate()


def test_watching_on_a_terminal_redraws_only_what_changed_and_leaves_it_as_it_was(daemon: Daemon) -> None:
    daemon.run(document(job("web"), job("idle")))
    with on_terminal(daemon, "status", "--watch", "--interval", "100ms") as terminal:
        terminal.wait(r"web +RUNNING")
        terminal.page = ""
        daemon.do("web", "stop")
        change = terminal.wait(r"web +STOPPED")
        assert "JOB" not in change  # the head stands
        terminal.type("q")
        assert terminal.process.wait(20) == 0
        terminal.wait(re.escape("\x1b[?25h\x1b[?1049l"))
        assert termios.tcgetattr(terminal.follower) == terminal.settings


def test_top_in_a_pipe_is_one_table(daemon: Daemon) -> None:
    daemon.run(document(job("busy", BUSY), job("idle"), job("family", f"sleep 60 & sleep 60 & {WAIT}")))
    table = daemon.cli("top")
    assert table.returncode == 0
    head, first, *rest = table.stdout.splitlines()
    assert head.split() == ["JOB", "STATE", "PID", "CPU%", "MEMORY", "PEAK", "LIMIT", "PROCS", "RST", "UP"]
    assert first.split()[0] == "busy"
    assert all(len(line) <= 80 for line in table.stdout.splitlines())
    assert len(rest) == 2
    rows = {
        row["job"]: row for row in json.loads(daemon.cli("--json", "top", "--sort", "job").stdout)["jobs"]
    }
    assert list(rows) == ["busy", "family", "idle"]
    assert rows["busy"]["cpu"] > rows["idle"]["cpu"]
    assert rows["family"]["processes"] == 3
    assert rows["idle"]["memory"] > 0
    assert rows["idle"]["pid"] == daemon.job("idle")["pid"]


def test_top_on_a_terminal_lives_and_sorts_by_key(daemon: Daemon) -> None:
    daemon.run(document(job("a-idle"), job("busy", BUSY)))
    with on_terminal(daemon, "top", "--interval", "200ms") as terminal:
        terminal.wait(r"busy +RUNNING[^\n]*?[0-9.]+.*a-idle +RUNNING")
        terminal.type("j")
        terminal.wait(r"sort: job")
        daemon.do("a-idle", "stop")
        terminal.wait(r"a-idle +STOPPED")
        terminal.type("q")
        assert terminal.process.wait(20) == 0


def test_top_on_a_dumb_terminal_is_one_table_without_escapes(daemon: Daemon) -> None:
    daemon.run(document(job("web")))
    with on_terminal(daemon, "top", TERM="dumb") as terminal:
        assert "\x1b" not in terminal.wait(r"web +RUNNING")
        assert terminal.process.wait(20) == 0


def test_a_page_outlives_the_daemon(daemon: Daemon) -> None:
    daemon.run(document(job("web")))
    with on_terminal(daemon, "status", "--watch", "--interval", "100ms") as terminal:
        terminal.wait(r"web +RUNNING")
        assert daemon.process
        daemon.process.kill()
        daemon.process.wait()
        terminal.wait("cannot reach maestrod")
        daemon.start()
        terminal.wait("q quits")


def test_what_waits_for_an_earlier_task_says_so(daemon: Daemon) -> None:
    slow = document(job("slow", "sleep 1000", wait_for_ok=True))
    client = daemon.client()
    client.apply(slow)
    daemon.wait_state("slow", "STARTING")
    second = client.apply({"jobs": []})["task_id"]
    with client.follow_task(second) as states:
        said = next(state["messages"] for state in states if state["messages"])
    assert said == ["waits for an earlier task to end: `maestro tasks` has them"]
    first = next(task for task in client.tasks()["tasks"] if task["status"] == "running")
    assert first["waits_for"] == ["slow"]
