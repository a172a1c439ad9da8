# SPDX-License-Identifier: Apache-2.0
"""Signals for process 1 of a pid namespace, which a job with `pids: private` is (pid_namespaces(7))."""

from __future__ import annotations

import os
import signal

_HARMLESS = frozenset(
    {
        signal.SIGCHLD,
        signal.SIGCONT,
        signal.SIGURG,
        signal.SIGWINCH,
        signal.SIGSTOP,
        signal.SIGTSTP,
        signal.SIGTTIN,
        signal.SIGTTOU,
    }
)
"""What does not end a process that has no handler for it (signal(7))."""


def signal_for(pid: int, number: int) -> int:
    """Return the signal that does to process 1 of a namespace what `number` does to any other.

    The kernel withholds from it every signal it has no handler for; where that one would have ended
    it, SIGKILL does. What the process handles or ignores by its own choice is left alone.
    """
    if number in _HARMLESS or number == signal.SIGKILL:
        return number
    try:
        fd = os.open(f"/proc/{pid}/status", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return number  # gone
    try:
        text = os.read(fd, 16384)
    except OSError:
        return number
    finally:
        os.close(fd)
    bit = 1 << number - 1
    chosen = sum(_mask(text, name) & bit for name in (b"SigCgt", b"SigIgn"))
    return number if chosen else signal.SIGKILL


def _mask(text: bytes, name: bytes) -> int:
    return int(text.partition(name + b":\t")[2].split(None, 1)[0], 16)
