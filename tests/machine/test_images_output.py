# SPDX-License-Identifier: Apache-2.0
"""Writing files of an image: everything arrives, little is on its way, and the page cache stays free."""

from __future__ import annotations

import ctypes
import errno
import os
import random
import tarfile
import zlib
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import pytest
from support.pagecache import cached, on_disk

from maestro_py.errors import MaestroError
from maestro_py.images import flush
from maestro_py.images.output import SMALL, STEP, WINDOW, WINDOW_RANGES, Output, WriteBehind
from maestro_py.images.unpack import unpack


@pytest.fixture
def disk() -> Iterator[Path]:
    with on_disk() as place:
        yield place


def packed(place: Path, *members: tuple[str, int, int]) -> dict[str, object]:
    """Return the request to unpack an archive with these files: name, mode and size."""
    archive = place / "archive"
    with tarfile.open(archive, "w") as tar:
        for name, mode, size in members:
            info = tarfile.TarInfo(name)
            info.mode, info.size = mode, size
            tar.addfile(info, BytesIO(os.urandom(size)))
    return {"archive": str(archive), "dest": str(place / "tree"), "image_type": "tarball"}


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_pieces_of_any_size_arrive_with_their_checksum(disk: Path) -> None:
    dice = random.Random(1)
    behind = WriteBehind()
    for name in map(str, range(20)):
        sizes = [dice.choice((1, 511, SMALL, 1 << 20, STEP)) for _ in range(dice.randrange(8))]
        pieces = [dice.randbytes(size) for size in sizes]
        with (disk / name).open("xb", buffering=0) as file:
            output = Output(file.fileno(), behind, stays=False)
            for piece in pieces:
                output.write(memoryview(piece))
            checksum = output.finish()
        assert checksum == f"{zlib.crc32(b''.join(pieces)):08x}"
        assert (disk / name).read_bytes() == b"".join(pieces)
    behind.settle()


def test_what_is_on_its_way_is_bounded_and_holds_no_descriptor_afterwards(disk: Path) -> None:
    before = open_files()
    behind = WriteBehind()
    for name, size in [(f"many{number}", SMALL) for number in range(2 * WINDOW_RANGES)]:
        with (disk / name).open("xb", buffering=0) as file:
            output = Output(file.fileno(), behind, stays=False)
            output.write(memoryview(bytes(size)))
            output.finish()
        assert open_files() <= before + WINDOW_RANGES
    with (disk / "large").open("xb", buffering=0) as file:
        output = Output(file.fileno(), behind, stays=False)
        for _ in range(3 * WINDOW // STEP):
            output.write(memoryview(bytes(STEP)))
        assert open_files() <= before + 1 + WINDOW // STEP
        assert cached(disk / "large") <= WINDOW
    behind.settle()
    assert open_files() == before
    with (disk / "more").open("xb", buffering=0) as file:
        output = Output(file.fileno(), behind, stays=False)
        output.write(memoryview(bytes(STEP)))
    behind.close()
    assert open_files() == before


def test_an_unpacked_image_leaves_the_page_cache_but_for_programs_and_small_files(disk: Path) -> None:
    size = 5 << 20
    unpack(packed(disk, ("data", 0o644, size), ("program", 0o755, size), ("small", 0o644, SMALL - 1)))
    tree = disk / "tree"
    assert cached(tree / "data") == 0
    assert cached(tree / "program") >= size
    assert cached(tree / "small") == SMALL


@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC, errno.EDQUOT])
def test_what_the_disk_did_not_take_is_a_failure(
    disk: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    refuse_ranges(monkeypatch, code)
    request = packed(disk, *((f"file{number}", 0o644, STEP) for number in range(1 + WINDOW // STEP)))
    with pytest.raises(MaestroError, match=os.strerror(code)):
        unpack(request)
    assert [path.name for path in disk.iterdir()] == ["archive"]


def test_a_file_system_that_knows_no_ranges_is_no_failure(
    disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse_ranges(monkeypatch, errno.ENOSYS)
    unpack(packed(disk, ("file", 0o644, 2 * WINDOW)))
    assert (disk / "tree/file").stat().st_size == 2 * WINDOW


def refuse_ranges(monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    """Have sync_file_range(2) fail, as it does with a broken disk or in an old kernel."""

    class Refusing:
        syncfs = staticmethod(flush._libc.syncfs)

        @staticmethod
        def sync_file_range(*_: object) -> int:
            ctypes.set_errno(code)
            return -1

    monkeypatch.setattr(flush, "_libc", Refusing)
