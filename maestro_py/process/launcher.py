# SPDX-License-Identifier: Apache-2.0
"""From a resolved process to a pid: `prepare` decides everything, `start` forks, `read_report` tells.

The same `start` serves jobs and the daemon's own helper programs.
"""

from __future__ import annotations

import errno
import os
import resource
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from maestro_py.errors import MaestroError, Unsupported
from maestro_py.faultpoint import reach
from maestro_py.process import accounts, capabilities, isolation, kernel, netns, stage
from maestro_py.process.stage import LaunchSpec
from maestro_py.process.steps import (
    Chdir,
    JoinCgroupDirectory,
    JoinCgroups,
    JoinGroup,
    NewGroup,
    NewSession,
    Nice,
    NoNewPrivs,
    OomScoreAdj,
    ParentDeath,
    Rlimits,
    SetGid,
    SetGroups,
    SetUid,
    Step,
    Umask,
)
from maestro_py.spec.model import Id
from maestro_py.spec.resolved import ResolvedProcess

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

Rlimit = tuple[str, int, int]
"""(name as "nofile", soft, hard); -1 is unlimited."""

# Errors of clone3 that mean "not here", as opposed to "not into this group".
_NO_CLONE = (errno.ENOSYS, errno.EINVAL, errno.EPERM)
_clone_refused = False


class StartError(MaestroError):
    """The kernel refused the fork or the group: `errno` says whether another try may do better."""

    def __init__(self, name: str, error: OSError) -> None:
        super().__init__(f"cannot start {name}: {error.strerror}")
        self.errno = error.errno or 0


@dataclass(frozen=True, slots=True)
class Launch:
    """A forked child. report_fd becomes readable at exec or at failure; the caller owns both descriptors."""

    pid: int
    pidfd: int
    report_fd: int
    start_ticks: int


@dataclass(frozen=True, slots=True)
class LaunchFailure:
    """Which step failed in the child, with errno (0: not from the kernel), path and the whole message."""

    step: str
    errno: int
    path: str
    message: str


def prepare(
    process: ResolvedProcess,
    *,
    who: accounts.Credentials | None = None,
    daemon_env: Mapping[str, str],
    stdin_fd: int,
    stdout_fd: int,
    stderr_fd: int,
    cgroup_fds: Sequence[int] = (),
    private_network: netns.PrivateNetwork | None = None,
    shown: Sequence[tuple[str, str]] = (),
    passed: Sequence[tuple[int, int]] = (),
) -> LaunchSpec:
    """Return everything the child of `process` will do, in order.

    who: what `accounts.credentials` said, when that was asked before. cgroup_fds are open cgroup.procs
    files to enter. private_network is what a process with a network of its own joins. shown: (path of the
    device, where it is seen) in a root of its own. passed: (descriptor, its number in the process).
    Raises MaestroError for what cannot work (an unknown user), Unsupported for what this daemon may not do.
    """
    if not process.argv or not process.argv[0]:
        raise MaestroError(f"cannot run {process.name}: no program is given")
    who = who or accounts.credentials(process)
    steps: list[Step] = []
    if process.new_session:
        steps.append(NewSession())
    elif process.pgid > 0:
        steps.append(JoinGroup(process.pgid))
    else:
        steps.append(NewGroup())
    if process.nice is not None:
        steps.append(Nice(process.nice))
    if process.oom_score_adj is not None:
        steps.append(OomScoreAdj(process.oom_score_adj))
    steps.append(Umask(process.umask))
    steps += netns.steps(process, private_network)
    steps += isolation.view(process, who, (*netns.files(process, private_network), *shown))
    steps += _rlimits(process.rlimits, process.name)
    if cgroup_fds:  # after all that might fail, before the right to write there is given up
        steps.append(JoinCgroups(tuple(cgroup_fds)))
    before, after = capabilities.steps(process.capabilities, f"run {process.name}")
    steps += [*before, *_become(who), *after]
    if process.working_dir:
        steps.append(Chdir(process.working_dir))
    elif not process.root.strip("/"):
        steps.append(Chdir("/"))
    own_pids = process.pids == "private"
    if process.die_on_parent_death:
        # process 1 of a namespace ignores what it does not handle, all but SIGKILL, and has no parent there
        end, parent = (signal.SIGKILL, 0) if own_pids else (signal.SIGTERM, os.getpid())
        steps.append(ParentDeath(end, parent))
    steps += isolation.last_steps(process, who)
    env: dict[str, str] = {}
    for name, value in (*process.env, *(daemon_env.items() if process.inherit_env else ())):
        env.setdefault(name, value)  # the first of two entries wins, as it does for getenv(3)
    path = env.get("PATH", daemon_env.get("PATH", DEFAULT_PATH))
    spec = _spec(process.name, process.argv, env, path, (stdin_fd, stdout_fd, stderr_fd), steps)
    return replace(spec, own_pids=own_pids, passed=tuple(passed))


def owner(process: ResolvedProcess) -> tuple[int, int]:
    """Return (uid, gid) of the files `process` must own. Errors as `prepare`."""
    who = accounts.credentials(process)
    return who.uid, who.gid


def helper_spec(
    argv: Sequence[str],
    env: Mapping[str, str],
    stdin_fd: int,
    stdout_fd: int,
    stderr_fd: int,
    *,
    user: Id | None = None,
    rlimits: Sequence[Rlimit] = (),
) -> LaunchSpec:
    """Return the launch of a helper program: own process group, ended with the daemon, no new rights."""
    who = accounts.resolve(user, None, None, f"run {argv[0]}")
    steps: list[Step] = [
        NewGroup(),
        *_rlimits(rlimits, argv[0]),
        *_become(who),
        NoNewPrivs(),
        ParentDeath(signal.SIGTERM, os.getpid()),
    ]
    return _spec(argv[0], argv, env, env.get("PATH", DEFAULT_PATH), (stdin_fd, stdout_fd, stderr_fd), steps)


def _spec(
    name: str,
    argv: Sequence[str],
    env: Mapping[str, str],
    path: str,
    stdio: tuple[int, int, int],
    steps: Sequence[Step],
) -> LaunchSpec:
    return LaunchSpec(
        name=name,
        argv=tuple(os.fsencode(word) for word in argv),
        env={os.fsencode(key): os.fsencode(value) for key, value in env.items()},
        path=tuple(os.fsencode(path).split(b":")),
        stdin=stdio[0],
        stdout=stdio[1],
        stderr=stdio[2],
        steps=tuple(steps),
    )


def _become(who: accounts.Credentials) -> list[Step]:
    if not who.change:
        return []
    return [SetGroups(who.groups), SetGid(who.gid), SetUid(who.uid)]


def _rlimits(limits: Sequence[Rlimit], name: str) -> list[Step]:
    rows = []
    for limit, soft, hard in limits:
        number = getattr(resource, f"RLIMIT_{limit.upper()}", None)
        if number is None:
            raise Unsupported(f"cannot run {name}: this system has no resource limit {limit!r}")
        rows.append((limit, number, soft, hard))
    return [Rlimits(tuple(rows))] if rows else []


def stdin_file(text: str) -> int:
    """Return a descriptor the job reads `text` from, then end of file; /dev/null for an empty text.

    A file in memory: any size, and writing it never waits for the job. One per launch, since the
    reading position is shared with the child; the caller closes it.
    """
    if not text:
        return os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
    fd = os.memfd_create("maestro-stdin", os.MFD_CLOEXEC)
    rest = memoryview(text.encode("utf-8", "surrogateescape"))
    while rest:
        rest = rest[os.write(fd, rest) :]
    os.lseek(fd, 0, os.SEEK_SET)
    return fd


def start(
    spec: LaunchSpec, *, cgroup_fd: int | None = None, record: Callable[[Launch], object] | None = None
) -> Launch:
    """Fork the child of `spec`, into the cgroup v2 directory `cgroup_fd` when given; do not wait for exec.

    record: called when there is a child; it executes nothing before that returned, and never if this
    process ends meanwhile. Raises StartError when the fork itself fails.
    """
    if cgroup_fd is not None or spec.own_pids or any(step.libc for step in spec.steps):
        kernel.load()
    try:
        reading, writing = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise StartError(spec.name, error) from None
    pid = pidfd = -1
    leave: tuple[int, int] | None = None
    reset = stage.handled()
    try:
        if record:
            leave = os.pipe2(os.O_CLOEXEC)
        before = signal.pthread_sigmask(signal.SIG_BLOCK, stage.SIGNALS)
        try:
            if cgroup_fd is not None or spec.own_pids:
                pid, pidfd, spec = _fork_into(cgroup_fd, spec)
            else:
                pid = os.fork()
            if pid == 0:
                stage.run(spec, writing, reset, leave)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        os.close(writing)
        writing = -1
        if pidfd < 0:
            pidfd = os.pidfd_open(pid)
        launch = Launch(pid, pidfd, reading, kernel.start_ticks(pid))
        if record and leave:
            reach("process.launch.forked")
            record(launch)
            reach("process.launch.recorded")
            os.write(leave[1], b"!")  # we hold the other end too, so it cannot be broken
        return launch
    except OSError as error:
        for fd in (reading, writing, pidfd):
            if fd >= 0:
                os.close(fd)
        if pid > 0:  # nobody would watch it: it must not live
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        raise StartError(spec.name, error) from None
    finally:
        for fd in leave or ():
            os.close(fd)


def _fork_into(cgroup_fd: int | None, spec: LaunchSpec) -> tuple[int, int, LaunchSpec]:
    """Return (pid, pidfd or -1, spec): by clone3, or by fork and a first step that joins the group."""
    global _clone_refused
    if not _clone_refused:
        try:
            if spec.own_pids:
                pid, pidfd = kernel.clone(kernel.CLONE_NEWPID, cgroup_fd)
            else:
                assert cgroup_fd is not None
                pid, pidfd = kernel.clone_into_cgroup(cgroup_fd)
            return pid, pidfd, spec
        except OSError as error:
            if error.errno not in _NO_CLONE:
                doing = "make its pid namespace" if cgroup_fd is None else "enter its control group"
                raise OSError(error.errno, f"cannot {doing}: {error.strerror}") from None
            _clone_refused = not spec.own_pids  # the namespace may be what was refused
    if cgroup_fd is not None:
        spec = replace(spec, steps=(JoinCgroupDirectory(cgroup_fd), *spec.steps))
    if not spec.own_pids:
        return os.fork(), -1, spec
    try:
        return kernel.fork_into_pid_namespace(), -1, spec
    except OSError as error:
        raise OSError(error.errno, f"cannot make its pid namespace: {error.strerror}") from None


def read_report(fd: int) -> LaunchFailure | None:
    """Return why the launch failed, None when the program runs. Call it once, when `fd` is readable.

    Before that it is None too. The descriptor stays open: it is the caller's.
    """
    try:
        record = os.read(fd, 4096)
    except BlockingIOError:
        return None
    if not record:
        return None
    step, number, path, message = os.fsdecode(record).split("\0", 3)
    return LaunchFailure(step, int(number), path, message)
