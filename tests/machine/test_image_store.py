# SPDX-License-Identifier: Apache-2.0
"""Images in the store as people deal with them: verified, repaired, rolled back, pinned, removed, shared."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from support.daemon import Daemon
from support.documents import Document, document, image, job
from support.httpserver import FileServer

from maestro_py.errors import Conflict, MaestroError, NotFound

SHOW = "cat {{IMAGE}}/word; exec sleep 1000"


def app(**keys: Any) -> Document:
    return job("app", SHOW, probation=0, **keys)


def version(number: str, where: Path) -> Document:
    """Return an image of this version, the same one each time."""
    made = where / f"app-{number}.json"
    if not made.exists():
        files = {"word": f"word {number}\n", "d/other": "x" * 1000}
        made.write_text(json.dumps(image("app", number, where, files)))
    found: Document = json.loads(made.read_text())
    return found


def rows(daemon: Daemon) -> dict[str, dict[str, Any]]:
    return {f"{row['job']} {row['version']}": row for row in daemon.client().images()["images"]}


def run_versions(daemon: Daemon, where: Path, *numbers: str) -> None:
    for number in numbers:
        daemon.run(document(app(), images=[version(number, where)]))


def ended(daemon: Daemon, answer: dict[str, Any]) -> dict[str, Any]:
    task: dict[str, Any] = daemon.client().task(answer["task_id"], wait=30)
    return task


def test_damaged_image_is_found_and_comes_anew(daemon: Daemon, tmp_path: Path) -> None:
    run_versions(daemon, tmp_path, "1")
    pid = daemon.job("app")["pid"]
    clean = daemon.cli("image", "verify")
    assert clean.returncode == 0
    assert clean.stdout.endswith("1 image looked at, 0 damaged\n")
    tree = Path(rows(daemon)["app 1"]["path"])
    (tree / "d/other").write_text("y" * 1000)
    (tree / "word").unlink()
    found = daemon.cli("image", "verify", "app")
    assert found.returncode == 1
    assert "app 1 is damaged: " in found.stderr
    assert "d/other: its content changed" in found.stderr
    assert "word: No such file" in found.stderr
    assert "word" in rows(daemon)["app 1"]["damaged"]
    assert "damaged" in daemon.cli("image", "list").stdout
    assert daemon.job("app")["pid"] == pid, "looking changes nothing"
    repaired = daemon.cli("image", "verify", "app", "--repair")
    assert repaired.returncode == 0, repaired.stderr
    assert "1 image looked at, 1 damaged" in repaired.stdout
    assert (tree / "word").read_text() == "word 1\n"
    assert rows(daemon)["app 1"]["damaged"] == ""
    daemon.wait_log("app", "word 1", count=2)
    assert daemon.cli("image", "verify").returncode == 0
    store = daemon.root / "state/images"
    assert os.listdir(store / ".staging") == []


def test_apply_fetches_what_is_known_to_be_damaged(daemon: Daemon, tmp_path: Path) -> None:
    run_versions(daemon, tmp_path, "1")
    (Path(rows(daemon)["app 1"]["path"]) / "d/other").write_text("")
    assert ended(daemon, daemon.client().image_verify())["status"] == "failed"
    same = document(app(), images=[version("1", tmp_path)])
    assert [action for action, _ in daemon.plan(same)] == ["fetch-image", "stop", "switch-image", "start"]
    daemon.run(same)
    assert daemon.plan(same) == []
    assert ended(daemon, daemon.client().image_verify("app"))["status"] == "complete"


def test_damaged_image_that_cannot_be_fetched_runs_on(daemon: Daemon, tmp_path: Path) -> None:
    run_versions(daemon, tmp_path, "1")
    pid = daemon.job("app")["pid"]
    (Path(rows(daemon)["app 1"]["path"]) / "d/other").write_text("")
    (tmp_path / "app-1.tar.gz").unlink()
    task = ended(daemon, daemon.client().image_verify(repair=True))
    assert task["status"] == "failed"
    assert "app-1.tar.gz" in task["error"]["message"]
    assert (daemon.job("app")["pid"], daemon.job("app")["state"]) == (pid, "RUNNING")


def test_damaged_image_that_nobody_uses_is_removed(daemon: Daemon, tmp_path: Path) -> None:
    run_versions(daemon, tmp_path, "1", "2", "3")
    (Path(rows(daemon)["app 1"]["path"]) / "word").write_text("")
    ended(daemon, daemon.client().image_verify(repair=True))
    assert set(rows(daemon)) == {"app 2", "app 3"}


def test_version_before_comes_back_by_hand_and_stays(daemon: Daemon, tmp_path: Path) -> None:
    assert daemon.cli("image", "rollback", "nobody").returncode == 1
    run_versions(daemon, tmp_path, "1", "2")
    done = daemon.cli("image", "rollback", "app")
    assert (done.returncode, done.stdout) == (0, "app has the version before again\n")
    row = daemon.job("app")
    assert (row["state"], row["image_version"]) == ("RUNNING", "1")
    assert "version 2 of app was rolled back: " in row["cause"]
    daemon.wait_log("app", "word 1", count=2)
    second = document(app(), images=[version("2", tmp_path)])
    assert daemon.plan(second) == []
    again = daemon.cli("image", "rollback", "app")
    assert again.returncode == 1
    assert "there is no version before 1" in again.stderr
    daemon.run(second, force=True)
    assert daemon.job("app")["image_version"] == "2"


def test_pinned_current_and_previous_are_kept_and_the_rest_goes(daemon: Daemon, tmp_path: Path) -> None:
    run_versions(daemon, tmp_path, "1", "2", "3", "4")
    assert "app 1 is pinned" in daemon.cli("image", "pin", "app", "1").stdout
    assert rows(daemon)["app 1"]["pinned"]
    gone = daemon.cli("image", "gc")
    assert (gone.returncode, gone.stdout) == (0, "removed app 2\n")
    assert set(rows(daemon)) == {"app 1", "app 3", "app 4"}
    assert "nothing to remove" in daemon.cli("image", "gc").stdout
    with pytest.raises(Conflict, match="it is pinned"):
        daemon.client().image_remove("app", "1")
    with pytest.raises(Conflict, match="it is in use"):
        daemon.client().image_remove("app", "4")
    with pytest.raises(NotFound):
        daemon.client().image_remove("app", "7")
    daemon.client().image_pin("app", "1", on=False)
    removed = json.loads(daemon.cli("--json", "image", "remove", "app").stdout)["removed"]
    assert {row["version"] for row in removed} == {"1", "3"}
    assert daemon.job("app")["state"] == "RUNNING"


def test_removed_job_leaves_its_images_to_the_collection(daemon: Daemon, tmp_path: Path) -> None:
    run_versions(daemon, tmp_path, "1")
    daemon.run(document(job("other")))
    assert set(rows(daemon)) == {"app 1"}
    assert daemon.client().image_gc()["removed"] == ["app 1"]
    assert rows(daemon) == {}


def test_identical_content_is_fetched_and_stored_once(daemon: Daemon, tmp_path: Path) -> None:
    server = FileServer(tmp_path)
    with server as url:
        first = {**version("1", tmp_path), "url": f"{url}/app-1.tar.gz"}
        twin = {**first, "job": "twin", "version": "one"}
        daemon.run(document(app(), images=[first]))
        daemon.run(document(app(), job("twin", SHOW), images=[first, twin]))
        assert server.sent == first["size"]
    found = rows(daemon)
    paths = [Path(found[name]["path"]) for name in ("app 1", "twin one")]
    assert paths[0] != paths[1]
    for name in ("word", "d/other"):
        assert os.path.samefile(paths[0] / name, paths[1] / name)
    daemon.wait_log("twin", "word 1")
    daemon.run(document(job("twin", SHOW), images=[twin], flags=["removeOldImages"]))
    assert set(rows(daemon)) == {"twin one"}
    assert (paths[1] / "word").read_text() == "word 1\n"
    assert ended(daemon, daemon.client().image_verify())["status"] == "complete"


def test_damaged_image_is_no_source_for_its_own_repair(daemon: Daemon, tmp_path: Path) -> None:
    first = version("1", tmp_path)
    twin = {**first, "job": "twin"}
    wanted = document(app(), job("twin", SHOW), images=[first, twin])
    daemon.run(wanted)
    (Path(rows(daemon)["app 1"]["path"]) / "word").write_text("bad\n")
    daemon.run(wanted)
    task = ended(daemon, daemon.client().image_verify(repair=True))
    assert task["status"] == "complete", task
    for row in rows(daemon).values():
        assert (Path(row["path"]) / "word").read_text() == "word 1\n"


def test_old_versions_make_room_for_a_new_one(daemon: Daemon, tmp_path: Path) -> None:
    run_versions(daemon, tmp_path, "1", "2", "3")
    huge = {**version("4", tmp_path), "size": 1 << 50}
    task = daemon.apply(document(app(), images=[huge]))
    assert task["status"] == "failed"
    assert "removed app 1 to make room" in task["messages"]
    assert set(rows(daemon)) == {"app 2", "app 3"}, "and what is needed stays"


@pytest.mark.parametrize(
    "words", [("rollback",), ("verify", "nobody"), ("pin", "nobody"), ("remove", "nobody", "1")]
)
def test_wrong_names_are_said(words: tuple[str, ...], daemon: Daemon) -> None:
    done = daemon.cli("image", *words)
    assert done.returncode in (1, 2)
    assert done.stderr.startswith("maestro: cannot") or "no image of nobody" in done.stderr
    assert "Traceback" not in done.stderr
    with pytest.raises(MaestroError):
        daemon.client().image_rollback("nobody")
