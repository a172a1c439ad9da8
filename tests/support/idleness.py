# SPDX-License-Identifier: Apache-2.0
"""What a process costs while it does nothing: its wake-ups and its memory, as /proc counts them."""

from __future__ import annotations

import re
import time
from pathlib import Path


def switches(pid: int) -> int:
    """Return how often a process has gone to sleep or was put aside."""
    found = re.findall(r"ctxt_switches:\s*(\d+)", Path(f"/proc/{pid}/status").read_text())
    return sum(map(int, found))


def anonymous(pid: int) -> int:
    """Return the KiB of memory that are a process's own."""
    [found] = re.findall(r"^Anonymous:\s*(\d+)", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.MULTILINE)
    return int(found)


def until_calm(pid: int, *, timeout: float = 40) -> None:
    """Return once nothing wakes a process in two seconds; within `timeout` seconds it has to."""
    deadline = time.monotonic() + timeout
    while True:
        before = switches(pid)
        time.sleep(2)  # what does not happen can only be waited for
        if switches(pid) == before:
            return
        assert time.monotonic() < deadline
