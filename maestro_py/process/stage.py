# SPDX-License-Identifier: Apache-2.0
"""What happens between fork and exec.

Everything is decided before the fork and carried as data: a LaunchSpec with the program, its
environment, its three standard files and an ordered tuple of steps. In the child the steps run one
after the other; the first that fails ends it, after one record (step, errno, path, message) went
through a close-on-exec pipe. End of file on that pipe means that exec happened.

The child imports nothing, logs nothing and leaves only through exec or `os._exit`. The caller has
blocked all signals; here every handler goes back to default (exec would keep the ignored ones, and
Python ignores SIGPIPE and SIGXFSZ), and the mask is emptied just before exec, so that a signal sent
meanwhile ends the child and never runs the daemon's handler in it.
"""

from __future__ import annotations

import errno
import fcntl
import gc
import os
import signal
from dataclasses import dataclass
from typing import NoReturn

from maestro_py.process import execfail
from maestro_py.process.steps import FAILED, Step

SIGNALS = frozenset(int(number) for number in signal.valid_signals())
_RESET = tuple(sorted(SIGNALS - {signal.SIGKILL, signal.SIGSTOP}))
_MAX_FD = os.sysconf("SC_OPEN_MAX")  # only counts before Linux 5.9: close_range takes any end
_REPORT_LIMIT = 4096  # PIPE_BUF: a record is read whole or not at all


@dataclass(frozen=True, slots=True)
class LaunchSpec:
    """One launch, complete before the fork.

    argv[0] without a slash is looked up in `path`, in the child, where the root has changed. The
    three files stay the caller's; the child gets copies as 0, 1 and 2. own_pids: it is process 1 of a
    pid namespace of its own. passed: (descriptor, its number in the program) of further files.
    """

    name: str
    argv: tuple[bytes, ...]
    env: dict[bytes, bytes]
    path: tuple[bytes, ...]
    stdin: int
    stdout: int
    stderr: int
    steps: tuple[Step, ...]
    own_pids: bool = False
    passed: tuple[tuple[int, int], ...] = ()


def handled() -> tuple[int, ...]:
    """Return the signals that are not at default here: what `run` is to reset. Before the fork."""
    return tuple(number for number in _RESET if signal.getsignal(number) is not signal.SIG_DFL)


def run(spec: LaunchSpec, report: int, reset: tuple[int, ...], leave: tuple[int, int] | None) -> NoReturn:
    """Become the program of `spec`, or write a record to `report` and exit. For a forked child only.

    leave: the ends of a pipe on which the parent gives leave to execute the program; without a parent
    to give it, nothing is executed.
    """
    name, doing = "launch", "launch"
    try:
        gc.disable()  # a collection would copy the daemon's whole heap
        if leave:
            os.close(leave[1])
        signal.set_wakeup_fd(-1)
        for number in reset:
            signal.signal(number, signal.SIG_DFL)
        name, doing = "stdio", "set up its standard files"
        report = _above_stdio(report)
        for target, fd in enumerate([_above_stdio(fd) for fd in (spec.stdin, spec.stdout, spec.stderr)]):
            os.dup2(fd, target)
        for step in spec.steps:
            name = step.name
            try:
                step.run()
            except BaseException:
                doing = step.describe()
                raise
        name, doing = "exec", f"execute {os.fsdecode(spec.argv[0])}"
        if leave and not os.read(leave[0], 1):
            os._exit(FAILED)
        numbers = [number for _, number in spec.passed]
        if report in numbers:
            report = fcntl.fcntl(report, fcntl.F_DUPFD_CLOEXEC, max(numbers) + 1)
        for fd, number in spec.passed:
            os.dup2(fd, number)
            os.set_inheritable(number, True)  # dup2(2) of a descriptor to itself does nothing
        _close_all_but(report, *numbers)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        _execute(spec)
    except BaseException as error:
        _report(report, name, doing, error)
    finally:
        os._exit(FAILED)


def _close_all_but(*kept: int) -> None:
    low = 3
    for fd in sorted(kept):
        os.closerange(low, fd)
        low = fd + 1
    os.closerange(low, _MAX_FD)


def _above_stdio(fd: int) -> int:
    return fd if fd > 2 else int(fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 3))


def _execute(spec: LaunchSpec) -> NoReturn:
    """Try each candidate as execvp(3) does: a missing one leads to the next, a refused one is remembered."""
    program = spec.argv[0]
    if b"/" in program:
        candidates = [program]
    else:
        candidates = [(directory or b".") + b"/" + program for directory in spec.path]
    refused: OSError | None = None
    for path in candidates:
        try:
            os.execve(path, spec.argv, spec.env)
        except OSError as error:
            number = error.errno or 0
            if number in (errno.ENOENT, errno.ENOTDIR, errno.EACCES):
                because = execfail.explain(path, number)
                if len(candidates) > 1 and not because:
                    continue
            else:
                because = execfail.explain(path, number)
            text = (error.strerror or "") + (f" ({because})" if because else "")
            failure = OSError(number, text, path)
            if number != errno.EACCES:
                raise failure from None
            refused = refused or failure
    if refused:
        raise refused
    where = b":".join(spec.path)
    raise OSError(errno.ENOENT, f"No such file or directory in PATH {os.fsdecode(where)}", program)


def _report(fd: int, name: str, doing: str, error: BaseException) -> None:
    number, path, why = 0, "", f"{type(error).__name__}: {error}"
    if isinstance(error, OSError):
        number = error.errno or 0
        why = error.strerror or str(error)
        if isinstance(error.filename, (str, bytes)):
            path = os.fsdecode(error.filename)
    if path and path not in doing and path not in why:
        why = f"{why}: {path}"
    record = "\0".join((name, str(number), path, f"cannot {doing}: {why}"))
    os.write(fd, os.fsencode(record)[:_REPORT_LIMIT])
