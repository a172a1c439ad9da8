# SPDX-License-Identifier: Apache-2.0
"""`image pack` and `image install`: from a directory to a running job without a server."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from pathlib import Path
from typing import Any

from support.daemon import Daemon


def make_tree(where: Path, version: str) -> Path:
    where.mkdir()
    (where / "run.sh").write_text(f"#!/bin/sh\necho version {version}\nexec sleep 100000\n")
    (where / "run.sh").chmod(0o755)
    return where


def packed(device: Daemon, tmp_path: Path, version: str) -> dict[str, Any]:
    """Pack a version with the command and return the entry it prints."""
    tree = make_tree(tmp_path / version, version)
    archive = str(tmp_path / f"{version}.tar.gz")
    done = device.cli("image", "pack", str(tree), "-o", archive, "--job", "app", "--image-version", version)
    assert done.returncode == 0, done.stderr
    entry: dict[str, Any] = json.loads(done.stdout)
    return entry


def document(entry: dict[str, Any]) -> dict[str, Any]:
    return {"config": "running", "jobs": [{"job": "app", "exec_cmd": "{{IMAGE}}/run.sh"}], "images": [entry]}


def install(device: Daemon, entry: dict[str, Any], *more: str) -> tuple[int, str]:
    path = entry["url"].removeprefix("file://")
    options = ("--sha256", entry["checksum"]["value"], "--job", "app", "--image-version", entry["version"])
    done = device.cli("image", "install", path, *options, *more)
    return done.returncode, done.stdout + done.stderr


def test_what_pack_prints_is_an_entry_of_a_running_config(daemon: Daemon, tmp_path: Path) -> None:
    entry = packed(daemon, tmp_path, "1")
    archive = Path(entry["url"].removeprefix("file://"))
    assert entry["size"] == archive.stat().st_size
    assert entry["checksum"]["value"] == hashlib.sha256(archive.read_bytes()).hexdigest()
    daemon.run(document(entry))
    assert daemon.wait_log("app", "version 1")


def test_what_a_program_runs_from_is_never_written_to(daemon: Daemon, tmp_path: Path) -> None:
    """ETXTBSY is what the kernel would say to who writes a running program; it need not be asked."""

    def entry(last: str) -> dict[str, Any]:
        tree = tmp_path / last
        tree.mkdir()
        (tree / "run.sh").write_bytes(Path("/bin/sleep").read_bytes() + last.encode())
        (tree / "run.sh").chmod(0o755)
        archive = tmp_path / f"{last}.tar"
        made = daemon.cli(
            "image", "pack", str(tree), "-o", str(archive), "--job", "app", "--image-version", "1"
        )
        found: dict[str, Any] = json.loads(made.stdout)
        return found

    def running(pid: int) -> bytes:
        return Path(f"/proc/{pid}/exe").read_bytes()[-3:]

    def sleeps(last: str) -> dict[str, Any]:
        made = document(entry(last))
        made["jobs"][0]["exec_args"] = ["1000"]
        return made

    daemon.run(sleeps("old"))
    with subprocess.Popen([os.readlink(f"/proc/{daemon.job('app')['pid']}/exe"), "1000"]) as stranger:
        try:
            daemon.run(sleeps("new"))
            assert running(daemon.job("app")["pid"]) == b"new"
            assert running(stranger.pid) == b"old"
        finally:
            stranger.kill()


def test_a_file_is_installed_in_place_of_the_running_version(daemon: Daemon, tmp_path: Path) -> None:
    old, new = packed(daemon, tmp_path, "1"), packed(daemon, tmp_path, "2")
    daemon.run(document(old))
    code, said = install(daemon, new)
    assert (code, "app has this image now" in said) == (0, True), said
    assert daemon.wait_log("app", "version 2")
    assert daemon.job("app")["image_version"] == "2"
    assert daemon.client().running_config()["images"][0]["version"] == "2"


def test_a_file_that_is_not_what_was_said_changes_nothing(daemon: Daemon, tmp_path: Path) -> None:
    old, new = packed(daemon, tmp_path, "1"), packed(daemon, tmp_path, "2")
    daemon.run(document(old))
    pid, before = daemon.job("app")["pid"], daemon.client().running_config()
    code, said = install(daemon, {**new, "checksum": {"value": "0" * 64}})
    assert code == 1
    assert "checksum does not match" in said
    (tmp_path / "2.tar.gz").write_text("no archive")
    wrong = {"value": hashlib.sha256(b"no archive").hexdigest()}
    code, said = install(daemon, {**new, "checksum": wrong})
    assert code == 1
    assert "it is neither a tar nor a zip archive" in said
    assert daemon.job("app")["pid"] == pid
    assert daemon.client().running_config() == before


def test_a_job_without_its_image_starts_once_the_file_is_here(daemon: Daemon, tmp_path: Path) -> None:
    entry = packed(daemon, tmp_path, "1")
    archive = tmp_path / "1.tar.gz"
    data = archive.read_bytes()
    archive.unlink()
    assert daemon.apply(document(entry))["status"] == "failed"
    archive.write_bytes(data)
    code, said = install(daemon, entry)
    assert code == 0, said
    assert daemon.job("app")["state"] == "RUNNING"


def test_what_cannot_be_meant_is_said(daemon: Daemon, tmp_path: Path) -> None:
    entry = packed(daemon, tmp_path, "1")
    path = entry["url"].removeprefix("file://")
    code, said = install(daemon, entry)
    assert (code, said) == (1, "maestro: cannot install an image of app: no job is called so\n")
    done = daemon.cli("image", "install", path, "--job", "app")
    assert (done.returncode, done.stderr) == (2, "maestro: cannot run image install: --sha256 is missing\n")
    done = daemon.cli("image", "install", str(tmp_path / "no"), "--sha256", "0", "--job", "app")
    assert done.returncode == 1
    assert done.stderr == f"maestro: cannot read {tmp_path}/no: No such file or directory\n"
    done = daemon.cli("image", "install", path, "--sha256", "xyz", "--job", "app")
    assert "sha256sum value is not hexadecimal" in done.stderr
    done = daemon.cli("image", "pack", str(tmp_path / "1"))
    assert done.returncode == 2
    done = daemon.cli("image", "pack", str(tmp_path / "1"), "-o", str(tmp_path / "x.tgz"), "--type", "zip")
    assert "it is a tarball" in done.stderr
