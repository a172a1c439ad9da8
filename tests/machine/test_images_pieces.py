# SPDX-License-Identifier: Apache-2.0
"""A ring of memory between two processes."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Callable

import pytest

from maestro_py.images.pieces import PIECE, PIECES, Pieces

pytestmark = pytest.mark.timeout(30)


def other(work: Callable[[Pieces], None]) -> tuple[Pieces, int]:
    """Return a ring to take from, and the pid of the one who fills it."""
    pieces = Pieces()
    pid = os.fork()
    if pid == 0:
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        pieces.giver()
        work(pieces)
        os._exit(3)
    pieces.taker()
    return pieces, pid


def test_what_is_put_in_comes_out() -> None:
    dice = random.Random(1)
    data = [
        dice.randbytes(dice.choice((0, 1, 700, PIECE - 1, PIECE, PIECE + 1, 3 * PIECE))) for _ in range(60)
    ]

    def put(pieces: Pieces) -> None:
        for each in data:
            pieces.put(each)

    pieces, pid = other(put)
    found = bytearray()
    while piece := pieces.take():
        found += piece
    assert found == b"".join(data)
    assert not pieces.take()  # and no more, however often somebody asks
    pieces.close()
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 3


def test_a_piece_stays_as_it_is_until_the_next_is_taken() -> None:
    def fill(pieces: Pieces) -> None:
        for number in range(3 * PIECES):
            pieces.put(bytes([number]) * PIECE)

    pieces, pid = other(fill)
    for number in range(3 * PIECES):
        piece = pieces.take()
        os.sched_yield()
        assert piece == bytes([number]) * PIECE
    pieces.close()
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 3


@pytest.mark.parametrize("taken", [0, 1, PIECES, 2 * PIECES])
def test_who_fills_ends_when_nobody_takes(taken: int) -> None:
    def fill(pieces: Pieces) -> None:
        while True:
            pieces.put(bytes(PIECE))

    pieces, pid = other(fill)
    for _ in range(taken):
        assert pieces.take()
    pieces.close()
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) in (0, -signal.SIGPIPE)


def test_who_takes_gets_what_was_put_in_before_the_other_died() -> None:
    def fill(pieces: Pieces) -> None:
        pieces.put(b"last")
        os.kill(os.getpid(), signal.SIGKILL)

    pieces, pid = other(fill)
    os.waitpid(pid, 0)
    assert pieces.take() == b"last"
    assert not pieces.take()
    pieces.close()
