# SPDX-License-Identifier: Apache-2.0
"""What the daemon says about itself: to the journal with fields, to stderr, at which level, once."""

from __future__ import annotations

import os
import socket
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.daemon import Daemon
from support.documents import document, job

from maestro_py.daemon.log import JOURNAL, Journal, journal

SECRET = "hunter2-is-not-for-the-log"


def dies_once(directory: Path) -> dict[str, Any]:
    """Return a job that dies at its first launch and comes back."""
    eager = {"initial": 0.01, "max": 0.01, "jitter": 0}
    script = f"test -e {directory}/died || {{ >{directory}/died; exit 3; }}; exec sleep 1000"
    return job("back", script, restart=True, restart_backoff=eager)


class JournalSocket:
    """Takes datagrams as journald does."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._sock.settimeout(20)
        self._sock.bind(str(path))

    def entry(self) -> dict[str, str]:
        """Return the next entry, read as the protocol says."""
        data, entry = self._sock.recv(1 << 20), {}
        while data:
            line, _, data = data.partition(b"\n")
            name, equals, value = line.partition(b"=")
            if not equals:
                length = int.from_bytes(data[:8], "little")
                value, end, data = data[8 : 8 + length], data[8 + length : 9 + length], data[9 + length :]
                assert end == b"\n"
            entry[name.decode()] = value.decode()
        return entry

    def close(self) -> None:
        self._sock.close()


@pytest.fixture
def listening(tmp_path: Path) -> Iterator[JournalSocket]:
    made = JournalSocket(tmp_path / "socket")
    yield made
    made.close()


@pytest.fixture
def sender() -> Iterator[Callable[[Path], Journal]]:
    """Return a maker of what sends to a socket."""
    made: list[Journal] = []

    def make(path: Path) -> Journal:
        made.append(Journal(str(path)))
        return made[-1]

    yield make
    for each in made:
        if each._sock:
            each._sock.close()


Sender = Callable[[Path], Journal]


def lines(daemon: Daemon, about: str) -> list[str]:
    return [line for line in daemon.output().splitlines() if f"{about}:" in line]


# the journal's protocol


def test_an_entry_has_its_level_and_what_it_is_about(listening: JournalSocket, sender: Sender) -> None:
    about = {"process": "app", "event": "process-failed", "event_id": 7, "job": ""}
    assert sender(listening.path).send(3, "app: FAILED", about)
    assert listening.entry() == {
        "MESSAGE": "app: FAILED",
        "PRIORITY": "3",
        "SYSLOG_IDENTIFIER": "maestrod",
        "MAESTRO_PROCESS": "app",
        "MAESTRO_EVENT": "process-failed",
        "MAESTRO_EVENT_ID": "7",
    }


def test_several_lines_are_one_entry(listening: JournalSocket, sender: Sender) -> None:
    text = "what went wrong:\n  PRIORITY=0\n  ünd so weiter"
    assert sender(listening.path).send(6, text, {})
    entry = listening.entry()
    assert entry["MESSAGE"] == text
    assert entry["PRIORITY"] == "6"


def test_an_entry_nobody_takes_is_reported(listening: JournalSocket, sender: Sender, tmp_path: Path) -> None:
    assert not sender(tmp_path / "absent").send(6, "text", {})
    assert not sender(listening.path).send(6, "x" * (64 << 20), {})


def test_a_full_journal_holds_nobody_up(listening: JournalSocket, sender: Sender) -> None:
    to = sender(listening.path)
    sent = 0
    while to.send(6, "text", {}):
        sent += 1
        assert sent < 100_000
    listening.entry()
    assert to.send(6, "again", {})


def test_the_journal_is_used_only_when_stderr_is_its_own() -> None:
    read, write = os.pipe()
    found = os.fstat(write)
    own = f"{found.st_dev}:{found.st_ino}"
    assert journal({"JOURNAL_STREAM": own}, write)
    assert journal({"JOURNAL_STREAM": f"{found.st_dev}:{found.st_ino + 1}"}, write) is None
    assert journal({"JOURNAL_STREAM": ""}, write) is None
    assert journal({}, write) is None
    os.close(read)
    os.close(write)
    assert journal({"JOURNAL_STREAM": own}, write) is None


# the daemon


@pytest.fixture
def journalled(tmp_path: Path) -> Daemon:
    """Return a daemon, not started, that takes its stderr for the journal's."""
    daemon = Daemon(tmp_path / "device")
    daemon.log.touch()
    found = daemon.log.stat()
    daemon.env["JOURNAL_STREAM"] = f"{found.st_dev}:{found.st_ino}"
    return daemon


@pytest.mark.skipif(os.path.exists(JOURNAL), reason="a journal runs here")
def test_without_the_journals_socket_lines_have_their_level_in_front(journalled: Daemon) -> None:
    try:
        journalled.start().run(document(dies_once(journalled.root)))
        journalled.wait("back", lambda row: row["restarts"] == 1 and row["state"] == "RUNNING")
    finally:
        journalled.close()
    output = journalled.output()
    assert "<4>back: RESTARTING: exit code 3\n" in output
    assert "<6>back: RUNNING\n" in output
    assert all(line[:1] == "<" and line[2:3] == ">" for line in output.splitlines())


@pytest.mark.root
def test_with_the_journals_socket_nothing_is_said_on_stderr(
    journalled: Daemon, listening: JournalSocket
) -> None:
    place = Path(JOURNAL).parent
    there = f"mount -t tmpfs none /run && mkdir -p {place} && mount --bind {listening.path.parent} {place}"
    journalled.program = (
        *("unshare", "--mount", "sh", "-c", f'{there} && exec "$@"', "sh"),
        *(sys.executable, "-m", "maestro_py.daemon"),
    )
    try:
        journalled.start().run(document(job("app")))
        while (entry := listening.entry()).get("MAESTRO_EVENT") != "process-running":
            assert entry["SYSLOG_IDENTIFIER"] == "maestrod"
        last = journalled.last_event()
        assert entry == {
            "MESSAGE": "app: RUNNING",
            "PRIORITY": "6",
            "SYSLOG_IDENTIFIER": "maestrod",
            "MAESTRO_EVENT": "process-running",
            "MAESTRO_EVENT_ID": str(last),
            "MAESTRO_JOB": "app",
            "MAESTRO_PROCESS": "app",
        }
    finally:
        journalled.close()
    assert journalled.output() == ""


def test_each_event_is_one_line_with_its_time(daemon: Daemon) -> None:
    daemon.run(document(job("app")))
    assert len(lines(daemon, "app")) == len(daemon.events("app")) == 2
    for line in daemon.output().splitlines():
        time.strptime(line[:19], "%Y-%m-%dT%H:%M:%S")


def test_a_death_is_a_warning_and_a_failure_an_error(daemon: Daemon) -> None:
    daemon.apply(document(dies_once(daemon.root), job("gone", "exit 1")))
    daemon.wait_state("gone", "FAILED")
    daemon.wait("back", lambda row: row["restarts"] == 1)
    assert [line[20:] for line in lines(daemon, "back") if "RESTARTING" in line] == [
        "warning: back: RESTARTING: exit code 3"
    ]
    assert [line[20:] for line in lines(daemon, "gone") if "FAILED" in line] == [
        "error: gone: FAILED: exit code 1"
    ]


def test_a_task_that_fails_is_a_warning(daemon: Daemon) -> None:
    daemon.apply(document({"job": "app", "exec_cmd": "/absent"}))
    said = [line[20:] for line in daemon.output().splitlines() if "apply running config failed" in line]
    assert said == [
        "warning: apply running config failed: cannot apply running config: 1 thing is not as wanted"
    ]


def test_a_death_without_a_pause_before_the_next_life_is_told_too(daemon: Daemon) -> None:
    once = dies_once(daemon.root)
    del once["restart_backoff"]
    daemon.client().apply(document({**once, "restart_pause": 0}))
    daemon.wait("back", lambda row: row["restarts"] == 1 and row["state"] == "RUNNING")
    [line] = [line[20:] for line in lines(daemon, "back") if "exit code 3" in line]
    assert line.startswith("back: STARTING (pid ")


def test_log_level_leaves_out_what_is_less_urgent(make_daemon: Callable[..., Daemon]) -> None:
    for level, expected in (("warning", {"warning", "error"}), ("error", {"error"})):
        daemon = make_daemon(f"log_level: {level}\n", name=level)
        daemon.client().apply(document(dies_once(daemon.root), job("gone", "exit 1")))
        daemon.wait_state("gone", "FAILED")
        daemon.wait("back", lambda row: row["restarts"] == 1 and row["state"] == "RUNNING")
        said = {line[20:].partition(":")[0] for line in daemon.output().splitlines()}
        assert said == expected


def test_an_unknown_log_level_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "maestro.yaml"
    config.write_text("log_level: warn\n")
    from maestro_py.daemon.main import main

    assert main(["--check", "--config", str(config)]) == 1
    assert "log_level: expected one of error, warning, info" in capsys.readouterr().err


def test_what_jobs_bring_along_cannot_move_the_cursor(daemon: Daemon) -> None:
    program = "/absent/\x1b[2J\x1b]0;title\x07"
    daemon.apply(document({"job": "app", "exec_cmd": program}))
    daemon.wait_state("app", "FAILED")
    assert "\x1b" not in daemon.output()
    assert "?[2J" in daemon.output()


def test_no_secret_is_logged(daemon: Daemon) -> None:
    app = job("app", f"test -n {SECRET}; exit 1", env=[f"PASSWORD={SECRET}"], config_name="c")
    configs = [{"name": "c", "job": "app", "data": SECRET, "encoding": "utf8"}]
    daemon.apply(document(app, configs=configs))
    daemon.wait_state("app", "FAILED")
    assert SECRET not in daemon.output()
