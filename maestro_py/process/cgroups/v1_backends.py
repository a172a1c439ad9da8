# SPDX-License-Identifier: Apache-2.0
"""The backends whose limits are v1: with a v2 tree beside that tracks (hybrid), and without.

Without one (pure v1) a process with limits is tracked by the groups it is in anyway, the freezer
included, and one without limits as on a device without control groups: it is not worth the wait.
"""

from __future__ import annotations

import signal

from maestro_py.errors import MaestroError
from maestro_py.process.cgroups.port import Cgroup, Cgroups, Memory
from maestro_py.process.cgroups.scan import ScanCgroup, marked_names
from maestro_py.process.cgroups.signals import signal_all
from maestro_py.process.cgroups.v1 import Hierarchies, V1Limits
from maestro_py.process.cgroups.v2 import V2Cgroup, V2Cgroups
from maestro_py.spec.model import Limits


class _Limited(Cgroup):
    """Adds the v1 limits of a process to whatever tracks it."""

    _v1: V1Limits

    def join_fds(self) -> tuple[int, ...]:
        """Return the fds of the v1 groups that carry a limit."""
        return self._v1.join_fds()

    def attach(self, pid: int) -> None:
        """Release the join fds."""
        super().attach(pid)
        self._v1.joined()

    def memory(self) -> Memory:
        """Return what is accounted; nothing when no memory limit put it into a group."""
        return self._v1.memory()

    def directory(self, controller: str) -> str | None:
        """Return the v1 group, or else what tracks it."""
        return self._v1.directories.get(controller) or super().directory(controller)

    def oom_kills(self) -> int:
        """Return the count since the group was made."""
        return self._v1.oom_kills()

    def oom_fd(self) -> int | None:
        """Return the fd that tells of a lack of memory, once there is a memory group."""
        return self._v1.oom_fd()

    def remove(self) -> bool:
        """Remove all groups of the process."""
        self._v1.close()
        return super().remove() and self._v1.remove()

    def close(self) -> None:
        """Close all fds."""
        super().close()
        self._v1.close()


class HybridCgroup(_Limited, V2Cgroup):
    """Tracked by a v2 group, limited by v1 groups."""

    def __init__(self, name: str, path: str, tree: V2Cgroups, trees: Hierarchies, *, spent: bool) -> None:
        super().__init__(name, path, tree, spent=spent)
        self._v1 = V1Limits(trees, name)

    def set_limits(self, limits: Limits) -> None:
        """Make these the limits, now; a group that becomes needed is made and the processes moved in."""
        self._v1.extend(limits, super().pids, f"cannot limit {self.name}", freezer=False)

    def write_limits(self, limits: Limits, doing: str, *, fresh: bool) -> None:
        """Have v1 groups for just these limits."""
        self._v1.prepare(limits, doing, freezer=False)


class HybridCgroups(V2Cgroups):
    """v1 controllers beside a v2 tree that has none of them."""

    kind = "hybrid"

    def __init__(self, anchor: str, trees: Hierarchies) -> None:
        super().__init__(anchor, trees.base, wanted=())
        self._trees = trees
        self.controllers = tuple(dict.fromkeys((*trees.mounts, "freezer")))

    def prepare(self) -> None:
        """Make the bases that are wanted from the start. Raises MaestroError."""
        if not self._ready:
            super().prepare()
            _prepare(self._trees)

    def handle(self, name: str, path: str, *, spent: bool) -> V2Cgroup:
        """Return the object for an existing v2 directory and the v1 groups of that name."""
        return HybridCgroup(name, path, self, self._trees, spent=spent)

    def existing(self) -> list[str]:
        """Return the names in any of the trees."""
        return sorted(self._trees.existing().union(super().existing()))

    def open(self, name: str) -> Cgroup | None:
        """Return an existing group, or None; one half-made is completed so that it can be removed."""
        group = super().open(name)
        if group is None and name in self._trees.existing():
            group, _ = self.make(name, f"cannot open cgroup {name}")
        return group

    def remove_base(self) -> None:
        """Remove the bases that are empty."""
        super().remove_base()
        self._trees.remove_base()

    def unsupported(self, limits: Limits) -> list[str]:
        """Return a sentence for each limit v1 cannot keep."""
        return self._trees.unsupported(limits)

    def describe(self) -> str:
        """Return one line for people."""
        return f"hybrid: v1 {', '.join(self._trees.mounts)}; tracked by v2 groups in {self._base}"


class V1Cgroup(_Limited, ScanCgroup):
    """Limited by v1 groups and then tracked by them too; without limits tracked by scanning."""

    def __init__(self, name: str, trees: Hierarchies) -> None:
        super().__init__(name, trees.base)
        self._v1 = V1Limits(trees, name)

    def make(self, limits: Limits) -> None:
        """Have groups for just these limits. Raises MaestroError."""
        doing = f"cannot create cgroup {self.name}"
        try:
            self._v1.prepare(limits, doing, freezer=True)
        except BaseException:
            self._v1.remove()
            raise

    def set_limits(self, limits: Limits) -> None:
        """Make these the limits, now; a group that becomes needed is made and the processes moved in."""
        self._v1.extend(limits, super().pids, f"cannot limit {self.name}", freezer=True)

    def pids(self) -> list[int]:
        """Return what is in the groups, or else what a scan finds."""
        return self._v1.pids() if self._v1.directories else super().pids()

    def holds(self, pid: int) -> bool:
        """Return whether a process is in the groups, if there are any."""
        return pid in self._v1.pids() if self._v1.directories else super().holds(pid)

    def kill(self) -> None:
        """SIGKILL everything, behind the freezer where the process is in one."""
        if "freezer" not in self._v1.directories:
            super().kill()
            return
        self._v1.freeze(True)
        signal_all(self.pids, signal.SIGKILL)
        self._v1.freeze(False)

    def freeze(self, on: bool) -> None:
        """Freeze by the freezer where the process is in one, else by signals."""
        if "freezer" in self._v1.directories:
            self._v1.freeze(on)
        else:
            super().freeze(on)

    def frozen(self) -> bool:
        """Return whether everything has come to a stop."""
        return self._v1.frozen() if "freezer" in self._v1.directories else super().frozen()


def _prepare(trees: Hierarchies) -> None:
    try:
        trees.prepare()
    except OSError as error:
        raise MaestroError(f"cannot prepare cgroup {trees.base}: {error.strerror}") from error


class V1Cgroups(Cgroups):
    """v1 controllers and no v2 tree."""

    kind = "v1"

    def __init__(self, trees: Hierarchies) -> None:
        self.base = trees.base
        self.controllers = tuple(trees.mounts)
        self.notes = ("processes without limits that clear their environment can escape: no cgroup v2 tree",)
        self._trees = trees

    def prepare(self) -> None:
        """Make the bases that are wanted from the start. Raises MaestroError."""
        _prepare(self._trees)

    def create(self, name: str, limits: Limits) -> Cgroup:
        """Make the groups these limits need."""
        group = V1Cgroup(name, self._trees)
        group.make(limits)
        return group

    def existing(self) -> list[str]:
        """Return the names in any of the trees and in marks."""
        return sorted(self._trees.existing().union(marked_names(self.base)))

    def open(self, name: str) -> Cgroup | None:
        """Return a handle when there is a group or a marked process of that name."""
        return V1Cgroup(name, self._trees) if name in self.existing() else None

    def remove_base(self) -> None:
        """Remove the bases that are empty."""
        self._trees.remove_base()

    def unsupported(self, limits: Limits) -> list[str]:
        """Return a sentence for each limit v1 cannot keep."""
        return self._trees.unsupported(limits)

    def describe(self) -> str:
        """Return one line for people."""
        return f"v1: {', '.join(self._trees.mounts)}; groups in */{self.base}"
