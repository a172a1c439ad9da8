# SPDX-License-Identifier: Apache-2.0
"""Daemon or helper is killed at every step of an upgrade: old or new runs, whole, and nothing is left.

The steps are read from the sources. MAESTRO_FAULTS=all kills at all of them, otherwise at every third.
"""

from __future__ import annotations

import ast
import os
import select
import tarfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.daemon import PROJECT, Daemon
from support.documents import Document, document, image, job
from support.groups import wait_until
from support.httpserver import FileServer

from maestro_py.errors import MaestroError

ROOMS = (
    "daemon/arrivals.py",
    "daemon/change.py",
    "daemon/execute.py",
    "daemon/rollback.py",
    "images/fetch.py",
    "images/store.py",
    "images/unpack.py",
)
AT_BOOT = {"upgrade.fetched", "upgrade.saved"}
"""Passed once before the upgrade begins: the boot is a change as any other."""

GOOD = "echo '!!OK!!'; exec sleep 1000"
SILENT = "exec sleep 1000"


def points() -> Iterator[str]:
    for name in ROOMS:
        for node in ast.walk(ast.parse((PROJECT / "maestro_py" / name).read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "reach":
                (argument,) = node.args
                assert isinstance(argument, ast.Constant), "a fault point has a literal name"
                yield argument.value


POINTS = sorted(points())
FORWARD = [(point, GOOD, 1 + (point in AT_BOOT)) for point in POINTS if not point.startswith("rollback.")]
BACK = [(point, SILENT, 1) for point in POINTS if point.startswith("rollback.")]
BACK += [
    (point, SILENT, 2 + (point in AT_BOOT))
    for point in POINTS
    if point.startswith(("upgrade.", "images.switch.")) and point != "upgrade.fetched"
]
CASES = FORWARD + BACK
CHOSEN = CASES if os.environ.get("MAESTRO_FAULTS") == "all" else CASES[::3]


def wanted(number: str, script: str, where: Path, url: str) -> Document:
    run = f"echo version {number}; {script}\n"
    found = image("app", number, where, {"run": run, "filler": os.urandom(40_000).hex()})
    found["url"] = f"{url}/{Path(found['url']).name}"
    patience = 1000 if script == SILENT else 20_000
    keys = {"restart": True, "restart_pause": 20, "timeout_for_ok": patience, "wait_for_ok": True}
    return document(job("app", '. "{{IMAGE}}/run"', **keys), images=[found])


def test_linking_that_is_cut_off_costs_a_download_and_no_more(
    make_daemon: Callable[..., Daemon], tmp_path: Path
) -> None:
    daemon = make_daemon()
    daemon.crash()
    daemon.env["MAESTRO_FAULT_POINT"] = "images.clone.linked"
    daemon.start()
    first = image("one", "1", tmp_path, {"run": GOOD + "\n"})
    twin = {**first, "job": "two"}
    jobs = [job(name, '. "{{IMAGE}}/run"') for name in ("one", "two")]
    daemon.run(document(*jobs[:1], images=[first]))
    daemon.run(document(*jobs, images=[first, twin]))
    assert daemon.job("two")["state"] == "RUNNING"
    assert [*(daemon.root / "state/images/.staging").iterdir()] == []


def test_the_steps_of_an_upgrade_are_found() -> None:
    assert {"upgrade.fetched", "upgrade.switched", "rollback.saved", "images.switch.done"} <= set(POINTS)
    assert len(POINTS) == len(set(POINTS))


def dies_of_it(daemon: Daemon, second: Document) -> bool:
    """Apply a document; say whether the daemon died of that, or a helper program of it did."""
    assert daemon.process
    try:
        task_id = daemon.client().apply(second)["task_id"]
        with daemon.client().follow_task(task_id) as states:
            for task in states:
                if "the helper program ended" in str(task):  # it is tried again, and dies again
                    return True
    except MaestroError:
        pass
    return ends(daemon)


def ends(daemon: Daemon) -> bool:
    assert daemon.process
    pidfd = os.pidfd_open(daemon.process.pid)
    try:
        return bool(select.select([pidfd], [], [], 5)[0])
    finally:
        os.close(pidfd)


def whole(daemon: Daemon, number: str, wanted: Document) -> None:
    """See that this version runs, is the current one and has every byte, and that nothing is left over."""
    (current,) = [row for row in daemon.client().images()["images"] if row["current"]]
    assert current["version"] == number
    pid = daemon.job("app")["pid"]
    # it may have said OK and not yet become what its image says
    wait_until(lambda: Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"sleep"))
    archive = daemon.root.parent / Path(wanted["images"][0]["url"]).name
    with tarfile.open(archive) as tar:
        for member in tar.getmembers():
            file = tar.extractfile(member)
            assert file
            assert Path(current["path"], member.name).read_bytes() == file.read()
    deadline = time.monotonic() + 20
    store = daemon.root / "state" / "images"
    while left := [*(store / ".staging").iterdir(), *(store / ".trash").iterdir()]:
        assert time.monotonic() < deadline, left
        time.sleep(0.02)


@pytest.mark.parametrize(("point", "script", "count"), CHOSEN)
def test_killed_there_it_runs_the_old_or_the_new_version_whole(
    point: str, script: str, count: int, make_daemon: Callable[..., Daemon], tmp_path: Path
) -> None:
    server = FileServer(tmp_path)
    with server as url:
        daemon = make_daemon()
        first = wanted("1", GOOD, tmp_path, url)
        daemon.run(first)
        daemon.crash()
        daemon.env["MAESTRO_FAULT_POINT"] = f"{point}*{count}"
        daemon.start()
        daemon.wait_state("app", "RUNNING")
        second = wanted("2", script, tmp_path, url)
        server.sent = 0
        hit = dies_of_it(daemon, second)
        del daemon.env["MAESTRO_FAULT_POINT"]
        assert daemon.process
        if daemon.process.poll() is None:
            daemon.crash()
        daemon.start()
        assert hit, f"{point} was not reached"
        if script == SILENT:
            daemon.wait("app", lambda row: row["state"] == "RUNNING" and "rolled back" in row["cause"])
            assert daemon.plan(second) == []
            whole(daemon, "1", first)
        else:
            row = daemon.wait_state("app", "RUNNING")
            whole(daemon, row["image_version"], first if row["image_version"] == "1" else second)
            task = daemon.apply(second)
            assert task["status"] == "complete", task
            whole(daemon, "2", second)
        resumed = 2 if point.startswith("images.fetch.") else 1  # what was on its way is sent again
        assert server.sent <= resumed * second["images"][0]["size"]
