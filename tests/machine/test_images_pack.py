# SPDX-License-Identifier: Apache-2.0
"""Packing is reproducible and makes what a device takes; deltas lead from one archive to the next."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from maestro_py.errors import MaestroError
from maestro_py.images.delta import apply
from maestro_py.images.pack import ENDINGS, pack
from maestro_py.images.unpack import unpack

needs_zstd = pytest.mark.skipif(not shutil.which("zstd"), reason="needs zstd")


def make_tree(where: Path, when: int, *, backwards: bool = False) -> Path:
    """Write the same tree with other times, and in another order."""
    (where / "bin").mkdir(parents=True)
    names = [f"file{number:03}" for number in range(40)]
    for name in reversed(names) if backwards else names:
        (where / name).write_bytes(hashlib.sha256(name.encode()).digest() * 100)
    (where / "bin" / "run").write_text("#!/bin/sh\n")
    (where / "bin" / "run").chmod(0o755)
    (where / "bin" / "again").symlink_to("run")
    (where / "ü").mkdir()
    for path in [*where.rglob("*"), where]:
        os.utime(path, (when, when), follow_symlinks=False)
    return where


def endings() -> list[Any]:
    return [pytest.param(e, marks=needs_zstd if e.endswith("zst") else ()) for e in ENDINGS]


@pytest.mark.parametrize("ending", endings())
def test_the_same_content_is_the_same_archive_and_unpacks_to_it(tmp_path: Path, ending: str) -> None:
    results = []
    for number, backwards in enumerate((False, True)):
        tree = make_tree(tmp_path / f"tree{number}", 1_600_000_000 + number * 5000, backwards=backwards)
        results.append(pack({"directory": str(tree), "file": str(tmp_path / f"out{number}{ending}")}))
    assert results[0] == results[1]
    archive = tmp_path / f"out0{ending}"
    assert hashlib.sha256(archive.read_bytes()).hexdigest() == results[0]["sha256"]
    assert archive.stat().st_size == results[0]["bytes"]
    made = tmp_path / "unpacked"
    kind = results[0]["image_type"]
    done = unpack({"archive": str(archive), "dest": str(made), "image_type": kind})
    assert done["entries"] == results[0]["entries"] == 44
    for path in (tmp_path / "tree0").rglob("*"):
        same = made / path.relative_to(tmp_path / "tree0")
        assert same.lstat().st_mode == path.lstat().st_mode
        assert path.is_symlink() or path.is_dir() or same.read_bytes() == path.read_bytes()
    assert os.readlink(made / "bin" / "again") == "run"
    assert sorted(os.listdir(tmp_path)) == [f"out0{ending}", f"out1{ending}", "tree0", "tree1", "unpacked"]


def test_the_time_of_the_files_can_be_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1234567890")
    tree = make_tree(tmp_path / "tree", 5)
    pack({"directory": str(tree), "file": str(tmp_path / "out.tar")})
    unpack({"archive": str(tmp_path / "out.tar"), "dest": str(tmp_path / "made"), "image_type": "tarball"})
    assert (tmp_path / "made" / "bin" / "run").stat().st_mtime == 1234567890


def refusal(tree: Path, file: Path) -> str:
    before = sorted(os.listdir(tree.parent))
    with pytest.raises(MaestroError) as caught:
        pack({"directory": str(tree), "file": str(file)})
    assert sorted(os.listdir(tree.parent)) == before
    return caught.value.message.removeprefix(f"cannot pack {tree}: ")


def test_what_a_device_would_refuse_is_not_packed(tmp_path: Path) -> None:
    tree, out = tmp_path / "tree", tmp_path / "out.tgz"
    tree.mkdir()
    (tree / "out").symlink_to("../x")
    assert refusal(tree, out) == "member out: it is a link to ../x, which leaves the image"
    (tree / "out").unlink()
    os.mkfifo(tree / "pipe")
    assert refusal(tree, out) == "member pipe: it is neither a file nor a directory nor a link"
    (tree / "pipe").unlink()
    (tree / "su").touch(0o755)
    (tree / "su").chmod(0o4755)
    assert refusal(tree, out) == "member su: it has the setuid or the setgid bit"
    (tree / "su").unlink()
    (tree / "a\nb").touch()
    assert refusal(tree, out) == "member a\\nb: its name has a control character in it"


def test_a_name_without_a_known_ending_and_no_directory_are_named(tmp_path: Path) -> None:
    tree = make_tree(tmp_path / "tree", 5)
    assert "ends in none of .tar, .tar.gz" in refusal(tree, tmp_path / "out.rar")
    assert refusal(tmp_path / "nothing", tmp_path / "out.tgz") == "there is no such directory"
    assert refusal(tree, tmp_path / "no" / "out.tgz").endswith("No such file or directory")


# ---- deltas


def versions(tmp_path: Path) -> tuple[Path, Path, Path]:
    """Return the archives of two versions and the delta between them."""
    old, new, delta = (tmp_path / name for name in ("old.tar", "new.tar", "delta.zst"))
    tree = make_tree(tmp_path / "tree", 5)
    (tree / "random").write_bytes(os.urandom(1 << 20))
    pack({"directory": str(tree), "file": str(old)})
    (tree / "bin" / "run").write_text("#!/bin/sh\necho new\n")
    pack({"directory": str(tree), "file": str(new)})
    subprocess.run(["zstd", "-q", f"--patch-from={old}", str(new), "-o", str(delta)], check=True)
    return old, new, delta


def request(old: Path, delta: Path, part: Path) -> dict[str, Any]:
    value = hashlib.sha256(delta.read_bytes()).hexdigest()
    checksum = {"type": "sha256sum", "value": value}
    return {
        "name": "D",
        "delta": str(delta),
        "base": str(old),
        "part": str(part),
        "content": "c",
        "checksum": checksum,
    }


@needs_zstd
def test_a_delta_makes_the_new_archive_out_of_the_old(tmp_path: Path) -> None:
    old, new, delta = versions(tmp_path)
    assert delta.stat().st_size < 10_000
    part = tmp_path / "part"
    assert apply(request(old, delta, part)) == {"bytes": new.stat().st_size}
    assert part.read_bytes() == new.read_bytes()


@needs_zstd
def test_a_delta_that_cannot_be_used_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old, _, delta = versions(tmp_path)
    asked = request(old, delta, tmp_path / "part")
    data = delta.read_bytes()
    delta.write_bytes(data[:-30])
    with pytest.raises(MaestroError, match="cannot accept D: checksum does not match"):
        apply(asked)
    with pytest.raises(MaestroError, match="cannot use D: zstd says"):
        apply(request(old, delta, tmp_path / "part"))
    delta.write_bytes(data)
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(MaestroError, match="cannot use D: there is no zstd program on this device"):
        apply(asked)
