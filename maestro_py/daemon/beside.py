# SPDX-License-Identifier: Apache-2.0
"""Commands run beside a process, as it is run itself: probes, `pre_start`, `post_stop`, `on_failure`."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Sequence
from dataclasses import replace

from maestro_py.daemon import log
from maestro_py.daemon.runner import Runner
from maestro_py.daemon.unit import Unit
from maestro_py.daemon.waiting import TimedOutError
from maestro_py.errors import MaestroError
from maestro_py.exits import Exit
from maestro_py.lifecycle import ALIVE
from maestro_py.process import accounts, isolation, launcher, netns, reaper
from maestro_py.process.launcher import Launch, LaunchFailure
from maestro_py.spec.resolved import State
from maestro_py.units import format_duration

PATIENCE = 60.0
"""Seconds that `pre_start`, `post_stop` and `on_failure` may take each."""


class Commands:
    """Runs commands with the user, root, limits, network and environment of a unit's process."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner
        self._loop = runner.loop

    async def pre_start(self, unit: Unit) -> None:
        """Run what must succeed before a start. Raises MaestroError."""
        if why := await self.run(unit, unit.process.pre_start, PATIENCE):
            raise MaestroError(f"its pre_start failed: {why}")

    async def post_stop(self, unit: Unit, then: Callable[[], None]) -> None:
        """Run what comes after each end, then go on."""
        if why := await self.run(unit, unit.running.post_stop, PATIENCE):
            log.warning(f"{unit.name}: its post_stop failed: {why}")
        then()

    async def on_failure(self, unit: Unit) -> None:
        """Run what follows when a unit has failed for good; its group is given back afterwards."""
        cause = unit.life.cause.text
        if why := await self.run(unit, unit.process.on_failure.command, PATIENCE, cause=cause):
            log.warning(f"{unit.name}: its on_failure command failed: {why}")
        if unit.life.state not in ALIVE and unit.life.state is not State.RESTARTING:
            self._runner.capture.finish(unit)
            self._runner.release(unit)

    async def run(
        self, unit: Unit, argv: Sequence[str], timeout: float, *, silent: bool = False, cause: str = ""
    ) -> str:
        """Return why the command failed, "" for exit code 0.

        timeout: seconds, after which it is killed. silent: its output is not kept in the unit's log.
        cause: what MAESTRO_CAUSE says.
        """
        name = os.path.basename(argv[0])
        fds: list[int] = []
        try:
            launch = self._launch(unit, argv, fds, silent, cause)
        except (MaestroError, OSError) as error:
            return str(error)
        finally:
            for fd in fds:
                os.close(fd)
        exit, failure = await self._end(launch, timeout)
        if failure:
            return failure.message
        if exit is None:
            return f"{name} did not end within {format_duration(timeout)}"
        return "" if exit.code == 0 else f"{name}: {exit.describe()}"

    def _launch(self, unit: Unit, argv: Sequence[str], fds: list[int], silent: bool, cause: str) -> Launch:
        runner = self._runner
        runner.control.open_group(unit)
        assert unit.cgroup
        who = accounts.credentials(unit.process)
        runner.capture.open(unit, (who.uid, who.gid))
        assert unit.output
        isolation.prepare_dirs(unit.process, who.uid, who.gid)
        if unit.pid and unit.running.network.mode != "host":
            fds.append(os.open(f"/proc/{unit.pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC))
            network: netns.PrivateNetwork | None = netns.PrivateNetwork(fds[0])
        else:
            network = runner.network_of(unit, fds)
        null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
        fds.append(null)
        out = err = null
        if not silent:
            out, err = unit.output.child_fds()
            fds += (out, err)
            if not unit.launch:
                unit.output.expect(None)  # what it prints does not make the process ready
                runner.capture.listen(unit)
        env = (("MAESTRO_CAUSE", cause),) if cause else ()
        spec = launcher.prepare(
            replace(
                unit.process,
                argv=tuple(argv),
                stdin="",
                env=(*env, *unit.process.env, *unit.cgroup.env),
                rlimits=(*runner.job_rlimits, *unit.process.rlimits),
            ),
            who=who,
            daemon_env=runner.environ,
            stdin_fd=null,
            stdout_fd=out,
            stderr_fd=err,
            cgroup_fds=unit.cgroup.join_fds(),
            private_network=network,
        )
        return launcher.start(spec, cgroup_fd=unit.cgroup.clone_fd())

    async def _end(self, launch: Launch, timeout: float) -> tuple[Exit | None, LaunchFailure | None]:
        """Wait until it ends; after the time, or when nobody waits any more, it is killed."""
        exit, failure = None, None
        try:
            await self._loop.wait_for(self._loop.readable(launch.pidfd), timeout)
            failure = launcher.read_report(launch.report_fd)
            exit = reaper.wait(launch.pid, launch.pidfd)
        except TimedOutError:
            pass
        finally:
            # what is killed here goes the way of all strangers
            reaper.send_signal(launch.pidfd, signal.SIGKILL)
            os.close(launch.pidfd)
            os.close(launch.report_fd)
        return exit, failure
