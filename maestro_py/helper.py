# SPDX-License-Identifier: Apache-2.0
"""What the helper programs have in common: one JSON request on stdin, JSON lines on stdout.

Progress is `{"bytes": done, "total": all or null}`, at most five lines a second; the last line is
`{"done": true, …}` with exit status 0 or `{"error": {"code", "message", "hint"}}` with 1. Nothing is
written to stderr. The parent sets the parent-death signal; should it be gone, a broken stdout ends the
program as any other failure does.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from types import FrameType
from typing import Any

from maestro_py.errors import MaestroError

PROGRESS_INTERVAL = 0.2
"""Seconds between two progress lines."""

Request = Mapping[str, Any]


class Progress:
    """Writes progress lines, the first after one interval."""

    def __init__(self) -> None:
        self._next = time.monotonic() + PROGRESS_INTERVAL

    def due(self) -> bool:
        """Say whether enough time has passed for another line."""
        return time.monotonic() >= self._next

    def report(self, done: int, total: int | None) -> None:
        """Write one line when it is due."""
        if self.due():
            self._next = time.monotonic() + PROGRESS_INTERVAL
            _say({"bytes": done, "total": total})


def main(work: Callable[[Request], Mapping[str, Any]]) -> int:
    """Run `work` on the request and return the exit status; whatever goes wrong becomes one error line.

    SIGTERM ends the work like a failure, so that what was half done is taken away.
    """
    signal.signal(signal.SIGTERM, _ended)
    try:
        _say({"done": True, **work(_request())})
        return 0
    except MaestroError as error:
        last = {"code": error.code, "message": error.message, "hint": error.hint}
    except BrokenPipeError:
        return 1
    except MemoryError:
        last = {"code": "failed", "message": "cannot go on: out of memory", "hint": ""}
    except Exception as error:  # nobody reads stderr: say it where the daemon listens
        last = {"code": "failed", "message": f"cannot go on: {type(error).__name__}: {error}", "hint": ""}
    try:
        _say({"error": last})
    except BrokenPipeError:
        pass
    return 1


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
