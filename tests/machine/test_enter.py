# SPDX-License-Identifier: Apache-2.0
"""`exec` and `shell`: a program where a job runs, with its streams, its terminal and its exit status."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from support.daemon import Daemon
from support.documents import document, job
from test_cli_live import on_terminal

from maestro_py.errors import MaestroError
from maestro_py.process import enter


def test_a_program_gets_the_jobs_environment_directory_and_mask(daemon: Daemon, tmp_path: Path) -> None:
    daemon.run(document(job("app", env=["COLOUR=red"], working_dir=str(tmp_path), umask="027")))
    said = daemon.cli("exec", "app", "--", "sh", "-c", "echo $COLOUR $MAESTRO_PROCESS; pwd; umask")
    assert said.stdout.splitlines() == ["red app", str(tmp_path), "0027"]
    assert (said.returncode, said.stderr) == (0, "")


def test_streams_and_exit_status_are_the_programs(daemon: Daemon) -> None:
    daemon.run(document(job("app")))
    said = daemon.cli("exec", "app", "--", "sh", "-c", "cat; echo bad >&2; exit 7", input="given")
    assert (said.returncode, said.stdout, said.stderr) == (7, "given", "bad\n")
    assert daemon.cli("exec", "app", "--", "sh", "-c", "kill -9 $$").returncode == 128 + signal.SIGKILL
    options = daemon.cli("exec", "app", "--", "echo", "-n", "--json", "--help")
    assert options.stdout == "--json --help"


def test_what_cannot_be_run_is_said(daemon: Daemon, tmp_path: Path) -> None:
    daemon.run(document(job("app"), job("down", no_autostart=True)))
    (tmp_path / "plain").write_text("no program")
    missing = daemon.cli("exec", "app", "--", "no-such-program")
    assert missing.returncode == 127
    assert missing.stderr == "maestro: cannot run no-such-program in app: No such file or directory\n"
    refused = daemon.cli("exec", "app", "--", str(tmp_path / "plain"))
    assert refused.returncode == 126
    assert "Permission denied" in refused.stderr
    down = daemon.cli("exec", "down", "--", "true")
    assert down.returncode == 1
    assert "cannot enter down: it does not run" in down.stderr
    assert "maestro why down" in down.stderr
    unknown = daemon.cli("exec", "ap", "--", "true")
    assert unknown.returncode == 1
    assert "did you mean app?" in unknown.stderr
    assert daemon.cli("exec", "app").returncode == 2
    for said in (missing, refused, down, unknown):
        assert "Traceback" not in said.stderr


def test_a_shell_without_a_terminal_reads_its_input(daemon: Daemon) -> None:
    daemon.run(document(job("app", env=["COLOUR=red"])))
    said = daemon.cli("shell", "app", input="echo $COLOUR\nexit 3\n")
    assert (said.returncode, said.stdout, said.stderr) == (3, "red\n", "")


def test_what_entered_ends_with_the_job(daemon: Daemon) -> None:
    daemon.run(document(job("app")))
    process = subprocess.Popen(
        [sys.executable, "-m", "maestro_py.cli", "--socket", str(daemon.socket),
         "exec", "app", "--", "sh", "-c", "echo in; exec sleep 1000"],
        stdout=subprocess.PIPE, env=daemon.env,
    )  # fmt: skip
    try:
        assert process.stdout
        assert process.stdout.readline() == b"in\n"
        daemon.do("app", "stop")
        assert process.wait(30) in (128 + signal.SIGTERM, 128 + signal.SIGKILL)
    finally:
        process.kill()
        process.communicate()


def test_ending_it_ends_the_program(daemon: Daemon) -> None:
    daemon.run(document(job("app")))
    program = "trap 'echo bye; exit 9' TERM; echo in; while :; do sleep 0.1; done"
    process = subprocess.Popen(
        [sys.executable, "-m", "maestro_py.cli", "--socket", str(daemon.socket),
         "exec", "app", "--", "sh", "-c", program],
        stdout=subprocess.PIPE, env=daemon.env,
    )  # fmt: skip
    try:
        assert process.stdout
        assert process.stdout.readline() == b"in\n"
        process.terminate()
        assert process.stdout.readline() == b"bye\n"
        assert process.wait(30) == 9
    finally:
        process.kill()
        process.communicate()


# on a terminal


def test_a_shell_has_a_terminal_of_its_own_with_job_control(daemon: Daemon) -> None:
    daemon.run(document(job("app", inherit_env=True)))
    with on_terminal(daemon, "shell", "app", PS1="> ") as terminal:
        terminal.wait(r"[#$>] ")
        terminal.type("stty size; tty\r")
        seen = terminal.wait(r"24 80\r\n/dev/pts/\d+")
        assert os.ttyname(terminal.follower) not in seen
        terminal.type("echo go; sleep 100\r")
        terminal.wait(r"go\r+\n")  # it was read: the key empties what was typed and not read
        while True:  # until sleep runs, it is the shell that sees the key
            terminal.type("\x1a")
            try:
                terminal.wait("(?i)stopped", timeout=1)
                break
            except AssertionError:
                pass
        terminal.type("kill %1; exit 5\r")
        terminal.type("exit 5\r")  # a shell warns once of stopped jobs
        assert terminal.process.wait(30) == 5


def test_the_window_may_change_its_size(daemon: Daemon) -> None:
    import fcntl
    import struct
    import termios

    daemon.run(document(job("app")))
    program = "trap 'stty size; exit 0' WINCH; echo ready; while :; do sleep 0.05; done"
    with on_terminal(daemon, "exec", "app", "--", "sh", "-c", program) as terminal:
        terminal.wait("ready")
        fcntl.ioctl(terminal.follower, termios.TIOCSWINSZ, struct.pack("4H", 33, 99, 0, 0))
        terminal.process.send_signal(signal.SIGWINCH)
        terminal.wait("33 99")
        assert terminal.process.wait(30) == 0
        assert termios.tcgetattr(terminal.follower) == terminal.settings


def test_an_interrupt_reaches_the_program_and_not_us(daemon: Daemon) -> None:
    daemon.run(document(job("app")))
    program = "trap 'echo caught; exit 4' INT; echo ready; while :; do sleep 0.05; done"
    with on_terminal(daemon, "exec", "app", "--", "sh", "-c", program) as terminal:
        terminal.wait("ready")
        terminal.type("\x03")
        terminal.wait("caught")
        assert terminal.process.wait(30) == 4


# never a stranger


def test_a_process_that_is_not_the_one_the_daemon_means_is_not_entered(daemon: Daemon) -> None:
    daemon.run(document(job("app")))
    target = daemon.client().process("app")
    enter.find(target)
    for forged in (
        {**target, "start_ticks": target["start_ticks"] - 1},
        {**target, "boot_id": "another"},
        {**target, "pid": 2**22 - 1},
    ):
        with pytest.raises(MaestroError, match="cannot enter app: "):
            enter.find(forged)


def test_a_process_just_being_reaped_is_gone(daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    daemon.run(document(job("app")))
    target = daemon.client().process("app")

    def reaped(pid: int) -> int:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

    monkeypatch.setattr(os, "pidfd_open", reaped)
    with pytest.raises(MaestroError, match=r"its process .* is gone"):
        enter.find(target)


def test_a_paused_job_is_not_entered(daemon: Daemon) -> None:
    daemon.run(document(job("app")))
    assert daemon.cli("pause", "app").returncode == 0
    said = daemon.cli("exec", "app", "--", "true", timeout=20)
    assert said.returncode == 1
    assert "it is paused" in said.stderr
