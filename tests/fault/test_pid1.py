# SPDX-License-Identifier: Apache-2.0
"""maestrod as process 1 of a pid namespace, and as the sub-reaper it is everywhere else."""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.daemon import Daemon
from support.documents import WAIT, document, job
from support.processes import running_with

UNSHARE = ("unshare", "--pid", "--fork", "--mount-proc", "--kill-child")


def children(pid: int) -> list[int]:
    """Return the pids of a process's children, zombies included."""
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture
def init(tmp_path: Path) -> Iterator[Daemon]:
    """Return a daemon that is process 1 of a namespace of its own."""
    if not shutil.which("unshare"):
        pytest.skip("needs unshare")

    class Init(Daemon):
        program = (*UNSHARE, *Daemon.program)

    daemon = Init(tmp_path / "device")
    yield daemon.start()
    if daemon.process and daemon.process.poll() is None:
        daemon.process.kill()  # and with it, its child
        daemon.process.wait()


def pid_outside(daemon: Daemon) -> int:
    """Return the pid, as seen from here, of the daemon that `unshare` started."""
    assert daemon.process
    (pid,) = children(daemon.process.pid)
    return pid


@pytest.mark.root
def test_process_1_runs_jobs_and_buries_every_orphan(init: Daemon, tmp_path: Path) -> None:
    mark = str(tmp_path / "mark")
    orphans = "i=0; while [ $i -lt 20 ]; do (setsid sh -c 'exit 3' &); i=$((i+1)); done"
    init.run(document(job("app", f"{orphans}; : {mark}; echo done; sleep 1000; :", restart=True)))
    assert init.client().version()["pid"] == 1
    init.wait_log("app", "done")
    pid = pid_outside(init)
    wait_until(lambda: len(children(pid)) == 1)  # the job; no zombie
    init.do("app", "restart")
    assert init.job("app")["restarts"] == 0
    assert init.do("app", "stop")["status"] == "complete"
    assert children(pid) == []


@pytest.mark.root
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGPWR])
def test_process_1_ends_its_jobs_in_order_when_it_is_told_to(
    init: Daemon, tmp_path: Path, number: signal.Signals
) -> None:
    script = "trap 'echo bye; exit 0' TERM; echo up; while :; do sleep 0.05; done"
    init.run(document(job("base", script), job("app", script, depends_on=["base"])))
    init.wait_log("app", "up")
    init.wait_log("base", "up")
    os.kill(pid_outside(init), number)
    assert init.process
    assert init.process.wait(30) == 0
    log = init.output()
    assert log.index("app: STOPPED") < log.index("base: STOPPING")
    for name in ("app", "base"):
        assert "bye" in (init.root / "log" / f"{name}.log").read_text()


@pytest.mark.root
def test_process_1_is_upgraded_like_any_other(init: Daemon) -> None:
    init.run(document(job("app", WAIT)))
    pid = init.job("app")["pid"]
    done = init.cli("upgrade")
    assert done.returncode == 0, done.stderr
    assert (init.client().version()["pid"], init.job("app")["pid"]) == (1, pid)


def test_orphans_of_jobs_come_to_the_daemon_and_are_buried(daemon: Daemon, tmp_path: Path) -> None:
    """Sub-reaper: what a job left behind is ours, not init's."""
    mark = str(tmp_path / "mark")
    orphan = f"(setsid sh -c ': {mark}; sleep 0.3; exit 3' &)"
    daemon.run(document(job("app", f"{orphan}; sleep 1000; :")))
    assert daemon.process
    pid = daemon.process.pid
    wait_until(lambda: running_with(f": {mark}; sleep 0.3; exit 3") != [] or len(children(pid)) == 1)
    wait_until(lambda: children(pid) == [daemon.job("app")["pid"]])
