# SPDX-License-Identifier: Apache-2.0
"""The daemon is killed at random moments while its jobs start, die and change: nobody but it is hurt.

MAESTRO_KILLS says how often (default 10), MAESTRO_KILL_JOBS with how many jobs (default 15; the full
count is 1000 with 50). Prints a row: fault, times injected, jobs lost, bytes lost.
"""

from __future__ import annotations

import os
import random
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from support.daemon import Daemon
from support.documents import Document, document, job, python
from support.processes import running_with

from maestro_py.errors import MaestroError

KILLS = int(os.environ.get("MAESTRO_KILLS", "10"))
JOBS = int(os.environ.get("MAESTRO_KILL_JOBS", "15"))

LINES = """
import sys, time
n = 0
while True:
    print("line", n, flush=True)
    n += 1
    time.sleep(0.02)
"""


def wanted(mark: str, version: int) -> Document:
    """A third writes numbered lines and never changes, a third dies, a third changes with the document."""
    dying = f": {mark}-$MAESTRO_PROCESS-; sleep 0.$(($$ % 9)); exit $(($$ % 3))"
    jobs = []
    for i in range(JOBS // 3):
        jobs.append(python(f"writes{i}", LINES))
        jobs.append(job(f"dies{i}", dying.replace("$MAESTRO_PROCESS", f"dies{i}"), restart_policy="always",
                        restart_backoff={"initial": "50ms", "max": "300ms"}))  # fmt: skip
        jobs.append(job(f"changes{i}", f": {mark}-changes{i}- {version}; sleep 1000; :", restart=True))
    return document(*jobs, date=version)


@contextmanager
def churn(daemon: Daemon, mark: str) -> Iterator[None]:
    """Have something done all the time; whoever asks a daemon that is just being killed is refused."""
    over = threading.Event()
    chance = random.Random(1)

    def work() -> None:
        version = 1
        client = daemon.client()
        while not over.is_set():
            try:
                if chance.random() < 0.3:
                    version += 1
                    client.apply(wanted(mark, version), force=True)
                else:
                    name = f"changes{chance.randrange(JOBS // 3)}"
                    client.action(name, chance.choice(["restart", "restart", "stop", "start"]))
            except MaestroError:
                pass
            time.sleep(0.05)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def numbers(daemon: Daemon, name: str) -> list[int]:
    text = b"".join(
        path.read_bytes()
        for path in sorted((daemon.root / "log").glob(f"{name}.log*"), key=lambda p: -_generation(p))
    )
    return [int(line.split()[1]) for line in text.decode().splitlines() if line.startswith("line ")]


def _generation(path: Path) -> int:
    return int(path.suffix[1:]) if path.suffix != ".log" else 0


def doubled(mark: str) -> list[str]:
    """Return the jobs of which more than one main process runs."""
    seen: dict[str, dict[int, int]] = {}
    for pid in running_with(mark):
        try:
            line = Path(f"/proc/{pid}/cmdline").read_bytes().decode()
            parent = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
        name = line.partition(f"{mark}-")[2].partition("-")[0]
        if name:  # else it ended just now
            seen.setdefault(name, {})[pid] = parent
    # a shell's child looks like the shell until it has become another program
    main = {name: [pid for pid, parent in pids.items() if parent not in pids] for name, pids in seen.items()}
    return [f"{name}: {pids}" for name, pids in main.items() if len(pids) > 1]


@pytest.mark.timeout(120 + KILLS * 5)
def test_random_kills_lose_no_job_and_no_line(make_daemon: Callable[..., Daemon], tmp_path: Path) -> None:
    daemon = make_daemon("log_max_size: 16k\nlog_max_files: 1000\n")
    mark = str(tmp_path / "mark")
    strangers = [subprocess.Popen(["/bin/sleep", "10000"]) for _ in range(10)]
    chance = random.Random(KILLS)
    try:
        daemon.client().apply(wanted(mark, 1))
        steady = [f"writes{i}" for i in range(JOBS // 3)]
        pids = {name: daemon.wait_log(name, "line 0\n") and daemon.job(name)["pid"] for name in steady}
        with churn(daemon, mark):
            for _ in range(KILLS):
                time.sleep(chance.random() * 0.3)
                daemon.crash()
                assert doubled(mark) == []
                daemon.start()
                rows: dict[str, Any] = {row["job"]: row for row in daemon.client().status()["jobs"]}
                for name, pid in pids.items():
                    row = rows[name]
                    assert (row["state"], row["pid"], row["restarts"]) == ("RUNNING", pid, 0), daemon.output()
                assert doubled(mark) == []
        for i in range(JOBS // 3):
            daemon.do(f"changes{i}", "start")
            daemon.wait_state(f"changes{i}", "RUNNING")
        assert daemon.stop() == 0
        lost = 0
        for name in steady:
            found = numbers(daemon, name)
            lost += sum(len(f"line {n}\n") for n in set(range(found[-1])) - set(found))
            assert found == list(range(len(found))), name
        assert running_with(mark) == []
        assert all(stranger.poll() is None for stranger in strangers)
        print(f"\n| kill -9 of the daemon under churn, {JOBS} jobs | {KILLS} | 0 | {lost} |")
    finally:
        for stranger in strangers:
            stranger.kill()
            stranger.wait()
