# SPDX-License-Identifier: Apache-2.0
"""A terminal of its own for a program, and what passes between it and the caller's.

The program never gets the caller's terminal itself: whoever holds that could type into it.
"""

from __future__ import annotations

import errno
import fcntl
import os
import select
import signal
import termios
import tty
from collections.abc import Callable
from typing import Any

_PIECE = 65536
_LATE = 0.1  # seconds for output that was under way when the program ended


class Terminal:
    """A pseudo terminal that stands in for those of 0, 1 and 2 that are terminals.

    leader, follower: its two ends. typed: whether what is typed is for the program; only when it
    writes to a terminal too, as somebody else may read the keyboard when it does not.
    """

    def __init__(self) -> None:
        self.leader, self.follower = os.openpty()
        self.typed = os.isatty(0) and os.isatty(1)
        self._before: list[Any] = []

    def stdio(self) -> tuple[int, int, int]:
        """Return what the program gets as 0, 1 and 2."""
        own = [self.follower if os.isatty(fd) else fd for fd in (0, 1, 2)]
        if os.isatty(0) and not self.typed:
            own[0] = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
        return own[0], own[1], own[2]

    def become_controlling(self) -> None:
        """In the child: a new session, with this as its terminal."""
        os.setsid()
        fcntl.ioctl(self.follower, termios.TIOCSCTTY, 0)

    def relay(self, ended: int) -> None:
        """Pass on what is typed and what is written until `ended`, the program's pidfd, is readable."""
        os.close(self.follower)
        outside = next(fd for fd in (1, 2) if os.isatty(fd))
        self._resize(outside)
        signal.signal(signal.SIGWINCH, lambda *_: self._resize(outside))
        if self.typed:
            self._before = termios.tcgetattr(0)
            tty.setraw(0)
        try:
            self._pass_on(outside, ended)
        finally:
            signal.signal(signal.SIGWINCH, signal.SIG_DFL)
            if self._before:
                termios.tcsetattr(0, termios.TCSADRAIN, self._before)
            os.close(self.leader)

    def _resize(self, outside: int) -> None:
        try:
            size = fcntl.ioctl(outside, termios.TIOCGWINSZ, b"\0" * 8)
            fcntl.ioctl(self.leader, termios.TIOCSWINSZ, size)
        except OSError:
            pass  # a terminal without a size

    def _pass_on(self, outside: int, ended: int) -> None:
        watched = [self.leader, ended, *([0] if self.typed else [])]
        while True:
            ready = select.select(watched, [], [], None if ended in watched else _LATE)[0]
            if self.leader in ready:
                data = _read(self.leader)
                if not data:
                    return
                _write(outside, data)
            elif ended not in watched:
                return  # what is left in the background keeps the terminal, and is not waited for
            if ended in ready:
                watched.remove(ended)
            if 0 in ready:
                data = _read(0)
                if data:
                    _write(self.leader, data)
                else:
                    watched.remove(0)


def _read(fd: int) -> bytes:
    try:
        return os.read(fd, _PIECE)
    except OSError as error:
        if error.errno == errno.EIO:  # the other end of a terminal is closed
            return b""
        raise


def _write(fd: int, data: bytes) -> None:
    while data:
        data = data[os.write(fd, data) :]


def pass_signals(send: Callable[[int], None]) -> None:
    """Send on what asks this process to end; what a terminal sends reaches the program by itself."""
    for number in (signal.SIGINT, signal.SIGQUIT):
        signal.signal(number, signal.SIG_IGN)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda got, _: send(got))
