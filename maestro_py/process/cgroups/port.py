# SPDX-License-Identifier: Apache-2.0
"""What the rest of the program knows about control groups: two classes and one value.

`Cgroups` is the device's offer, chosen once by `detect`; `Cgroup` is one process's share of it.
The four backends are

v2      one tree, limits and tracking (`v2.py`)
hybrid  limits by v1 controllers, tracking by a v2 tree beside them (`v1_backends.py`)
v1      limits by v1 controllers; a process without limits is tracked as by `none` (`v1_backends.py`)
none    no groups: processes are found by descent and by a mark in their environment (`scan.py`)

Methods that only some backends need do nothing here.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

from maestro_py.spec.model import Limits
from maestro_py.valueclass import valueclass


@valueclass(frozen=True)
class Memory:
    """Bytes in use, at most in use so far, and allowed; how often the kernel killed for lack of it.

    None: not known here, or (limit) unlimited.
    """

    current: int | None = None
    peak: int | None = None
    limit: int | None = None
    oom_kills: int | None = None


class Cgroup(ABC):
    """The group of one process: who is in it, how much it may use, and its end."""

    name: str

    @property
    def env(self) -> tuple[tuple[str, str], ...]:
        """Variables the process must be given for it to be found again; empty where a group does that."""
        return ()

    def clone_fd(self) -> int | None:
        """Return a v2 directory for CLONE_INTO_CGROUP; None where there is no v2 tree.

        The fd stays ours. Ask before each launch: after a `kill` it is another one, and so is `watch_fd`.
        """
        return None

    def join_fds(self) -> tuple[int, ...]:
        """Return `cgroup.procs` fds into which the child writes `0` before exec; empty when nothing needs it.

        They stay ours and are valid until `attach` or `close`.
        """
        return ()

    def attach(self, pid: int) -> None:  # noqa: B027
        """Take note of the process that was launched into the group; releases what `join_fds` gave."""

    def set_limits(self, limits: Limits) -> None:  # noqa: B027
        """Make these the limits, now; None lifts one. Limits this device has not are passed over.

        Raises MaestroError, in particular when more memory than the new limit is in use.
        """

    @abstractmethod
    def pids(self) -> list[int]:
        """Return the processes in the group, groups below it included."""

    def holds(self, pid: int) -> bool:
        """Return whether a process is in the group; also true where no group could tell."""
        return pid in self.pids()

    def populated(self) -> bool:
        """Return whether anything in the group is alive."""
        return bool(self.pids())

    @abstractmethod
    def kill(self) -> None:
        """SIGKILL everything in the group, frozen and forking processes too; the dying may outlast the call.

        Without `cgroup.kill` this takes up to half a second against processes that keep forking;
        when `populated` stays true, call it again.
        """

    @abstractmethod
    def freeze(self, on: bool) -> None:
        """Stop or continue everything in the group."""

    @abstractmethod
    def frozen(self) -> bool:
        """Return whether everything in the group has come to a stop; `freeze` does not wait for it."""

    def memory(self) -> Memory:
        """Return what the kernel accounts to the group."""
        return Memory()

    def directory(self, controller: str) -> str | None:
        """Return where a controller would count what the group uses; None where there is no group for it."""
        return None

    def oom_kills(self) -> int:
        """Return how many of its processes the kernel has killed for lack of memory."""
        return self.memory().oom_kills or 0

    def oom_fd(self) -> int | None:
        """Return an fd that becomes readable whenever the kernel is about to kill for lack of memory.

        None: there is no memory limit, or such a kill ends the whole group (v2). It counts, as eventfd(2);
        it is ours and the same until `remove` or `close`.
        """
        return None

    def watch_fd(self) -> int | None:
        """Return an fd that raises EPOLLPRI when the group fills or empties; None where there is none."""
        return None

    def drained(self) -> bool:
        """Return whether the group is empty, and arm `watch_fd` again."""
        return not self.populated()

    def remove(self) -> bool:
        """Remove the group. False: something is still in it, try later."""
        return True

    def close(self) -> None:  # noqa: B027
        """Release the fds; the group stays."""


class Cgroups(ABC):
    """What this device offers. Nothing is created or moved before `prepare` or the first `create`."""

    kind: str
    """`v2`, `v1`, `hybrid` or `none`."""

    base: str
    """Name that keeps this daemon's groups apart from another's."""

    controllers: tuple[str, ...] = ()
    """Which of memory, pids, cpu, io and freezer can be used."""

    notes: tuple[str, ...] = ()
    """Sentences on what is switched off here and why."""

    def prepare(self) -> None:  # noqa: B027
        """Make the base; best called before the daemon forks anything. Raises MaestroError."""

    @abstractmethod
    def create(self, name: str, limits: Limits) -> Cgroup:
        """Return a group for the process called `name` with these limits; an empty left-over is used again.

        Raises MaestroError "cannot create cgroup …", also when a left-over still has processes in it.
        """

    @abstractmethod
    def existing(self) -> list[str]:
        """Return the names of this daemon's groups, an earlier run's included."""

    @abstractmethod
    def open(self, name: str) -> Cgroup | None:
        """Return an existing group, or None when there is none of that name. Raises MaestroError."""

    def remove_base(self) -> None:  # noqa: B027
        """Remove the base if nothing is left below it."""

    @abstractmethod
    def unsupported(self, limits: Limits) -> list[str]:
        """Return a sentence "<field>: <why>" for each limit that is set but not available here."""

    @abstractmethod
    def describe(self) -> str:
        """Return one line for people: kind, place, controllers."""
