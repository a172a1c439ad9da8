# SPDX-License-Identifier: Apache-2.0
"""Helper programs: heavy or risky work in short-lived processes, so that the daemon stays small and safe.

A helper reads one JSON request on stdin, writes JSON lines on stdout, the last of which has `done` or
`error`, and exits. It is launched like a job, and dies with the daemon.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from maestro_py.daemon.loop import Loop
from maestro_py.errors import InvalidDocument, MaestroError, Passing, Problem, Unsupported
from maestro_py.process import launcher, reaper

_CHUNK = 65536

INTERRUPTED = "interrupted"
"""Code of the error when a helper ended without an answer: nothing is said about what it worked on."""

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
    "MAESTRO_FAULT_POINT",
)
_PROXIES = ("http_proxy", "https_proxy", "no_proxy", "all_proxy")


def _environment() -> dict[str, str]:
    keep = {*_PASSED_ON, *_PROXIES, *(name.upper() for name in _PROXIES)}
    env = {name: value for name, value in os.environ.items() if name in keep}
    env["PYTHONPATH"] = _PACKAGE_PARENT
    return env


def _limit(name: str, value: int) -> tuple[str, int, int]:
    most = resource.getrlimit(getattr(resource, f"RLIMIT_{name.upper()}"))[1]
    value = value if most == resource.RLIM_INFINITY else min(value, most)
    return name, value, value


async def run(
    loop: Loop,
    module: str,
    request: Mapping[str, Any] | None = None,
    *,
    args: tuple[str, ...] = (),
    progress: Callable[[dict[str, Any]], None] | None = None,
    limits: Sequence[tuple[str, int]] = (),
) -> dict[str, Any]:
    """Run `python -m module`; return its last line. Its error is raised as MaestroError, or as Passing.

    progress is called with every line before the last. limits: resource limits, as ("nofile", 64); never
    more than the daemon itself may have.
    """
    read_end, write_end = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    stdin = launcher.stdin_file(json.dumps(request) if request is not None else "")
    complaints = os.memfd_create("stderr", os.MFD_CLOEXEC)
    os.set_blocking(write_end, True)
    try:
        spec = launcher.helper_spec(
            (sys.executable, "-m", module, *args),
            _environment(),
            stdin_fd=stdin,
            stdout_fd=write_end,
            stderr_fd=complaints,
            rlimits=[_limit(name, value) for name, value in limits],
        )
        launch = launcher.start(spec)
    except BaseException:
        os.close(read_end)
        os.close(complaints)
        raise
    finally:
        for fd in (stdin, write_end):
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
        said = os.pread(complaints, _CHUNK, max(0, os.fstat(complaints).st_size - _CHUNK))
        for fd in (read_end, launch.pidfd, launch.report_fd, complaints):
            os.close(fd)
    if failure:
        raise MaestroError(failure.message)
    if "problems" in last:
        problems = [Problem(**problem) for problem in last["problems"]]
        raise InvalidDocument(args[0] if args else module, problems)
    if "error" in last:
        error = last["error"]
        hint, code = error.get("hint", ""), error.get("code", "")
        if "after" in error:
            raise Passing(error["message"], hint=hint, code=code, after=float(error["after"]))
        raise MaestroError(error["message"], hint=hint, code=code)
    if exit is None or exit.code != 0 or not last:
        why = exit.describe() if exit else "it vanished"
        raise _broken(module.rpartition(".")[2], why, said)
    return last


def _broken(program: str, why: str, said: bytes) -> MaestroError:
    """Return the error for a helper that ended without an answer; its last words say most."""
    words = said.decode(errors="replace").strip().rpartition("\n")[2]
    if words.startswith("ModuleNotFoundError: "):
        library = words.rpartition(" ")[2].strip("'")
        return Unsupported(f"cannot run {program}: this device lacks the Python library {library}")
    detail = f" ({words})" if words else ""
    return MaestroError(
        f"cannot finish {program}: the helper program ended with {why}{detail}", code=INTERRUPTED
    )
