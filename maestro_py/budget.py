# SPDX-License-Identifier: Apache-2.0
"""How many restarts the whole device has time for. Pure: times are the caller's monotonic seconds."""

from __future__ import annotations


class RestartBudget:
    """At most `burst` restarts at once, and `rate` a second in the long run (a token bucket).

    Twenty jobs that crash without end then wait for each other, and leave the rest of the device its time.
    rate 0: no limit.
    """

    def __init__(self, rate: float, burst: int) -> None:
        self.rate = rate
        self.burst = burst
        self._left = float(burst)
        self._at = 0.0

    def wait(self, now: float) -> float:
        """Return the seconds until another restart may be made."""
        if not self.rate:
            return 0.0
        self._refill(now)
        return 0.0 if self._left >= 1 else (1 - self._left) / self.rate

    def take(self, now: float) -> None:
        """Count a restart that will be made; those that wait queue up behind each other."""
        self._refill(now)
        self._left -= 1

    def _refill(self, now: float) -> None:
        self._left = min(self.burst, self._left + max(0.0, now - self._at) * self.rate)
        self._at = max(self._at, now)
