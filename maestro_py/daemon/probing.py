# SPDX-License-Identifier: Apache-2.0
"""Questions to a running process: whether it is ready, and whether it still works.

`Probing` follows a unit through its states and asks what its definition says, from outside over TCP or HTTP,
by a command, or by listening to what it sends. It feeds the answers to the lifecycle and decides nothing.
"""

from __future__ import annotations

import errno
import os
import socket

import h11

from maestro_py.daemon.loop import Loop
from maestro_py.daemon.loop import Timer as LoopTimer
from maestro_py.daemon.runner import Runner
from maestro_py.daemon.unit import Unit
from maestro_py.daemon.waiting import Task, TimedOutError
from maestro_py.lifecycle import Cause, Kind, Ready, Unwell
from maestro_py.process.readiness import INSIDE, NotifySocket
from maestro_py.process.wires import Wires, listens
from maestro_py.spec.model import Health, Probe
from maestro_py.spec.names import safe_name
from maestro_py.spec.resolved import State
from maestro_py.units import format_duration

ASK_TIMEOUT = 5.0
"""Seconds one question about readiness may take."""

_ANSWER = 65536
"""Bytes of an answer that are read before its status line must have come."""


class Probing:
    """All that is asked of one unit while it runs, and what it says by sd_notify."""

    def __init__(self, runner: Runner, unit: Unit) -> None:
        self._runner = runner
        self._loop = runner.loop
        self._feed = runner.feed
        self._unit = unit
        self._asking: Task[None] | None = None
        self._watchdog: LoopTimer | None = None
        self._heard: NotifySocket | None = None
        self._newline = -1

    # before the launch

    def open(self, uid: int, gid: int) -> Wires:
        """Make what the process speaks through; the caller closes the descriptors once it is launched."""
        process = self._unit.process
        self.close()
        env: list[tuple[str, str]] = []
        shown: list[tuple[str, str]] = []
        passed: list[tuple[int, int]] = []
        if listens(process):
            self.listen(uid, gid)
            assert self._heard
            directory = INSIDE if process.root else self._heard.directory
            if process.root:
                shown.append((self._heard.directory, INSIDE))
            env.append(("NOTIFY_SOCKET", f"{directory}/{os.path.basename(self._heard.path)}"))
        if process.watchdog:
            env.append(("WATCHDOG_USEC", str(round(process.watchdog * 1e6))))
        probe = process.ready.probe
        if probe and probe.type == "fd":
            self._newline, writing = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
            os.set_blocking(writing, True)
            self._loop.add_reader(self._newline, self._read_newline)
            passed.append((writing, probe.fd))
        return Wires(tuple(env), tuple(shown), tuple(passed))

    def take_over(self, uid: int, gid: int) -> None:
        """Go on with a process that an earlier daemon launched; what it wrote to a descriptor is lost."""
        if listens(self._unit.running):
            self.listen(uid, gid)
        self.follow(State.STOPPED)

    def listen(self, uid: int, gid: int) -> None:
        """Make the socket; in a directory where the process finds a new one too."""
        directory = os.path.join(self._runner.paths.run, "notify", safe_name(self._unit.name))
        self._heard = NotifySocket(directory, uid, gid)
        self._loop.add_reader(self._heard.fileno(), self._hear)

    # while it runs

    def follow(self, before: State) -> None:
        """The unit came into another state, or its program runs now: ask what is to be asked there."""
        state = self._unit.life.state
        if state is before and state is not State.STARTING:
            return
        self._stop()
        if state is State.STARTING and self._unit.reported:
            probe = self._unit.running.ready.probe
            if probe and probe.type in ("tcp", "http", "exec"):
                self._asking = self._loop.spawn(self._until_ready(probe), name=f"asking {self._unit.name}")
        elif state is State.RUNNING:
            self._close_pipe()
            self._feed_watchdog()
            self._start_checks()
        elif state not in (State.STARTING, State.STOPPING):
            self._close_pipe()

    def redefined(self) -> None:
        """The definition in force is another: the health check of a running process may be, too."""
        if self._unit.life.state is State.RUNNING:
            if self._asking:
                self._asking.cancel()
            self._start_checks()

    def _start_checks(self) -> None:
        health = self._unit.process.health
        if health:
            self._asking = self._loop.spawn(self._check(health), name=f"health of {self._unit.name}")

    def close(self) -> None:
        """Ask nothing any more, and take the socket away."""
        self._stop()
        self._close_pipe()
        if self._heard:
            self._loop.remove_reader(self._heard.fileno())
            self._heard.close()
            self._heard = None

    def _stop(self) -> None:
        if self._asking:
            self._asking.cancel()
            self._asking = None
        if self._watchdog:
            self._watchdog.cancel()
            self._watchdog = None

    def _close_pipe(self) -> None:
        if self._newline >= 0:
            self._loop.remove_reader(self._newline)
            os.close(self._newline)
            self._newline = -1

    # what it says

    def _hear(self) -> None:
        assert self._heard
        unit = self._unit
        members: list[int] | None = None
        for pid, said in self._heard.receive():
            if pid != unit.pid:
                members = list(unit.cgroup.pids()) if members is None and unit.cgroup else members or []
                if pid not in members:
                    continue  # whoever it is, it does not speak for this process
            if said.get("READY") == "1":
                probe = unit.running.ready.probe
                if probe and probe.type == "notify":
                    self._feed(unit, Ready())
            if said.get("WATCHDOG") == "1" and unit.life.state is State.RUNNING:
                self._feed_watchdog()
            elif said.get("WATCHDOG") == "trigger":
                self._bite("it triggered its watchdog itself")

    def _read_newline(self) -> None:
        try:
            data = os.read(self._newline, 4096)
        except BlockingIOError:
            return
        if b"\n" in data:
            self._feed(self._unit, Ready())
        if b"\n" in data or not data:
            self._close_pipe()

    def _feed_watchdog(self) -> None:
        if self._watchdog:
            self._watchdog.cancel()
        patience = self._unit.running.watchdog
        if patience:
            text = f"did not say within {format_duration(patience)} that it is alive"
            self._watchdog = self._loop.call_later(patience, lambda: self._bite(text))

    def _bite(self, text: str) -> None:
        if self._unit.running.watchdog and not self._unit.paused:
            self._feed(self._unit, Unwell(Cause(Kind.WATCHDOG, text)))

    # what it is asked

    async def _until_ready(self, probe: Probe) -> None:
        while await self._ask(probe, ASK_TIMEOUT):
            await self._loop.sleep(probe.interval)
        self._feed(self._unit, Ready())

    async def _check(self, health: Health) -> None:
        failures = 0
        while True:
            await self._loop.sleep(health.interval)
            if self._unit.paused:
                continue
            why = await self._ask(health, health.timeout)
            failures = failures + 1 if why else 0
            if failures != health.threshold:
                continue
            times = "once" if failures == 1 else f"{failures} times in a row"
            text = f"failed its health check {times}: {why}"
            if health.action == "report":
                self._runner.report("process-unhealthy", text, self._unit)
            else:
                self._feed(self._unit, Unwell(Cause(Kind.HEALTH, text)))

    def _address(self) -> str:
        networks = self._runner.networks
        if self._unit.running.network.mode == "host" or networks is None:
            return "127.0.0.1"
        return networks.addresses.get(self._unit.name, "127.0.0.1")

    async def _ask(self, probe: Probe | Health, timeout: float) -> str:
        """Return why the answer is not the one wanted, "" when it is."""
        if probe.type == "exec":
            return await self._runner.commands.run(self._unit, probe.command, timeout, silent=True)
        path = probe.path if probe.type == "http" else ""
        try:
            asked = ask(self._loop, self._address(), probe.port, path)
            return await self._loop.wait_for(asked, timeout)
        except TimedOutError:
            return f"no answer on port {probe.port} within {format_duration(timeout)}"
        except OSError as error:
            return f"port {probe.port}: {error.strerror or error}"


async def ask(loop: Loop, address: str, port: int, path: str) -> str:
    """Connect, and ask for `path` unless it is empty; return what is wrong with the answer, or OSError."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as connection:
        fd = connection.fileno()
        try:
            connection.connect((address, port))
        except BlockingIOError:
            await loop.writable(fd)
        error = connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if error:
            raise OSError(error, os.strerror(error))
        if connection.getsockname() == connection.getpeername():
            raise OSError(errno.ECONNREFUSED, "Connection refused")  # TCP may connect to itself
        if not path:
            return ""
        http = h11.Connection(h11.CLIENT, max_incomplete_event_size=_ANSWER)
        headers = [("Host", f"{address}:{port}"), ("User-Agent", "maestro"), ("Connection", "close")]
        request = http.send(h11.Request(method="GET", target=path, headers=headers))
        connection.send((request or b"") + (http.send(h11.EndOfMessage()) or b""))
        try:
            while True:
                event = http.next_event()
                if event is h11.NEED_DATA:
                    await loop.readable(fd)
                    http.receive_data(connection.recv(_ANSWER))
                elif isinstance(event, h11.Response):
                    break
                elif not isinstance(event, h11.InformationalResponse):
                    return f"{path} on port {port} was not answered"
        except h11.RemoteProtocolError:
            return f"what answers on port {port} does not speak HTTP"
    good = 200 <= event.status_code < 400
    return "" if good else f"{path} on port {port} was answered with {event.status_code}"
