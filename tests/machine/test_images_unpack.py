# SPDX-License-Identifier: Apache-2.0
"""The unpacking program: good archives keep what they hold, hostile ones change nothing."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import json
import lzma
import os
import random
import select
import shutil
import stat
import struct
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.pagecache import cached, on_disk

from maestro_py.errors import MaestroError, Unsupported
from maestro_py.images import unpack as unpacking
from maestro_py.images import zstd
from maestro_py.images.unpack import unpack
from maestro_py.images.zipball import MAX_DIRECTORY

BIG = os.urandom(1 << 16) * 20
MTIME = 1_600_000_001


@pytest.fixture
def staging(tmp_path: Path) -> Path:
    path = tmp_path / "staging"
    path.mkdir()
    return path


@pytest.fixture(autouse=True)
def _umask_as_before() -> Any:
    before = os.umask(0o022)
    yield
    os.umask(before)


# ---- building archives


def entry(name: str, kind: bytes = tarfile.REGTYPE, mode: int = 0o644, **more: Any) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.mode, info.mtime = kind, mode, MTIME
    for key, value in more.items():
        setattr(info, key, value)
    return info


def tar(*entries: tarfile.TarInfo | tuple[tarfile.TarInfo, bytes], form: int = tarfile.PAX_FORMAT) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as archive:
        for one in entries:
            info, data = one if isinstance(one, tuple) else (one, b"")
            if data:
                info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


def link(name: str, target: str) -> tarfile.TarInfo:
    return entry(name, tarfile.SYMTYPE, 0o777, linkname=target)


def hard(name: str, target: str) -> tarfile.TarInfo:
    return entry(name, tarfile.LNKTYPE, linkname=target)


def folder(name: str, mode: int = 0o755) -> tarfile.TarInfo:
    return entry(name, tarfile.DIRTYPE, mode)


def zipped(*entries: tuple[str, int, bytes], **more: Any) -> bytes:
    """Return a zip archive of (name, st_mode, data); `more` is set on every entry."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, mode, data in entries:
            info = zipfile.ZipInfo(name, (2021, 5, 4, 3, 2, 2))
            info.create_system, info.external_attr = (3, mode << 16) if mode else (0, 0x20)
            info.compress_type = zipfile.ZIP_DEFLATED
            for key, value in more.items():
                setattr(info, key, value)
            archive.writestr(info, data)
    return out.getvalue()


def good_tar() -> bytes:
    return tar(
        folder("./"),
        folder("bin", 0o750),
        (entry("bin/run", mode=0o755), b"#!/bin/sh\n"),
        (entry("data/deep/er/big.bin", mode=0o600), BIG),
        entry("empty", mode=0o444),
        link("bin/again", "run"),
        link("top", "bin/../data"),
        link("dangling", "not/here"),
        hard("same", "bin/run"),
        (entry("x" * 150 + "/" + "ü" * 60), b"long name"),
        folder("locked", 0o555),
        entry("locked/inside"),
        folder("tmp", 0o1777),
    )


def check_good_tree(root: Path) -> None:
    assert (root / "bin/run").read_bytes() == b"#!/bin/sh\n"
    assert (root / "data/deep/er/big.bin").read_bytes() == BIG
    assert (root / ("x" * 150) / ("ü" * 60)).read_bytes() == b"long name"
    modes = {"bin": 0o750, "bin/run": 0o755, "data/deep/er/big.bin": 0o600, "empty": 0o444, "data": 0o755}
    modes |= {"locked": 0o555, "tmp": 0o1777, ".": 0o755}
    assert {name: stat.S_IMODE((root / name).stat().st_mode) for name in modes} == modes
    assert os.readlink(root / "bin/again") == "run"
    assert os.readlink(root / "top") == "bin/../data"
    assert os.readlink(root / "dangling") == "not/here"
    assert (root / "same").stat().st_ino == (root / "bin/run").stat().st_ino
    for name in ("bin", "bin/run", "locked", "bin/again"):
        assert (root / name).lstat().st_mtime == MTIME


# ---- running it


def run(staging: Path, data: bytes, image_type: str = "tarball", **more: Any) -> dict[str, Any]:
    archive = staging.parent / "archive"
    archive.write_bytes(data)
    request = {"archive": str(archive), "dest": str(staging / "tree"), "image_type": image_type, "name": "X"}
    return unpack({**request, **more})


def refusal(staging: Path, data: bytes, image_type: str = "tarball", **more: Any) -> str:
    """Return why; nothing may be left, inside staging or beside it, and no descriptor stay open."""
    outside = staging.parent / "outside"
    outside.write_text("mine")
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(MaestroError) as caught:
        run(staging, data, image_type, **more)
    assert len(os.listdir("/proc/self/fd")) == before
    assert list(staging.iterdir()) == []
    assert outside.read_text() == "mine"
    assert sorted(os.listdir(staging.parent)) == ["archive", "outside", "staging"]
    assert caught.value.message.startswith("cannot unpack X: ")
    return caught.value.message.removeprefix("cannot unpack X: ")


COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    "plain": bytes,
    "gz": gzip.compress,
    "bz2": bz2.compress,
    "xz": lzma.compress,
    "zst": lambda data: subprocess.run(["zstd", "-qc"], input=data, capture_output=True).stdout,
}


@pytest.mark.parametrize("kind", COMPRESS)
@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_a_tar_archive_keeps_bytes_modes_times_and_links(staging: Path, kind: str, form: int) -> None:
    if kind == "zst" and not shutil.which("zstd"):
        pytest.skip("zstd is not installed")
    result = run(staging, COMPRESS[kind](good_tar()), "devicejs_tarball")
    check_good_tree(staging / "tree")
    assert result["bytes"] == len(b"#!/bin/sh\n") + len(BIG) + len(b"long name")
    assert result["entries"] == 12 + 4  # and data, data/deep, data/deep/er, x…


def test_a_gzip_file_of_several_streams_with_padding_is_one_archive(staging: Path) -> None:
    data = good_tar()
    run(staging, gzip.compress(data[:5000]) + gzip.compress(data[5000:]) + bytes(700))
    check_good_tree(staging / "tree")


def test_what_gnu_tar_packs_is_unpacked(staging: Path, tmp_path: Path) -> None:
    run(staging, good_tar())
    subprocess.run(["tar", "czf", tmp_path / "out.tgz", "-C", staging / "tree", "."], check=True)
    run(staging, (tmp_path / "out.tgz").read_bytes(), dest=str(staging / "again"))
    check_good_tree(staging / "again")


def test_a_zip_archive_keeps_bytes_modes_and_links(staging: Path) -> None:
    data = zipped(
        ("d/", 0o40750, b""),
        ("d/run", 0o100755, BIG),
        ("d/l", 0o120777, b"run"),
        ("plain", 0, b"no mode"),
        ("e/f/g", 0o100600, b"g"),
    )
    assert run(staging, data, "devicejs_zip")["bytes"] == len(BIG) + len(b"no mode") + 1
    root = staging / "tree"
    assert (root / "d/run").read_bytes() == BIG
    assert os.readlink(root / "d/l") == "run"
    modes = {name: stat.S_IMODE((root / name).stat().st_mode) for name in ("d", "d/run", "plain", "e/f/g")}
    assert modes == {"d": 0o750, "d/run": 0o755, "plain": 0o644, "e/f/g": 0o600}
    assert (root / "d/run").stat().st_mtime == pytest.approx(1620097322, abs=14 * 3600)


@pytest.mark.parametrize(("bits", "kept"), [(34, 1 << 31), (31, 0)])
def test_a_time_this_system_does_not_know_is_none(
    staging: Path, monkeypatch: pytest.MonkeyPatch, bits: int, kept: int
) -> None:
    monkeypatch.setattr(unpacking, "TIME_BITS", min(bits, unpacking.TIME_BITS))
    run(staging, tar(entry("a", mtime=1 << 31)))
    assert (staging / "tree/a").stat().st_mtime == (kept if bits == unpacking.TIME_BITS else 0)


def test_an_empty_archive_is_an_empty_directory(staging: Path) -> None:
    assert run(staging, tar())["entries"] == 0
    assert run(staging, zipped(), "zip", dest=str(staging / "zip"))["entries"] == 0


def test_the_same_file_twice_is_the_later_one_and_its_hard_link_keeps_the_first(staging: Path) -> None:
    run(
        staging,
        tar((entry("a"), b"one"), hard("b", "a"), (entry("a"), b"two"), hard("b", "a"), hard("c", "b")),
    )
    assert [(staging / "tree" / name).read_bytes() for name in "abc"] == [b"two"] * 3


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: gives files to another user")
def test_everything_belongs_to_the_owner_asked_for(staging: Path) -> None:
    run(staging, good_tar(), owner={"uid": 12345, "gid": 54321})
    tree = staging / "tree"
    for path in (tree, *tree.rglob("*")):
        assert (path.lstat().st_uid, path.lstat().st_gid) == (12345, 54321)


def test_absolute_links_are_kept_for_a_tree_that_becomes_a_root(staging: Path) -> None:
    data = tar(link("bin/sh", "/bin/busybox"), (entry("bin/busybox"), b"x"))
    run(staging, data, allow=["absolute-links"])
    assert os.readlink(staging / "tree/bin/sh") == "/bin/busybox"
    (staging / "tree").rename(staging.parent / "kept")
    shutil.rmtree(staging.parent / "kept")
    assert "leaves the image" in refusal(staging, tar(link("a", "/../x")), allow=["absolute-links"])


# ---- hostile archives


def damaged_header() -> bytes:
    data = bytearray(tar((entry("a"), b"a"), (entry("b"), b"b")))
    data[1024 + 3] ^= 0xFF
    return bytes(data)


def raw_name(name: bytes) -> bytes:
    """Return an archive whose only header has these very bytes as its name, checksum and all."""
    header = bytearray(entry("a").tobuf(tarfile.USTAR_FORMAT))
    header[:100] = name.ljust(100, b"\0")
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header) + bytes(1024)


def sparse() -> bytes:
    """Return a file as GNU tar --sparse describes it in version 0.1 of its extended headers."""
    fields = {"major": "0", "minor": "1", "size": "9", "map": "0,0", "numblocks": "1"}
    return tar(entry("s", pax_headers={f"GNU.sparse.{name}": value for name, value in fields.items()}))


HOSTILE: dict[str, tuple[bytes, str]] = {
    "absolute path": (tar((entry("/etc/x"), b"x")), "member /etc/x: its path is absolute"),
    "path upwards": (tar((entry("../outside"), b"x")), "member ../outside: its path contains '..'"),
    "path down and up": (tar((entry("a/../../outside"), b"x")), "its path contains '..'"),
    "absolute link": (
        tar(link("l", "/etc/passwd")),
        "member l: it is a link to /etc/passwd, an absolute path",
    ),
    "link upwards": (
        tar(link("a/l", "../../outside")),
        "member a/l: it is a link to ../../outside, which leaves",
    ),
    "link through a link": (
        tar(folder("a"), link("a/up", ".."), link("l", "a/up/../outside")),
        "member l: it is a link to a/up/../outside, which leaves",
    ),
    "link through a later link": (
        tar(folder("a"), link("l", "a/up/../outside"), link("a/up", "..")),
        "member l: it is a link to a/up/../outside, which leaves",
    ),
    "links in a circle": (tar(link("a", "b"), link("b", "a")), "leads in a circle"),
    "file through a link": (
        tar(folder("d"), link("l", "d"), (entry("l/x"), b"x")),
        "member l/x: its path leads through the link l",
    ),
    "file through a dangling link": (tar(link("l", "nowhere"), (entry("l/x"), b"x")), "through the link l"),
    "directory through a link": (tar(folder("d"), link("l", "d"), folder("l/x")), "through the link l"),
    "file below a file": (
        tar((entry("f"), b"x"), (entry("f/x"), b"x")),
        "member f/x: its path leads through the file",
    ),
    "hard link out": (
        tar(hard("h", "../outside")),
        "it is a hard link to ../outside, which leaves the image",
    ),
    "hard link absolute": (tar(hard("h", "/etc/passwd")), "which leaves the image"),
    "hard link through a link": (
        tar(folder("d"), (entry("d/f"), b"x"), link("l", "d"), hard("h", "l/f")),
        "member h: its path leads through the link l",
    ),
    "hard link to a link": (tar(link("l", "x"), hard("h", "l")), "which is no file unpacked before"),
    "hard link to nothing": (tar(hard("h", "nothing")), "which is no file unpacked before"),
    "hard link into nothing": (tar(hard("h", "no/thing")), "it needs no, which is not there"),
    "hard link to the root": (tar(hard("h", ".")), "it is a hard link to the root itself"),
    "hard link to itself": (tar((entry("h"), b"x"), hard("h", "h")), "a hard link to itself"),
    "character device": (
        tar(entry("d", tarfile.CHRTYPE, devmajor=1, devminor=3)),
        "it is a character device",
    ),
    "block device": (tar(entry("d", tarfile.BLKTYPE, devmajor=8)), "it is a block device"),
    "FIFO": (tar(entry("f", tarfile.FIFOTYPE)), "member f: it is a FIFO"),
    "unknown type": (tar(entry("f", b"Z")), "of an unknown type b'Z'"),
    "sparse file": (sparse(), "it is a sparse file"),
    "setuid": (tar(entry("su", mode=0o4755)), "member su: it has the setuid bit"),
    "setgid": (tar(entry("sg", mode=0o2755)), "member sg: it has the setgid bit"),
    "setgid directory": (tar(folder("sg", 0o2755)), "it has the setgid bit"),
    "capabilities": (
        tar(entry("ping", pax_headers={"SCHILY.xattr.security.capability": "x"})),
        "member ping: it has file capabilities",
    ),
    "NUL in a name": (tar(entry("f", pax_headers={"path": "a\0b"})), "control character"),
    "newline in a name": (tar((entry("a\nb"), b"x")), "member a\\nb: its name has a control character"),
    "escape sequence in a name": (tar(entry("a\x1b[2Jb")), "control character"),
    "empty name": (raw_name(b""), "its name is empty"),
    "name that is not UTF-8": (raw_name(b"a\xff"), "its name is not valid UTF-8"),
    "long component": (tar(entry("n" * 256)), "is longer than 255 bytes"),
    "long path": (tar(entry("n/" * 600)), "is longer than 1024 bytes"),
    "empty target": (tar(link("l", "")), "its target is empty"),
    "file becomes directory": (
        tar((entry("a"), b"x"), folder("a")),
        "it comes twice, the second time as a directory",
    ),
    "file becomes link": (tar((entry("a"), b"x"), link("a", "b")), "the second time as a symbolic link"),
    "link becomes file": (tar(link("a", "b"), (entry("a"), b"x")), "the second time as a file"),
    "directory becomes file": (tar(folder("a"), (entry("a"), b"x")), "the second time as a file"),
    "directory becomes link": (tar(folder("a"), link("a", "b")), "the second time as a symbolic link"),
    "root as a link": (tar(link("./", "x")), "the root itself as a symbolic link"),
    "negative size": (
        tar(entry("a", pax_headers={"size": "-512"})),
        "negative|damaged header",
    ),  # by tarfile's version
    "huge extended header": (tar(entry("a", pax_headers={"comment": "x" * (2 << 20)})), "a header of"),
    "headers in a row": (
        (entry("x", tarfile.XHDTYPE).tobuf(tarfile.USTAR_FORMAT)) * 2000 + tar(entry("a")),
        "extended headers in a row",
    ),
    "damaged header": (damaged_header(), "damaged header near byte 1536"),
    "no end": (tar((entry("a"), b"x"))[:1024], "the archive ends early"),
    "data cut": (tar((entry("a"), BIG))[:9000], "the archive ends early"),
    "something after the end": (
        tar(entry("a")) + tar(entry("b")),
        "something else follows the archive's end",
    ),
    "gz cut": (gzip.compress(good_tar())[:-5], "the gz data end early"),
    "gz wrong sum": (gzip.compress(good_tar())[:-6] + b"123456", "the gz data are damaged"),
    "gz with a tail": (gzip.compress(good_tar()) + b"tail", "something else follows the gz data"),
    "gz of no tar": (gzip.compress(b"hello " * 1000), "damaged header near byte 512"),
    "bz2 cut": (bz2.compress(good_tar())[:-9], "the bz2 data end early"),
    "xz cut": (lzma.compress(good_tar())[:-9], "the xz data end early"),
    "xz damaged": (b"\xfd7zXZ\0" + bytes(40), "the xz data are damaged"),
    "a web page": (b"<!DOCTYPE html>" + b" " * 900, "it is neither a tar nor a zip archive"),
    "nothing": (b"", "it is neither a tar nor a zip archive"),
    "zip declared as tar": (
        zipped(("a", 0o100644, b"x")),
        "it is a zip archive, its declared type tarball means tar",
    ),
}

HOSTILE_ZIP: dict[str, tuple[bytes, str]] = {
    "absolute path": (zipped(("/etc/x", 0o100644, b"x")), "member /etc/x: its path is absolute"),
    "path upwards": (zipped(("a/../../outside", 0o100644, b"x")), "its path contains '..'"),
    "link out": (zipped(("l", 0o120777, b"../outside")), "it is a link to ../outside, which leaves"),
    "absolute link": (zipped(("l", 0o120777, b"/etc")), "an absolute path"),
    "file through a link": (
        zipped(("d/", 0o40755, b""), ("l", 0o120777, b"d"), ("l/x", 0o100644, b"x")),
        "through the link l",
    ),
    "link that is a bomb": (zipped(("l", 0o120777, b"a" * 9000)), "its target is longer than"),
    "setuid": (zipped(("su", 0o104755, b"x")), "it has the setuid bit"),
    "device": (zipped(("d", 0o020666, b"")), "its type 'c' cannot be unpacked"),
    "FIFO": (zipped(("d", 0o010666, b"")), "its type 'p' cannot be unpacked"),
    "NUL in a name": (zipped(("aXb", 0o100644, b"x")).replace(b"aXb", b"a\0b"), "control character"),
    "encrypted": (
        zipped(("a", 0o100644, b"x")).replace(b"PK\1\2\24\3\24\0\0", b"PK\1\2\24\3\24\0\1"),
        "encrypted",
    ),
    "wrong sum": (
        zipped(("a", 0o100644, b"x")).replace(b"\x83\x16\xdc\x8c", bytes(4)),
        "its data are damaged",
    ),
    "cut": (zipped(("a", 0o100644, BIG))[:-9], "the zip directory at its end is missing or damaged"),
    "changes type": (zipped(("a", 0o100644, b"x"), ("a/", 0o40755, b"")), "it comes twice"),
    "tar declared as zip": (gzip.compress(tar()), "it is a tar archive, its declared type zip means zip"),
}


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_tar_archive_is_refused(staging: Path, name: str) -> None:
    data, why = HOSTILE[name]
    said = refusal(staging, data)
    assert any(each in said for each in why.split("|")), said


@pytest.mark.parametrize("name", HOSTILE_ZIP)
def test_a_hostile_zip_archive_is_refused(staging: Path, name: str) -> None:
    data, why = HOSTILE_ZIP[name]
    assert why in refusal(staging, data, "zip")


def test_a_list_of_members_that_would_fill_the_memory_is_refused_unread(staging: Path) -> None:
    size = MAX_DIRECTORY + 1
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 60_000, 60_000, size, 4, 0)
    why = refusal(staging, b"PK\3\4" + bytes(size) + end, "zip")
    assert why.startswith(f"its list of members has {size} bytes, at most {MAX_DIRECTORY} can be read")


def test_more_than_allowed_is_refused(staging: Path) -> None:
    data = tar((entry("a"), b"x" * 600), (entry("b"), b"x" * 500))
    assert (
        refusal(staging, data, max_bytes=1000) == "member b: with it there are more than 1000 bytes to unpack"
    )
    assert "more than 1 entries" in refusal(staging, data, max_entries=1)
    assert "more than 9 entries" in refusal(staging, tar(entry("a/" * 20 + "x")), max_entries=9)
    assert "more than 9 bytes" in refusal(staging, zipped(("a", 0o100644, b"x" * 10)), "zip", max_bytes=9)


def test_a_ratio_nobody_packs_with_is_refused(staging: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("maestro_py.images.unpack.RATIO_FREE", 1 << 20)
    monkeypatch.setattr("maestro_py.images.unpack.MAX_TRAILER", 1 << 20)
    zeros = gzip.compress(tar((entry("a"), bytes(3 << 20))))
    assert "bytes to unpack" in refusal(staging, zeros, max_ratio=100)
    assert "bytes to unpack" in refusal(
        staging, zipped(("a", 0o100644, bytes(3 << 20))), "zip", max_ratio=100
    )
    comments = tar(*(entry(f"a{n}", pax_headers={"comment": "x" * 900_000}) for n in range(4)))
    assert "bytes come out of it" in refusal(staging, gzip.compress(comments), max_ratio=100)
    trailer = gzip.compress(tar((entry("a"), b"a")) + bytes(4 << 20))
    assert "bytes come out of it" in refusal(staging, trailer, max_ratio=100)
    assert run(staging, zeros)["bytes"] == 3 << 20


@pytest.mark.root
def test_what_is_allowed_is_unpacked_as_it_is(staging: Path) -> None:
    capability = bytes.fromhex(
        "0100000200040000000000000000000000000000"
    )  # net_bind_service, permitted and on
    text = capability.decode("utf-8", "surrogateescape")
    data = tar(
        (entry("su", mode=0o4755), b"x"),
        folder("sg", 0o2775),
        entry("null", tarfile.CHRTYPE, 0o666, devmajor=1, devminor=3),
        entry("disk", tarfile.BLKTYPE, 0o640, devmajor=8, devminor=1),
        entry("pipe", tarfile.FIFOTYPE, 0o600),
        (entry("ping", mode=0o755, pax_headers={"SCHILY.xattr.security.capability": text}), b"x"),
    )
    run(staging, data, allow=["devices", "fifos", "setuid", "capabilities"], owner={"uid": 12, "gid": 34})
    tree = staging / "tree"
    found = {path.name: path.lstat() for path in tree.iterdir()}
    assert {name: oct(stat.S_IMODE(one.st_mode)) for name, one in found.items()} == {
        "su": "0o4755", "sg": "0o2775", "null": "0o666", "disk": "0o640", "pipe": "0o600", "ping": "0o755"
    }  # fmt: skip
    assert {(one.st_uid, one.st_gid) for one in found.values()} == {(12, 34)}
    assert found["null"].st_rdev == os.makedev(1, 3)
    assert stat.S_ISBLK(found["disk"].st_mode)
    assert stat.S_ISFIFO(found["pipe"].st_mode)
    assert {int(one.st_mtime) for one in found.values()} == {MTIME}
    assert os.getxattr(tree / "ping", "security.capability") == capability


ONLY_IF_ALLOWED = ("character device", "block device", "FIFO", "setuid", "setgid", "capabilities")


@pytest.mark.parametrize("name", ONLY_IF_ALLOWED)
def test_what_is_allowed_allows_nothing_else(staging: Path, name: str) -> None:
    needed = {"FIFO": "fifos", "setuid": "setuid", "setgid": "setuid", "capabilities": "capabilities"}
    others = {"devices", "fifos", "setuid", "capabilities", "absolute-links"} - {needed.get(name, "devices")}
    data, why = HOSTILE[name]
    assert why in refusal(staging, data, allow=sorted(others))


@pytest.mark.root
def test_the_owner_may_be_the_archives(staging: Path) -> None:
    data = tar(entry("d/a", uid=12, gid=34), link("d/l", "a"), entry("b", uid=56, gid=78))
    run(staging, data, owner="archive")
    owners = {path.name: (path.lstat().st_uid, path.lstat().st_gid) for path in (staging / "tree").rglob("*")}
    assert owners == {"d": (0, 0), "a": (12, 34), "l": (0, 0), "b": (56, 78)}
    (staging / "tree").rename(staging.parent / "kept")
    shutil.rmtree(staging.parent / "kept")
    wild = tar(entry("a", pax_headers={"uid": str(1 << 40)}))
    assert refusal(staging, wild, owner="archive") == "member a: its owner is not valid"


# ---- damage


def damaged(name: str) -> tuple[bytes, str]:
    """Return an archive of one kind with something of everything in it, and its type."""
    data = tar(
        folder("d", 0o750),
        (entry("d/a"), os.urandom(3000)),
        link("l", "d/a"),
        hard("h", "d/a"),
        (entry("x" * 150), b"long"),
    )
    if name == "zip":
        return zipped(
            ("d/", 0o40755, b""), ("d/a", 0o100644, os.urandom(3000)), ("l", 0o120777, b"d/a")
        ), "zip"
    return COMPRESS[name](data), "tarball"


NO_ZSTD = pytest.mark.skipif(not shutil.which("zstd"), reason="needs zstd")
KINDS = [pytest.param(kind, marks=NO_ZSTD if kind == "zst" else ()) for kind in (*COMPRESS, "zip")]


@pytest.mark.parametrize("name", KINDS)
def test_an_archive_cut_at_any_hundredth_is_refused(staging: Path, name: str) -> None:
    data, kind = damaged(name)
    for hundredth in range(100):
        length = len(data) * hundredth // 100
        if name == "plain" and not any(data[length:]):
            continue  # only the padding behind its end is gone
        refusal(staging, data[:length], kind)


@pytest.mark.parametrize("name", KINDS)
def test_a_flipped_bit_is_refused_or_harmless(staging: Path, name: str) -> None:
    data, kind = damaged(name)
    checksum = {"type": "sha256sum", "value": hashlib.sha256(data).hexdigest()}
    dice = random.Random(7)
    for turn in range(60):
        flipped = bytearray(data)
        bit = dice.randrange(len(data) * 8)
        flipped[bit // 8] ^= 1 << bit % 8
        try:
            run(staging, bytes(flipped), kind)
        except MaestroError:
            pass
        else:  # no format proves every bit: what proves them is the checksum
            shutil.rmtree(staging / "tree")
        assert list(staging.iterdir()) == []
        assert sorted(os.listdir(staging.parent)) == ["archive", "staging"]
        if turn % 6 == 0:
            with pytest.raises(MaestroError, match="checksum does not match"):
                run(staging, bytes(flipped), kind, checks={"name": "X", "checksum": checksum})


def test_any_cut_of_a_compressed_archive_is_refused(staging: Path) -> None:
    data = gzip.compress(tar(folder("d"), (entry("d/a"), b"a" * 3000), link("l", "d/a")))
    for length in range(2, len(data), 3):
        assert "early" in refusal(staging, data[:length])


@pytest.mark.parametrize("kind", COMPRESS)
def test_the_memory_of_what_was_read_is_given_back(kind: str) -> None:
    with on_disk() as place:
        archive = place / "archive"
        archive.write_bytes(COMPRESS[kind](tar((entry("noise"), os.urandom(8 << 20)))))
        with archive.open("rb") as file:
            os.fsync(file.fileno())  # what is on its way to disk stays
        assert cached(archive) > 6 << 20
        unpack({"archive": str(archive), "dest": f"{place}/tree", "image_type": "tarball"})
        assert cached(archive) < 3 << 20


def test_an_unknown_type_and_a_missing_archive_are_named(staging: Path) -> None:
    assert refusal(staging, tar(), "docker").startswith("image type 'docker' is not known")
    (staging.parent / "archive").unlink()
    request = {"archive": "/nowhere/x", "dest": str(staging / "t"), "image_type": "zip"}
    with pytest.raises(MaestroError, match="cannot unpack /nowhere/x: /nowhere/x: No such file or directory"):
        unpack(request)


def test_a_directory_that_is_there_is_left_alone(staging: Path) -> None:
    (staging / "tree").mkdir()
    (staging / "tree" / "mine").touch()
    with pytest.raises(MaestroError, match="File exists"):
        run(staging, good_tar())
    assert (staging / "tree" / "mine").exists()


def test_zstd_without_its_library_is_a_clear_message(staging: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zstd, "LIBRARY", "libnothing.so.1")
    with pytest.raises(Unsupported, match="is compressed with zstd, which this device cannot undo") as caught:
        run(staging, b"\x28\xb5\x2f\xfd" + bytes(99))
    assert "install libnothing.so.1" in caught.value.hint


@NO_ZSTD
def test_zstd_frames_in_a_row_are_one_archive(staging: Path) -> None:
    data, note = good_tar(), b"\x50\x2a\x4d\x18\x03\0\0\0abc"  # a skippable frame, RFC 8878 3.1.2
    run(staging, COMPRESS["zst"](data[:5000]) + note + COMPRESS["zst"](data[5000:]))
    check_good_tree(staging / "tree")


@NO_ZSTD
@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (lambda data: data[:-3], "the zst data end early"),
        (lambda data: data + b"more", "the zst data are damaged: "),
        (lambda data: data[:9] + bytes([data[9] ^ 255]) + data[10:], "the zst data are damaged: "),
    ],
)
def test_damaged_zstd_data_are_named(staging: Path, spoil: Callable[[bytes], bytes], why: str) -> None:
    assert why in refusal(staging, spoil(COMPRESS["zst"](good_tar())))


@NO_ZSTD
def test_zstd_data_that_want_too_much_memory_are_refused(staging: Path) -> None:
    command = ["zstd", "-qc", "--long=28", "--no-check"]
    data = subprocess.run(command, input=good_tar(), capture_output=True, check=True).stdout
    assert "too much memory" in refusal(staging, data)


# ---- as a program


def program(request: dict[str, Any], prefix: str = "") -> subprocess.Popen[bytes]:
    started = subprocess.Popen(
        ["/bin/sh", "-c", f'{prefix} exec "$0" -m maestro_py.images.unpack', sys.executable],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert started.stdin
    started.stdin.write(json.dumps(request).encode() + b"\n")
    started.stdin.flush()
    return started


def request_for(staging: Path, data: bytes) -> dict[str, Any]:
    archive = staging.parent / "a.tgz"
    archive.write_bytes(data)
    return {"archive": str(archive), "dest": str(staging / "tree"), "image_type": "tarball", "owner": None}


def gigabyte() -> bytes:
    """Return a small gz file with a file of zeros in it that takes a while to write."""
    piece = 8 << 20
    return gzip.compress(entry("zeros", size=128 * piece).tobuf()) + gzip.compress(bytes(piece)) * 128


def test_the_program_says_one_last_line_and_nothing_on_stderr(staging: Path) -> None:
    request = request_for(staging, gzip.compress(good_tar()))
    with program(request) as running:
        out, err = running.communicate(timeout=30)
    assert (running.returncode, err) == (0, b"")
    assert json.loads(out.splitlines()[-1])["done"] is True
    check_good_tree(staging / "tree")
    with program(request) as running:
        out, err = running.communicate(timeout=30)
    assert (running.returncode, err) == (1, b"")
    assert json.loads(out)["error"]["code"] == "failed"


def test_a_disk_that_takes_no_more_is_named_and_nothing_stays(staging: Path) -> None:
    with program(request_for(staging, gigabyte()), "ulimit -f 64;") as running:
        out, err = running.communicate(timeout=30)
    assert (running.returncode, err) == (1, b"")
    assert json.loads(out.splitlines()[-1])["error"]["message"].endswith("a.tgz: File too large")
    assert list(staging.iterdir()) == []


def test_ended_from_outside_it_cleans_up(staging: Path) -> None:
    with program(request_for(staging, gigabyte())) as running:
        while not (staging / "tree" / "zeros").exists():
            assert running.poll() is None
        running.terminate()
        out, err = running.communicate(timeout=30)
    assert (running.returncode, err) == (1, b"")
    assert json.loads(out.splitlines()[-1])["error"]["message"] == "cannot go on: ended from outside"
    assert list(staging.iterdir()) == []


def test_killed_halfway_its_decompressor_goes_too(staging: Path) -> None:
    with program(request_for(staging, gigabyte())) as running:
        while not (staging / "tree" / "zeros").exists():
            assert running.poll() is None
        child = Path(f"/proc/{running.pid}/task/{running.pid}/children").read_text().split()[0]
        pidfd = os.pidfd_open(int(child))
        running.kill()
        running.communicate(timeout=30)
    assert select.select([pidfd], [], [], 10)[0]
    os.close(pidfd)
