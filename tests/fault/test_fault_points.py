# SPDX-License-Identifier: Apache-2.0
"""The daemon is killed at every fault point of its state and its effects: the next one always converges.

The points are read from the sources; those of images and upgrades have a test of their own.
MAESTRO_FAULTS=all kills at the first five passages of each, otherwise at one passage of every second.
"""

from __future__ import annotations

import ast
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.daemon import PROJECT, Daemon
from support.documents import Document, document, job
from support.processes import running_with

from maestro_py.errors import MaestroError

ELSEWHERE = ("arrivals.", "images.", "rollback.", "upgrade.")


def points() -> Iterator[str]:
    for path in sorted((PROJECT / "maestro_py").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "reach":
                (argument,) = node.args
                assert isinstance(argument, ast.Constant), f"{path}: a fault point has a literal name"
                if not argument.value.startswith(ELSEWHERE):
                    yield argument.value


TIMES = (1, 2, 3, 4, 5) if os.environ.get("MAESTRO_FAULTS") == "all" else (2,)
CASES = [(point, times) for point in sorted(points()) for times in TIMES]
CHOSEN = CASES if len(TIMES) > 1 else CASES[::2]


def first(mark: str) -> Document:
    stubborn = f": {mark}; trap '' TERM; while :; do sleep 0.1; done"
    return document(
        job("same", f": {mark}; sleep 1000; :"),
        job("changes", f": {mark} before; sleep 1000; :", depends_on=["same"]),
        job("goes", stubborn, stop_timeout=0.2),
        date=1,
    )


def second(mark: str) -> Document:
    return document(
        job("same", f": {mark}; sleep 1000; :"),
        job("changes", f": {mark} after; sleep 1000; :", depends_on=["same"]),
        job("comes", f": {mark}; sleep 1000; :", restart_policy="always"),
        date=2,
    )


@pytest.mark.parametrize(("point", "times"), CHOSEN)
def test_the_next_daemon_converges_wherever_this_one_was_killed(
    tmp_path: Path, point: str, times: int
) -> None:
    mark = str(tmp_path / "mark")
    daemon = Daemon(tmp_path / "device", env={"MAESTRO_FAULT_POINT": f"{point}*{times}"})
    try:
        if not killed(daemon, mark):
            assert times > 1, f"{point} is never passed"
            if TIMES != (2,):
                pytest.skip(f"{point} is passed less than {times} times")
            daemon.stop()
            daemon.env["MAESTRO_FAULT_POINT"] = point
            assert killed(daemon, mark), f"{point} is never passed"
        del daemon.env["MAESTRO_FAULT_POINT"]
        daemon.start()
        check(daemon, mark)
    finally:
        daemon.env.pop("MAESTRO_FAULT_POINT", None)
        daemon.close()
    assert running_with(mark) == []


def killed(daemon: Daemon, mark: str) -> bool:
    """Do everything a daemon does, a crash and an upgrade included; return whether the point was met."""
    client = daemon.client()

    def ask(call: Callable[[], Any]) -> None:
        client.task(call()["task_id"], wait=20)

    steps: list[Callable[[], object]] = [
        daemon.start,
        lambda: ask(lambda: client.apply(first(mark), force=True)),
        lambda: ask(lambda: client.action("same", "restart")),
        lambda: ask(lambda: client.apply(second(mark))),
        lambda: ask(lambda: client.action("comes", "stop")),
        lambda: ask(lambda: client.action("comes", "start")),
        lambda: crash_and_go_on(daemon),
        client.upgrade,
    ]
    for step in steps:
        try:
            step()
        except (MaestroError, AssertionError):
            assert daemon.process
            assert daemon.process.wait(20) == -signal.SIGKILL, daemon.output()
            return True
    assert daemon.process
    try:
        return daemon.process.wait(1) == -signal.SIGKILL
    except Exception:
        return False


def crash_and_go_on(daemon: Daemon) -> None:
    daemon.crash()
    daemon.start()


def check(daemon: Daemon, mark: str) -> None:
    """All of one document runs, each job once, and there is nothing left to do."""
    date = daemon.client().running_config()["date"]
    wanted = {0: document(), 1: first(mark), 2: second(mark)}[date]
    names = {each["job"] for each in wanted["jobs"]}
    for name in names:
        # a stop by hand that was written down holds
        daemon.wait(name, lambda row: row["state"] == "RUNNING" or "stopped by" in row["cause"])
    rows = daemon.client().status()["jobs"]
    assert {row["job"] for row in rows} == names
    assert daemon.client().diff(wanted)["plan"]["steps"] == [] or date == 2
    pids = sorted(row["pid"] for row in rows if row["pid"])
    deadline = time.monotonic() + 10
    while sorted(running_with(mark)) != pids:  # what was killed may be seen for a moment
        assert time.monotonic() < deadline, daemon.output()
        time.sleep(0.01)
