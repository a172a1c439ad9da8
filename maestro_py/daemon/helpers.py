# SPDX-License-Identifier: Apache-2.0
"""Helper programs: heavy or risky work in short-lived processes, so that the daemon stays small and safe.

A helper reads one JSON request on stdin, writes JSON lines on stdout, the last of which has `done` or
`error`, and exits. It is launched like a job, and dies with the daemon.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable, Mapping
from typing import Any

from maestro_py.daemon.loop import Loop
from maestro_py.errors import InvalidDocument, MaestroError, Problem
from maestro_py.process import launcher, reaper

_CHUNK = 65536

running: set[int] = set()
"""Pids of the helpers at work; they are buried here, not as strangers."""

_PACKAGE_PARENT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
_PASSED_ON = (
    "PATH",
    "LANG",
    "LC_ALL",
    "HOME",
    "TMPDIR",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "REQUESTS_CA_BUNDLE",
)
_PROXIES = ("http_proxy", "https_proxy", "no_proxy", "all_proxy")


def _environment() -> dict[str, str]:
    keep = {*_PASSED_ON, *_PROXIES, *(name.upper() for name in _PROXIES)}
    env = {name: value for name, value in os.environ.items() if name in keep}
    env["PYTHONPATH"] = _PACKAGE_PARENT
    return env


async def run(
    loop: Loop,
    module: str,
    request: Mapping[str, Any] | None = None,
    *,
    args: tuple[str, ...] = (),
    progress: Callable[[dict[str, Any]], None] | None = None,
) -> dict[str, Any]:
    """Run `python -m module`; return its last line. Its error is raised as MaestroError.

    progress is called with every line before the last.
    """
    read_end, write_end = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    stdin = launcher.stdin_file(json.dumps(request) if request is not None else "")
    null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    os.set_blocking(write_end, True)
    try:
        spec = launcher.helper_spec(
            (sys.executable, "-m", module, *args),
            _environment(),
            stdin_fd=stdin,
            stdout_fd=write_end,
            stderr_fd=null,
        )
        launch = launcher.start(spec)
    except BaseException:
        os.close(read_end)
        raise
    finally:
        for fd in (stdin, write_end, null):
            os.close(fd)
    last: dict[str, Any] = {}
    running.add(launch.pid)
    try:
        buffer = b""
        while True:
            await loop.readable(read_end)
            data = os.read(read_end, _CHUNK)
            if not data:
                break
            *lines, buffer = (buffer + data).split(b"\n")
            for line in lines:
                if last and progress:
                    progress(last)
                last = json.loads(line)
        await loop.readable(launch.pidfd)
        exit = reaper.wait(launch.pid, launch.pidfd)
    finally:
        # when the work is cancelled it is still there, and its zombie goes the way of all strangers
        reaper.send_signal(launch.pidfd, signal.SIGKILL)
        running.discard(launch.pid)
        failure = launcher.read_report(launch.report_fd)
        for fd in (read_end, launch.pidfd, launch.report_fd):
            os.close(fd)
    if failure:
        raise MaestroError(failure.message)
    if "problems" in last:
        problems = [Problem(**problem) for problem in last["problems"]]
        raise InvalidDocument(args[0] if args else module, problems)
    if "error" in last:
        error = last["error"]
        raise MaestroError(error["message"], hint=error.get("hint", ""), code=error.get("code", ""))
    if exit is None or exit.code != 0 or not last:
        why = exit.describe() if exit else "it vanished"
        raise MaestroError(f"cannot finish {module.rpartition('.')[2]}: the helper program ended with {why}")
    return last
