# SPDX-License-Identifier: Apache-2.0
"""Exits, strangers and identities, with real processes."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest
from support.launching import PATIENCE, readable

from maestro_py.exits import Exit
from maestro_py.process import kernel, reaper
from maestro_py.process.reaper import Identity


def spawn(code: str) -> tuple[int, int]:
    """A child that runs a line of shell, and its pidfd."""
    pid = os.posix_spawn("/bin/sh", ["sh", "-c", code], dict(os.environ))
    return pid, os.pidfd_open(pid)


@pytest.mark.parametrize(
    ("code", "exit"),
    [("exit 0", Exit(code=0)), ("exit 37", Exit(code=37)), ("kill -9 $$", Exit(signal=9))],
)
def test_how_a_child_ended(code: str, exit: Exit) -> None:
    pid, pidfd = spawn(code)
    readable(pidfd)
    assert reaper.wait(pid, pidfd) == exit
    os.close(pidfd)


def test_a_living_child_has_no_exit_and_a_dead_one_gets_no_signal() -> None:
    pid, pidfd = spawn("exec sleep 60")
    assert reaper.wait(pid, pidfd) is None
    assert reaper.alive(pidfd)
    assert reaper.send_signal(pidfd, signal.SIGKILL)
    readable(pidfd)
    assert reaper.wait(pid, pidfd) == Exit(signal=9)
    assert not reaper.send_signal(pidfd, signal.SIGTERM)
    assert not reaper.alive(pidfd)
    os.close(pidfd)


def test_the_exit_of_a_process_that_is_not_ours_is_known_where_the_kernel_keeps_it() -> None:
    code = (
        "import os\n"
        "pid = os.fork()\n"
        "if not pid:\n"
        "    os.read(0, 1); os._exit(37)\n"
        "print(pid, flush=True)\n"
        "os.waitpid(pid, 0); os.read(0, 1)\n"
    )
    argv = [sys.executable, "-I", "-S", "-c", code]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as parent:
        assert parent.stdin
        assert parent.stdout
        pid = int(parent.stdout.readline())
        pidfd = os.pidfd_open(pid)
        assert reaper.wait(pid, pidfd) is None
        parent.stdin.write(b"x")
        parent.stdin.flush()
        if tuple(map(int, os.uname().release.split(".")[:2])) >= (6, 15):
            readable(pidfd, 0)  # only a hang-up: reaped
            assert reaper.wait(pid, pidfd) == Exit(code=37)
        parent.communicate(b"x")
        assert reaper.wait(pid, pidfd) in (Exit(code=37), Exit())
        os.close(pidfd)


@pytest.fixture
def subreaper() -> Iterator[None]:
    """Orphans come to us for the length of a test."""
    kernel.prctl(kernel.PR_SET_CHILD_SUBREAPER, 1)
    yield
    kernel.prctl(kernel.PR_SET_CHILD_SUBREAPER, 0)


@pytest.mark.usefixtures("subreaper")
def test_orphans_are_reaped_and_known_children_are_left() -> None:
    known, known_fd = spawn("exit 5")
    readable(known_fd)
    reading, writing = os.pipe()
    action = [(os.POSIX_SPAWN_DUP2, writing, 1)]
    argv = ["sh", "-c", "(sleep 0.1; exit 7) & echo $!; exit 6"]
    parent = os.posix_spawn("/bin/sh", argv, dict(os.environ), file_actions=action)
    parent_fd = os.pidfd_open(parent)
    os.close(writing)
    orphan = int(os.read(reading, 20))
    os.close(reading)
    readable(parent_fd)
    reaped: dict[int, Exit] = {}
    deadline = time.monotonic() + PATIENCE
    while orphan not in reaped:
        assert time.monotonic() < deadline
        reaped.update(reaper.reap_strangers({known, parent}))
        select.select([], [], [], 0.001)
    assert reaped[orphan] == Exit(code=7)
    assert not {known, parent} & reaped.keys()
    assert reaper.wait(known, known_fd) == Exit(code=5)
    assert reaper.wait(parent, parent_fd) == Exit(code=6)
    assert reaper.reap_strangers(()) == []
    os.close(known_fd)
    os.close(parent_fd)


def test_descendants_are_found_over_generations() -> None:
    code = "sh -c 'sleep 60 & sleep 60 & echo; wait' & wait"
    with subprocess.Popen(["/bin/sh", "-c", code], stdout=subprocess.PIPE, start_new_session=True) as top:
        assert top.stdout
        top.stdout.readline()
        found = reaper.descendants(top.pid)
        assert len(found) == 3
        assert reaper.children(top.pid) == found[:1]
        assert sorted(reaper.children(found[0])) == sorted(found[1:])
        os.killpg(top.pid, signal.SIGKILL)
    assert reaper.descendants(top.pid) == []
    assert reaper.children(top.pid) == []


def test_a_process_whose_name_looks_like_a_stat_line_is_read_right() -> None:
    code = (
        "import ctypes,sys; ctypes.CDLL(None).prctl(15, b') S 1 2 (x'); print(flush=True); sys.stdin.read()"
    )
    argv = [sys.executable, "-c", code]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout
        child.stdout.readline()
        assert int(kernel.stat_fields(child.pid)[1]) == os.getpid()
        age = time.clock_gettime(time.CLOCK_BOOTTIME) - kernel.start_ticks(child.pid) / os.sysconf(
            "SC_CLK_TCK"
        )
        assert -0.1 < age < PATIENCE
        child.communicate()


def test_an_identity_holds_for_its_own_process_only() -> None:
    pid, pidfd = spawn("exec sleep 60")
    other, other_fd = spawn("exec sleep 60")
    identity = Identity.of(pid)
    assert reaper.still_same(identity, pidfd)
    assert not reaper.still_same(identity, other_fd)
    assert not reaper.still_same(Identity("another-boot", pid, identity.start_ticks), pidfd)
    assert not reaper.still_same(Identity("", pid, identity.start_ticks), pidfd)
    assert not reaper.still_same(Identity(identity.boot_id, pid, identity.start_ticks - 1), pidfd)
    for number, fd in ((pid, pidfd), (other, other_fd)):
        reaper.send_signal(fd, signal.SIGKILL)
        readable(fd)
        reaper.wait(number, fd)
    assert not reaper.still_same(identity, pidfd)
    os.close(pidfd)
    os.close(other_fd)
