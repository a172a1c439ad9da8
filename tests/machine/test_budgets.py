# SPDX-License-Identifier: Apache-2.0
"""What the daemon may cost while it runs, where that does not depend on how fast the machine is."""

from __future__ import annotations

import re
import time
from pathlib import Path

from support.daemon import Daemon
from support.documents import document, job

PER_JOB = 40
"""KiB of memory for one more idle job, its two pipes, log and group included."""


def sleepers(count: int) -> dict[str, object]:
    return document(*(job(f"j{i:03}", "exec sleep 1000") for i in range(count)))


def switches(pid: int) -> int:
    """Return how often a process has gone to sleep or was put aside."""
    found = re.findall(r"ctxt_switches:\s*(\d+)", Path(f"/proc/{pid}/status").read_text())
    return sum(map(int, found))


def anonymous(pid: int) -> int:
    """Return the KiB of memory that are a process's own."""
    [found] = re.findall(r"^Anonymous:\s*(\d+)", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.MULTILINE)
    return int(found)


def test_an_idle_daemon_never_wakes_up(daemon: Daemon) -> None:
    daemon.run(sleepers(20))
    pid = daemon.client().version()["pid"]
    deadline = time.monotonic() + 30
    while True:
        before = switches(pid)
        time.sleep(2)  # what does not happen can only be waited for
        if switches(pid) == before:
            return
        # gathered writes of what was just done come within their second or two
        assert time.monotonic() < deadline


def test_one_more_job_costs_little_memory(daemon: Daemon) -> None:
    daemon.run(sleepers(20))
    pid = daemon.client().version()["pid"]
    few = anonymous(pid)
    daemon.run(sleepers(120))
    assert (anonymous(pid) - few) / 100 < PER_JOB
