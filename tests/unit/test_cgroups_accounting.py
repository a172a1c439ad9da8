# SPDX-License-Identifier: Apache-2.0
"""What a group has used, from the files of each version of control groups and from the processes."""

from __future__ import annotations

import os
from pathlib import Path

from maestro_py.process.cgroups.accounting import Use, use
from maestro_py.process.cgroups.port import Cgroup, Memory


class Group(Cgroup):
    """A group whose files are in a directory, and whose one process is this one."""

    def __init__(self, directory: Path | None, memory: int | None, pids: tuple[int, ...] = ()) -> None:
        self.name = "app"
        self._directory = str(directory) if directory else None
        self._memory = memory
        self._pids = list(pids)

    def directory(self, controller: str) -> str | None:
        return self._directory

    def memory(self) -> Memory:
        return Memory(self._memory)

    def pids(self) -> list[int]:
        return self._pids

    def kill(self) -> None: ...

    def freeze(self, on: bool) -> None: ...

    def frozen(self) -> bool:
        return False


def write(directory: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (directory / name).write_text(text)
    return directory


def test_version_2_is_read_from_its_files(tmp_path: Path) -> None:
    files = {
        "cpu.stat": "usage_usec 1500000\nuser_usec 1000000\nsystem_usec 500000\n",
        "pids.current": "7\n",
        "io.stat": "8:0 rbytes=10 wbytes=20 rios=1 wios=1 dbytes=0 dios=0\n8:16 rbytes=5 wbytes=1 rios=1\n",
    }
    assert use(Group(write(tmp_path, files), 99)) == Use(1.5, 7, 15, 21, 99)


def test_version_1_is_read_from_its_files(tmp_path: Path) -> None:
    files = {
        "cpu.stat": "nr_periods 0\nnr_throttled 0\nthrottled_time 0\n",
        "cpuacct.usage": "2500000000\n",
        "pids.current": "3\n",
        "blkio.throttle.io_service_bytes": "8:0 Read 4096\n8:0 Write 8192\n8:16 Read 1\nTotal 12289\n",
    }
    assert use(Group(write(tmp_path, files), 99)) == Use(2.5, 3, 4097, 8192, 99)


def test_a_group_that_has_read_and_written_nothing_says_zero(tmp_path: Path) -> None:
    found = use(Group(write(tmp_path, {"io.stat": "", "cpu.stat": "usage_usec 1\n", "pids.current": "1"}), 1))
    assert (found.read, found.written) == (0, 0)


def test_without_files_the_processes_are_summed(tmp_path: Path) -> None:
    for directory in (None, tmp_path):
        found = use(Group(directory, None, (os.getpid(), os.getpid())))
        assert None not in (found.cpu, found.tasks, found.memory, found.read, found.written)
        assert found.cpu
        assert found.memory
        assert found.tasks
        assert found.tasks >= 2
        assert found.memory > 1 << 20


def test_a_process_that_has_gone_counts_nothing() -> None:
    gone = 1 << 22  # above the largest pid
    assert use(Group(None, None, (gone,))) == Use(0, 0, 0, 0, 0)
