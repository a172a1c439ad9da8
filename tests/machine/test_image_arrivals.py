# SPDX-License-Identifier: Apache-2.0
"""Images over bad links, from servers that lie: the right image arrives, or the old one goes on running."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import shutil
import signal
import subprocess
import tarfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from support.daemon import Daemon
from support.groups import wait_until
from support.httpserver import FileServer

from maestro_py.daemon import downloads
from maestro_py.daemon.items import Item
from maestro_py.daemon.loop import Loop
from maestro_py.daemon.tasks import Task
from maestro_py.errors import InvalidDocument
from maestro_py.images.staging import SLICE
from maestro_py.spec.daemonconfig import Downloads

QUICK = {"retry_pause": 0.01, "read_timeout": 0.5, "connect_timeout": 5, "deadline": 60, "retries": 3}


def archive(version: str, padding: int = 200_000) -> bytes:
    """Return an image whose program tells its version; the padding does not compress."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w:gz") as tar:
        for name, content in (
            ("run.sh", f"#!/bin/sh\necho version {version}\nexec sleep 100000\n".encode()),
            ("padding", os.urandom(padding)),
        ):
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(content), 0o755
            tar.addfile(info, io.BytesIO(content))
    return data.getvalue()


OLD, NEW, OTHER = archive("1"), archive("2"), archive("3")
TENTH = len(NEW) // 11 + 1


@pytest.fixture
def server(tmp_path: Path) -> Iterator[FileServer]:
    served = tmp_path / "served"
    served.mkdir()
    for name, data in (("old.tgz", OLD), ("new.tgz", NEW), ("new.tgz.new", OTHER)):
        (served / name).write_bytes(data)
    server = FileServer(served).start()
    yield server
    server.stop()


@pytest.fixture
def device(make_daemon: Callable[..., Daemon]) -> Daemon:
    return make_daemon(json.dumps({"downloads": QUICK}))


def sha256(data: bytes) -> dict[str, str]:
    return {"type": "sha256sum", "value": hashlib.sha256(data).hexdigest()}


def with_image(url: str, data: bytes | None, version: str, job: str = "app", **keys: Any) -> dict[str, Any]:
    """Return a document with a job that lives in an image."""
    image: dict[str, Any] = {"job": job, "version": version, "url": url, **keys}
    if data is not None:
        image["checksum"] = sha256(data)
    return {
        "config": "running",
        "jobs": [{"job": job, "exec_cmd": "{{IMAGE}}/run.sh"}],
        "images": [image],
    }


def partial(device: Daemon) -> list[str]:
    place = device.root / "state" / "scratch" / "partial"
    return sorted(path.name for path in place.iterdir()) if place.exists() else []


def staged(device: Daemon) -> list[Path]:
    """Return what is left of unpacking."""
    state = device.root / "state"
    return [
        path
        for place in (state / "scratch" / "spent", state / "images" / ".staging")
        for path in place.glob("*")
    ]


# ---- bad links


def test_a_download_cut_ten_times_arrives_and_costs_little_more_than_once(
    device: Daemon, server: FileServer
) -> None:
    task = device.run(with_image(f"{server.url}/cut/{TENTH}/new.tgz", NEW, "2"))
    assert device.wait_log("app", "version 2")
    assert server.sent == len(NEW)
    assert len([m for m in task["messages"] if "; again in " in m]) == 10
    assert [e["type"] for e in device.events()].count("download-retry") == 10
    assert not partial(device)
    assert not staged(device)


def test_a_large_archive_is_gone_soon_after_it_was_used(device: Daemon, server: FileServer) -> None:
    large = archive("2", 2 * SLICE)
    Path(server.directory, "large.tgz").write_bytes(large)
    device.run(with_image(f"{server.url}/large.tgz", large, "2"))
    assert not partial(device)
    wait_until(lambda: not staged(device))


RIGHT_IN_THE_END = [
    f"cut/{TENTH}/new.tgz",
    "cut-no-range/9999/new.tgz",
    "cut-lying/9999/new.tgz",
    "cut-wrong-part/9999/new.tgz",
    "busy/2/new.tgz",
    "500-then-ok/new.tgz",
    "redirect/5/new.tgz",
    "no-length/new.tgz",
    "slow/60000/new.tgz",
]
OLD_STAYS = {
    "cut-changing/9999/new.tgz": "checksum does not match",
    "old.tgz": "checksum does not match",
    "lie-length/9999/new.tgz": "checksum does not match",
    "lie-length/999999/new.tgz": "of 999999 bytes arrived",
    "truncate/9999/new.tgz": f"9999 of {len(NEW)} bytes arrived",
    "cut/0/new.tgz": f"9999 of {len(NEW)} bytes arrived",
    "hang-after/9999/new.tgz": "nothing came for 500ms after",
    "hang": "the server did not answer within 500ms",
    "busy/100/new.tgz": "the server answered 503",
    "redirect-loop": "redirects in a circle",
    "private/new.tgz": "the server answered 401",
}


def check_old_stays(device: Daemon, url: str, why: str, pid: int) -> None:
    task = device.apply(with_image(url, NEW, "2"))
    assert task["status"] == "failed", (url, task)
    assert why in json.dumps(task), (url, task)
    row = device.job("app")
    assert (row["state"], row["pid"], row["image_version"]) == ("RUNNING", pid, "1"), url
    assert not staged(device), url


def test_a_server_at_fault_leaves_the_old_image_running(
    make_daemon: Callable[..., Daemon], server: FileServer
) -> None:
    device = make_daemon(json.dumps({"downloads": {**QUICK, "retries": 2}}))
    device.run(with_image(f"{server.url}/old.tgz", OLD, "1"))
    pid = device.job("app")["pid"]
    for path, why in OLD_STAYS.items():
        check_old_stays(device, f"{server.url}/{path}", why, pid)


def test_a_server_that_says_a_little_for_ever_is_given_up(device: Daemon, server: FileServer) -> None:
    device.run(with_image(f"{server.url}/old.tgz", OLD, "1"))
    device.stop()
    (device.root / "maestro.yaml").write_text(json.dumps({"downloads": {**QUICK, "deadline": 1}}))
    device.start()
    pid = device.wait_state("app", "RUNNING")["pid"]
    check_old_stays(device, f"{server.url}/slow-head/new.tgz", "it took longer than 1s", pid)


def test_a_server_at_fault_that_recovers_brings_the_right_image(
    make_daemon: Callable[..., Daemon], server: FileServer
) -> None:
    device = make_daemon(json.dumps({"downloads": {**QUICK, "retries": 2}}))
    for number, path in enumerate(RIGHT_IN_THE_END):
        job = f"app{number}"
        device.run(with_image(f"{server.url}/{path}", NEW, "2", job))
        assert device.wait_log(job, "version 2"), path
        assert not partial(device), path


def test_a_wrong_checksum_is_tried_once_more_and_no_oftener(device: Daemon, server: FileServer) -> None:
    task = device.apply(with_image(f"{server.url}/old.tgz", NEW, "2"))
    assert task["status"] == "failed"
    assert len(server.requests) == 2
    assert "once more from the beginning" in task["messages"][0]
    assert not partial(device)


def test_without_a_checksum_nothing_of_an_earlier_try_is_used(device: Daemon, server: FileServer) -> None:
    url = f"{server.url}/truncate/9999/new.tgz"
    assert device.apply(with_image(url, None, "2"))["status"] == "failed"
    assert not partial(device)


# ---- the daemon ends in the middle


def test_a_download_goes_on_after_the_daemon_was_killed(device: Daemon, server: FileServer) -> None:
    document = with_image(f"{server.url}/slow/20000/new.tgz", NEW, "2")
    device.client().apply(document)
    name = f"app-{sha256(NEW)['value'][:16]}"
    part = device.root / "state" / "scratch" / "partial" / name
    deadline = time.monotonic() + 30
    while not part.exists() or part.stat().st_size < len(NEW) // 3:
        assert time.monotonic() < deadline
        time.sleep(0.01)  # nothing announces bytes in a file
    device.crash()
    device.start()
    came = part.stat().st_size
    assert partial(device) == [name, f"{name}.json"]
    document["images"][0]["url"] = f"{server.url}/new.tgz"  # another way to the same content
    device.run(document)
    assert server.requests[-1][2]["Range"] == f"bytes={came}-"
    assert server.sent == len(NEW) - came
    assert not partial(device)


def start_slowly(device: Daemon, server: FileServer) -> int:
    """Begin a download that takes its time; return the process that does it once something came."""
    url = f"{server.url}/slow/{len(NEW) // 60}/new.tgz"
    answer = device.client().apply(with_image(url, NEW, "2"))
    with device.client().follow_task(answer["task_id"]) as states:
        for task in states:
            if any(part["done"] for part in task["progress"]):
                break
    assert device.process
    children = Path(f"/proc/{device.process.pid}/task/{device.process.pid}/children").read_text()
    return int(children.split()[0])


def test_a_download_program_that_is_killed_is_started_again(device: Daemon, server: FileServer) -> None:
    helper = start_slowly(device, server)
    os.kill(helper, signal.SIGKILL)
    task = device.client().task(device.client().tasks()["tasks"][-1]["task_id"], wait=60)
    assert task["status"] == "complete", task
    assert "the helper program ended with" in task["messages"][0]
    assert len(server.requests) == 2


def test_what_nobody_wants_any_more_is_not_kept(device: Daemon, server: FileServer) -> None:
    assert device.apply(with_image(f"{server.url}/truncate/9/new.tgz", NEW, "2"))["status"] == "failed"
    assert len(partial(device)) == 2
    device.run(with_image(f"{server.url}/old.tgz", OLD, "1"))
    assert not partial(device)


# ---- several, and how far they are


def test_only_so_many_are_fetched_at_a_time(make_daemon: Callable[..., Daemon], server: FileServer) -> None:
    device = make_daemon(json.dumps({"downloads": {**QUICK, "parallel": 1}}))
    parts = [with_image(f"{server.url}/slow/40000/new.tgz", NEW, "2", f"app{n}") for n in range(3)]
    whole = {
        "config": "running",
        "jobs": [part["jobs"][0] for part in parts],
        "images": [part["images"][0] for part in parts],
    }
    answer = device.client().apply(whole)
    most = 0
    for task in device.client().follow_task(answer["task_id"]):
        loading = [
            p for p in task["progress"] if p["what"] == "download" and p["state"] == "running" and p["done"]
        ]
        most = max(most, len([p for p in loading if p["done"] < len(NEW)]))
    assert task["status"] == "complete", task
    assert most == 1


def test_progress_tells_bytes_rate_and_time_left(device: Daemon, server: FileServer) -> None:
    document = with_image(f"{server.url}/slow/8000/new.tgz", NEW, "2", size=len(NEW))
    answer = device.client().apply(document)
    seen = [p for task in device.client().follow_task(answer["task_id"]) for p in task["progress"]]
    running = [p for p in seen if p["what"] == "download" and p["rate"]]
    assert running
    for part in running:
        assert part["total"] == len(NEW)
        assert part["rate"] > 0
        assert part["eta"] == round((part["total"] - part["done"]) / part["rate"])
    assert "image-installed" in [e["type"] for e in device.events()]


def test_how_far_a_long_download_is_comes_as_events(
    server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(downloads, "EVENT_PAUSE", 0.0)
    told: list[tuple[str, str]] = []
    task = Task("t", "apply", "", lambda: None)
    with closing(Loop()) as loop:
        place = str(tmp_path / "partial")
        downloader = downloads.Downloader(loop, place, Downloads(), lambda *event: told.append(event))
        item = Item("app", "app 2", f"{server.url}/slow/8000/new.tgz")
        path = loop.run_until(downloader.fetch(item, 1 << 30, task))
    assert Path(path).read_bytes() == NEW
    assert {kind for kind, _ in told} == {"download-progress"}
    assert 1 <= len(told) <= 10
    for _, sentence in told:
        assert re.fullmatch(r"app 2: \S+ of \S+ arrived, \S+/s, \S+ left", sentence)


def test_a_limit_to_the_size_holds_whatever_the_server_says(
    make_daemon: Callable[..., Daemon], server: FileServer
) -> None:
    device = make_daemon(json.dumps({"downloads": {**QUICK, "max_size": "100K"}}))
    for path in ("new.tgz", "no-length/new.tgz"):
        task = device.apply(with_image(f"{server.url}/{path}", NEW, "2"))
        assert "102400" in task["error"]["message"]
        assert not partial(device)


# ---- who asks


@pytest.mark.root
def test_credentials_come_from_a_secret_and_are_shown_nowhere(device: Daemon, server: FileServer) -> None:
    document = with_image(f"{server.url}/private/new.tgz", NEW, "2")
    document["jobs"][0]["secrets"] = [{"name": "token", "data": "tOp-sEcReT"}]
    document["images"][0]["credentials"] = {"type": "bearer", "secret": "token"}
    device.run(document)
    assert server.requests[-1][2]["Authorization"] == "Bearer tOp-sEcReT"
    client = device.client()
    shown = [
        client.running_config(),
        client.tasks(),
        client.images(),
        list(client.events()),
        client.why("app"),
    ]
    assert "tOp-sEcReT" not in json.dumps(shown) + device.output()
    document["images"][0] |= {"version": "3", "credentials": {"type": "bearer", "secret": "tokn"}}
    with pytest.raises(InvalidDocument, match='has no secret called "tokn"'):
        device.apply(document)


@pytest.mark.root
def test_files_of_configs_are_asked_for_in_the_same_way(device: Daemon, server: FileServer) -> None:
    file = {
        "url": f"{server.url}/private/new.tgz",
        "dest_relative_path": "sub/c.dat",
        "checksum": sha256(NEW),
        "credentials": {"type": "basic", "user": "me", "secret": "word"},
    }
    job = {
        "job": "reader",
        "exec_cmd": "/bin/sleep",
        "exec_args": ["100000"],
        "secrets": [{"name": "word", "data": "pass"}],
    }
    config = {"name": "c", "job": "reader", "files": [file]}
    device.run({"config": "running", "jobs": [job], "configs": [config]})
    assert server.requests[-1][2]["Authorization"] == "Basic bWU6cGFzcw=="
    [placed] = (device.root / "state" / "configs").rglob("c.dat")
    assert placed.read_bytes() == NEW
    assert not partial(device)


@pytest.mark.root
def test_the_download_program_has_no_rights_and_little_room(device: Daemon, server: FileServer) -> None:
    helper = start_slowly(device, server)
    status, limits = (Path(f"/proc/{helper}/{name}").read_text() for name in ("status", "limits"))
    assert "NoNewPrivs:\t1" in status
    assert "CapEff:\t0000000000000000" in status
    assert "Uid:\t0" not in status
    for name, value in (("open files", 64), ("address space", 1 << 30), ("cpu time", 3600)):
        assert re.search(rf"Max {name} +{value} +{value}", limits), limits


# ---- signatures


def test_only_what_a_trusted_key_signed_is_taken(
    make_daemon: Callable[..., Daemon], server: FileServer
) -> None:
    from support.minisign import Signer

    device = make_daemon(json.dumps({"downloads": QUICK, "require_signature": True}))
    signer, stranger = Signer(), Signer()
    signer.trust(device.root / "keys")
    (Path(server.directory) / "new.tgz.minisig").write_text(signer.sign(NEW))
    url = f"{server.url}/new.tgz"

    task = device.apply(with_image(url, NEW, "2"))
    assert "it has no signature, and this device wants one" in task["error"]["message"]
    assert not server.requests
    bad = device.apply(with_image(url, NEW, "2", signature={"value": stranger.sign(NEW)}))
    assert "which is not trusted" in bad["error"]["message"]
    device.run(with_image(url, NEW, "2", signature={"value": signer.sign(NEW)}))
    device.run(with_image(url, None, "3", signature={"type": "minisign", "url": f"{url}.minisig"}))
    assert device.job("app")["image_version"] == "3"
    assert not partial(device)


# ---- deltas


@pytest.mark.skipif(not shutil.which("zstd"), reason="needs zstd")
def test_a_delta_is_used_when_its_base_is_here_and_the_whole_image_when_not(
    make_daemon: Callable[..., Daemon], server: FileServer
) -> None:
    device = make_daemon(json.dumps({"downloads": {**QUICK, "keep_archives": True}}))
    served = Path(server.directory)
    delta = served / "delta"
    patch = f"--patch-from={served / 'old.tgz'}"
    subprocess.run(["zstd", "-q", patch, served / "new.tgz", "-o", delta], check=True, capture_output=True)
    entry = {"from": "1", "url": f"{server.url}/delta", "checksum": sha256(delta.read_bytes())}
    new = with_image(f"{server.url}/new.tgz", NEW, "2", deltas=[entry])

    def asked() -> list[str]:
        paths = [path for _, path, _ in server.requests]
        server.requests.clear()
        return paths

    device.run(with_image(f"{server.url}/old.tgz", OLD, "1"))
    asked()
    device.run(new)
    assert asked() == ["/delta"]
    assert device.wait_log("app", "version 2")

    broken = {**entry, "from": "2", "checksum": sha256(b"")}
    strange = {**entry, "from": "0.5"}
    third = with_image(f"{server.url}/new.tgz.new", OTHER, "3", deltas=[strange, broken])
    task = device.run(third)
    assert asked() == ["/delta", "/delta", "/new.tgz.new"]
    assert "the whole image is fetched instead" in json.dumps(task["messages"])
    assert device.wait_log("app", "version 3")


# ---- what a template allows


@pytest.mark.root
def test_what_an_image_may_have_and_whose_it_is_say_template_and_job(
    device: Daemon, server: FileServer
) -> None:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as tar:
        script = b"#!/bin/sh\nexec sleep 100000\n"
        for name, kind, content in (
            ("run.sh", tarfile.REGTYPE, script),
            ("pipe", tarfile.FIFOTYPE, b""),
            ("null", tarfile.CHRTYPE, b""),
        ):
            info = tarfile.TarInfo(name)
            info.type, info.mode, info.size, info.uid, info.gid = kind, 0o4755, len(content), 123, 456
            info.devmajor, info.devminor = 1, 3
            tar.addfile(info, io.BytesIO(content))
    (Path(server.directory) / "odd.tar").write_bytes(data.getvalue())
    document = with_image(f"{server.url}/odd.tar", data.getvalue(), "1")
    task = device.apply(document)
    assert "member run.sh: it has the setuid bit" in task["error"]["message"]
    document["templates"] = [{"name": "odd", "image_allow": ["fifos", "setuid"], "image_owner": "archive"}]
    document["jobs"][0]["container_template"] = "odd"
    task = device.apply(document)
    assert "member null: it is a character device" in task["error"]["message"]
    document["jobs"][0]["image_allow"] = ["fifos", "setuid", "devices"]
    device.run(document)
    [run] = (device.root / "state" / "images").rglob("run.sh")
    found = run.stat()
    assert (found.st_mode & 0o7777, found.st_uid, found.st_gid) == (0o4755, 123, 456)
    assert (run.parent / "pipe").is_fifo()
    node = (run.parent / "null").stat()
    assert (run.parent / "null").is_char_device()
    assert node.st_rdev == os.makedev(1, 3)
