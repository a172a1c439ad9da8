# SPDX-License-Identifier: Apache-2.0
"""The daemon's own log: one line per event that matters, with what it is about as fields.

Under systemd a line goes to the journal in its native protocol, fields and all; where that cannot be
had, to stderr: behind a syslog level in angle brackets (sd-daemon(3)) when stderr is the journal's,
else behind the time. Never both.
"""

from __future__ import annotations

import os
import socket
import struct
import sys
import time
from collections.abc import Mapping

LEVELS = {"error": 3, "warning": 4, "info": 6}
"""Level by name, as syslog(3) counts them."""

JOURNAL = "/run/systemd/journal/socket"

_WORDS = {3: "error: ", 4: "warning: "}
_level = LEVELS["info"]


def info(text: str, **about: object) -> None:
    """Say that something happened. about: what it concerns, as `process`, `job`, `event`."""
    _say(6, text, about)


def warning(text: str, **about: object) -> None:
    """Say that something should be looked at."""
    _say(4, text, about)


def error(text: str, **about: object) -> None:
    """Say that something failed."""
    _say(3, text, about)


def set_level(name: str) -> None:
    """Leave out what is less urgent than this level from now on."""
    global _level
    _level = LEVELS[name]


def _say(level: int, text: str, about: Mapping[str, object]) -> None:
    if level > _level:
        return
    who = about.get("process") or about.get("job")
    lines = [_printable(line) for line in (f"{who}: {text}" if who else text).splitlines()]
    if _native and _native.send(level, "\n".join(lines), about):
        return
    head = f"<{level}>" if _native else time.strftime("%Y-%m-%dT%H:%M:%S ") + _WORDS.get(level, "")
    try:
        sys.stderr.write("".join(f"{head}{line}\n" for line in lines))
        sys.stderr.flush()
    except (OSError, ValueError):
        pass  # nobody listens; the jobs matter more than the line


def _printable(line: str) -> str:
    """Return a line that cannot move a terminal's cursor: what comes from jobs and documents is in it."""
    return line if line.isprintable() else "".join(c if c.isprintable() else "?" for c in line)


class Journal:
    """The journal's datagram socket: https://systemd.io/JOURNAL_NATIVE_PROTOCOL."""

    def __init__(self, path: str = JOURNAL) -> None:
        self._path = path
        self._sock: socket.socket | None = None

    def send(self, level: int, text: str, about: Mapping[str, object]) -> bool:
        """Send one entry, `about` as MAESTRO_ fields; False when nobody takes it now."""
        fields = {"MESSAGE": text, "PRIORITY": str(level), "SYSLOG_IDENTIFIER": "maestrod"}
        fields.update((f"MAESTRO_{name.upper()}", str(value)) for name, value in about.items() if value)
        entry = b"".join(_field(name, value) for name, value in fields.items())
        try:
            if self._sock is None:
                flags = socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
                self._sock = socket.socket(socket.AF_UNIX, flags)
            self._sock.sendto(entry, self._path)
        except OSError:
            return False  # not there, busy, or the entry is too long for a datagram: stderr gets there
        return True


def _field(name: str, value: str) -> bytes:
    data = value.encode("utf-8", "replace")
    if b"\n" in data:
        return b"%b\n%b%b\n" % (name.encode(), struct.pack("<Q", len(data)), data)
    return b"%b=%b\n" % (name.encode(), data)


def journal(environ: Mapping[str, str] = os.environ, fd: int = 2) -> Journal | None:
    """Return the journal when `fd` is connected to it, as JOURNAL_STREAM says (systemd.exec(5)).

    The variable alone says nothing: it is inherited by those whose stderr goes elsewhere.
    """
    try:
        found = os.fstat(fd)
    except OSError:
        return None
    return Journal() if environ.get("JOURNAL_STREAM") == f"{found.st_dev}:{found.st_ino}" else None


_native = journal()
