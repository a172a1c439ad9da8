# SPDX-License-Identifier: Apache-2.0
"""cgroup v2: one tree, files below directory fds.

The base lies below the daemon's own cgroup, which the service manager has delegated, or below the root
of the tree when there is no service manager. Controllers can be enabled for children only where no
process is (cgroup-v2.rst, "No Internal Process Constraint"), so the daemon moves itself, and nothing
else, into a child called `supervisor`. A daemon that finds itself in such a child stays there: it was
re-executed, or the unit says DelegateSubgroup=supervisor.
"""

from __future__ import annotations

import os
import signal

from maestro_py.errors import Conflict, MaestroError
from maestro_py.process.cgroups import files
from maestro_py.process.cgroups.port import Cgroup, Cgroups, Memory
from maestro_py.process.cgroups.signals import signal_all
from maestro_py.process.cgroups.values import CONTROLLER, in_use, set_fields, v2_files
from maestro_py.spec.model import Limits

SUPERVISOR = "supervisor"

_ALWAYS = ("memory", "pids")  # enabled from the start: cheap, and status shows memory
_WANTED = (*_ALWAYS, "cpu", "io")  # these two cost every process something, so only once a limit needs them


class V2Cgroup(Cgroup):
    """One group of a v2 tree, by the fd of its directory.

    `spent`: cgroup.kill may have been used on it. Linux 6.18, for one, compares how often the group was
    killed with how often the parent's was, and so kills at once whatever is cloned into a group that was
    ever killed. Such a group is made anew before the next launch.
    """

    def __init__(self, name: str, path: str, tree: V2Cgroups, *, spent: bool) -> None:
        self.name = name
        self._path = path
        self._tree = tree
        self._dir = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._events = -1
        self._spent = spent
        self._oom_kills = 0  # of the directories before this one

    def clone_fd(self) -> int | None:
        """Return the directory's fd; after a `kill` it is a new directory's, and `watch_fd` a new one too."""
        if self._spent:
            try:
                self._renew()
            except OSError as error:
                raise MaestroError(f"cannot renew cgroup {self.name}: {error.strerror}") from error
        return self._dir

    def set_limits(self, limits: Limits) -> None:
        """Make these the limits, now.

        The kernel would answer a memory.max below what is in use by killing; this asks it to reclaim
        first and refuses when that is not enough.
        """
        self.write_limits(limits, f"cannot limit {self.name}", fresh=False)

    def write_limits(self, limits: Limits, doing: str, *, fresh: bool) -> None:
        """Write the limits; `doing` begins the error, `fresh` leaves out what a new group has anyway."""
        self._tree.enable(limits)
        self._make_room(limits.mem_limit, doing)
        chosen = set_fields(limits)
        for field, file, text in v2_files(limits):
            if fresh and field not in chosen:
                continue
            try:
                files.write_if_there(file, text, self._dir)
            except OSError as error:
                raise MaestroError(f"{doing}: {field} {text}: {error.strerror}") from error

    def pids(self) -> list[int]:
        """Return the processes in the group, groups below it included."""
        return files.processes(self._path)

    def populated(self) -> bool:
        """Return whether anything is alive in it or below it; arms `watch_fd` again."""
        if self._events < 0:
            return files.keyed("cgroup.events", "populated", self._dir) == 1
        try:
            return b"populated 1" in os.pread(self._events, 4096, 0)
        except OSError:  # ENODEV: it has been removed
            return False

    def kill(self) -> None:
        """SIGKILL everything by cgroup.kill (Linux 5.14), else by freezing first; thaws."""
        if files.write_if_there("cgroup.kill", "1", self._dir):
            self._spent = True
            self.freeze(False)  # the group may be used again
        else:
            self.kill_frozen()

    def kill_frozen(self) -> None:
        """Freeze, signal until a listing shows nobody new, thaw."""
        self.freeze(True)
        signal_all(self.pids, signal.SIGKILL)
        self.freeze(False)

    def freeze(self, on: bool) -> None:
        """Stop or continue everything; neither the processes nor their parents can see it."""
        files.write_if_there("cgroup.freeze", "1" if on else "0", self._dir)

    def frozen(self) -> bool:
        """Return whether everything has come to a stop."""
        return files.keyed("cgroup.events", "frozen", self._dir) == 1

    def memory(self) -> Memory:
        """Return what is accounted; memory.peak is there from Linux 5.19."""
        current = files.number("memory.current", self._dir)
        if current is None:
            return Memory()
        return Memory(
            current,
            files.number("memory.peak", self._dir),
            files.number("memory.max", self._dir),
            self._oom_kills + (files.keyed("memory.events", "oom_kill", self._dir) or 0),
        )

    def directory(self, controller: str) -> str | None:
        """Return the one directory; which files it has depends on the controllers that are enabled."""
        return self._path

    def oom_kills(self) -> int:
        """Return the count since the group was first made, groups below it included."""
        return self._oom_kills + (files.keyed("memory.events", "oom_kill", self._dir) or 0)

    def watch_fd(self) -> int | None:
        """Return the fd of cgroup.events. It is read once here: the kernel reports changes since then."""
        if self._events < 0:
            self._events = os.open("cgroup.events", os.O_RDONLY | os.O_CLOEXEC, dir_fd=self._dir)
            os.pread(self._events, 4096, 0)
        return self._events

    def remove(self) -> bool:
        """Remove the directory and empty ones a process made below it; False when something is left."""
        try:
            return files.remove(self._path)
        except OSError as error:
            raise MaestroError(f"cannot remove cgroup {self.name}: {error.strerror}") from error

    def close(self) -> None:
        """Close the fds."""
        for fd in (self._dir, self._events):
            if fd >= 0:
                os.close(fd)
        self._dir = self._events = -1

    def _renew(self) -> None:
        names = [file for _, file, _ in v2_files(Limits())]
        limits = {file: _text(file, self._dir) for file in (*names, "memory.oom.group")}
        oom_kills = files.keyed("memory.events", "oom_kill", self._dir) or 0
        if not files.remove(self._path):
            return  # something is in it still
        V2Cgroup.close(self)  # no more than that: a launch under way has its join fds already
        files.make(self._path)
        self._dir = os.open(self._path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._spent = False
        self._oom_kills += oom_kills
        for file, text in limits.items():
            if text:
                files.write(file, text, self._dir)

    def _make_room(self, limit: int | None, doing: str) -> None:
        used = files.number("memory.current", self._dir)
        if limit is None or used is None or used <= limit:
            return
        try:
            files.write_if_there("memory.reclaim", str(used - limit), self._dir)  # Linux 5.19
        except OSError:  # EAGAIN: it got less than asked for
            pass
        used = files.number("memory.current", self._dir) or 0
        if used > limit:
            raise in_use(doing, limit, used)


class V2Cgroups(Cgroups):
    """The groups below `anchor`/`base` of a v2 tree."""

    kind = "v2"

    def __init__(self, anchor: str, base: str, wanted: tuple[str, ...] = _WANTED) -> None:
        """Look only. `anchor`: directory of the own cgroup. Raises OSError when it cannot be read."""
        if os.path.basename(anchor) == SUPERVISOR:
            anchor = os.path.dirname(anchor)
        self.base = base
        self._anchor = anchor
        self._base = f"{anchor}/{base}"
        self._ready = False
        self._enabled: set[str] = set()
        self._missing = "this kernel or service manager offers no {} controller here"
        offered = files.read(f"{anchor}/cgroup.controllers").split()
        # only the root of the whole tree lacks this file; processes may stay beside groups there
        self._inner = os.path.exists(f"{anchor}/cgroup.events")
        if self._inner and wanted and _others(anchor):
            offered = files.read(f"{anchor}/cgroup.subtree_control").split()
            self._missing = "other processes share the daemon's cgroup, so the {} controller stays off"
            self.notes = (
                f"processes in {anchor} that are not the daemon's keep controllers off: run it as a service"
                " with Delegate=yes",
            )
        self._offered = tuple(name for name in wanted if name in offered)
        self.controllers = (*self._offered, "freezer")

    def prepare(self) -> None:
        """Move the daemon aside if need be, make the base, enable memory and pids. Raises MaestroError."""
        if self._ready:
            return
        try:
            if self._inner and self._offered and os.getpid() in _direct(self._anchor):
                files.make(f"{self._anchor}/{SUPERVISOR}")
                files.write(f"{self._anchor}/{SUPERVISOR}/cgroup.procs", "0")
            files.make(self._base)
            self._ready = True
            for controller in _ALWAYS:
                self._enable(controller)
        except OSError as error:
            raise MaestroError(f"cannot prepare cgroup {self._base}: {error.strerror}") from error

    def enable(self, limits: Limits) -> None:
        """Enable the controllers these limits need."""
        for field in set_fields(limits):
            self._enable(CONTROLLER[field])

    def create(self, name: str, limits: Limits) -> Cgroup:
        """Make the group, or take an empty left-over, and write the limits."""
        doing = f"cannot create cgroup {name}"
        group, fresh = self.make(name, doing)
        try:
            group.write_limits(limits, doing, fresh=fresh)
            # all or nothing: a process that lost a helper to the kernel is rarely in order
            files.write_if_there("memory.oom.group", "1", group.clone_fd())
        except BaseException:
            if fresh:
                group.remove()
            group.close()
            raise
        return group

    def make(self, name: str, doing: str) -> tuple[V2Cgroup, bool]:
        """Return a thawed, empty group and whether it is new. Raises MaestroError beginning with `doing`."""
        self.prepare()
        path = f"{self._base}/{files.directory_name(name)}"
        try:
            fresh = files.make(path)
            group = self.handle(name, path, spent=not fresh)
            if not fresh:
                if left := group.pids():
                    group.close()
                    raise Conflict(f"{doing}: processes are still in it: {', '.join(map(str, left[:10]))}")
                group.freeze(False)
                group.clone_fd()  # makes it anew
        except OSError as error:
            raise MaestroError(f"{doing}: {error.strerror}") from error
        return group, fresh

    def handle(self, name: str, path: str, *, spent: bool) -> V2Cgroup:
        """Return the object for an existing directory. Raises OSError."""
        return V2Cgroup(name, path, self, spent=spent)

    def existing(self) -> list[str]:
        """Return the names below the base."""
        return files.group_names(self._base)

    def open(self, name: str) -> Cgroup | None:
        """Return an existing group, or None."""
        try:
            return self.handle(name, f"{self._base}/{files.directory_name(name)}", spent=True)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise MaestroError(f"cannot open cgroup {name}: {error.strerror}") from error

    def remove_base(self) -> None:
        """Remove the base if it is empty. The `supervisor` child stays: the daemon is in it."""
        try:
            os.rmdir(self._base)
        except OSError:
            pass
        else:
            self._ready = False
            self._enabled.clear()

    def unsupported(self, limits: Limits) -> list[str]:
        """Return a sentence for each limit without its controller, or (after `prepare`) without its file."""
        sentences = []
        for field in set_fields(limits):
            controller = CONTROLLER[field]
            if controller not in self._offered:
                sentences.append(f"{field}: {self._missing.format(controller)}")
            elif controller in self._enabled and not self._has_file(field):
                sentences.append(f"{field}: {_FILELESS.get(field, 'this kernel has no file for it')}")
        return sentences

    def describe(self) -> str:
        """Return one line for people."""
        return f"v2: {', '.join(self._offered) or 'no controllers'}; groups in {self._base}"

    def _enable(self, controller: str) -> None:
        if controller in self._enabled or controller not in self._offered:
            return
        for path in (self._anchor, self._base):
            try:
                files.write(f"{path}/cgroup.subtree_control", f"+{controller}")
            except OSError as error:
                # e.g. EBUSY: somebody has joined meanwhile, EINVAL: real-time processes and cpu
                self._offered = tuple(name for name in self._offered if name != controller)
                self.controllers = (*self._offered, "freezer")
                self.notes += (f"the {controller} controller stays off in {path}: {error.strerror}",)
                return
        self._enabled.add(controller)

    def _has_file(self, field: str) -> bool:
        return any(
            os.path.exists(f"{self._base}/{file}") for of, file, _ in v2_files(Limits()) if of == field
        )


_FILELESS = {
    "swap_limit": "this kernel has no swap accounting",
    "io_weight": "neither BFQ nor the I/O cost model is in this kernel",
}


def _text(file: str, dir_fd: int) -> str:
    try:
        return files.read(file, dir_fd).partition("\n")[0]
    except FileNotFoundError:
        return ""


def _direct(path: str) -> list[int]:
    return [int(pid) for pid in files.read(f"{path}/cgroup.procs").split()]


def _others(path: str) -> bool:
    return any(pid != os.getpid() for pid in _direct(path))
