# SPDX-License-Identifier: Apache-2.0
"""What runs on this machine, as /proc tells it."""

from __future__ import annotations

import os
import select
from pathlib import Path


def running_with(mark: str) -> list[int]:
    """Return the pids of all processes that live and have a text on their command line."""
    found = []
    for entry in os.listdir("/proc"):
        if not entry.isdigit() or entry == str(os.getpid()):
            continue
        try:
            line = Path(f"/proc/{entry}/cmdline").read_bytes()  # empty for a zombie
        except OSError:
            continue
        if mark.encode() in line:
            found.append(int(entry))
    return found


def wait_gone(pid: int) -> None:
    """Wait until a process has ended, of whoever it is a child."""
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        assert select.select([pidfd], [], [], 20)[0]
    finally:
        os.close(pidfd)
