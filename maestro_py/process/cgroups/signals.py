# SPDX-License-Identifier: Apache-2.0
"""A signal to everything in a group, and to nothing else."""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Callable, Iterable

from maestro_py.process import kernel

_BATCH = 256  # pidfds open at a time; a fork bomb must not use up the daemon's


def signal_all(members: Callable[[], Iterable[int]], number: int, *, wait: float = 0.0) -> None:
    """Send a signal once to every member, those that appear meanwhile included.

    A pidfd is opened first and the membership read again after it: a number that went to a stranger
    in between is either not listed any more, or its pidfd is dead. Returns when a listing has nobody
    new in it; with `wait` (seconds) when there is nobody left, or the time is over.
    """
    deadline = time.monotonic() + (wait or 0.5)
    sent: set[tuple[int, int]] = set()
    while True:
        new = []
        listed = list(members())
        for pid in listed:
            ticks = start_ticks(pid)
            if ticks is not None and (pid, ticks) not in sent:
                new.append((pid, ticks))
        if new:
            sent.update(_send(members, new[:_BATCH], number))
        elif not wait or not listed:
            return
        else:
            _await_death(listed[0], deadline - time.monotonic())
        if time.monotonic() >= deadline:
            return


def start_ticks(pid: int) -> int | None:
    """Return when a process was started, in clock ticks since boot; None when it is gone."""
    try:
        return kernel.start_ticks(pid)
    except OSError:
        return None


def _send(
    members: Callable[[], Iterable[int]], new: list[tuple[int, int]], number: int
) -> list[tuple[int, int]]:
    """Signal those that are members still; returns whom it reached."""
    pidfds: dict[tuple[int, int], int] = {}
    try:
        for process in new:
            try:
                pidfds[process] = os.pidfd_open(process[0])
            except OSError:  # gone, or no fd to be had: the next round sees it again
                continue
        still = set(members())
        for process, pidfd in pidfds.items():
            if process[0] in still:
                try:
                    signal.pidfd_send_signal(pidfd, number)
                except (ProcessLookupError, PermissionError):
                    pass
        return list(pidfds)
    finally:
        for pidfd in pidfds.values():
            os.close(pidfd)


def _await_death(pid: int, seconds: float) -> None:
    try:
        pidfd = os.pidfd_open(pid)
    except OSError:
        return
    try:
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        poll.poll(max(0, min(seconds, 0.02)) * 1000)
    finally:
        os.close(pidfd)
