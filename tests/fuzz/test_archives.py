# SPDX-License-Identifier: Apache-2.0
"""Archives nobody would make, by the thousand: unpacked inside their directory, or refused and gone.

An archive that breaks a rule is kept; once understood, it belongs to those of test_images_unpack.py.
"""

from __future__ import annotations

import bz2
import contextlib
import ctypes
import gzip
import io
import lzma
import os
import random
import shutil
import stat
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.fuzzing import SEED, TIMEOUT, kept, memory, rounds, spoiled

from maestro_py.errors import MaestroError, Unsupported
from maestro_py.images import zstd
from maestro_py.images.unpack import unpack

LIMITS = {"max_entries": 300, "max_bytes": 1 << 20, "max_ratio": 1000}
ALLOW = ("devices", "fifos", "setuid", "capabilities", "absolute-links")

NAMES = (
    "a", "b", "a/b", "a/b/c", "l", "l/x", "./a", "a//b", "a/./b", ".", "..", "../x", "a/../b", "a/../../x",
    "/", "/etc/passwd", "", "\x00", "a\nb", "ü" * 70, "n" * 254, "n" * 256, "a/" * 300, "%2e%2e/x", "a\\b",
)  # fmt: skip
TARGETS = (
    "a", "b", "l", "..", "../x", "../../outside", "/", "/etc/passwd", "a/b", "a/../b", "l/..", ".", "",
    "x" * 5000,
)  # fmt: skip
TAR_TYPES = tuple(bytes([letter]) for letter in b"01234567LKxgSNZXM\0")
ZIP_TYPES = (stat.S_IFREG, stat.S_IFREG, stat.S_IFLNK, stat.S_IFDIR, stat.S_IFIFO, stat.S_IFCHR, 0)
PAX_KEYS = (
    "path", "linkpath", "size", "uid", "mtime", "hdrcharset", "GNU.sparse.major", "GNU.sparse.map",
    "GNU.sparse.size", "GNU.sparse.realsize", "GNU.sparse.name", "SCHILY.xattr.security.capability",
    "LIBARCHIVE.xattr.security.capability",
)  # fmt: skip
PAX_VALUES = (*NAMES[:20], "0", "-1", "9" * 30, "nan", "inf", "1e400", "BINARY", "AAAA", "1,2,3", "\udc80")


def zst(data: bytes) -> bytes:
    """Return data as one zstd frame."""
    library = zstd.library()
    library.ZSTD_compressBound.restype = library.ZSTD_compress.restype = ctypes.c_size_t
    room = ctypes.create_string_buffer(library.ZSTD_compressBound(ctypes.c_size_t(len(data))))
    sizes = ctypes.c_size_t(len(room)), ctypes.c_size_t(len(data))
    return room.raw[: library.ZSTD_compress(room, sizes[0], data, sizes[1], 3)]


COMPRESS: tuple[Callable[[bytes], bytes], ...] = (gzip.compress, bz2.compress, lzma.compress)
with contextlib.suppress(Unsupported):
    zstd.library()
    COMPRESS += (zst,)


@pytest.fixture
def place() -> Iterator[Path]:
    with memory() as directory:
        yield directory


class Maker:
    """Makes archives, most of them nearly right."""

    def __init__(self, dice: random.Random) -> None:
        self.dice = dice

    def archive(self) -> bytes:
        """Return one archive."""
        make: Callable[[], bytes] = self.dice.choice((self.tar, self.tar, self.zip))
        data = make()
        if self.dice.random() < 0.4:
            data = spoiled(self.dice, data)
        if make != self.zip and self.dice.random() < 0.3:
            data = self.dice.choice(COMPRESS)(data)
            if self.dice.random() < 0.3:
                data = spoiled(self.dice, data)
        return data

    def tar(self) -> bytes:
        """Return a tar archive of strange headers."""
        dice, out = self.dice, io.BytesIO()
        for _ in range(dice.randrange(1, 8)):
            info = tarfile.TarInfo(self.name())
            info.type = dice.choice((b"0", b"0", b"5", b"2", b"1")) if self.good() else dice.choice(TAR_TYPES)
            info.linkname = dice.choice(TARGETS[:3] if self.good() else TARGETS)
            info.mode = 0o755 if self.good() else dice.choice((0o4755, 0o7777, dice.randrange(1 << 21)))
            info.uid, info.gid = dice.choice((0, 1000, 1 << 20)), dice.choice((0, 5, 1 << 33))
            info.mtime = dice.choice((0, 1_600_000_000, dice.randrange(1 << 34), 1.5))
            info.devmajor, info.devminor = dice.choice((0, 1, 8)), dice.choice((0, 3, 1 << 18))
            body = dice.randbytes(dice.choice((0, 1, 511, 512, 513, 5000)))
            info.size = len(body) if info.type in (b"0", b"\0", b"7", b"L", b"K", b"x", b"g", b"S") else 0
            if dice.random() < 0.1:
                info.pax_headers = dict(self.extended() for _ in range(dice.randrange(1, 4)))
            if info.type in (b"x", b"g") and dice.random() < 0.7:
                body = self.records()
                info.size = len(body)
            form = dice.choice((tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT))
            try:
                header = info.tobuf(form, "utf-8", "surrogateescape")
            except (ValueError, OverflowError, UnicodeError):
                continue
            out.write(header + body + bytes(-len(body) % 512))
        out.write(bytes(1024 if self.good() else dice.choice((0, 512, 10240))))
        return out.getvalue()

    def good(self) -> bool:
        """Say whether to do the ordinary thing; it takes several in a row to come far."""
        return self.dice.random() < 0.9

    def name(self) -> str:
        """Return the name of a member."""
        return self.dice.choice(NAMES[:9] if self.good() else NAMES)

    def extended(self) -> tuple[str, str]:
        """Return a field of a PAX header."""
        return self.dice.choice(PAX_KEYS), self.dice.choice(PAX_VALUES)

    def records(self) -> bytes:
        """Return the body of a PAX header, with lengths that need not be right."""
        out = b""
        for _ in range(self.dice.randrange(1, 4)):
            key, value = self.extended()
            text = f" {key}={value}\n".encode("utf-8", "surrogateescape")
            length = len(text) + 2 + self.dice.choice((0, 0, 0, 1, -1, 1000))
            out += str(length).encode() + text
        return out

    def zip(self) -> bytes:
        """Return a zip archive of strange entries."""
        dice, out = self.dice, io.BytesIO()
        with zipfile.ZipFile(out, "w") as archive:
            for _ in range(dice.randrange(1, 6)):
                info = zipfile.ZipInfo(self.name() or "x", (dice.randrange(1980, 2100), 1, 1, 0, 0, 0))
                info.create_system = dice.choice((0, 3, 3, 3, 19))
                kind = dice.choice(ZIP_TYPES)
                info.external_attr = (kind | dice.choice((0o644, 0o755, 0o4755))) << 16
                info.compress_type = dice.choice(
                    (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2)
                )
                target = dice.choice(TARGETS).encode()
                body = dice.choice((target, target, dice.randbytes(dice.randrange(600)), bytes(70_000)))
                if info.filename.endswith("/") and dice.random() < 0.9:
                    body = b""
                archive.writestr(info, body)
        return out.getvalue()


def snapshot(place: Path) -> dict[str, tuple[Any, ...]]:
    """Return what is in a directory, and what shows a change of it."""
    found = {}
    for path in sorted(place.rglob("*")):
        seen = path.lstat()
        found[str(path)] = (seen.st_mode, seen.st_size, seen.st_mtime_ns, seen.st_uid, seen.st_nlink)
    return found


def check(place: Path, data: bytes, allow: tuple[str, ...] = (), image_type: str = "") -> bool:
    """Unpack one archive and hold it to the rules; return whether it was accepted."""
    staging = place / "in"
    staging.mkdir(exist_ok=True)
    guard = place / "outside"
    if not guard.exists():
        guard.mkdir()
        (guard / "mine").write_text("mine")
        (place / "x").write_text("mine")
    (place / "archive").write_bytes(data)
    before, open_files = snapshot(place), len(os.listdir("/proc/self/fd"))
    kind = image_type or ("zip" if data[:2] == b"PK" else "tarball")
    request = {
        "archive": str(place / "archive"),
        "dest": str(staging / "tree"),
        "image_type": kind,
        "name": "X",
    }
    try:
        unpack({**request, **LIMITS, "allow": list(allow)})
        said = ""
    except MaestroError as error:
        said = error.message
    if not said:
        inside(staging / "tree", allow)
        shutil.rmtree(staging / "tree")
    assert said.isprintable(), said
    assert len(said) < 2000
    after = snapshot(place)
    for seen in (before, after):
        seen.pop(str(staging))  # its time changes
    assert after == before
    assert len(os.listdir("/proc/self/fd")) == open_files
    return not said


def inside(tree: Path, allow: tuple[str, ...]) -> None:
    """Hold an unpacked tree to what was allowed."""
    root, sizes, names = os.path.realpath(tree), dict[int, int](), list[int]()
    entries = list(tree.rglob("*"))
    for path in entries:
        found = path.lstat()
        kind = stat.S_IFMT(found.st_mode)
        assert str(path).isprintable()
        if kind == stat.S_IFLNK:
            if "absolute-links" not in allow:
                assert (os.path.realpath(path) + "/").startswith(root + "/"), os.readlink(path)
            continue
        assert "setuid" in allow or not found.st_mode & (stat.S_ISUID | stat.S_ISGID)
        if kind == stat.S_IFIFO:
            assert "fifos" in allow
        elif kind in (stat.S_IFCHR, stat.S_IFBLK):
            assert "devices" in allow
        elif kind == stat.S_IFREG:
            assert "capabilities" in allow or not os.listxattr(path)
            sizes[found.st_ino] = found.st_size
            names.append(found.st_ino)
        else:
            assert kind == stat.S_IFDIR
    assert len(entries) <= LIMITS["max_entries"]
    assert sum(sizes.values()) <= LIMITS["max_bytes"]
    for path in entries:
        if path.is_file() and not path.is_symlink():  # all names of a file are here
            assert path.stat().st_nlink == names.count(path.stat().st_ino)


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.timeout(TIMEOUT)
def test_no_archive_leaves_its_directory_or_breaks_the_reader(place: Path) -> None:
    dice = random.Random(SEED)
    maker = Maker(dice)
    count = accepted = 0
    for count in rounds(least=50):
        data = maker.archive()
        allow = tuple(what for what in ALLOW if dice.random() < 0.2)
        with kept(f"archive {count}, allow {allow},", {"archive": data}):
            accepted += check(place, data, allow)
    print(f"{count + 1} archives, {accepted} of them accepted, seed {SEED}")
    assert accepted or count < 1000, "nearly all are refused at once: they test too little"
