# SPDX-License-Identifier: Apache-2.0
"""Limits as the kernel's files want them. Pure.

Source of names, ranges and defaults: Documentation/admin-guide/cgroup-v2.rst and cgroup-v1/*.rst.
"""

from __future__ import annotations

from maestro_py.errors import Conflict
from maestro_py.spec.model import Limits
from maestro_py.units import format_size

CONTROLLER = {
    "mem_limit": "memory",
    "mem_high": "memory",
    "swap_limit": "memory",
    "pids_max": "pids",
    "cpu_weight": "cpu",
    "cpu_max": "cpu",
    "io_weight": "io",
}
"""The controller each limit needs, by its v2 name."""

CPU_PERIOD = 100_000  # microseconds; the kernel's default
_CPU_QUOTA_MIN = 1_000  # microseconds; the kernel refuses less


def set_fields(limits: Limits) -> list[str]:
    """Return the names of the limits that are set."""
    return [field for field in CONTROLLER if getattr(limits, field) is not None]


def v2_files(limits: Limits) -> list[tuple[str, str, str]]:
    """Return (field, file, text) for every limit, the unlimited ones included, in the order to write them."""

    def most(value: int | None) -> str:
        return "max" if value is None else str(value)

    weight = 100 if limits.io_weight is None else limits.io_weight
    return [
        ("mem_high", "memory.high", most(limits.mem_high)),
        ("mem_limit", "memory.max", most(limits.mem_limit)),
        ("swap_limit", "memory.swap.max", most(limits.swap_limit)),
        ("pids_max", "pids.max", most(limits.pids_max)),
        ("cpu_weight", "cpu.weight", str(100 if limits.cpu_weight is None else limits.cpu_weight)),
        ("cpu_max", "cpu.max", f"{cpu_quota(limits.cpu_max) or 'max'} {CPU_PERIOD}"),
        ("io_weight", "io.weight", f"default {weight}"),
        ("io_weight", "io.bfq.weight", str(bfq_weight(weight))),
    ]


def cpu_quota(cpus: float | None) -> int | None:
    """Return microseconds per CPU_PERIOD for a number of CPUs."""
    return None if cpus is None else max(_CPU_QUOTA_MIN, round(cpus * CPU_PERIOD))


def cpu_shares(weight: int | None) -> int:
    """Return v1's cpu.shares for a v2 weight: 100 is 1024, as systemd converts them."""
    return 1024 if weight is None else min(262_144, max(2, weight * 1024 // 100))


def bfq_weight(weight: int) -> int:
    """Return BFQ's weight (1-1000) for a v2 weight (1-10000).

    The same up to the default, 100, then flatter.
    """
    return weight if weight <= 100 else 100 + (weight - 100) * 900 // 9900


def blkio_weight(weight: int) -> int:
    """Return CFQ's weight on v1 (10-1000, default 500) for a v2 weight."""
    return min(1000, max(10, weight * 5))


def in_use(doing: str, limit: int, used: int) -> Conflict:
    """Return the error for a memory limit below what is in use and cannot be reclaimed."""
    return Conflict(
        f"{doing}: mem_limit {format_size(limit)}: {format_size(used)} are in use",
        hint="restart it to make the limit smaller",
    )
