# SPDX-License-Identifier: Apache-2.0
"""The thin hands that launch a unit and bury it.

`Runner` carries out the effects that the lifecycle decides on and turns what comes back from the
kernel (exec, output, exit) into the lifecycle's events. It decides nothing itself.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from maestro_py.daemon import log
from maestro_py.daemon.capture import Capture
from maestro_py.daemon.control import Control
from maestro_py.daemon.logroom import LogRoom
from maestro_py.daemon.loop import Loop
from maestro_py.daemon.paths import Paths
from maestro_py.daemon.unit import Unit
from maestro_py.errors import MaestroError, Unsupported
from maestro_py.exits import Exit
from maestro_py.faultpoint import reach
from maestro_py.lifecycle import Event, Exited, Launched, LaunchFailed, Ready
from maestro_py.process import accounts, isolation, launcher, netns, reaper
from maestro_py.process.wires import Wires, wanted
from maestro_py.spec.resolved import State

if TYPE_CHECKING:
    from maestro_py.daemon.beside import Commands
    from maestro_py.daemon.networks import Networks
    from maestro_py.daemon.probing import Probing

POLL = 0.02
"""Seconds between looks at a dying group where the kernel cannot tell us that it is empty."""

_LASTING = frozenset(
    {
        errno.ENOENT,
        errno.EACCES,
        errno.EPERM,
        errno.ENOEXEC,
        errno.ENOTDIR,
        errno.EISDIR,
        errno.ELOOP,
        errno.ENAMETOOLONG,
        errno.E2BIG,
        errno.EINVAL,
        errno.ENODEV,
    }
)
"""Launch errors that trying again does not cure; all others (no memory, no pids, …) are retried."""


class _Refused(MaestroError):
    """A launch that would be refused again: no such user, no right to become it."""


class Runner:
    """Launches processes and sees their end; reports through `feed`.

    record: writes down what is known of a unit, before it goes on. report: (type of event, text, unit).
    """

    def __init__(
        self,
        loop: Loop,
        paths: Paths,
        control: Control,
        environ: Mapping[str, str],
        logs: LogRoom,
        open_files: tuple[int, int],
        feed: Callable[[Unit, Event], None],
        record: Callable[[Unit], None],
        report: Callable[[str, str, Unit], None],
    ) -> None:
        self.loop = loop
        self.paths = paths
        self.control = control
        self.environ = environ
        self.capture = Capture(loop, paths, logs, self._said_ok)
        # the daemon raises its own limit; a job starts with what the daemon was given
        self.job_rlimits = (("nofile", *open_files),)
        self.feed = feed
        self.record = record
        self.report = report
        self.networks: Networks | None = None
        self._commands: Commands | None = None

    # what the lifecycle asks for

    def launch(self, unit: Unit) -> None:
        """Launch the process as now defined; the outcome comes as Launched, LaunchFailed or Exited."""
        unit.running = unit.process
        unit.launches += 1
        unit.exit = unit.failure = unit.asked = None
        unit.killed_for_memory = ""
        unit.reported = False
        private = unit.process.network.mode == "private"
        if self.networks and not private:
            self.networks.detach(unit.name)  # it may have had one until now
        if private or unit.process.pre_start:
            self.loop.spawn(self._make_ready(unit), name=f"what {unit.name} needs first")
        else:
            self._start(unit)

    async def _make_ready(self, unit: Unit) -> None:
        """Launch a process once its private network is there and its `pre_start` has succeeded.

        A death alone does not take the network away.
        """
        process = unit.process
        try:
            if process.network.mode == "private":
                networks = self._private_networks()
                await networks.attach(unit.name, process.network, anew=unit.life.tries == 0)
            if process.pre_start and unit.life.state is State.STARTING:
                await self.commands.pre_start(unit)
        except (MaestroError, OSError) as error:
            text = error.message if isinstance(error, MaestroError) else f"cannot start {unit.name}: {error}"
            self.feed(unit, LaunchFailed(text, lasting=isinstance(error, Unsupported)))
            return
        if unit.life.state is State.STARTING:
            self._start(unit)
        else:
            self.feed(unit, LaunchFailed("it was stopped before it could start", lasting=False))

    def _wires(self, unit: Unit, owner: tuple[int, int]) -> Wires:
        """Return what a process gets to say more than its output does."""
        if not wanted(unit.process):
            if unit.probing:
                unit.probing.close()
                unit.probing = None
            return Wires()
        return self._probing(unit).open(*owner)

    def _probing(self, unit: Unit) -> Probing:
        if unit.probing is None:
            from maestro_py.daemon.probing import Probing

            unit.probing = Probing(self, unit)
        return unit.probing

    def _private_networks(self) -> Networks:
        if self.networks is None:
            from maestro_py.daemon.networks import Networks  # most devices never need it

            self.networks = Networks(self.loop, self.paths)
        return self.networks

    def recover_networks(self, units: Collection[Unit]) -> None:
        """Take over the private networks of these units; others an earlier daemon left are removed."""
        if os.path.exists(os.path.join(self.paths.run, "netns")):
            private = {u.name: u.running.network for u in units if u.running.network.mode == "private"}
            self._private_networks().take_over(private)

    def _start(self, unit: Unit) -> None:
        fds: list[int] = []
        try:
            self._launch(unit, fds)
        except (MaestroError, OSError) as error:
            text = error.message if isinstance(error, MaestroError) else f"cannot start {unit.name}: {error}"
            number = getattr(error, "errno", None)
            event = LaunchFailed(text, lasting=isinstance(error, _Refused) or number in _LASTING)
            self._not_launched(unit, event)
        except Exception as error:
            # a mistake of ours is this job's trouble only
            log.error(f"unexpected in the launch of {unit.name}: {error!r}")
            self._not_launched(unit, LaunchFailed(f"internal error: {error!r}", lasting=True))
        finally:
            for fd in fds:
                os.close(fd)

    def _not_launched(self, unit: Unit, event: LaunchFailed) -> None:
        unit.launch = None
        self.loop.call_soon(lambda: self.feed(unit, event))

    def _launch(self, unit: Unit, fds: list[int]) -> None:
        process = unit.process
        self.control.open_group(unit)
        assert unit.cgroup
        assert unit.oom
        unit.oom.launching()
        try:
            who = accounts.credentials(process)
        except MaestroError as error:
            raise _Refused(error.message) from error
        owner = (who.uid, who.gid)
        self.capture.open(unit, owner)
        assert unit.output
        unit.output.expect(process.ready.ok_string.encode() or None)
        stdout, stderr = unit.output.child_fds()
        fds += (stdout, stderr)
        stdin = launcher.stdin_file(process.stdin)
        fds.append(stdin)
        isolation.prepare_dirs(process, *owner)
        private = self.network_of(unit, fds)
        wires = self._wires(unit, owner)
        fds += (fd for fd, _ in wires.passed)
        try:
            spec = launcher.prepare(
                replace(
                    process,
                    env=(*process.env, *unit.cgroup.env, *wires.env),
                    rlimits=(*self.job_rlimits, *process.rlimits),
                ),
                who=who,
                daemon_env=self.environ,
                stdin_fd=stdin,
                stdout_fd=stdout,
                stderr_fd=stderr,
                cgroup_fds=unit.cgroup.join_fds(),
                private_network=private,
                shown=wires.shown,
                passed=wires.passed,
            )
        except MaestroError as error:
            raise _Refused(error.message) from error
        launch = launcher.start(
            spec, cgroup_fd=unit.cgroup.clone_fd(), record=lambda child: self._record_launch(unit, child)
        )
        reach("runner.launch.started")
        # after the fork, to be quick; its output is read later all the same
        unit.output.mark_start()
        self.loop.add_reader(launch.report_fd, lambda: self._report(unit))
        self._watch(unit, launch)

    def redefined(self, unit: Unit) -> None:
        """The definition in force of a running unit is another: what is asked of it may be, too."""
        if unit.pid and (unit.probing or wanted(unit.process)):
            self._probing(unit).redefined()

    def network_of(self, unit: Unit, fds: list[int]) -> netns.PrivateNetwork | None:
        """Return the network to join, its descriptor added to `fds`; none for the device's own."""
        if unit.process.network.mode != "private":
            return None
        private = self._private_networks().open(unit.name)
        fds.append(private.fd)
        return private

    @property
    def commands(self) -> Commands:
        """What runs commands beside processes; most devices never need it."""
        if self._commands is None:
            from maestro_py.daemon.beside import Commands

            self._commands = Commands(self)
        return self._commands

    def _record_launch(self, unit: Unit, launch: launcher.Launch) -> None:
        unit.launch = launch
        self.record(unit)

    def _watch(self, unit: Unit, launch: launcher.Launch) -> None:
        """Be there when the process prints, lacks memory or ends."""
        assert unit.cgroup
        assert unit.oom
        assert unit.output
        unit.cgroup.attach(launch.pid)
        unit.oom.watch(launch.pid)
        self.loop.add_reader(launch.pidfd, lambda: self._main_exited(unit))
        self.capture.listen(unit)

    # what an earlier daemon left

    def adopt(self, unit: Unit, launch: launcher.Launch) -> None:
        """Take over a process that an earlier daemon launched. Raises MaestroError."""
        unit.launch, unit.reported = launch, True
        self.control.take_group(unit)
        assert unit.oom
        unit.oom.launching()
        self.capture.open(unit, None)
        if unit.life.state is State.STARTING:
            assert unit.output
            unit.output.expect(unit.running.ready.ok_string.encode() or None)
        self._watch(unit, launch)
        if wanted(unit.running):
            who = accounts.credentials(unit.running)
            self._probing(unit).take_over(who.uid, who.gid)

    def bury(self, unit: Unit, exit: Exit) -> None:
        """Take note of a main process that ended without us, and see the rest of its group gone."""
        unit.exit = exit
        self.control.take_group(unit)
        assert unit.cgroup
        if unit.cgroup.populated():
            self.control.kill(unit)
            self._watch_drain(unit)
        else:
            self._gone(unit)

    def release(self, unit: Unit, *, forget: bool = False) -> None:
        """Give back the group of a unit that is down; when it is forgotten, its output too."""
        self.control.close_group(unit)
        if self.networks:
            self.networks.detach(unit.name)
        if unit.output and forget:
            unit.output.remove()
            unit.output = None
        if unit.probing:
            unit.probing.close()
            unit.probing = None

    # what comes back

    def _report(self, unit: Unit) -> None:
        """The child's report pipe: end of file means that exec happened."""
        launch = unit.launch
        if launch is None or unit.reported:
            return
        failure = launcher.read_report(launch.report_fd)
        unit.reported = True
        self.loop.remove_reader(launch.report_fd)
        os.close(launch.report_fd)
        if failure is None:
            self.feed(unit, Launched())
        else:
            unit.failure = failure

    def _said_ok(self, unit: Unit) -> None:
        self._report(unit)
        self.feed(unit, Ready())

    def _main_exited(self, unit: Unit) -> None:
        launch = unit.launch
        if launch is None or unit.exit is not None:
            return
        exit = reaper.wait(launch.pid, launch.pidfd)
        if exit is None:
            return
        self._report(unit)
        by_hand = unit.asked and unit.asked[0] == exit.signal
        if unit.asked and by_hand:
            exit = replace(exit, by=unit.asked[1])
        elif unit.oom:
            unit.killed_for_memory = unit.oom.sentence(exit)
        unit.exit = exit
        self.loop.remove_reader(launch.pidfd)
        os.close(launch.pidfd)
        if unit.cgroup and unit.cgroup.populated():
            self.record(unit)  # how it ended is known to us alone
            if unit.life.state is not State.STOPPING:
                self.control.kill(unit)  # its descendants do not outlive it
            self._watch_drain(unit)
        else:
            self._gone(unit)

    def _watch_drain(self, unit: Unit) -> None:
        assert unit.cgroup is not None
        fd = unit.cgroup.watch_fd()
        if fd is not None:
            unit.watching = fd
            self.loop.add_reader(fd, lambda: self._drained(unit), priority=True)
        self._drained(unit)

    def _drained(self, unit: Unit) -> None:
        """Look whether the group is empty by now; ask again later where no event will say so."""
        if unit.cgroup and unit.cgroup.populated():
            if unit.watching is None:
                self.loop.call_later(POLL, lambda: self._drained(unit))
            return
        if unit.watching is not None:
            self.loop.remove_reader(unit.watching)
            unit.watching = None
        self._gone(unit)

    def _gone(self, unit: Unit) -> None:
        """The last process is gone: take what it left behind and tell the lifecycle."""
        if unit.exit and unit.running.post_stop and not unit.cleaning:
            unit.cleaning = True
            after = self.commands.post_stop(unit, lambda: self._gone(unit))
            self.loop.spawn(after, name=f"post_stop of {unit.name}")
            return
        self.capture.finish(unit)
        self.control.resume(unit)  # an empty group may be frozen too
        exit, failure = unit.exit, unit.failure
        unit.launch = unit.exit = None
        unit.cleaning = False
        if failure is not None:
            where = f" in the root {unit.running.root}" if unit.running.root else ""
            self.feed(unit, LaunchFailed(failure.message + where, failure.errno in _LASTING))
            return
        assert exit is not None
        self.feed(unit, Exited(exit, unit.killed_for_memory))
