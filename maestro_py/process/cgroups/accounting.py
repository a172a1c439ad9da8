# SPDX-License-Identifier: Apache-2.0
"""What the processes of one group have used: the kernel's own count, or the sum over its processes.

Asked for by metrics only, so the daemon loads it then.
"""

from __future__ import annotations

import os
from itertools import pairwise

from maestro_py.process import kernel
from maestro_py.process.cgroups import files
from maestro_py.process.cgroups.port import Cgroup
from maestro_py.valueclass import valueclass

# fields of proc_pid_stat(5), counted from the state
_TIMES = slice(11, 15)  # utime, stime and those of children that were waited for
_THREADS, _RSS = 17, 21

_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


@valueclass(frozen=True)
class Use:
    """CPU seconds and bytes read from and written to devices so far; tasks and memory bytes now.

    None: nobody counts it here.
    """

    cpu: float | None
    tasks: int | None
    read: int | None
    written: int | None
    memory: int | None


def use(group: Cgroup) -> Use:
    """Return what a group has used.

    A sum over processes misses those that ended without being waited for; a count does not.
    """
    cpu, tasks, (read, written), memory = (
        _cpu(group.directory("cpu")),
        _tasks(group.directory("pids")),
        _io(group.directory("io")),
        group.memory().current,
    )
    if None in (cpu, tasks, read, written, memory):
        pids = group.pids()
        stats = [fields for pid in pids if (fields := _stat(pid))]
        if cpu is None:
            cpu = sum(sum(map(int, fields[_TIMES])) for fields in stats) / _TICKS
        if tasks is None:
            tasks = sum(int(fields[_THREADS]) for fields in stats)
        if memory is None:
            memory = sum(int(fields[_RSS]) for fields in stats) * _PAGE
        if read is None or written is None:
            read, written = _io_of(pids)
    return Use(cpu, tasks, read, written, memory)


def _cpu(path: str | None) -> float | None:
    if path is None:
        return None
    usec = files.keyed(f"{path}/cpu.stat", "usage_usec")  # v2; on v1 the file has no such line
    if usec is not None:
        return usec / 1e6
    nsec = files.number(f"{path}/cpuacct.usage")  # v1, when cpuacct is mounted together with cpu
    return None if nsec is None else nsec / 1e9


def _tasks(path: str | None) -> int | None:
    return None if path is None else files.number(f"{path}/pids.current")


def _io(path: str | None) -> tuple[int | None, int | None]:
    """Return bytes read and written over all devices; None where no file counts them."""
    if path is None:
        return None, None
    words = _words(f"{path}/io.stat")  # v2: MAJOR:MINOR rbytes=N wbytes=N …
    if words is not None:
        return _v2_sum(words, "rbytes="), _v2_sum(words, "wbytes=")
    for name in ("blkio.throttle.io_service_bytes_recursive", "blkio.throttle.io_service_bytes"):
        words = _words(f"{path}/{name}")  # v1: MAJOR:MINOR Read N, MAJOR:MINOR Write N, …, Total N
        if words is not None:
            return _v1_sum(words, "Read"), _v1_sum(words, "Write")
    return None, None


def _v2_sum(words: list[str], key: str) -> int:
    return sum(int(word[len(key) :]) for word in words if word.startswith(key))


def _v1_sum(words: list[str], key: str) -> int:
    return sum(int(after) for word, after in pairwise(words) if word == key)


def _words(path: str) -> list[str] | None:
    try:
        return files.read(path).split()
    except OSError:
        return None


def _stat(pid: int) -> list[bytes] | None:
    try:
        return kernel.stat_fields(pid)
    except OSError:  # gone meanwhile
        return None


def _io_of(pids: list[int]) -> tuple[int | None, int | None]:
    """Return the sums of proc_pid_io(5), which is for the process's own user and root."""
    read = written = 0
    for pid in pids:
        try:
            words = files.read(f"/proc/{pid}/io").split()
        except PermissionError:
            return None, None
        except OSError:  # gone meanwhile
            continue
        read += int(words[words.index("read_bytes:") + 1])
        written += int(words[words.index("write_bytes:") + 1])
    return read, written
