# SPDX-License-Identifier: Apache-2.0
"""Launching one process for a test, and waiting for what comes of it without sleeping."""

from __future__ import annotations

import os
import select
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from maestro_py.exits import Exit
from maestro_py.process import launcher, reaper
from maestro_py.process.launcher import Launch, LaunchFailure
from maestro_py.spec.resolved import ResolvedProcess

PATIENCE = 30.0
PYTHON = (sys.executable, "-I", "-S", "-c")


def process(*argv: str, **fields: Any) -> ResolvedProcess:
    """A resolved process with the given fields."""
    return ResolvedProcess(name="probe", members=("probe",), argv=argv, **fields)


def readable(fd: int, events: int = select.POLLIN) -> None:
    """Wait until fd is readable; fail when it does not happen."""
    poll = select.poll()
    poll.register(fd, events)
    assert poll.poll(PATIENCE * 1000), "nothing happened"


@dataclass
class Result:
    """What came of a launch."""

    failure: LaunchFailure | None
    exit: Exit | None
    out: bytes
    pid: int


@contextmanager
def launched(spec: launcher.LaunchSpec, **options: Any) -> Iterator[Launch]:
    """Start, and leave nothing behind."""
    launch = launcher.start(spec, **options)
    try:
        yield launch
    finally:
        reaper.send_signal(launch.pidfd, signal.SIGKILL)
        readable(launch.pidfd)
        try:
            os.waitpid(launch.pid, os.WNOHANG)
        except ChildProcessError:
            pass  # the test has reaped it
        os.close(launch.pidfd)
        os.close(launch.report_fd)


def spec_of(*argv: str) -> launcher.LaunchSpec:
    """Return the launch of a program with the test's own standard files."""
    return launcher.prepare(process(*argv), daemon_env={}, stdin_fd=0, stdout_fd=1, stderr_fd=2)


def run(
    what: ResolvedProcess, *, env: dict[str, str] | None = None, cgroup_fds: tuple[int, ...] = ()
) -> Result:
    """Launch, wait for the end, return everything it printed on stdout and stderr."""
    out = os.memfd_create("out", os.MFD_CLOEXEC)
    stdin = launcher.stdin_file(what.stdin)
    try:
        spec = launcher.prepare(
            what,
            daemon_env=env or {},
            stdin_fd=stdin,
            stdout_fd=out,
            stderr_fd=out,
            cgroup_fds=cgroup_fds,
        )
        with launched(spec) as launch:
            readable(launch.report_fd)
            failure = launcher.read_report(launch.report_fd)
            readable(launch.pidfd)
            exit = reaper.wait(launch.pid, launch.pidfd)
        return Result(failure, exit, os.pread(out, 1 << 24, 0), launch.pid)
    finally:
        os.close(out)
        os.close(stdin)


def python(code: str, *args: str, **fields: Any) -> Result:
    """Run Python code as the process; it must be launched."""
    result = run(process(*PYTHON, code, *args, **fields))
    assert result.failure is None, result.failure
    return result
