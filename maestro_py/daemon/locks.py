# SPDX-License-Identifier: Apache-2.0
"""Taking turns: a semaphore for the daemon's loop, first come, first served."""

from __future__ import annotations

from collections import deque

from maestro_py.daemon.loop import Loop
from maestro_py.daemon.waiting import Future


class Semaphore:
    """At most `count` at a time inside `async with`; with one, a lock."""

    def __init__(self, loop: Loop, count: int = 1) -> None:
        self._loop = loop
        self._free = count
        self._waiting: deque[Future[None]] = deque()

    @property
    def free(self) -> bool:
        """Whether the next one need not wait."""
        return self._free > 0

    async def __aenter__(self) -> None:
        if self._free:
            self._free -= 1
            return
        turn: Future[None] = Future(self._loop)
        self._waiting.append(turn)
        try:
            await turn
        except BaseException:
            if turn.done:
                self._pass_on()  # the turn came together with the cancellation
            else:
                self._waiting.remove(turn)
            raise

    async def __aexit__(self, *_: object) -> None:
        self._pass_on()

    def _pass_on(self) -> None:
        if self._waiting:
            self._waiting.popleft().set_result(None)
        else:
            self._free += 1
