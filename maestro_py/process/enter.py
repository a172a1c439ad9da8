# SPDX-License-Identifier: Apache-2.0
"""The program behind `maestro exec` and `maestro shell`: runs a command where a job's process runs.

`python -m maestro_py.process.enter JSON COMMAND…`, the JSON being what the API tells of the process.
It acts with the rights of whoever calls it; the daemon only tells which process is meant. A pidfd is
opened first, then boot id and start time are compared, so that it never enters a stranger; the rest
is read from /proc: control groups, namespaces, root, directory, environment, limits, user. The
exit status is the command's, 128 + N when signal N ended it, 126 or 127 when it could not be run.
"""

from __future__ import annotations

import errno
import json
import os
import resource
import select
import signal
import sys
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from maestro_py.errors import MaestroError
from maestro_py.process import capabilities, kernel, seccomp
from maestro_py.process.cgroups.detect import member_files
from maestro_py.process.launcher import DEFAULT_PATH
from maestro_py.process.steps import NoNewPrivs, SetGid, SetGroups, SetUid, Step
from maestro_py.process.terminal import Terminal, pass_signals
from maestro_py.valueclass import valueclass

_NAMESPACES = {
    "ipc": kernel.CLONE_NEWIPC,
    "uts": kernel.CLONE_NEWUTS,
    "net": kernel.CLONE_NEWNET,
    "mnt": kernel.CLONE_NEWNS,
}
"""Joined by the child, the mount namespace last; that of pids by its parent, as it holds for children."""

_LIMITS = {
    b"cpu time": "CPU",
    b"file size": "FSIZE",
    b"data size": "DATA",
    b"stack size": "STACK",
    b"core file size": "CORE",
    b"resident set": "RSS",
    b"processes": "NPROC",
    b"open files": "NOFILE",
    b"locked memory": "MEMLOCK",
    b"address space": "AS",
    b"pending signals": "SIGPENDING",
    b"msgqueue size": "MSGQUEUE",
    b"nice priority": "NICE",
    b"realtime priority": "RTPRIO",
    b"realtime timeout": "RTTIME",
}
"""Limits as /proc/PID/limits calls them (fs/proc/base.c) and as setrlimit(2) does."""

NOT_RUN, NOT_FOUND = 126, 127
"""Exit statuses of a command that could not be run, as a shell has them."""


@valueclass(frozen=True)
class Place:
    """Where a process runs. Descriptors: its root, its directory, namespaces that are not ours by name."""

    job: str
    root: int
    cwd: int
    namespaces: Mapping[str, int]
    groups_files: Sequence[str]
    env: Mapping[bytes, bytes]
    limits: Sequence[tuple[int, tuple[int, int]]]
    umask: int
    uid: int
    gid: int
    groups: tuple[int, ...]
    no_new_privs: bool


def find(target: Mapping[str, Any]) -> Place:
    """Return where the process runs that the API told of. Raises MaestroError."""
    job, pid = str(target["job"]), int(target["pid"])
    gone = MaestroError(f"cannot enter {job}: its process {pid} is gone", hint=f"maestro why {job}")
    try:
        pidfd = os.pidfd_open(pid)
    except OSError as error:
        if error.errno not in (errno.ESRCH, errno.EINVAL):  # EINVAL: it is just being reaped
            raise
        raise gone from None
    if kernel.boot_id() != target["boot_id"]:
        raise MaestroError(f"cannot enter {job}: its daemon does not run on this device")
    try:
        if kernel.start_ticks(pid) != target["start_ticks"]:
            raise gone
        place = _look(job, pid)
    except FileNotFoundError:
        raise gone from None
    except PermissionError:
        raise MaestroError(
            f"cannot enter {job}: its process belongs to somebody else",
            hint=f"you are user {os.geteuid()}; do it as root",
        ) from None
    if select.select([pidfd], [], [], 0)[0]:
        raise gone  # what was read may be another process's
    os.close(pidfd)
    if os.geteuid() != 0:
        _check_rights(place)
    return place


def _look(job: str, pid: int) -> Place:
    status = dict(line.split(":\t", 1) for line in _read(f"/proc/{pid}/status").decode().splitlines())
    namespaces = {}
    for name in ("pid", *_NAMESPACES):
        if os.stat(f"/proc/{pid}/ns/{name}").st_ino != os.stat(f"/proc/self/ns/{name}").st_ino:
            namespaces[name] = os.open(f"/proc/{pid}/ns/{name}", os.O_RDONLY | os.O_CLOEXEC)
    pairs = (entry.partition(b"=") for entry in _read(f"/proc/{pid}/environ").split(b"\0"))
    return Place(
        job=job,
        root=os.open(f"/proc/{pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC),
        cwd=os.open(f"/proc/{pid}/cwd", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC),
        namespaces=namespaces,
        groups_files=member_files(pid),
        env={name: value for name, equals, value in pairs if name and equals},
        limits=_limits(_read(f"/proc/{pid}/limits")),
        umask=int(status.get("Umask", "022"), 8),
        uid=int(status["Uid"].split()[0]),
        gid=int(status["Gid"].split()[0]),
        groups=tuple(int(group) for group in status["Groups"].split()),
        no_new_privs=status.get("NoNewPrivs", "0").strip() == "1",
    )


def _limits(text: bytes) -> list[tuple[int, tuple[int, int]]]:
    """Return (number, (soft, hard)) of proc_pid_limits(5); prlimit(2) would need more rights."""
    found = []
    for line in text.splitlines():
        name = _LIMITS.get(line[4:26].strip())
        number = getattr(resource, f"RLIMIT_{name}", None) if name else None
        if number is not None:
            soft, hard = (-1 if word == b"unlimited" else int(word) for word in line[26:].split()[:2])
            found.append((int(number), (soft, hard)))
    return found


def _check_rights(place: Place) -> None:
    hint = f"you are user {os.geteuid()}; do it as root"
    if (place.uid, place.gid) != (os.geteuid(), os.getegid()):
        raise MaestroError(f"cannot enter {place.job}: it runs as user {place.uid}", hint=hint)
    own_root = _is_root(place.root)
    if place.namespaces or not own_root:
        what = "a root" if not own_root else "namespaces"
        raise MaestroError(f"cannot enter {place.job}: it has {what} of its own", hint=hint)


def run(target: Mapping[str, Any], command: Sequence[str]) -> int:
    """Run a command at the place of a process and return its exit status. Raises MaestroError."""
    kernel.load()
    place = find(target)
    steps = _steps(target, place)
    if "pid" in place.namespaces:
        kernel.setns(place.namespaces["pid"], kernel.CLONE_NEWPID)
    terminal = Terminal() if os.isatty(1) or os.isatty(2) else None
    reading, writing = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if pid == 0:
        os.close(reading)
        _become(place, steps, terminal, command, writing)
    os.close(writing)
    pidfd = os.pidfd_open(pid)
    pass_signals(lambda number: signal.pidfd_send_signal(pidfd, number))
    if terminal:
        terminal.relay(pidfd)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    why = _read_all(reading)
    if why:
        print(f"maestro: {why}", file=sys.stderr)
    return code if code >= 0 else 128 - code


def _steps(target: Mapping[str, Any], place: Place) -> list[Step]:
    doing = f"enter {place.job}"
    before, after = capabilities.steps(target["capabilities"], doing)
    become: list[Step] = []
    if os.geteuid() == 0:
        become = [SetGroups(place.groups), SetGid(place.gid), SetUid(place.uid)]
    last: list[Step] = [NoNewPrivs()] if place.no_new_privs else []
    if target["seccomp"] != "none":
        last.append(seccomp.default_filter(doing))
    return [*before, *become, *after, *last]


def _become(
    place: Place, steps: Sequence[Step], terminal: Terminal | None, command: Sequence[str], report: int
) -> NoReturn:
    """In the child: go there and become the command, or report why not and exit."""
    status, doing = NOT_RUN, "set up its terminal"
    try:
        if terminal:
            stdio = terminal.stdio()
            terminal.become_controlling()
            for fd, own in enumerate(stdio):
                os.dup2(own, fd)
        doing = f"join the control group of {place.job}"
        for path in place.groups_files:
            _write(path, b"0")
        for name, kind in _NAMESPACES.items():
            if name in place.namespaces:
                doing = f"join the {name} namespace of {place.job}"
                kernel.setns(place.namespaces[name], kind)
        if not _is_root(place.root):
            doing = f"change to the root of {place.job}"
            os.fchdir(place.root)
            os.chroot(".")
        doing = f"take the limits of {place.job}"
        for number, (soft, hard) in place.limits:
            _limit(number, soft, hard)
        os.umask(place.umask)
        for step in steps:
            doing = step.describe()
            step.run()
        try:
            os.fchdir(place.cwd)
        except OSError:
            os.chdir("/")  # its user may not go there by itself
        for number in (signal.SIGPIPE, signal.SIGXFSZ):
            signal.signal(number, signal.SIG_DFL)
        doing = f"run {command[0]} in {place.job}"
        environment = {**place.env, **_of_the_terminal()}
        environment.setdefault(b"PATH", DEFAULT_PATH.encode())
        os.execvpe(command[0], list(command), environment)
    except FileNotFoundError as error:
        status = NOT_FOUND if doing.startswith("run ") else NOT_RUN
        _report(report, doing, error)
    except BaseException as error:
        _report(report, doing, error)
    finally:
        os._exit(status)


def _is_root(fd: int) -> bool:
    return os.path.samestat(os.stat("/"), os.fstat(fd))


def _limit(number: int, soft: int, hard: int) -> None:
    try:
        resource.setrlimit(number, (soft, hard))
    except (ValueError, OSError):
        if os.geteuid() == 0:
            raise
        # who is not root cannot raise what was lowered for it


def _of_the_terminal() -> dict[bytes, bytes]:
    """Return what a program must know of the caller's terminal."""
    return {name: os.environb[name] for name in (b"TERM", b"COLORTERM") if name in os.environb}


def _report(fd: int, doing: str, error: BaseException) -> None:
    why = (error.strerror or str(error)) if isinstance(error, OSError) else repr(error)
    os.write(fd, f"cannot {doing}: {why}".encode(errors="replace"))


def _read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def _write(path: str, data: bytes) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    os.write(fd, data)
    os.close(fd)


def _read_all(fd: int) -> str:
    with os.fdopen(fd, "rb") as file:
        return file.read().decode(errors="replace")


def main() -> int:
    """Take the process and the command from the command line; say on standard error what goes wrong."""
    target: Mapping[str, Any] = json.loads(sys.argv[1])
    try:
        return run(target, sys.argv[2:])
    except (MaestroError, OSError) as error:
        job = target["job"]
        text = error.message if isinstance(error, MaestroError) else f"cannot enter {job}: {error}"
        print(f"maestro: {text}", file=sys.stderr)
        if isinstance(error, MaestroError) and error.hint:
            print(f"maestro: {error.hint}", file=sys.stderr)
        return NOT_RUN


if __name__ == "__main__":
    sys.exit(main())
