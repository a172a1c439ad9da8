# SPDX-License-Identifier: Apache-2.0
"""A damaged state database costs neither the document nor the jobs, and everybody is told."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest
from support.daemon import Daemon
from support.documents import WAIT, document, job


def flip_bytes(path: Path) -> None:
    data = bytearray(path.read_bytes())
    chance = random.Random(5)
    for _ in range(200):
        data[chance.randrange(len(data))] ^= 0xFF
    path.write_bytes(data)


DAMAGES: dict[str, Callable[[Path], object]] = {
    "flipped bytes": flip_bytes,
    "cut in half": lambda path: os.truncate(path, path.stat().st_size // 2),
    "zero length": lambda path: os.truncate(path, 0),
    "gone": lambda path: path.unlink(),
}


@pytest.mark.parametrize("damage", list(DAMAGES))
def test_jobs_run_on_and_the_document_comes_back(daemon: Daemon, damage: str) -> None:
    wanted = document(job("one", WAIT), job("two", WAIT, restart=True), date=7)
    daemon.run(wanted)
    pids = {name: daemon.job(name)["pid"] for name in ("one", "two")}
    daemon.crash()
    database = daemon.root / "state" / "maestro.db"
    for tail in ("-wal", "-shm"):
        database.with_name(database.name + tail).unlink()
    DAMAGES[damage](database)
    daemon.start()
    assert {name: daemon.job(name)["pid"] for name in pids} == pids
    assert daemon.client().running_config()["date"] == 7
    assert daemon.plan(wanted) == []
    assert f"{database} is damaged (" in daemon.output()
    assert [e for e in daemon.events() if e["type"] == "state-damaged"]
    shown = daemon.cli("status")
    assert "is damaged" in shown.stderr
    assert "one" in shown.stdout
    doctor = daemon.cli("doctor")
    assert "maestro.db.damaged-1" in doctor.stdout
    assert daemon.stop() == 0
    daemon.start()
    assert daemon.wait_state("two", "RUNNING")
    assert "is damaged" not in daemon.cli("status").stderr


def test_a_state_written_by_a_newer_version_is_refused_by_name_and_jobs_run_on(daemon: Daemon) -> None:
    import sqlite3

    daemon.run(document(job("one", WAIT)))
    pid = daemon.job("one")["pid"]
    daemon.crash()
    database = daemon.root / "state" / "maestro.db"
    db = sqlite3.connect(database)
    known = db.execute("PRAGMA user_version").fetchone()[0]
    db.execute("PRAGMA user_version=99")
    db.close()
    with pytest.raises(AssertionError, match=r"it was written by a newer maestro \(schema 99"):
        daemon.start()
    os.kill(pid, 0)
    db = sqlite3.connect(database)
    db.execute(f"PRAGMA user_version={known}")
    db.close()
    daemon.start()
    assert daemon.job("one")["pid"] == pid
