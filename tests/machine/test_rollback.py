# SPDX-License-Identifier: Apache-2.0
"""A new version that does not prove itself: the one before comes back by itself, and everything says so."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.daemon import Daemon
from support.documents import Document, document, image, job
from support.httpserver import FileServer

GOOD = "echo '!!OK!!'; exec sleep 1000"
SILENT = "exec sleep 1000"
DIES = "exit 3"
OK_THEN_DIES = "echo '!!OK!!'; sleep 0.05; exit 4"
DEAF = "trap '' TERM; while :; do sleep 1; done"

RUN = '. "{{IMAGE}}/run"'


def app(name: str = "app", **keys: Any) -> Document:
    """Return a job that runs the script in its image."""
    quick = {"restart": True, "restart_pause": 20, "timeout_for_ok": 20_000, "wait_for_ok": True}
    return job(name, RUN, **{**quick, **keys})


def version(name: str, number: str, where: Path, script: str) -> Document:
    return image(name, number, where, {"run": script + "\n"})


def first_and_second(
    daemon: Daemon, where: Path, script: str, **keys: Any
) -> tuple[Document, dict[str, Any], dict[str, Any]]:
    """Run a good version 1, apply a version 2 with this script; return document, task and the old row."""
    daemon.run(document(app(**keys), images=[version("app", "1", where, GOOD)]))
    row = daemon.job("app")
    if script in (SILENT, DEAF):
        keys = {"timeout_for_ok": 1000, **keys}
    second = document(app(**keys), images=[version("app", "2", where, script)])
    return second, daemon.apply(second), row


@pytest.mark.parametrize(
    ("script", "why", "keys"),
    [
        (SILENT, "did not say OK within 1s", {}),
        (DEAF, "did not say OK within 1s", {}),
        (SILENT, "was not RUNNING within 500ms", {"timeout_for_ok": 60_000, "upgrade_timeout": 0.5}),
        (DEAF, "was not RUNNING within 500ms", {"timeout_for_ok": 60_000, "upgrade_timeout": 0.5}),
        (DIES, "exit code 3", {}),
        (DIES, "exit code 3", {"restart": False}),
        ("exec /no/such/program", "exit code 127", {"restart": False}),
    ],
)
def test_version_that_never_becomes_ready_is_rolled_back(
    script: str, why: str, keys: dict[str, Any], daemon: Daemon, tmp_path: Path
) -> None:
    since = daemon.last_event()
    second, task, before = first_and_second(daemon, tmp_path, script, **keys)
    row = daemon.job("app")
    assert (row["state"], row["image_version"]) == ("RUNNING", "1")
    assert row["pid"] != before["pid"]
    said = "version 2 of app was rolled back: "
    assert task["status"] == "failed"
    for text in (task["error"]["message"], row["cause"], " ".join(daemon.client().why("app")["lines"])):
        assert said in text
        assert why in text
    (event,) = [e for e in daemon.events("app", since) if e["type"] == "rolled-back"]
    assert said in event["message"]
    assert [t["subject"] for t in daemon.client().tasks()["tasks"] if t["kind"] == "roll-back"] == ["app"]
    assert daemon.plan(second) == [], "the same document does not try it again"
    uses = {r["version"]: (r["current"], r["refused"]) for r in daemon.client().images()["images"]}
    assert uses == {"1": (True, False), "2": (False, True)}


def outage(daemon: Daemon, since: int) -> float:
    """Return the seconds from the first stop to the last time it was RUNNING again."""
    events = daemon.events("app", since)
    stopped = [e["time"] for e in events if e["type"] == "process-stopping"]
    running = [e["time"] for e in events if e["type"] == "process-running"]
    return float(running[-1] - stopped[0])


def rolled_back(daemon: Daemon) -> None:
    daemon.wait("app", lambda row: "rolled back" in row["cause"] and row["state"] == "RUNNING")


BAD = {"never says OK": SILENT, "nor ends when told to": DEAF, "says OK and dies": OK_THEN_DIES}


@pytest.mark.parametrize("what", BAD)
def test_the_outage_is_the_deadline_and_little_more(what: str, daemon: Daemon, tmp_path: Path) -> None:
    daemon.run(document(app(), images=[version("app", "1", tmp_path, GOOD)]))
    since = daemon.last_event()
    keys = {"timeout_for_ok": 1000, "probation_deaths": 3}
    daemon.apply(document(app(**keys), images=[version("app", "2", tmp_path, BAD[what])]))
    rolled_back(daemon)
    taken = outage(daemon, since)
    print(f"a new version that {what}: {taken:.2f} s without service, deadline 1 s")
    assert taken < 1 + 2


def test_version_that_says_ok_and_then_keeps_dying_is_rolled_back(daemon: Daemon, tmp_path: Path) -> None:
    second, _, _ = first_and_second(daemon, tmp_path, OK_THEN_DIES, probation_deaths=3)
    rolled_back(daemon)
    row = daemon.job("app")
    assert row["image_version"] == "1"
    assert "exit code 4, and died 3 times on probation" in row["cause"]
    assert daemon.plan(second) == []


def test_version_that_has_proved_itself_may_die_as_it_likes(daemon: Daemon, tmp_path: Path) -> None:
    script = f"echo '!!OK!!'; until [ -e {tmp_path}/die ]; do sleep 0.05; done; exit 4"
    keys = {"probation": 0.1, "restart_pause": 1}
    first_and_second(daemon, tmp_path, script, **keys)
    deadline = time.monotonic() + 20
    while not [e for e in daemon.events("app") if e["type"] == "upgrade-kept"]:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    (tmp_path / "die").touch()
    daemon.wait("app", lambda row: row["restarts"] > 5)
    assert daemon.job("app")["image_version"] == "2"
    assert not [e for e in daemon.events("app") if e["type"] == "rolled-back"]


def test_changed_document_or_force_tries_again(daemon: Daemon, tmp_path: Path) -> None:
    mend = tmp_path / "mended"
    script = f"[ -e {mend} ] && echo '!!OK!!'; exec sleep 1000"
    second, _, _ = first_and_second(daemon, tmp_path, script, timeout_for_ok=3000)
    pid = daemon.job("app")["pid"]
    daemon.run({**second, "jobs": [*second["jobs"], job("other")]})
    assert daemon.job("app")["pid"] == pid, "what does not concern it changes nothing"
    mend.touch()
    daemon.run(second)
    assert daemon.job("app")["pid"] == pid
    warned = daemon.cli("apply", "-", input=json.dumps(second))
    assert warned.returncode == 0
    assert "version 2 of app was rolled back" in warned.stderr
    assert "--force tries it again" in warned.stderr
    daemon.run(second, force=True)
    assert daemon.job("app")["image_version"] == "2"
    assert daemon.job("app")["cause"] == ""


def test_changed_definition_is_tried(daemon: Daemon, tmp_path: Path) -> None:
    script = "[ \"$MENDED\" ] && echo '!!OK!!'; exec sleep 1000"
    second, _, _ = first_and_second(daemon, tmp_path, script, timeout_for_ok=1000)
    mended = {**second, "jobs": [app(env=["MENDED=1"])]}
    daemon.run(mended)
    assert daemon.job("app")["image_version"] == "2"


def test_what_was_rolled_back_stays_so_over_a_restart(
    make_daemon: Callable[..., Daemon], tmp_path: Path
) -> None:
    daemon = make_daemon()
    second, _, _ = first_and_second(daemon, tmp_path, SILENT)
    daemon.stop()
    daemon.start()
    row = daemon.wait_state("app", "RUNNING")
    assert row["image_version"] == "1"
    assert "version 2 of app was rolled back: did not say OK" in row["cause"]
    assert daemon.plan(second) == []


def test_probation_goes_on_in_the_next_daemon(make_daemon: Callable[..., Daemon], tmp_path: Path) -> None:
    daemon = make_daemon()
    script = f"echo '!!OK!!'; until [ -e {tmp_path}/die ]; do sleep 0.05; done; exit 4"
    first_and_second(daemon, tmp_path, script)
    assert daemon.job("app")["image_version"] == "2"
    daemon.crash()
    daemon.start()
    daemon.wait_state("app", "RUNNING")
    (tmp_path / "die").touch()
    rolled_back(daemon)
    assert daemon.job("app")["image_version"] == "1"


def test_first_version_has_nothing_to_go_back_to(daemon: Daemon, tmp_path: Path) -> None:
    bad = document(app(restart_limit=2), images=[version("app", "1", tmp_path, DIES)])
    assert daemon.apply(bad)["status"] == "failed"
    row = daemon.job("app")
    assert (row["state"], row["image_version"]) == ("FAILED", "1")
    assert "rolled back" not in row["cause"]


def test_it_goes_back_to_the_last_version_that_proved_itself(daemon: Daemon, tmp_path: Path) -> None:
    daemon.run(document(app(), images=[version("app", "1", tmp_path, GOOD)]))
    daemon.run(document(app(), images=[version("app", "2", tmp_path, GOOD)]))  # on probation still
    assert daemon.apply(document(app(), images=[version("app", "3", tmp_path, DIES)]))["status"] == "failed"
    assert daemon.job("app")["image_version"] == "1"


def test_its_config_and_command_come_back_with_the_version(daemon: Daemon, tmp_path: Path) -> None:
    show = 'cat "$MAESTRO_CONFIG_DIR"/*; ' + RUN

    def wanted(number: str, script: str) -> Document:
        config = {"job": "app", "name": "default", "data": f"config {number}\n"}
        return document(
            {**app(env=[f"NUMBER={number}"], timeout_for_ok=3000), "exec_args": ["-c", show]},
            images=[version("app", number, tmp_path, f"echo number $NUMBER; {script}")],
            configs=[config],
        )

    daemon.run(wanted("1", GOOD))
    assert daemon.apply(wanted("2", SILENT))["status"] == "failed"
    text = daemon.wait_log("app", "number 1", count=2)
    assert text.count("config 1") == 2
    assert text.count("config 2") == 1


def test_images_of_a_composite_go_back_together(daemon: Daemon, tmp_path: Path) -> None:
    template = {
        "name": "pair",
        "exec_cmd": "/bin/sh",
        "exec_pre_args": ["-c", f"cat {tmp_path}/device/state/images/*/current/run | /bin/sh"],
        "uses_ok_string": True,
        "timeout_for_ok": 3000,
        "restart": True,
    }
    jobs = [
        {"job": name, "composite_id": "both", "container_template": "pair", "stop_timeout": 1}
        for name in ("a", "b")
    ]

    def wanted(number: str, last: str) -> Document:
        images = [version("a", number, tmp_path, f"echo a{number}"), version("b", number, tmp_path, last)]
        return document(*jobs, templates=[template], images=images)

    daemon.run(wanted("1", GOOD))
    assert daemon.apply(wanted("2", SILENT))["status"] == "failed"
    rows = {row["job"]: row["version"] for row in daemon.client().images()["images"] if row["current"]}
    assert rows == {"a": "1", "b": "1"}
    assert daemon.job("a")["state"] == daemon.job("b")["state"] == "RUNNING", daemon.output()


def test_images_that_cannot_all_be_switched_are_not_switched_at_all(daemon: Daemon, tmp_path: Path) -> None:
    template = {"name": "pair", "exec_cmd": "/bin/sh", "exec_pre_args": ["-c", "exec sleep 1000"]}
    jobs = [{"job": name, "composite_id": "both", "container_template": "pair"} for name in ("a", "b")]

    def wanted(number: str) -> Document:
        images = [version(name, number, tmp_path, "x") for name in ("a", "b")]
        return document(*jobs, templates=[template], images=images)

    daemon.run(wanted("1"))
    store = tmp_path / "device" / "state" / "images" / "b"
    os.unlink(store / "current")
    (store / "current").mkdir()  # no link can be put over a directory
    task = daemon.apply(wanted("2"))
    assert task["status"] == "failed"
    rows = {row["job"]: row["version"] for row in daemon.client().images()["images"] if row["current"]}
    assert rows["a"] == "1"


def test_roll_back_waits_for_no_download_of_another(daemon: Daemon, tmp_path: Path) -> None:
    script = f"echo '!!OK!!'; until [ -e {tmp_path}/die ]; do sleep 0.05; done; exit 4"
    second, _, _ = first_and_second(daemon, tmp_path, script)
    with FileServer(tmp_path) as url:
        never = {**version("other", "1", tmp_path, GOOD), "url": url + "/hang"}
        more = {**second, "jobs": [*second["jobs"], job("other")], "images": [*second["images"], never]}
        task_id = daemon.client().apply(more)["task_id"]
        (tmp_path / "die").touch()
        rolled_back(daemon)
        task = daemon.client().task(task_id)
        assert task["ended"] is None, task
    daemon.client().task(task_id, wait=20)
    assert daemon.job("app")["image_version"] == "1", "what goes on then knows of it"


def test_job_stopped_by_hand_on_probation_is_not_judged(daemon: Daemon, tmp_path: Path) -> None:
    first_and_second(daemon, tmp_path, GOOD)
    daemon.do("app", "stop")
    assert daemon.job("app")["image_version"] == "2"
    daemon.do("app", "start")
    row = daemon.job("app")
    assert (row["state"], row["image_version"], row["cause"]) == ("RUNNING", "2", "")


def config_file(where: Path, number: str) -> Document:
    """Return a config whose one file has the same place in every version."""
    text = f"file of {number}\n"
    path = where / f"file-{number}"
    path.write_text(text)
    file = {
        "url": path.as_uri(),
        "dest_relative_path": "etc/app.conf",
        "size": len(text),
        "checksum": {"type": "sha256sum", "value": hashlib.sha256(text.encode()).hexdigest()},
    }
    return {"job": "app", "name": "default", "files": [file]}


def test_downloaded_config_files_come_back_without_a_download(daemon: Daemon, tmp_path: Path) -> None:
    show = 'cat "$MAESTRO_CONFIG_DIR"/etc/app.conf; ' + RUN

    def wanted(number: str, script: str) -> Document:
        return document(
            {**app(timeout_for_ok=3000), "exec_args": ["-c", show]},
            images=[version("app", number, tmp_path, script)],
            configs=[config_file(tmp_path, number)],
        )

    daemon.run(wanted("1", GOOD))
    second = wanted("2", SILENT)
    (tmp_path / "file-1").unlink()
    assert daemon.apply(second)["status"] == "failed"
    text = daemon.wait_log("app", "file of 1", count=2)
    assert text.index("file of 2") < text.rindex("file of 1")
    assert daemon.job("app")["state"] == "RUNNING"
    left = [path.name for path in (daemon.root / "state/configs").iterdir() if path.name.endswith(".before")]
    assert left == []
