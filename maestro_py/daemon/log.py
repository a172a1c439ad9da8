# SPDX-License-Identifier: Apache-2.0
"""The daemon's own log: one line per event that matters, on stderr."""

from __future__ import annotations

import os
import sys
import time

# Under journald a line starts with its syslog level in angle brackets (sd-daemon(3)).
_JOURNAL = "JOURNAL_STREAM" in os.environ


def info(text: str) -> None:
    """Say that something happened."""
    _line(6, text)


def warning(text: str) -> None:
    """Say that something should be looked at."""
    _line(4, "warning: " + text)


def error(text: str) -> None:
    """Say that something failed."""
    _line(3, "error: " + text)


def _line(level: int, text: str) -> None:
    head = f"<{level}>" if _JOURNAL else time.strftime("%Y-%m-%dT%H:%M:%S ")
    try:
        sys.stderr.write("".join(f"{head}{line}\n" for line in text.splitlines()))
        sys.stderr.flush()
    except (OSError, ValueError):
        pass  # nobody listens; the jobs matter more than the line
