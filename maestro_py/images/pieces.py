# SPDX-License-Identifier: Apache-2.0
"""Bytes from one process to another through memory that both have: nothing is copied on the way."""

from __future__ import annotations

import mmap
import os

PIECE, PIECES = 128 << 10, 8
"""Bytes handed over at a time, still in the processor's cache then, and how many such pieces there are."""

_LENGTH = 4  # bytes that say how much of a piece is full


class Pieces:
    """Memory two processes share, a ring of pieces: one fills them, the other takes them, nothing is copied.

    The lengths of the full ones go through one pipe, a byte for each emptied one through another.
    """

    def __init__(self) -> None:
        self._memory = memoryview(mmap.mmap(-1, PIECE * PIECES))
        self._full, self._fill = os.pipe()
        self._empty, self._give_back = os.pipe()
        self._at = 0
        self._free = PIECES
        self._taken = False

    def giver(self) -> None:
        """Be the one who fills."""
        os.close(self._full)
        os.close(self._give_back)

    def taker(self) -> None:
        """Be the one who takes."""
        os.close(self._fill)
        os.close(self._empty)

    def close(self) -> None:
        """End taking; the other one ends too then, soon."""
        os.close(self._full)
        os.close(self._give_back)

    def take(self) -> memoryview:
        """Return the next piece, and give the one before back; nothing once the other one has ended."""
        if self._taken:
            self._at = (self._at + 1) % PIECES
            try:
                os.write(self._give_back, b".")
            except BrokenPipeError:
                pass  # it has ended; what it left is still here
        self._taken = True
        return self._piece()[: int.from_bytes(os.read(self._full, _LENGTH), "little")]

    def room(self) -> memoryview:
        """Return an empty piece to fill, the same one until something is given."""
        if not self._free:
            self._free = len(os.read(self._empty, PIECES))
            if not self._free:
                os._exit(0)  # nobody takes anything any more
        return self._piece()

    def give(self, length: int) -> None:
        """Hand over that much of the piece that `room` returned."""
        os.write(self._fill, length.to_bytes(_LENGTH, "little"))
        self._at = (self._at + 1) % PIECES
        self._free -= 1

    def put(self, data: bytes) -> None:
        """Hand over bytes that are somewhere else."""
        rest = memoryview(data)
        while rest:
            room = self.room()
            length = min(len(room), len(rest))
            room[:length] = rest[:length]
            self.give(length)
            rest = rest[length:]

    def _piece(self) -> memoryview:
        return self._memory[self._at * PIECE : (self._at + 1) * PIECE]
