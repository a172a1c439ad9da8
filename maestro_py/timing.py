# SPDX-License-Identifier: Apache-2.0
"""How long something took, over and over: counted by duration, for whoever asks how fast it is."""

from __future__ import annotations


class Timing:
    """Durations in seconds. counts: how many were at most BOUNDS[i] long, the last one: longer ones."""

    BOUNDS = (0.001, 0.01, 0.1, 1.0)

    __slots__ = ("counts", "sum")

    def __init__(self) -> None:
        self.counts = [0] * (len(self.BOUNDS) + 1)
        self.sum = 0.0

    def add(self, seconds: float) -> None:
        """Count one."""
        self.sum += seconds
        for i, bound in enumerate(self.BOUNDS):
            if seconds <= bound:
                self.counts[i] += 1
                return
        self.counts[-1] += 1
