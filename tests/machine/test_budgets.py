# SPDX-License-Identifier: Apache-2.0
"""What the daemon may cost while it runs, where that does not depend on how fast the machine is."""

from __future__ import annotations

from support.daemon import Daemon
from support.documents import document, job
from support.idleness import anonymous, until_calm

PER_JOB = 40
"""KiB of memory for one more idle job, its two pipes, log and group included."""


def sleepers(count: int) -> dict[str, object]:
    return document(*(job(f"j{i:03}", "exec sleep 1000") for i in range(count)))


def test_an_idle_daemon_never_wakes_up(daemon: Daemon) -> None:
    daemon.run(sleepers(20))
    # gathered writes of what was just done come within their second or two
    until_calm(daemon.client().version()["pid"])


def test_one_more_job_costs_little_memory(daemon: Daemon) -> None:
    daemon.run(sleepers(20))
    pid = daemon.client().version()["pid"]
    few = anonymous(pid)
    daemon.run(sleepers(120))
    assert (anonymous(pid) - few) / 100 < PER_JOB
