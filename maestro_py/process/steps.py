# SPDX-License-Identifier: Apache-2.0
"""What a child may do between fork and exec, as data: each step is a frozen value that can run itself.

The step that changes the root is in root.py.
"""

from __future__ import annotations

import errno
import os
import resource
from typing import ClassVar, Protocol

from maestro_py.process import kernel
from maestro_py.units import signal_name
from maestro_py.valueclass import valueclass

FAILED = 127
"""Exit code of a child that never became the program; its record says why."""


class Step(Protocol):
    """One operation in the child. `libc` says that it needs kernel.load() before the fork."""

    @property
    def name(self) -> str:
        """Stable short name, as it appears in a LaunchFailure."""

    @property
    def libc(self) -> bool:
        """Whether run() calls something Python itself does not offer."""

    def describe(self) -> str:
        """Return what it does, to follow the word "cannot"."""

    def run(self) -> None:
        """Do it; raises OSError."""


@valueclass(frozen=True)
class NewSession:
    """Become the leader of a new session and of a new process group, without a terminal."""

    name: ClassVar[str] = "session"
    libc: ClassVar[bool] = False

    def describe(self) -> str:
        """Return what it does."""
        return "make a new session"

    def run(self) -> None:
        """setsid(2)."""
        os.setsid()


@valueclass(frozen=True)
class NewGroup:
    """Become the leader of a new process group in the daemon's session."""

    name: ClassVar[str] = "group"
    libc: ClassVar[bool] = False

    def describe(self) -> str:
        """Return what it does."""
        return "make a new process group"

    def run(self) -> None:
        """setpgid(2)."""
        os.setpgid(0, 0)


@valueclass(frozen=True)
class JoinGroup:
    """Join a process group of the daemon's session."""

    pgid: int
    name: ClassVar[str] = "group"
    libc: ClassVar[bool] = False

    def describe(self) -> str:
        """Return what it does."""
        return f"join process group {self.pgid}"

    def run(self) -> None:
        """setpgid(2)."""
        os.setpgid(0, self.pgid)


@valueclass(frozen=True)
class Nice:
    """Set the scheduling priority, -20 (first) to 19 (last)."""

    value: int
    name: ClassVar[str] = "nice"
    libc: ClassVar[bool] = False

    def describe(self) -> str:
        """Return what it does."""
        return f"set nice to {self.value}"

    def run(self) -> None:
        """setpriority(2)."""
        os.setpriority(os.PRIO_PROCESS, 0, self.value)


@valueclass(frozen=True)
class OomScoreAdj:
    """Set how soon the kernel picks it when memory runs out, -1000 (never) to 1000 (first)."""

    value: int
    name: ClassVar[str] = "oom_score_adj"
    libc: ClassVar[bool] = False

    def describe(self) -> str:
        """Return what it does."""
        return f"set oom_score_adj to {self.value}"

    def run(self) -> None:
        """Write /proc/self/oom_score_adj (proc_pid_oom_score_adj(5)); before the root changes."""
        fd = os.open("/proc/self/oom_score_adj", os.O_WRONLY | os.O_CLOEXEC)
        os.write(fd, b"%d" % self.value)
        os.close(fd)


@valueclass(frozen=True)
class Umask:
    """Set the mode bits new files never get."""

    mask: int
    name: ClassVar[str] = "umask"
    libc: ClassVar[bool] = False

    def describe(self) -> str:
        """Return what it does."""
        return f"set umask to {self.mask:03o}"

    def run(self) -> None:
        """umask(2)."""
        os.umask(self.mask)


@valueclass(frozen=True)
class Rlimits:
    """Set resource limits: (name, RLIMIT_* number, soft, hard), -1 being unlimited."""

    limits: tuple[tuple[str, int, int, int], ...]
    name: ClassVar[str] = "rlimits"
    libc: ClassVar[bool] = False

    def describe(self) -> str:
        """Return what it does."""
        return "set resource limits"

    def run(self) -> None:
        """setrlimit(2) for each, the refused one named."""
        for name, number, soft, hard in self.limits:
            try:
                resource.setrlimit(number, (soft, hard))
            except ValueError:  # Python's word for EPERM and for a soft limit above the hard one
                raise OSError(errno.EPERM, f"{name} {soft}:{hard} is above what is allowed here") from None
            except OSError as error:
                raise OSError(error.errno, f"{name} {soft}:{hard}: {error.strerror}") from None


@valueclass(frozen=True)
class JoinCgroups:
    """Enter control groups through their open cgroup.procs files."""

    fds: tuple[int, ...]
    name: ClassVar[str] = "cgroup"
    libc: ClassVar[bool] = False

    def describe(self) -> str:
        """Return what it does."""
        return "enter the control group"

    def run(self) -> None:
        """Write 0, which is the writer itself, to each (cgroups(7))."""
        for fd in self.fds:
            os.write(fd, b"0\n")


@valueclass(frozen=True)
class JoinCgroupDirectory:
    """Enter the cgroup v2 whose directory is open, where clone3 could not do it."""

    fd: int
    name: ClassVar[str] = "cgroup"
    libc: ClassVar[bool] = False

    def describe(self) -> str:
        """Return what it does."""
        return "enter the control group"

    def run(self) -> None:
        """Write 0 to its cgroup.procs."""
        procs = os.open("cgroup.procs", os.O_WRONLY | os.O_CLOEXEC, dir_fd=self.fd)
        os.write(procs, b"0\n")
        os.close(procs)


@valueclass(frozen=True)
class SetGroups:
    """Set the supplementary groups."""

    gids: tuple[int, ...]
    name: ClassVar[str] = "groups"
    libc: ClassVar[bool] = False

    def describe(self) -> str:
        """Return what it does."""
        return f"set supplementary groups {', '.join(map(str, self.gids)) or '(none)'}"

    def run(self) -> None:
        """setgroups(2)."""
        os.setgroups(self.gids)


@valueclass(frozen=True)
class SetGid:
    """Set real, effective and saved group id."""

    gid: int
    name: ClassVar[str] = "gid"
    libc: ClassVar[bool] = False

    def describe(self) -> str:
        """Return what it does."""
        return f"become group {self.gid}"

    def run(self) -> None:
        """setresgid(2)."""
        os.setresgid(self.gid, self.gid, self.gid)


@valueclass(frozen=True)
class SetUid:
    """Set real, effective and saved user id; capabilities go with it."""

    uid: int
    name: ClassVar[str] = "uid"
    libc: ClassVar[bool] = False

    def describe(self) -> str:
        """Return what it does."""
        return f"become user {self.uid}"

    def run(self) -> None:
        """setresuid(2)."""
        os.setresuid(self.uid, self.uid, self.uid)


@valueclass(frozen=True)
class Chdir:
    """Change the working directory, as the final user and inside the final root."""

    path: str
    name: ClassVar[str] = "working_dir"
    libc: ClassVar[bool] = False

    def describe(self) -> str:
        """Return what it does."""
        return f"change to directory {self.path}"

    def run(self) -> None:
        """chdir(2)."""
        os.chdir(self.path)


@valueclass(frozen=True)
class NoNewPrivs:
    """Give up gaining rights through setuid programs and file capabilities."""

    name: ClassVar[str] = "no_new_privs"
    libc: ClassVar[bool] = True

    def describe(self) -> str:
        """Return what it does."""
        return "set no_new_privs"

    def run(self) -> None:
        """prctl(PR_SET_NO_NEW_PRIVS)."""
        kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1)


@valueclass(frozen=True)
class ParentDeath:
    """Be signalled when the daemon dies. A change of user clears the setting, so it comes after that."""

    signal: int
    parent: int
    name: ClassVar[str] = "parent_death"
    libc: ClassVar[bool] = True

    def describe(self) -> str:
        """Return what it does."""
        return f"ask for {signal_name(self.signal)} at the daemon's death"

    def run(self) -> None:
        """prctl(PR_SET_PDEATHSIG), then make sure that the daemon had not died before."""
        kernel.prctl(kernel.PR_SET_PDEATHSIG, self.signal)
        if os.getppid() != self.parent:
            os._exit(FAILED)
