# SPDX-License-Identifier: Apache-2.0
"""Finding the OK string in a stream that comes in pieces."""

from __future__ import annotations


class Matcher:
    """Looks for one string in a stream. Pure; holds back at most len(string) - 1 bytes between feeds."""

    __slots__ = ("_held", "string")

    def __init__(self, string: bytes) -> None:
        if not string:
            raise ValueError("cannot look for an empty string")
        self.string = string
        self._held = b""

    @property
    def held(self) -> int:
        """Number of bytes held back."""
        return len(self._held)

    def feed(self, data: bytes) -> tuple[bytes, bool, bytes]:
        """Return (what is not part of the string, whether it was found, what follows it).

        While it is not found, a tail that may be its beginning is held back until the next feed.
        """
        buffer = self._held + data
        at = buffer.find(self.string)
        if at >= 0:
            self._held = b""
            return buffer[:at], True, buffer[at + len(self.string) :]
        for length in range(min(len(self.string) - 1, len(buffer)), 0, -1):
            if buffer.endswith(self.string[:length]):
                self._held = buffer[-length:]
                return buffer[:-length], False, b""
        self._held = b""
        return buffer, False, b""

    def flush(self) -> bytes:
        """Return what is held back and forget it: the stream has ended."""
        held, self._held = self._held, b""
        return held
