# SPDX-License-Identifier: Apache-2.0
"""What the helper programs have in common: one JSON request on stdin, JSON lines on stdout.

Progress is `{"bytes": done, "total": all or null, "rate": bytes a second}`, at most five lines a second;
the last line is `{"done": true, …}` with exit status 0 or `{"error": {"code", "message", "hint"}}` with 1,
with `after` in it, seconds, when another try may do better. Nothing is written to stderr. The parent sets
the parent-death signal; should it be gone, a broken stdout ends the program as any other failure does.
"""

from __future__ import annotations

import ctypes
import json
import os
import pwd
import signal
import sys
import time
from collections.abc import Callable, Mapping
from types import FrameType
from typing import Any, NoReturn

from maestro_py.errors import MaestroError, Passing

PROGRESS_INTERVAL = 0.2
"""Seconds between two progress lines."""

FETCH_USERS = ("maestro-fetch", "nobody")
"""Users a program that talks to the network becomes, the first that exists."""

PR_SET_PDEATHSIG = 1  # linux/prctl.h

Request = Mapping[str, Any]


class Progress:
    """Writes progress lines, the first after one interval. start: what was done before."""

    def __init__(self, start: int = 0) -> None:
        self._start = start
        self._began = time.monotonic()
        self._next = self._began + PROGRESS_INTERVAL

    def due(self) -> bool:
        """Say whether enough time has passed for another line."""
        return time.monotonic() >= self._next

    def report(self, done: int, total: int | None) -> None:
        """Write one line when it is due."""
        if self.due():
            now = time.monotonic()
            self._next = now + PROGRESS_INTERVAL
            _say({"bytes": done, "total": total, "rate": round((done - self._start) / (now - self._began))})


def main(work: Callable[[Request], Mapping[str, Any]]) -> NoReturn:
    """Run `work` on the request and end the program; whatever goes wrong becomes one error line.

    SIGTERM ends the work like a failure, so that what was half done is taken away. Nothing is left in a
    buffer, so the program ends at once: the interpreter would clear up for 15 ms all that is loaded.
    """
    os._exit(_run(work))


def _run(work: Callable[[Request], Mapping[str, Any]]) -> int:
    signal.signal(signal.SIGTERM, _ended)
    last: dict[str, Any]
    try:
        _say({"done": True, **work(_request())})
        return 0
    except MaestroError as error:
        last = {"code": error.code, "message": error.message, "hint": error.hint}
        if isinstance(error, Passing):
            last["after"] = error.after
    except BrokenPipeError:
        return 1
    except ModuleNotFoundError as error:
        what = f"cannot go on: this device lacks the Python library {error.name}"
        last = {"code": "unsupported", "message": what, "hint": ""}
    except MemoryError:
        last = {"code": "failed", "message": "cannot go on: out of memory", "hint": ""}
    except Exception as error:  # nobody reads stderr: say it where the daemon listens
        last = {"code": "failed", "message": f"cannot go on: {type(error).__name__}: {error}", "hint": ""}
    try:
        _say({"error": last})
    except BrokenPipeError:
        pass
    return 1


def give_up_root(user: int | str | None) -> None:
    """Become `user` for good, or the first of FETCH_USERS there is; nothing when this is not root.

    Call it once all that only root may open is open, and before anything from outside is read.
    """
    if os.geteuid() != 0:
        return
    uid, gid = _account(user)
    parent = os.getppid()
    try:
        os.setgroups([gid])
        os.setresgid(gid, gid, gid)
        os.setresuid(uid, uid, uid)
    except OSError as error:
        raise MaestroError(f"cannot become user {uid}: {error.strerror}") from error
    # a change of user takes the parent-death signal away (prctl(2))
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != parent:
        raise MaestroError("cannot go on: the daemon is gone")


def _account(user: int | str | None) -> tuple[int, int]:
    """Return (uid, gid); a number without an account is its own group."""
    for name in (user,) if user is not None else FETCH_USERS:
        try:
            account = pwd.getpwuid(name) if isinstance(name, int) else pwd.getpwnam(name)
            return account.pw_uid, account.pw_gid
        except KeyError:
            if isinstance(name, int):
                return name, name
    raise MaestroError(f"cannot become user {user or FETCH_USERS[-1]!r}: no such user")


def _request() -> Request:
    line = sys.stdin.buffer.readline()  # a line, not the end of input: the parent may keep the pipe open
    try:
        request = json.loads(line)
    except ValueError:
        request = None
    if not isinstance(request, dict):
        raise MaestroError("cannot read the request: expected one line with a JSON object")
    return request


def _say(line: Mapping[str, Any]) -> None:
    data = json.dumps(line).encode() + b"\n"
    while data:
        data = data[os.write(1, data) :]


def _ended(number: int, frame: FrameType | None) -> None:
    raise MaestroError("cannot go on: ended from outside")
