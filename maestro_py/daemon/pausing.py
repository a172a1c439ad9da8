# SPDX-License-Identifier: Apache-2.0
"""Pausing: a process is frozen as it is, and goes on where it was.

It stays RUNNING, and ready for those that depend on it; status and why say that it is paused and by whom.
Whatever ends it thaws it first, so a paused process stops, restarts and dies like any other. A signal
sent to it by hand waits until it goes on, but SIGKILL.
"""

from __future__ import annotations

from maestro_py.daemon.supervisor import Supervisor
from maestro_py.errors import MaestroError
from maestro_py.spec.resolved import State

FREEZE_TIME = 5.0
"""Seconds a process has to come to a stop; one that waits in the kernel may need some."""

LOOK = 0.005
"""Seconds between looks whether it has. Not every kernel tells, and it rarely takes two."""


def pause(supervisor: Supervisor, process: str, who: str) -> None:
    """Freeze a unit that is ready. Raises MaestroError."""
    unit = supervisor.unit(process)
    if unit.pid is None or unit.life.state is not State.RUNNING:
        raise MaestroError(
            f"cannot pause {process}: it is {unit.life.state.value}, not RUNNING", code="conflict"
        )
    if unit.paused:
        return
    try:
        supervisor.control.pause(unit, who)
    except OSError as error:
        supervisor.control.resume(unit)
        raise MaestroError(f"cannot pause {process}: {error.strerror}") from error
    supervisor.happen("process-paused", f"paused by {who}", process=process)
    supervisor.changed.notify()


def resume(supervisor: Supervisor, process: str, who: str) -> None:
    """Let a paused unit go on; nothing happens to one that is not."""
    unit = supervisor.unit(process)
    if unit.paused:
        supervisor.control.resume(unit)
        supervisor.happen("process-resumed", f"resumed by {who}", process=process)
        supervisor.changed.notify()


async def until_frozen(supervisor: Supervisor, process: str) -> None:
    """Wait until a paused unit has come to a stop; one that does not goes on. Raises MaestroError."""
    unit = supervisor.unit(process)
    deadline = supervisor.loop.time() + FREEZE_TIME
    while unit.paused and unit.cgroup and not unit.cgroup.frozen():
        if supervisor.loop.time() > deadline:
            resume(supervisor, process, "maestrod")
            raise MaestroError(f"cannot pause {process}: it did not come to a stop and was resumed")
        await supervisor.loop.sleep(LOOK)
    if not unit.paused:
        raise MaestroError(f"cannot pause {process}: it was resumed or ended meanwhile", code="conflict")
