# SPDX-License-Identifier: Apache-2.0
"""Replacing the daemon in place: the program that is installed now takes over this very process.

Children stay children, the sockets go on listening and the lock stays held; everything else is taken
over by the records, as after a crash. The new program is tried first, in a child that loads the
configuration and copies of the databases; if it cannot, the old one goes on.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import MutableMapping

import maestro_py
from maestro_py.daemon import helpers, intents, log
from maestro_py.daemon.http import Server
from maestro_py.daemon.loop import Loop, TimedOutError
from maestro_py.daemon.notify import Manager
from maestro_py.daemon.supervisor import Supervisor
from maestro_py.daemon.tasks import Tasks
from maestro_py.errors import MaestroError
from maestro_py.faultpoint import reach
from maestro_py.process import launcher, reaper
from maestro_py.spec import codec
from maestro_py.spec.resolved import State
from maestro_py.valueclass import valueclass

TRIAL = "--check-state"
"""Argument with which a daemon only says whether it could go on here."""

TRIAL_TIME = 60.0
"""Seconds the new program has for that."""

QUIET_TIME = 10.0
"""Seconds in which the old program waits for a moment in which no process is about to say something."""

_VARIABLE = "MAESTRO_HANDOVER"
_BLOCKED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGPWR, signal.SIGCHLD)
"""Signals that wait until the new program has handlers for them."""


@valueclass(frozen=True)
class Handover:
    """What the old program gives to the new one.

    listeners, lock: descriptors. generation: how often this daemon was replaced. open_files: the limit
    jobs are given. environ: variables of the service manager. tasks: JSON, see `intents`.
    """

    listeners: tuple[int, ...]
    lock: int
    generation: int
    open_files: tuple[int, int]
    environ: tuple[tuple[str, str], ...]
    helpers: tuple[int, ...]
    tasks: str


def received(environ: MutableMapping[str, str] = os.environ) -> Handover | None:
    """Return what was handed over to this program, None when it was started by itself."""
    fd = environ.pop(_VARIABLE, "")
    if not fd.isdigit():
        return None
    with open(int(fd), "rb") as file:
        found = codec.load(Handover, json.load(file))
    environ.update(found.environ)
    for each in (*found.listeners, found.lock):
        os.set_inheritable(each, False)
    for pid in found.helpers:  # nobody listens to them any more
        _end_helper(pid)
    return found


def _end_helper(pid: int) -> None:
    try:
        if pid in reaper.children(os.getpid()):
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
    except OSError:
        pass


def take_signals() -> None:
    """Let signals come that waited for the handlers of this program."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _BLOCKED)


def command(*more: str) -> list[str]:
    """Return the command line that starts this daemon once more."""
    return [sys.executable, *sys.orig_argv[1:], *more]


async def trial(loop: Loop) -> str:
    """Try the program that is installed now; return its version. Raises MaestroError when it cannot go on."""
    read_end, write_end = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    stdin = launcher.stdin_file("")
    os.set_blocking(write_end, True)
    try:
        spec = launcher.helper_spec(command(TRIAL), os.environ, stdin, write_end, write_end)
        launch = launcher.start(spec)
    except BaseException:
        os.close(read_end)
        raise
    finally:
        os.close(stdin)
        os.close(write_end)
    helpers.running.add(launch.pid)
    try:
        text = await loop.wait_for(_text(loop, read_end), TRIAL_TIME)
        await loop.wait_for(loop.readable(launch.pidfd), TRIAL_TIME)
        exit = reaper.wait(launch.pid, launch.pidfd)
    except TimedOutError:
        raise _refused(f"it did not answer within {TRIAL_TIME:g} s") from None
    finally:
        reaper.send_signal(launch.pidfd, signal.SIGKILL)
        helpers.running.discard(launch.pid)
        failure = launcher.read_report(launch.report_fd)
        for fd in (read_end, launch.pidfd, launch.report_fd):
            os.close(fd)
    if failure:
        raise _refused(failure.message)
    last = text.strip().rpartition("\n")[2]
    if exit is None or exit.code != 0:
        # a log has the time before it, a traceback tells most at its end
        logged = [line.partition(" error: ")[2].strip() for line in text.splitlines() if " error: " in line]
        raise _refused("; ".join(logged) or last or (exit.describe() if exit else "it vanished"))
    return last


async def _text(loop: Loop, fd: int) -> str:
    parts: list[bytes] = []
    while True:
        await loop.readable(fd)
        data = os.read(fd, 65536)
        if not data:
            return b"".join(parts).decode(errors="replace")
        parts.append(data)


def _refused(why: str) -> MaestroError:
    return MaestroError(
        f"cannot upgrade: the new maestrod cannot go on here: {why}",
        hint="nothing was changed, the daemon goes on as it was",
    )


def execute(handover: Handover) -> None:
    """Become the new program. Returns only by raising MaestroError."""
    reach("reexec.begun")
    fd = os.memfd_create("maestro-handover", 0)
    os.write(fd, json.dumps(codec.dump(handover)).encode())
    os.lseek(fd, 0, os.SEEK_SET)
    kept = (*handover.listeners, handover.lock)
    for each in kept:
        os.set_inheritable(each, True)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _BLOCKED)
    try:
        os.execve(sys.executable, command(), {**os.environ, _VARIABLE: str(fd)})
    except OSError as error:
        os.close(fd)
        for each in kept:
            os.set_inheritable(each, False)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        raise MaestroError(f"cannot upgrade: {sys.executable}: {error.strerror}") from error


class Upgrade:
    """Has the daemon replaced by what is installed now, once that has proved that it can go on here."""

    def __init__(
        self,
        supervisor: Supervisor,
        tasks: Tasks,
        server: Server,
        manager: Manager,
        lock: int,
        open_files: tuple[int, int],
    ) -> None:
        self.loop = supervisor.loop
        self.supervisor = supervisor
        self.tasks = tasks
        self.server = server
        self.manager = manager
        self.lock = lock
        self.open_files = open_files

    async def begin(self) -> dict[str, object]:
        """Try the new program and have it take over soon; return what the API says of it.

        Raises MaestroError when it cannot go on; nothing has changed then.
        """
        if self.supervisor.ending:
            raise MaestroError("cannot upgrade: the daemon ends", code="conflict")
        version = await trial(self.loop)
        self.loop.spawn(self._hand_over(version), name="upgrade")
        answer = {"from": maestro_py.__version__, "to": version, "pid": os.getpid()}
        return {**answer, "generation": self.supervisor.generation + 1}

    async def _hand_over(self, version: str) -> None:
        await self.loop.sleep(0.01)  # so that the answer is on its way
        try:
            await self.loop.wait_for(self.supervisor.until(self._nobody_speaks), QUIET_TIME)
        except TimedOutError:
            pass  # what is said meanwhile is not heard; the jobs run on all the same
        if self.supervisor.ending:
            return
        self.supervisor.happen("upgrade", f"maestrod {maestro_py.__version__} makes way for {version}")
        self.supervisor.ledger.flush_notes()
        self.manager.reloading()
        handover = Handover(
            self.server.listeners(),
            self.lock,
            self.supervisor.generation + 1,
            self.open_files,
            self.manager.environ,
            tuple(helpers.running),
            intents.dump(self.tasks),
        )
        try:
            execute(handover)
        except MaestroError as error:
            log.error(str(error))
            self.manager.ready()

    def _nobody_speaks(self) -> bool:
        """Whether no process is about to say to this program alone how its exec went, or that it is ready."""
        for unit in self.supervisor.units.values():
            probe = unit.running.ready.probe
            says = probe is not None and probe.type in ("notify", "fd")
            if (unit.launch and not unit.reported) or (says and unit.life.state is State.STARTING):
                return False
        return True
