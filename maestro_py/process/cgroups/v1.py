# SPDX-License-Identifier: Apache-2.0
"""cgroup v1: one tree per controller; a process enters only those that carry a limit of its.

Entering a v1 group costs a grace period of the kernel (milliseconds, see `join_fds`), so nobody pays who
has no limit.

Limits are written through cgroupspy's controllers where it has them. Its `Node` and `Tree` are left out:
importing them brings logging and threading in, and the controllers want nothing of a node but a path.
pids, freezer and BFQ, which it lacks, are plain files here, and so is what `status` reads for every job.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from maestro_py.errors import Conflict, MaestroError
from maestro_py.process.cgroups import files
from maestro_py.process.cgroups.port import Memory
from maestro_py.process.cgroups.values import (
    CONTROLLER,
    CPU_PERIOD,
    bfq_weight,
    blkio_weight,
    cpu_quota,
    cpu_shares,
    in_use,
    set_fields,
)
from maestro_py.spec.model import Limits

_WEIGHTS = ("blkio.bfq.weight", "blkio.weight")  # of groups only, the top of the tree has none
_UNLIMITED = 1 << 62  # the kernel shows the largest multiple of a page for "no limit"


class Hierarchies:
    """The v1 trees of this device and the base in each.

    The base lies at the top of each tree as it is mounted here, not below the daemon's own group: that
    one differs from login to login, and a restarted daemon must find what it left.
    """

    def __init__(self, mounts: dict[str, str], base: str) -> None:
        """`mounts`: directory by controller; blkio goes by its v2 name, io."""
        self.mounts = mounts
        self.base = base

    def prepare(self) -> None:
        """Make the base where only a look into a group tells what the kernel can do. Raises OSError."""
        if "io" in self.mounts:
            files.make(f"{self.mounts['io']}/{self.base}")

    def directory(self, controller: str, name: str) -> str:
        """Return the path of a process's group."""
        return f"{self.mounts[controller]}/{self.base}/{files.directory_name(name)}"

    def existing(self) -> set[str]:
        """Return the names below any of the bases."""
        return {name for mount in self.mounts.values() for name in files.group_names(f"{mount}/{self.base}")}

    def needed(self, limits: Limits, *, freezer: bool) -> list[str]:
        """Return the controllers these limits need; with `freezer` that one too, if there are any."""
        wanted = {CONTROLLER[field] for field in set_fields(limits) if not self._why_not(field, limits)}
        if wanted and freezer:
            wanted.add("freezer")
        return [controller for controller in self.mounts if controller in wanted]

    def unsupported(self, limits: Limits) -> list[str]:
        """Return a sentence for each limit that cannot be kept."""
        reasons = ((field, self._why_not(field, limits)) for field in set_fields(limits))
        return [f"{field}: {why}" for field, why in reasons if why]

    def remove_base(self) -> None:
        """Remove the bases that are empty."""
        for mount in set(self.mounts.values()):
            try:
                os.rmdir(f"{mount}/{self.base}")
            except OSError:
                pass

    def _why_not(self, field: str, limits: Limits) -> str:
        mount = self.mounts.get(CONTROLLER[field])
        if mount is None:
            return f"the {CONTROLLER[field]} controller is not mounted"
        if field == "mem_high":
            return "cgroup v1 has nothing that slows a process down before its memory limit"
        if field == "swap_limit":
            if not os.path.exists(f"{mount}/memory.memsw.limit_in_bytes"):
                return "this kernel has no swap accounting"
            if limits.mem_limit is None:
                return "cgroup v1 limits swap only together with mem_limit"
        if field == "cpu_max" and not os.path.exists(f"{mount}/cpu.cfs_quota_us"):
            return "this kernel has no limit on CPU time"
        if field == "io_weight" and not self._weighs_io(f"{mount}/{self.base}"):
            return "this kernel weighs no I/O on cgroup v1"
        return ""

    def _weighs_io(self, inside: str) -> bool:
        # before the base is made nobody knows
        return not os.path.isdir(inside) or any(os.path.exists(f"{inside}/{file}") for file in _WEIGHTS)


class V1Limits:
    """The v1 groups of one process. Counts run from the making of a group."""

    def __init__(self, trees: Hierarchies, name: str) -> None:
        self._trees = trees
        self._name = name
        self._join: tuple[int, ...] = ()
        self._oom = -1
        every = {controller: trees.directory(controller, name) for controller in trees.mounts}
        self.directories = {controller: path for controller, path in every.items() if os.path.isdir(path)}

    def prepare(self, limits: Limits, doing: str, *, freezer: bool) -> None:
        """Have groups for just these limits, empty and not frozen. Raises MaestroError."""
        needed = self._trees.needed(limits, freezer=freezer)
        keep = {self._trees.directory(controller, self._name) for controller in needed}
        try:
            for controller, path in list(self.directories.items()):
                if left := files.processes(path):
                    raise Conflict(f"{doing}: processes are still in it: {', '.join(map(str, left[:10]))}")
                if path not in keep:
                    files.remove(path)
                    del self.directories[controller]
            if "freezer" in self.directories:
                self.freeze(False)
        except OSError as error:
            raise MaestroError(f"{doing}: {error.strerror}") from error
        self._make(needed, doing)
        self.write(limits, doing)

    def extend(self, limits: Limits, pids: Callable[[], list[int]], doing: str, *, freezer: bool) -> None:
        """Write limits; processes are moved into groups that only now are needed. Raises MaestroError."""
        before = set(self.directories.values())
        self._make(self._trees.needed(limits, freezer=freezer), doing)
        self.write(limits, doing)
        for path in sorted(set(self.directories.values()) - before):
            self._move(path, lambda: [*pids(), *self.pids()], doing)

    def write(self, limits: Limits, doing: str) -> None:
        """Write the limits into the groups that are there. Raises MaestroError."""
        writers = {
            "memory": self._write_memory,
            "pids": self._write_pids,
            "cpu": self._write_cpu,
            "io": self._write_io,
        }
        for controller, writer in writers.items():
            if controller in self.directories:
                try:
                    writer(limits)
                except OSError as error:
                    used = self.memory().current or 0
                    if controller == "memory" and limits.mem_limit is not None and used > limits.mem_limit:
                        raise in_use(doing, limits.mem_limit, used) from error
                    raise MaestroError(f"{doing}: {controller}: {error.strerror}") from error

    def join_fds(self) -> tuple[int, ...]:
        """Return one fd per group, opened on demand.

        The first write after a pause waits for the kernel's grace period; the others then find it paid.
        """
        if not self._join:
            paths = sorted(set(self.directories.values()))
            self._join = tuple(os.open(f"{path}/cgroup.procs", os.O_WRONLY | os.O_CLOEXEC) for path in paths)
        return self._join

    def joined(self) -> None:
        """Close what `join_fds` opened."""
        for fd in self._join:
            os.close(fd)
        self._join = ()

    def close(self) -> None:
        """Close all fds."""
        self.joined()
        if self._oom >= 0:
            os.close(self._oom)
            self._oom = -1

    def pids(self) -> list[int]:
        """Return who is in any of the groups: the same in each, but for a moment while they are joined."""
        return sorted({pid for path in set(self.directories.values()) for pid in files.processes(path)})

    def freeze(self, on: bool) -> None:
        """Freeze or thaw by the freezer group, which must be there."""
        files.write_if_there(f"{self.directories['freezer']}/freezer.state", "FROZEN" if on else "THAWED")

    def frozen(self) -> bool:
        """Return whether the freezer group has frozen; until then it reads FREEZING."""
        return files.read(f"{self.directories['freezer']}/freezer.state").strip() == "FROZEN"

    def oom_fd(self) -> int | None:
        """Return an eventfd the kernel writes to at each lack of memory (cgroup-v1/memory.rst, section 9)."""
        path = self.directories.get("memory")
        if self._oom >= 0 or path is None:
            return self._oom if self._oom >= 0 else None
        event = control = -1
        try:
            event = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
            control = os.open(f"{path}/memory.oom_control", os.O_RDONLY | os.O_CLOEXEC)
            files.write(f"{path}/cgroup.event_control", f"{event} {control}")
            self._oom = event
        except OSError:  # a kernel without these events
            if event >= 0:
                os.close(event)
            return None
        finally:
            if control >= 0:
                os.close(control)
        return self._oom

    def oom_kills(self) -> int:
        """Return how many processes of the memory group were killed; 0 when there is none."""
        path = self.directories.get("memory")
        return (files.keyed(f"{path}/memory.oom_control", "oom_kill") or 0) if path else 0

    def memory(self) -> Memory:
        """Return what the memory controller accounts, if the process is in it."""
        path = self.directories.get("memory")
        if path is None:
            return Memory()
        limit = files.number(f"{path}/memory.limit_in_bytes")
        return Memory(
            files.number(f"{path}/memory.usage_in_bytes"),
            files.number(f"{path}/memory.max_usage_in_bytes"),
            limit if limit is not None and limit < _UNLIMITED else None,
            files.keyed(f"{path}/memory.oom_control", "oom_kill"),  # counted since Linux 4.13
        )

    def remove(self) -> bool:
        """Remove all groups; False when something is in one. Raises MaestroError."""
        try:
            for controller, path in list(self.directories.items()):
                if not files.remove(path):
                    return False
                del self.directories[controller]
        except OSError as error:
            raise MaestroError(f"cannot remove cgroup {self._name}: {error.strerror}") from error
        return True

    def _make(self, controllers: list[str], doing: str) -> None:
        for controller in controllers:
            path = self._trees.directory(controller, self._name)
            try:
                files.make(os.path.dirname(path))
                files.make(path)
            except OSError as error:
                raise MaestroError(f"{doing}: {controller}: {error.strerror}") from error
            self.directories[controller] = path

    def _move(self, path: str, pids: Callable[[], list[int]], doing: str) -> None:
        for _ in range(100):  # each round catches what was forked during the last one
            inside = set(files.processes(path))
            outside = [pid for pid in pids() if pid not in inside]
            if not outside:
                return
            for pid in outside:
                try:
                    files.write(f"{path}/cgroup.procs", str(pid))
                except ProcessLookupError:
                    pass
                except OSError as error:
                    raise MaestroError(f"{doing}: moving process {pid}: {error.strerror}") from error

    def _write_memory(self, limits: Limits) -> None:
        path = self.directories["memory"]
        group = _controller("Memory", path)
        if not os.path.exists(f"{path}/memory.memsw.limit_in_bytes"):
            group.limit_in_bytes = limits.mem_limit
            return
        both = None
        if limits.mem_limit is not None and limits.swap_limit is not None:
            both = limits.mem_limit + limits.swap_limit
        # the kernel insists on limit <= memsw.limit at every moment
        if both is None or both >= group.memsw_limit_in_bytes:
            group.memsw_limit_in_bytes = both
            group.limit_in_bytes = limits.mem_limit
        else:
            group.limit_in_bytes = limits.mem_limit
            group.memsw_limit_in_bytes = both

    def _write_pids(self, limits: Limits) -> None:
        text = "max" if limits.pids_max is None else str(limits.pids_max)
        files.write(f"{self.directories['pids']}/pids.max", text)

    def _write_cpu(self, limits: Limits) -> None:
        path = self.directories["cpu"]
        group = _controller("Cpu", path)
        group.shares = cpu_shares(limits.cpu_weight)
        if os.path.exists(f"{path}/cpu.cfs_quota_us"):
            group.cfs_period_us = CPU_PERIOD
            group.cfs_quota_us = cpu_quota(limits.cpu_max)

    def _write_io(self, limits: Limits) -> None:
        path = self.directories["io"]
        weight = 100 if limits.io_weight is None else limits.io_weight
        if os.path.exists(f"{path}/blkio.weight"):
            _controller("BlkIO", path).weight = blkio_weight(weight)
        files.write_if_there(f"{path}/blkio.bfq.weight", str(bfq_weight(weight)))


class _Place:
    """What a cgroupspy controller needs of a node."""

    def __init__(self, path: str) -> None:
        self.full_path = path.encode()


def _controller(kind: str, path: str) -> Any:
    # imported once a limit is set on a v1 device: everybody else saves the memory
    from cgroupspy import controllers

    return getattr(controllers, f"{kind}Controller")(_Place(path))
