# SPDX-License-Identifier: Apache-2.0
"""`maestro logs` against a real daemon: spans of time, several jobs, and following whatever happens."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from support.daemon import Daemon
from support.documents import WAIT, document, job


@contextmanager
def following(daemon: Daemon, *args: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-m", "maestro_py.cli", "--socket", str(daemon.socket), *args],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=daemon.env,
    )
    try:
        yield process
    finally:
        process.terminate()
        process.communicate(timeout=20)


def read_until(process: subprocess.Popen[str], text: str) -> list[str]:
    assert process.stdout
    seen = []
    for line in process.stdout:
        seen.append(line.rstrip("\n"))
        if text in line:
            return seen
    raise AssertionError(f"ended without {text!r}: {seen}")


def talker(fifo: Path) -> str:
    """A job that says what comes through a FIFO."""
    os.mkfifo(fifo)
    return f"exec 3<>{fifo}; while read line <&3; do echo $line; done"


def test_a_span_of_time_is_shown(daemon: Daemon, tmp_path: Path) -> None:
    daemon.run(document(job("app", talker(tmp_path / "fifo"))))
    (tmp_path / "fifo").write_text("early\n")
    daemon.wait_log("app", "early")
    marks = daemon.root / "log" / "app.times"
    # an hour passes: the mark is set back instead of waiting
    offset, when, span = marks.read_text().split()
    marks.write_text(f"{offset} {int(when) - 3_600_000} {span}\n")
    while True:
        (tmp_path / "fifo").write_text("late\n")
        daemon.wait_log("app", "late")
        if len(marks.read_text().splitlines()) > 1:
            break
        time.sleep(0.1)  # a second has one mark
    recent = daemon.cli("logs", "app", "--since", "10m").stdout
    assert recent
    assert set(recent.split()) == {"late"}
    assert daemon.cli("logs", "app", "--until", "10m").stdout.startswith("early\n")
    assert daemon.cli("logs", "app", "--since", "2h", "-n", "1").stdout == "late\n"
    assert daemon.cli("logs", "app", "-n", "all").stdout.startswith("early\n")
    assert daemon.cli("logs", "app", "--since", "@1", "--until", "@2").stdout == ""


def test_several_jobs_are_told_apart(daemon: Daemon) -> None:
    daemon.run(document(job("web", f"echo one; echo two; {WAIT}"), job("cache", f"echo three; {WAIT}")))
    daemon.wait_log("web", "two")
    daemon.wait_log("cache", "three")
    shown = daemon.cli("logs", "web", "cache").stdout.splitlines()
    assert shown == ["web   | one", "web   | two", "cache | three"]
    assert daemon.cli("logs", "*").stdout.splitlines() == [shown[2], *shown[:2]]
    assert json.loads(daemon.cli("--json", "logs", "web", "cache").stdout) == {
        "jobs": [{"job": "web", "lines": ["one", "two"]}, {"job": "cache", "lines": ["three"]}]
    }
    wrong = daemon.cli("logs", "web", "cash")
    assert (wrong.returncode, wrong.stdout) == (1, "")
    assert "did you mean cache?" in wrong.stderr


def test_several_jobs_are_followed_at_once(daemon: Daemon, tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    daemon.run(document(job("one", talker(one)), job("two", talker(two))))
    with following(daemon, "logs", "-f", "one", "two") as process:
        one.write_text("hello\n")
        assert read_until(process, "hello") == ["one | hello"]
        two.write_text("hi\n")
        assert read_until(process, "hi") == ["two | hi"]
        daemon.run(document())
        assert process.wait(20) == 0


def test_following_goes_on_after_the_daemon_was_killed_nothing_lost_nothing_twice(
    daemon: Daemon, tmp_path: Path
) -> None:
    fifo = tmp_path / "fifo"
    daemon.run(document(job("app", talker(fifo))))
    with following(daemon, "logs", "-f", "app") as process:
        fifo.write_text("one\n")
        assert read_until(process, "one") == ["one"]
        assert daemon.process
        daemon.process.kill()
        daemon.process.wait()
        fifo.write_text("two\nthree\n")
        daemon.start()
        assert read_until(process, "three") == ["two", "three"]
        fifo.write_text("four\n")
        assert read_until(process, "four") == ["four"]


def test_following_goes_on_after_an_upgrade(daemon: Daemon, tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    daemon.run(document(job("app", talker(fifo))))
    with following(daemon, "logs", "-f", "app") as process:
        fifo.write_text("one\n")
        read_until(process, "one")
        assert daemon.cli("upgrade").returncode == 0
        fifo.write_text("two\n")
        assert read_until(process, "two") == ["two"]


def test_following_a_daemon_that_does_not_come_back_ends_with_status_3(daemon: Daemon) -> None:
    daemon.run(document(job("app", f"echo one; {WAIT}")))
    with following(daemon, "logs", "-f", "app") as process:
        read_until(process, "one")
        daemon.stop()
        assert process.wait(30) == 3
        assert process.stderr
        assert "cannot reach maestrod" in process.stderr.read()
