# SPDX-License-Identifier: Apache-2.0
"""How a process ended, as a value."""

from __future__ import annotations

from maestro_py.units import signal_name
from maestro_py.valueclass import valueclass


@valueclass(frozen=True)
class Exit:
    """End of one process: an exit code, or the signal that killed it, or neither when nobody could tell.

    by: who had the signal sent, when that is known, as `root` or `uid 1000`.
    unseen: it happened while there was no daemon to see it.
    """

    code: int | None = None
    signal: int | None = None
    core: bool = False
    by: str = ""
    unseen: bool = False

    @classmethod
    def from_wait_status(cls, status: int) -> Exit:
        """Return the exit of a wait(2) status: signal in the low 7 bits, core flag 0x80."""
        number = status & 0x7F
        if number:
            return cls(signal=number, core=bool(status & 0x80))
        return cls(code=status >> 8 & 0xFF)

    def describe(self) -> str:
        """Return `exit code 3`, `killed by SIGSEGV (core dumped)` or `ended, exit code not known`."""
        if self.unseen and self.signal is None and self.code is None:
            return "ended while the daemon was down, exit code not known"
        if self.signal is not None:
            core = " (core dumped)" if self.core else ""
            sent = f", sent by {self.by}" if self.by else ""
            return f"killed by {signal_name(self.signal)}{core}{sent}"
        if self.code is not None:
            return f"exit code {self.code}"
        return "ended, exit code not known"
