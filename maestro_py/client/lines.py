# SPDX-License-Identifier: Apache-2.0
"""Values that come one by one, each on a line of its own, across an upgrade of the daemon too."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from maestro_py.client.stream import Stream
from maestro_py.errors import Unavailable

TYPE_CHECKING = False  # what typing's constant is, without importing typing
if TYPE_CHECKING:
    from typing import Any

RECONNECT_TRIES, RECONNECT_PAUSE = 250, 0.02
"""How often, and how many seconds apart, a follower looks for a daemon that went away."""


class Lines:
    """A stream of JSON values, one to a line. Close it when you do not read to the end.

    again: asks for what follows a value once more, when the daemon went away in the middle.
    """

    def __init__(self, stream: Stream, again: Callable[[Any], Stream] | None = None) -> None:
        self._stream = stream
        self._again = again
        self._last: Any = None
        self._rest = b""
        self._lines: list[bytes] = []

    def __enter__(self) -> Lines:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        while not self._lines:
            try:
                piece = next(self._stream)
            except Unavailable as error:
                self._reconnect(error)
                continue
            *lines, self._rest = (self._rest + piece).split(b"\n")
            self._lines = [line for line in reversed(lines) if line]
        self._last = self._stream.decode(self._lines.pop())
        return self._last

    def _reconnect(self, error: Unavailable) -> None:
        """Ask for the rest, again and again for a while; raises what came instead."""
        if self._again is None:
            raise error
        self._rest = b""
        for _ in range(RECONNECT_TRIES):
            try:
                self._stream = self._again(self._last)
                return
            except Unavailable:
                time.sleep(RECONNECT_PAUSE)
        raise error

    def close(self) -> None:
        """Give up the rest."""
        self._stream.close()
