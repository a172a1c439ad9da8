# SPDX-License-Identifier: Apache-2.0
"""`maestro upgrade`: the daemon is replaced in place, and nobody but its followers' sockets notices."""

from __future__ import annotations

import os
import queue
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import IO

import pytest
from support.daemon import PROJECT, Daemon
from support.documents import WAIT, document, image, job
from support.httpserver import FileServer

from maestro_py.client import Client
from maestro_py.errors import MaestroError

LINES = "n=0; while :; do echo line $n; n=$((n+1)); sleep 0.005; done"


def upgrade(daemon: Daemon) -> dict[str, object]:
    """Have the daemon replaced, and return what it said once the new one serves."""
    answer: dict[str, object] = daemon.client().upgrade()
    deadline = time.monotonic() + 30
    while True:
        try:
            if daemon.client().version()["generation"] == answer["generation"]:
                return answer
        except MaestroError:
            pass
        assert time.monotonic() < deadline, daemon.output()
        time.sleep(0.01)


def test_jobs_and_pid_stay_and_children_are_still_children(daemon: Daemon) -> None:
    daemon.run(document(job("app", LINES), job("ends", "trap 'exit 7' TERM; while :; do sleep 0.05; done")))
    pids = {name: daemon.job(name)["pid"] for name in ("app", "ends")}
    own = daemon.client().version()["pid"]
    for generation in (1, 2):
        answer = upgrade(daemon)
        assert (answer["pid"], answer["generation"]) == (own, generation)
    assert {name: daemon.job(name)["pid"] for name in pids} == pids
    parent = int(Path(f"/proc/{pids['app']}/stat").read_text().rpartition(")")[2].split()[1])
    assert parent == own
    os.kill(pids["ends"], signal.SIGTERM)
    assert daemon.wait_state("ends", "FAILED")["cause"] == "exit code 7"
    daemon.wait_log("app", "line 100\n")
    log = daemon.log_of("app", 100_000).split()[1::2]
    assert log == [str(n) for n in range(len(log))]
    assert daemon.stop() == 0


def test_a_child_that_dies_while_there_is_no_daemon_to_see_it_still_tells_how(daemon: Daemon) -> None:
    names = [f"j{i}" for i in range(10)]
    daemon.run(document(*(job(name, f"sleep 1.{i}; exit {i + 1}") for i, name in enumerate(names))))
    for _ in range(3):
        upgrade(daemon)
    causes = [daemon.wait_state(name, "FAILED")["cause"] for name in names]
    assert causes == [f"exit code {i + 1}" for i in range(10)]


def test_who_follows_events_misses_none_and_sees_none_twice(daemon: Daemon) -> None:
    daemon.run(document(job("app", "sleep 0.05", restart_policy="always", restart_pause=10)))
    seen: list[int] = []
    enough = threading.Event()

    def follow() -> None:
        with daemon.client().events(follow=True) as events:
            for event in events:
                seen.append(event["id"])
                if enough.is_set():
                    return

    follower = threading.Thread(target=follow)
    follower.start()
    for _ in range(3):
        upgrade(daemon)
    enough.set()
    follower.join(30)
    assert not follower.is_alive()
    assert seen == list(range(seen[0], seen[0] + len(seen)))


def test_who_follows_a_log_misses_no_line_and_sees_none_twice(daemon: Daemon) -> None:
    daemon.run(document(job("app", LINES)))
    command = [sys.executable, "-m", "maestro_py.cli", "--socket", str(daemon.socket), "logs", "-f", "app"]
    lines: queue.Queue[tuple[int, float]] = queue.Queue()
    heard: list[tuple[int, float]] = []

    def listen(pipe: IO[bytes]) -> None:
        for line in pipe:
            lines.put((int(line.split()[1]), time.monotonic()))

    with subprocess.Popen(command, stdout=subprocess.PIPE, env=daemon.env) as follower:
        assert follower.stdout
        listener = threading.Thread(target=listen, args=(follower.stdout,))
        listener.start()
        for _ in range(3):
            heard += [lines.get(timeout=30) for _ in range(20)]
            upgrade(daemon)
            heard += [lines.get(timeout=30) for _ in range(lines.qsize() + 20)]
        follower.kill()
        listener.join()
    assert [number for number, _ in heard] == list(range(len(heard)))
    silence = max(later - sooner for (_, sooner), (_, later) in pairwise(heard))
    print(f"\n{len(heard)} lines, one each 5 ms; the longest silence lasted {silence * 1000:.0f} ms")


def test_connections_made_while_the_daemon_changes_are_not_refused(daemon: Daemon) -> None:
    """The socket listens all the time; whoever comes in between waits a moment."""
    daemon.run(document(job("app")))
    refused: list[str] = []
    done = threading.Event()

    def ask() -> None:
        while not done.is_set():
            try:
                Client(str(daemon.socket)).version()
            except MaestroError as error:
                if "cannot reach" in str(error):
                    refused.append(str(error))

    asking = threading.Thread(target=ask)
    asking.start()
    for _ in range(3):
        upgrade(daemon)
    done.set()
    asking.join(30)
    assert refused == []


def test_unfinished_tasks_go_on_under_their_ids(daemon: Daemon, tmp_path: Path) -> None:
    daemon.run(document(job("slow", "trap '' TERM; sleep 1000", stop_timeout=2), job("app")))
    served = tmp_path / "served"
    served.mkdir()
    spec = image("app", "1", served, {"f": "x"})
    with FileServer(served) as url:
        stop = daemon.client().action("slow", "stop")["task_id"]
        spec["url"] = f"{url}/{Path(spec['url']).name}"
        wanted = document(job("app"), job("slow"), images=[spec])
        ended = daemon.client().task(daemon.client().action("app", "restart")["task_id"], wait=20)
        follower = daemon.client().follow_task(stop)
        upgrade(daemon)
        assert list(follower)[-1]["status"] == "complete"
        assert daemon.client().task(ended["task_id"])["status"] == "complete"
        apply = daemon.client().apply(wanted)["task_id"]
        upgrade(daemon)
        assert daemon.client().task(apply, wait=30)["status"] == "complete", daemon.output()
    assert daemon.job("app")["image_version"] == "1"


@pytest.fixture
def own_package(tmp_path: Path, make_daemon: Callable[..., Daemon]) -> tuple[Daemon, Path]:
    """Return a daemon that runs a copy of the package, and the copy."""
    place = tmp_path / "lib"
    shutil.copytree(
        PROJECT / "maestro_py", place / "maestro_py", ignore=shutil.ignore_patterns("__pycache__")
    )
    shutil.copytree(PROJECT / "templates", place / "templates")
    return make_daemon(env={"PYTHONPATH": str(place)}), place / "maestro_py"


def test_a_new_version_that_cannot_go_on_leaves_the_old_one_at_work(own_package: tuple[Daemon, Path]) -> None:
    daemon, package = own_package
    daemon.run(document(job("app", WAIT)))
    pid = daemon.job("app")["pid"]
    version = package / "__init__.py"
    good = version.read_text()
    store = package / "state" / "store.py"
    text = store.read_text()
    for broken, why in (
        (lambda: version.write_text(good + "\nraise RuntimeError('half an update')\n"), "half an update"),
        (lambda: store.write_text(text.replace("SCHEMAS = (", "SCHEMAS = () and (", 1)), "newer maestro"),
    ):
        broken()
        done = daemon.cli("upgrade")
        assert done.returncode == 1
        assert why in done.stderr
        assert "the daemon goes on as it was" in done.stderr
        version.write_text(good)
        store.write_text(text)
        assert daemon.client().version()["generation"] == 0
        assert daemon.job("app")["pid"] == pid
    version.write_text(good.replace("__version__ = ", "__version__ = '9.9' or "))
    done = daemon.cli("upgrade")
    assert done.returncode == 0, done.stderr
    assert "became 9.9" in done.stdout
    assert daemon.client().version()["version"] == "9.9"
    assert daemon.job("app")["pid"] == pid


def test_limits_of_open_files_that_jobs_are_given_stay_what_they_were(daemon: Daemon) -> None:
    script = f"ulimit -Sn; {WAIT}"
    daemon.run(document(job("before", script)))
    upgrade(daemon)
    daemon.run(document(job("before", script), job("after", script)))
    assert daemon.wait_log("after", "\n") == daemon.wait_log("before", "\n")


def test_the_service_manager_is_told(tmp_path: Path, make_daemon: Callable[..., Daemon]) -> None:
    import socket

    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(20)
        daemon = make_daemon(env={"NOTIFY_SOCKET": str(tmp_path / "notify")})
        upgrade(daemon)
        told = [manager.recv(1000).decode().split("\n")[0] for _ in range(3)]
        assert told == ["READY=1", "RELOADING=1", "READY=1"]
