# SPDX-License-Identifier: Apache-2.0
"""A page that is drawn again and again: `top`, `status --watch`.

On a terminal the page stands still and only lines that changed are sent, since a serial line at 9600
baud needs two seconds for a whole screen.
"""

from __future__ import annotations

import os
import select
import sys
import time

TYPE_CHECKING = False  # typing's constant, without the import of typing
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from maestro_py.cli.screen import Screen


class Live:
    """The page; use it in a `with` statement, which gives the terminal back as it was."""

    def __init__(self, screen: Screen) -> None:
        self._screen = screen
        self._drawn: list[str] = []
        self._size = (0, 0)
        self._keys = -1
        self._before: list[Any] = []

    def __enter__(self) -> Live:
        # alternate screen, no cursor
        self._screen.out.write("\x1b[?1049h\x1b[?25l\x1b[H\x1b[2J")
        self._screen.out.flush()
        if sys.stdin is not None and sys.stdin.isatty():
            import termios

            self._keys = sys.stdin.fileno()
            self._before = termios.tcgetattr(self._keys)
            raw = termios.tcgetattr(self._keys)
            raw[3] &= ~(termios.ICANON | termios.ECHO)
            termios.tcsetattr(self._keys, termios.TCSADRAIN, raw)
        return self

    def __exit__(self, *_: object) -> None:
        if self._keys >= 0:
            import termios

            termios.tcsetattr(self._keys, termios.TCSADRAIN, self._before)
        self._screen.out.write("\x1b[?25h\x1b[?1049l")
        self._screen.out.flush()

    @property
    def height(self) -> int:
        """Lines of the terminal."""
        try:
            return os.get_terminal_size(self._screen.out.fileno()).lines or 24
        except OSError:
            return 24

    def draw(self, lines: Sequence[str]) -> None:
        """Make the page these lines; what does not fit is left out, and the last line says how much."""
        size = (self._screen.width, self.height)
        if len(lines) > size[1]:
            more = len(lines) - size[1] + 1
            lines = [*lines[: size[1] - 1], f"{self._screen.ellipsis} {more} more lines"]
        parts = []
        if size != self._size:
            parts.append("\x1b[2J")
            self._drawn, self._size = [], size
        for row in range(max(len(lines), len(self._drawn))):
            line = lines[row] if row < len(lines) else ""
            if row >= len(self._drawn) or self._drawn[row] != line:
                parts.append(f"\x1b[{row + 1};1H{line}\x1b[K")
        self._drawn = list(lines)
        self._screen.out.write("".join(parts))
        self._screen.out.flush()

    def wait(self, seconds: float) -> str:
        """Wait so long, or until a key is pressed or the size changed; return the key, or nothing."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0 and self._size == (self._screen.width, self.height):
            watched = [self._keys] if self._keys >= 0 else []
            # a quarter of a second: a changed size shows itself only by looking
            if select.select(watched, [], [], min(left, 0.25))[0]:
                return os.read(self._keys, 64).decode(errors="replace")[:1] or "q"
        return ""
