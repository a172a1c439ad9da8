# SPDX-License-Identifier: Apache-2.0
"""The system call filter of a process: compiled once by a helper program, loaded before exec."""

from __future__ import annotations

import os
import select
import signal
import sys
import time
from typing import ClassVar

from maestro_py.errors import MaestroError, Unsupported
from maestro_py.process import kernel
from maestro_py.valueclass import valueclass

_HELPER = "maestro_py.process.seccomp_profile"
_PATIENCE = 10.0
_program = b""

NO_LIBRARY = 3
"""Exit status of the helper program where libseccomp or its Python module is missing."""


@valueclass(frozen=True)
class LoadFilter:
    """Refuse system calls from here on. Needs no_new_privs."""

    program: bytes
    name: ClassVar[str] = "seccomp"
    libc: ClassVar[bool] = True

    def describe(self) -> str:
        """Return what it does."""
        return "load its system call filter"

    def run(self) -> None:
        """prctl(PR_SET_SECCOMP)."""
        kernel.set_seccomp(self.program)


def default_filter(doing: str) -> LoadFilter:
    """Return the default filter for this machine; the first call takes as long as a start of Python.

    Raises Unsupported where libseccomp is missing; `doing` starts the message, as "run x".
    """
    global _program
    if not _program:
        _program = _compile(doing)
    return LoadFilter(_program)


def _compile(doing: str) -> bytes:
    reading, writing = os.pipe2(os.O_CLOEXEC)
    try:
        try:
            pid = os.posix_spawn(
                sys.executable,
                [sys.executable, "-m", _HELPER],
                {"PYTHONPATH": ":".join(entry for entry in sys.path if entry), "PATH": os.defpath},
                file_actions=[
                    (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
                    (os.POSIX_SPAWN_DUP2, writing, 1),
                    (os.POSIX_SPAWN_OPEN, 2, "/dev/null", os.O_WRONLY, 0),
                ],
                setsigmask=(),
                setsigdef=(signal.SIGPIPE, signal.SIGXFSZ),
            )
        finally:
            os.close(writing)
        program, timely = _read_all(reading)
        if not timely:
            os.kill(pid, signal.SIGKILL)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    finally:
        os.close(reading)
    if status == NO_LIBRARY:
        hint = "install libseccomp and its Python module (seccomp or pyseccomp), or set seccomp to none"
        raise Unsupported(f"cannot {doing} with seccomp: libseccomp is not installed", hint=hint)
    if status != 0 or not program or len(program) % 8:
        how = "took too long" if not timely else f"ended with {status}"
        raise MaestroError(f"cannot {doing} with seccomp: the program that compiles the filter {how}")
    return program


def _read_all(fd: int) -> tuple[bytes, bool]:
    """Return what comes until end of file, and whether that came in time."""
    data = b""
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    deadline = time.monotonic() + _PATIENCE
    while True:
        if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
            return data, False
        piece = os.read(fd, 65536)
        if not piece:
            return data, True
        data += piece
