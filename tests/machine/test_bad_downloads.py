# SPDX-License-Identifier: Apache-2.0
"""Downloads that go wrong: the person reads which and why, and what ran before goes on running."""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.guarded import Guarded, guarded
from support.httpserver import FileServer

SILENCE = 0.5
"""Seconds without a byte after which the downloads of these tests are given up."""

SCRIPT = "#!/bin/sh\necho version {}\nexec sleep 100000\n"


def archive(version: str, padding: int = 0) -> bytes:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w:gz") as tar:
        text = SCRIPT.format(version).encode()
        info = tarfile.TarInfo("run.sh")
        info.size, info.mode = len(text), 0o755
        tar.addfile(info, io.BytesIO(text))
        if padding:
            info = tarfile.TarInfo("padding")
            info.size = padding
            tar.addfile(info, io.BytesIO(os.urandom(padding)))
    return data.getvalue()


OLD, NEW, LARGE = archive("1"), archive("2"), archive("3", 100_000)


def sha256(data: bytes) -> dict[str, str]:
    return {"type": "sha256sum", "value": hashlib.sha256(data).hexdigest()}


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    served = tmp_path / "served"
    served.mkdir()
    for name, data in (("old.tgz", OLD), ("new.tgz", NEW), ("large.tgz", LARGE), ("text.tgz", b"no archive")):
        (served / name).write_bytes(data)
    (served / "cut.tgz").write_bytes(LARGE[: len(LARGE) // 2])
    with FileServer(served) as url:
        yield url


def patience(**options: Any) -> dict[str, Any]:
    """Return a daemon's config that gives a download up at once."""
    once = {"read_timeout": SILENCE, "connect_timeout": SILENCE, "retries": 0}
    return {"downloads": {**once, **options}}


@pytest.fixture
def device(tmp_path: Path, url: str) -> Iterator[Guarded]:
    with guarded(tmp_path, patience()) as made:
        yield made


def with_image(device: Guarded, url: str, version: str = "1", **keys: Any) -> dict[str, Any]:
    """Return a document with a job `app` that lives in an image."""
    job = {"job": "app", "exec_cmd": "{{IMAGE}}/run.sh"}
    image = {"job": "app", "version": version, "url": url, **keys}
    return device.document(job, images=[image])


def leftovers(device: Guarded) -> list[str]:
    """Return the files that downloads left: all in the scratch directory, the programs in the store.

    What another try can go on with may stay.
    """
    state = device.daemon.root / "state"
    found = [*(state / "scratch").rglob("*"), *(state / "images").rglob("run.sh")]
    return [str(path) for path in found if path.is_file() and path.parent.name != "partial"]


FAULTS = [
    pytest.param("/404", NEW, "the server answered 404", id="404"),
    pytest.param("/no-such-file.tgz", NEW, "the server answered 404", id="no such file"),
    pytest.param("/status/500", NEW, "the server answered", id="500"),
    pytest.param("/hang", NEW, "the server did not answer within 500ms", id="hangs"),
    pytest.param("/hang-after/1000/large.tgz", LARGE, "nothing came for 500ms after 1000 bytes", id="stalls"),
    pytest.param("/truncate/1000/large.tgz", LARGE, f"1000 of {len(LARGE)} bytes arrived", id="truncates"),
    pytest.param("/redirect-loop", NEW, "redirects in a circle, back to", id="circle"),
    pytest.param("/redirect/9/new.tgz", NEW, "redirected more than 5 times", id="too many redirects"),
    pytest.param("/redirect-to?file:///etc/passwd", NEW, "redirected to file:///etc/passwd", id="to a file"),
    pytest.param("/redirect-to?http://127.0.0.1:1/x", NEW, "Connection refused", id="to nobody"),
    pytest.param(
        "/old.tgz", NEW, f"checksum does not match: sha256 is {sha256(OLD)['value']}", id="checksum"
    ),
    pytest.param("/text.tgz", b"no archive", "cannot unpack", id="no archive"),
    pytest.param("/cut.tgz", LARGE[: len(LARGE) // 2], "cannot unpack", id="cut archive"),
]


@pytest.mark.parametrize(("path", "data", "why"), FAULTS)
def test_a_bad_download_of_a_new_version_leaves_the_old_one_running(
    device: Guarded, url: str, path: str, data: bytes, why: str
) -> None:
    first = device.apply(with_image(device, f"{url}/old.tgz", checksum=sha256(OLD)))
    assert first.returncode == 0, first.stderr
    before = device.daemon.job("app")
    assert (before["state"], before["image_version"]) == ("RUNNING", "1")

    bad = device.apply(with_image(device, f"{url}{path}", "2", checksum=sha256(data)))
    assert bad.returncode == 1
    assert why in bad.stderr, bad.stderr
    if "unpack" not in why and "checksum" not in why:
        assert f"cannot download {url}{path}" in bad.stderr
    assert "app" in bad.stderr
    assert "the version before stays" in bad.stderr

    after = device.daemon.job("app")
    assert (after["state"], after["pid"], after["image_version"]) == ("RUNNING", before["pid"], "1")
    assert why in " ".join(device.daemon.client().why("app")["lines"])
    assert len(leftovers(device)) == 1, leftovers(device)

    good = device.apply(with_image(device, f"{url}/new.tgz", "2", checksum=sha256(NEW)))
    assert good.returncode == 0, good.stderr
    assert device.daemon.job("app")["image_version"] == "2"


def test_the_checksum_mismatch_names_both_digests(device: Guarded, url: str) -> None:
    done = device.apply(with_image(device, f"{url}/new.tgz", checksum=sha256(OLD)))
    assert done.returncode == 1
    expected, found = sha256(OLD)["value"], sha256(NEW)["value"]
    assert f"checksum does not match: sha256 is {found}, expected {expected}" in done.stderr


@pytest.mark.parametrize(("path", "data", "why"), FAULTS[:1] + FAULTS[3:4] + FAULTS[10:11])
def test_a_first_download_that_fails_leaves_the_job_failed(
    device: Guarded, url: str, path: str, data: bytes, why: str
) -> None:
    done = device.apply(with_image(device, f"{url}{path}", checksum=sha256(data)))
    assert done.returncode == 1
    assert why in done.stderr
    row = device.daemon.job("app")
    assert (row["state"], row["pid"], row["image_version"]) == ("FAILED", None, "")
    assert why in row["cause"]
    assert not leftovers(device)
    # a start does not pretend: the image is still missing
    start = device.daemon.cli("start", "app")
    assert start.returncode == 1
    assert "app" in start.stderr


def test_a_wrong_size_is_told_before_all_is_downloaded(device: Guarded, url: str) -> None:
    done = device.apply(with_image(device, f"{url}/large.tgz", size=10))
    assert done.returncode == 1
    assert f"the server offers {len(LARGE)} bytes, expected 10" in done.stderr


def test_a_server_that_sends_more_than_it_says_is_cut_off(device: Guarded, url: str) -> None:
    done = device.apply(with_image(device, f"{url}/no-length/large.tgz", size=1000))
    assert done.returncode == 1
    assert "more than 1000 bytes arrive, the size declared" in done.stderr


def test_a_server_nobody_answers_at_is_named(device: Guarded) -> None:
    done = device.apply(with_image(device, "http://127.0.0.1:1/x.tgz"))
    assert done.returncode == 1
    assert "cannot download http://127.0.0.1:1/x.tgz: Connection refused" in done.stderr


def test_a_password_in_the_address_is_not_shown(device: Guarded) -> None:
    done = device.apply(with_image(device, "http://me:geheim@127.0.0.1:1/x.tgz"))
    assert "127.0.0.1:1/x.tgz" in done.stderr
    for text in (
        done.stdout,
        done.stderr,
        device.daemon.output(),
        *device.daemon.client().why("app")["lines"],
    ):
        assert "geheim" not in text


def test_one_server_that_hangs_does_not_keep_others_waiting(tmp_path: Path, url: str) -> None:
    with guarded(tmp_path, patience(read_timeout=3)) as device:
        document = with_image(device, f"{url}/hang")
        answer = device.daemon.client().apply(document)
        try:
            device.quick()
            began = time.monotonic()
            done = device.daemon.cli("restart", "good")
            assert done.returncode == 0, done.stderr
            assert time.monotonic() - began < 2
            device.pid = device.daemon.job("good")["pid"]
            assert device.daemon.client().task(answer["task_id"])["status"] == "running"
        finally:
            task = device.daemon.client().task(answer["task_id"], wait=20)
        assert task["status"] == "failed"
        assert "the server did not answer within 3s" in task["error"]["message"]


def test_a_daemon_told_to_end_does_not_wait_for_a_download(tmp_path: Path, url: str) -> None:
    with guarded(tmp_path) as device:
        device.daemon.client().apply(with_image(device, f"{url}/hang"))
        began = time.monotonic()
        assert device.daemon.stop() == 0
        assert time.monotonic() - began < 5
        assert "Traceback" not in device.daemon.output()
        device.daemon.start()
        device.daemon_pid = device.daemon.client().version()["pid"]
        device.pid = device.daemon.wait_state("good", "RUNNING")["pid"]
        assert [row["job"] for row in device.daemon.client().status()["jobs"]] == ["good"]


# ---- one bad image next to good things


def two_images(device: Guarded, url: str, path: str, **parts: Any) -> dict[str, Any]:
    """Return a document with `app`, whose image is good, and `bad`, whose image is at `path`."""
    document = with_image(device, f"{url}/new.tgz", "2", checksum=sha256(NEW))
    document["jobs"].append({"job": "bad", "exec_cmd": "{{IMAGE}}/run.sh"})
    document["images"].append({"job": "bad", "version": "1", "url": f"{url}{path}"})
    return {**document, **parts}


def test_without_fail_fast_the_good_image_is_taken_and_the_bad_one_named(device: Guarded, url: str) -> None:
    assert device.apply(with_image(device, f"{url}/old.tgz", checksum=sha256(OLD))).returncode == 0
    done = device.apply(two_images(device, url, "/404"))
    assert done.returncode == 1
    assert f"cannot download {url}/404: the server answered 404" in done.stderr
    app, bad = device.daemon.job("app"), device.daemon.job("bad")
    assert (app["state"], app["image_version"]) == ("RUNNING", "2")
    assert (bad["state"], bad["image_version"]) == ("FAILED", "")


@pytest.mark.parametrize("path", ["/404", "/text.tgz", "/hang"])
def test_with_fail_fast_nothing_at_all_changes(device: Guarded, url: str, path: str) -> None:
    assert device.apply(with_image(device, f"{url}/old.tgz", checksum=sha256(OLD))).returncode == 0
    before = device.daemon.client().running_config()
    pid = device.daemon.job("app")["pid"]
    done = device.apply(two_images(device, url, path, flags={"failFast": True}))
    assert done.returncode == 1
    assert f"{url}{path}" in done.stderr or "bad" in done.stderr
    assert "failFast: nothing was changed" in done.stderr
    app = device.daemon.job("app")
    assert (app["state"], app["pid"], app["image_version"]) == ("RUNNING", pid, "1")
    assert sorted(row["job"] for row in device.daemon.client().status()["jobs"]) == ["app", "good"]
    assert device.daemon.client().running_config() == before


# ---- files of configs


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("/404", "the server answered 404"),
        ("/hang", "the server did not answer within 500ms"),
        ("/old.tgz", "checksum does not match"),
    ],
)
def test_a_config_file_that_cannot_be_had_is_named_and_the_old_one_stays(
    device: Guarded, url: str, path: str, why: str
) -> None:
    job = {"job": "reader", "exec_cmd": "/bin/sh", "exec_args": ["-c", "exec sleep 100000"]}

    def document(where: str, data: bytes) -> dict[str, Any]:
        file = {"url": f"{url}{where}", "dest_relative_path": "sub/c.dat", "checksum": sha256(data)}
        return device.document(job, configs=[{"name": "c", "job": "reader", "files": [file]}])

    first = device.apply(document("/new.tgz", NEW))
    assert first.returncode == 0, first.stderr
    pid = device.daemon.job("reader")["pid"]
    [placed] = (device.daemon.root / "state" / "configs").rglob("c.dat")
    bad = device.apply(document(path, LARGE))
    assert bad.returncode == 1
    assert f"{url}{path}: " in bad.stderr
    assert why in bad.stderr
    assert device.daemon.job("reader")["pid"] == pid
    assert placed.read_bytes() == NEW
    assert not leftovers(device)
