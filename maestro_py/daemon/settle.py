# SPDX-License-Identifier: Apache-2.0
"""Waiting until processes are where a change wanted them: ready, down, or without hope."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import islice

from maestro_py.daemon.supervisor import Supervisor
from maestro_py.daemon.trials import Trials
from maestro_py.daemon.unit import Unit
from maestro_py.plan import IDLE
from maestro_py.spec.resolved import Ready, State

GRACE = 0.1
"""Seconds a process that cannot say it is ready must live before a change counts it as up."""

SOME = 3
"""So many of the processes that are waited for are named."""

KEEPS_DYING = 5
"""Deaths in a row after which waiting for a process is given up; it goes on being restarted."""


class Settling:
    """Looks at units; a process with a new version is waited for until that runs or is rolled back."""

    def __init__(self, supervisor: Supervisor, trials: Trials) -> None:
        self.supervisor = supervisor
        self.trials = trials

    async def until_settled(
        self, names: Iterable[str], tell: Callable[[list[str]], None] = lambda _: None
    ) -> None:
        """Wait until each process is ready or has failed. tell: is told some of those it waits for."""
        names = list(names)

        def settled() -> bool:
            left = list(islice((name for name in names if not self._settled(name)), SOME))
            tell(left)
            return not left

        await self.supervisor.until(settled)
        if any(self._just_up(name) for name in names):
            # exec is all that tells of a process without a sign of its own: see whether it stays
            await self.supervisor.loop.sleep(GRACE)
            await self.supervisor.until(lambda: all(self._settled(name) for name in names))

    async def until_known(self, name: str) -> None:
        """Wait until a process is ready or has failed, without waiting for a roll-back."""
        await self.supervisor.until(lambda: self.trials.failed(name) or self._settled(name))

    def unhappy(self, name: str, depth: int = 0) -> bool:
        """Whether a process that shall run does not, and will not soon."""
        unit = self.supervisor.units.get(name)
        if unit is None or unit.life.ready:
            return False
        if unit.life.state is State.FAILED or unit.life.tries >= KEEPS_DYING:
            return True
        if unit.life.state is State.WAITING_FOR_DEPS and depth < 100:
            stuck = [self.supervisor.units.get(n) for n in unit.process.depends_on]
            return any(
                dep is None
                or (dep.life.state is State.STOPPED and not dep.life.ready)
                or self.unhappy(dep.name, depth + 1)
                for dep in stuck
            )
        return False

    def explain(self, unit: Unit) -> str:
        """Return why a unit is where it is, in a few words."""
        life = unit.life
        if life.state is State.WAITING_FOR_DEPS:
            missing = [n for n in unit.process.depends_on if not self._is_ready(n)]
            return f"it waits for {', '.join(missing)}"
        return life.cause.text or life.state.value

    def _just_up(self, name: str) -> bool:
        unit = self.supervisor.units.get(name)
        if unit is None or unit.life.running_since is None or unit.process.ready != Ready():
            return False
        return self.supervisor.loop.time() - unit.life.running_since < GRACE

    def _is_ready(self, name: str) -> bool:
        unit = self.supervisor.units.get(name)
        return unit is not None and unit.life.ready

    def _settled(self, name: str) -> bool:
        unit = self.supervisor.units.get(name)
        if self.trials.failed(name):
            return False  # its roll-back is on the way
        if unit is None or unit.life.ready:
            return True
        waits = unit.life.state is State.WAITING_FOR_DEPS
        if self.trials.open(name) and not (waits or unit.life.state is State.STOPPED):
            return False  # what comes of it is decided there
        return unit.life.state in IDLE or self.unhappy(name)
