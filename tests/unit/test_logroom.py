# SPDX-License-Identifier: Apache-2.0
"""What logs may take of the disk."""

from __future__ import annotations

import os
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from maestro_py.daemon.logroom import LogRoom
from maestro_py.spec.daemonconfig import DaemonConfig


def write(directory: Path, sizes: dict[str, int]) -> None:
    """Write files, the first one being the oldest."""
    for age, (name, size) in enumerate(sizes.items()):
        (directory / name).write_bytes(b"x" * size)
        os.utime(directory / name, (1000 + age, 1000 + age))


@given(st.integers(1, 1 << 30), st.integers(1, 50), st.integers(1 << 20, 1 << 40), st.integers(0, 500))
def test_all_shares_together_are_never_more_than_the_total(
    size: int, files: int, total: int, processes: int
) -> None:
    each = LogRoom("", size, files, total).size_for(processes)
    assert each == 4096 or (each <= size and each * files * max(1, processes) <= total)


def test_few_processes_have_whole_files() -> None:
    room = LogRoom("", 10 << 20, 4, 1 << 30)
    assert room.size_for(0) == room.size_for(25) == 10 << 20
    assert room.size_for(100) == (1 << 30) // 400


def test_what_fits_stays(tmp_path: Path) -> None:
    write(tmp_path, {"gone.log": 100, "here.log.1": 100, "here.log": 100})
    assert LogRoom(str(tmp_path), 1, 1, 300).clean(["here"]) == []


def test_what_is_gone_goes_first_then_what_is_oldest(tmp_path: Path) -> None:
    sizes = {"here.log.2": 100, "gone.log.1": 100, "gone.log": 100, "here.log.1": 100, "here.log": 100,
             "gone.idx": 10, "foreign.txt": 1000}  # fmt: skip
    write(tmp_path, sizes)
    assert LogRoom(str(tmp_path), 1, 1, 350).clean(["here"]) == ["gone.log.1", "gone.log"]
    assert LogRoom(str(tmp_path), 1, 1, 150).clean(["here"]) == ["gone.idx", "here.log.2", "here.log.1"]
    assert LogRoom(str(tmp_path), 1, 1, 50).clean(["here"]) == []
    assert sorted(os.listdir(tmp_path)) == ["foreign.txt", "here.log"]


def test_without_a_total_it_is_a_part_of_the_disk(tmp_path: Path) -> None:
    disk = os.statvfs(tmp_path)
    room = LogRoom.of(str(tmp_path), DaemonConfig())
    assert room.total == min(1 << 30, disk.f_blocks * disk.f_frsize // 10)
    assert LogRoom.of(str(tmp_path), DaemonConfig(log_total_size=7)).total == 7
