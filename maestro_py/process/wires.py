# SPDX-License-Identifier: Apache-2.0
"""What a process is given to say more than its output does: a notify socket, a descriptor."""

from __future__ import annotations

from maestro_py.spec.resolved import ResolvedProcess
from maestro_py.valueclass import valueclass


@valueclass(frozen=True)
class Wires:
    """Environment, paths shown in a root of its own, and descriptors with their numbers in the process."""

    env: tuple[tuple[str, str], ...] = ()
    shown: tuple[tuple[str, str], ...] = ()
    passed: tuple[tuple[int, int], ...] = ()


def wanted(process: ResolvedProcess) -> bool:
    """Whether more is asked of a process, or heard from it, than its output and its end."""
    return bool(process.watchdog or process.health or process.ready.probe)


def listens(process: ResolvedProcess) -> bool:
    """Whether it has something to say by sd_notify(3)."""
    probe = process.ready.probe
    return bool(process.watchdog or (probe and probe.type == "notify"))
