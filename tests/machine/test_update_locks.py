# SPDX-License-Identifier: Apache-2.0
"""Update locks: what would take a job down waits, unless it is forced; and that is written down."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.daemon import Daemon
from support.documents import Document, document, image, job, python

from maestro_py.errors import NotFound

SHOW = "cat {{IMAGE}}/word; exec sleep 1000"


def wanted(number: str, where: Path, *more: Document) -> Document:
    return document(job("app", SHOW), *more, images=[image("app", number, where, {"word": number})])


def test_locked_job_is_updated_once_the_lock_is_given_back(daemon: Daemon, tmp_path: Path) -> None:
    daemon.run(wanted("1", tmp_path))
    pid = daemon.job("app")["pid"]
    assert daemon.cli("lock", "app", "--reason", "a customer pays").returncode == 0
    task = daemon.apply(wanted("2", tmp_path, job("other")))
    assert task["status"] == "failed"
    assert "app: an update lock is held by" in task["error"]["message"]
    assert "(a customer pays); the version before stays" in task["error"]["message"]
    row = daemon.job("app")
    assert (row["pid"], row["image_version"]) == (pid, "1")
    assert daemon.job("other")["state"] == "RUNNING", "the rest goes on"
    assert any("update lock" in line for line in daemon.client().why("app")["lines"])
    assert daemon.cli("unlock", "app").stdout == "app may be updated again\n"
    daemon.wait("app", lambda row: row["image_version"] == "2" and row["state"] == "RUNNING")
    with pytest.raises(NotFound, match="no update lock of app"):
        daemon.client().unlock("app")


def test_force_overrides_a_lock_and_an_event_says_so(daemon: Daemon, tmp_path: Path) -> None:
    daemon.run(wanted("1", tmp_path))
    daemon.client().lock("app", "busy")
    since = daemon.last_event()
    daemon.run(wanted("2", tmp_path), force=True)
    assert daemon.job("app")["image_version"] == "2"
    (event,) = [e for e in daemon.events("app", since) if e["type"] == "lock-overridden"]
    assert "(busy), was overridden by force" in event["message"]


def test_lock_lasts_over_a_restart_and_stops_no_boot(
    make_daemon: Callable[..., Daemon], tmp_path: Path
) -> None:
    daemon = make_daemon()
    daemon.run(wanted("1", tmp_path))
    daemon.client().lock("app")
    daemon.stop()
    daemon.start()
    daemon.wait_state("app", "RUNNING")
    assert daemon.apply(wanted("2", tmp_path))["status"] == "failed"
    assert daemon.job("app")["image_version"] == "1"


def test_lock_keeps_nobody_from_stopping_disabling_or_removing_the_job(
    daemon: Daemon, tmp_path: Path
) -> None:
    daemon.run(wanted("1", tmp_path))
    daemon.client().lock("app")
    daemon.do("app", "restart")
    daemon.do("app", "disable")
    assert daemon.job("app")["state"] == "STOPPED"
    daemon.run(document(job("other")))


def test_fail_fast_changes_nothing_while_a_job_is_locked(daemon: Daemon, tmp_path: Path) -> None:
    daemon.run(wanted("1", tmp_path))
    daemon.client().lock("app")
    task = daemon.apply({**wanted("2", tmp_path, job("other")), "flags": ["failFast"]})
    assert task["status"] == "failed"
    assert "update lock" in task["error"]["message"]
    assert [row["job"] for row in daemon.client().status()["jobs"]] == ["app"]


HOLDS = """
import fcntl, os, time
lock = open(os.environ["MAESTRO_RUN_DIR"] + "/update.lock", "w")
fcntl.flock(lock, fcntl.LOCK_EX)
print("!!OK!!", flush=True)
while not os.path.exists(GO): time.sleep(0.02)
lock.close()
print("open", flush=True)
time.sleep(1000)
"""


@pytest.mark.root
def test_job_holds_a_lock_by_the_file_in_its_run_directory(
    make_public_daemon: Callable[..., Daemon], public_path: Path
) -> None:
    daemon = make_public_daemon()
    script = HOLDS.replace("GO", repr(str(public_path / "go")))

    def wanted(**keys: Any) -> Document:
        return document(python("app", script, user="nobody", wait_for_ok=True, **keys))

    daemon.run(wanted())
    pid = daemon.job("app")["pid"]
    task = daemon.apply(wanted(env=["NEW=1"]))
    assert task["status"] == "failed"
    assert "an update lock is held by itself, by its file" in task["error"]["message"]
    assert daemon.job("app")["pid"] == pid
    (public_path / "go").touch()
    daemon.wait_log("app", "open")
    daemon.run(wanted(env=["NEW=1"]))
    assert daemon.job("app")["pid"] != pid


@pytest.mark.root
def test_job_locks_itself_through_the_api_and_nobody_elses_job(
    make_public_daemon: Callable[..., Daemon], public_path: Path
) -> None:
    daemon = make_public_daemon()
    ask = """
import socket, time
for name in ("app", "other"):
    s = socket.socket(socket.AF_UNIX); s.connect(SOCKET)
    s.sendall(f"PUT /v1/jobs/{name}/lock HTTP/1.1\\r\\nHost: x\\r\\nContent-Length: 0\\r\\n\\r\\n".encode())
    print(name, s.recv(4096).split()[1].decode(), flush=True)
time.sleep(1000)
"""
    script = ask.replace("SOCKET", repr(str(daemon.socket)))
    daemon.run(document(python("app", script, user="nobody"), job("other")))
    said = daemon.wait_log("app", "other ")
    assert "app 200" in said
    assert "other 403" in said
    task = daemon.apply(document(python("app", script, user="nobody", env=["NEW=1"]), job("other")))
    assert "an update lock is held by the job itself" in task["error"]["message"]


def test_lock_of_nobody_is_refused(daemon: Daemon) -> None:
    refused = daemon.cli("lock", "nobody")
    assert refused.returncode == 1
    assert "no job nobody" in refused.stderr
