# SPDX-License-Identifier: Apache-2.0
"""The rows of the table and how each is measured."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from functools import partial

from . import proc
from .peers import Job, Peer
from .peers.maestro import Maestro
from .probe import LINE, BenchError, Probe
from .upgrade import silences

JOBS = 100


@dataclass(frozen=True)
class Row:
    """One line of the table. `now` is what maestro's median must reach; None: nothing is promised."""

    key: str
    group: str  # what --rows names
    label: str
    now: float | None
    more_is_better: bool = False
    plus_join: bool = False  # a process with limits has to join its control groups as well


ROWS = (
    Row("pss", "pss", "PSS, 100 idle jobs, MiB", 15),
    Row("wakeups", "idle", "idle wake-ups per minute", 0),
    Row("calls", "idle", "idle system calls per minute", 0),
    Row("cold", "cold", "cold start until 100 jobs run, ms", 400),
    Row("start", "start", "API command to first instruction, ms", 4, plus_join=True),
    Row("restart", "restart", "death to replacement's first instruction, ms", 4, plus_join=True),
    Row("status_api", "status", "status of 100 jobs, API, ms", 1),
    Row("status_cli", "status", "status of 100 jobs, CLI, ms", 60),
    Row("help_cli", "status", "CLI --help, ms", 40),
    Row("tail", "tail", "CLI logs -n 10 of a 1 GB log, ms", 80),
    Row("upgrade", "upgrade", "upgrade: longest silence of a followed log, ms", 200),
    Row("log_block", "log", "log capture, 4 kB writes, MB/s", 900, more_is_better=True),
    Row("log_line", "log", "log capture, a write per line, MB/s", 120, more_is_better=True),
    *(
        row
        for kind in ("gz", "zst")
        for row in (
            Row(f"image_{kind}", "image", f"image install, tar.{kind}, s", None),
            Row(f"image_{kind}_wall", "image", "… / (curl; sha256sum; tar), wall", 1.0),
            Row(f"image_{kind}_synced", "image", "… / (curl; sha256sum; tar; sync -f), wall", None),
            Row(f"image_{kind}_cpu", "image", "… / (curl; sha256sum; tar), CPU", 1.1),
            Row(f"image_{kind}_peak", "image", "… peak PSS of all processes, MiB", 40),
            Row(f"image_{kind}_larger", "image", "… of an archive 5 times the size, MiB", 40),
        )
    ),
)
GROUPS = tuple(dict.fromkeys(row.group for row in ROWS))


@dataclass
class Figure:
    """The samples of one cell; `note` is the reason when there are none."""

    values: list[float] = field(default_factory=list)
    note: str = ""


Figures = dict[str, Figure]


@dataclass(frozen=True)
class Effort:
    """How much is measured: samples at most, and seconds a row may take before it makes do with fewer."""

    cold: int = 4
    start: int = 12
    restart: int = 7
    api: int = 30
    cli: int = 7
    log: int = 3
    budget: float = 10.0
    settle: float = 2.0
    window: float = 10.0
    lines: int = 1_000_000
    image: int = 9
    image_scale: float = 1.0
    image_larger: bool = True
    tail: int = 7
    tail_size: int = 1 << 30
    upgrades: int = 7


QUICK = Effort(2, 5, 2, 10, 3, 1, 3.0, 1.0, 3.0, 500_000, 1, 0.15, False, 3, 1 << 28, 3)


def sample(take: Callable[[int], float], count: int, budget: float) -> Figure:
    """Call `take` with 0, 1, … `count` times, or fewer (two at least) when the time is up."""
    end = time.monotonic() + budget
    values: list[float] = []
    for number in range(count):
        values.append(take(number))
        if len(values) >= 2 and time.monotonic() > end:
            break
    return Figure(values)


class Idle:
    """All rows that are about one hundred idle jobs."""

    def __init__(self, peer_type: type[Peer], directory: str, probe: Probe, effort: Effort) -> None:
        self.probe = probe
        self.effort = effort
        self.names = [f"j{number:03}" for number in range(JOBS)]
        jobs = [Job(name, probe.program, probe.argument(i)) for i, name in enumerate(self.names)]
        self.peer = peer_type(directory, jobs)
        self.pids: dict[int, int] = {}
        self.started = 0.0

    def measure(self, groups: Collection[str]) -> Figures:
        """Return the figures of the groups asked for; a row that fails says why and the others go on."""
        figures: Figures = {}
        self.peer.prepare()
        try:
            cold = sample(
                lambda _: self._start(), self.effort.cold if "cold" in groups else 1, 4 * self.effort.budget
            )
            if "cold" in groups:
                figures["cold"] = cold
            for group, measure in (
                ("pss", self._pss),
                ("idle", self._idle),
                ("status", self._status),
                ("start", self._start_one),
                ("restart", self._restart),
            ):
                if group not in groups:
                    continue
                try:
                    figures |= measure()
                except (BenchError, OSError) as error:
                    figures |= {
                        row.key: Figure(note=f"failed: {error}") for row in ROWS if row.group == group
                    }
        finally:
            self.peer.stop()
        return figures

    def _start(self) -> float:
        self.peer.stop()
        self.probe.drain()
        before = self.peer.start()
        reports = self.probe.wait(range(JOBS), 30)
        self.pids = {index: report.pid for index, report in reports.items()}
        self.started = time.monotonic()
        self.peer.connect()  # not timed; a supervisor still busy with its start would not hear of its end
        return (max(report.ns for report in reports.values()) - before) / 1e6

    def _settled(self, seconds: float) -> None:
        time.sleep(max(0.0, self.started + seconds - time.monotonic()))

    def _pss(self) -> Figures:
        self._settled(self.effort.settle)
        own = self.peer.pids(self.probe.program)
        return {"pss": sample(lambda _: proc.pss(own), 3, 1)}

    def _idle(self) -> Figures:
        self._settled(self.effort.settle)
        own = self.peer.pids(self.probe.program)
        seconds = self.effort.window
        before = proc.switches(own)
        time.sleep(seconds)
        wakeups = proc.switches(own) - before
        calls = proc.system_calls(own, seconds)
        return {
            "wakeups": Figure([wakeups * 60 / seconds]),
            "calls": Figure(note="strace cannot trace") if calls is None else Figure([calls * 60 / seconds]),
        }

    def _status(self) -> Figures:
        def api(_: int) -> float:
            seconds, count = self.peer.status()
            if count < JOBS:
                raise BenchError(f"status tells of {count} jobs, not of {JOBS}")
            return seconds * 1000

        def cli(_: int) -> float:
            start = time.perf_counter()
            done = subprocess.run(self.peer.status_command(), capture_output=True, text=True)
            taken = (time.perf_counter() - start) * 1000
            if any(name not in done.stdout for name in self.names):
                raise BenchError(
                    f"status command exits {done.returncode}: {(done.stderr or done.stdout).strip()[-200:]}"
                )
            return taken

        def help(_: int) -> float:
            start = time.perf_counter()
            subprocess.run(self.peer.help_command(), stdout=subprocess.DEVNULL, check=True)
            return (time.perf_counter() - start) * 1000

        figures: Figures = {}
        for key, take, count in (
            ("status_api", api, self.effort.api),
            ("status_cli", cli, self.effort.cli),
            *((("help_cli", help, self.effort.cli),) if self.peer.help_command() else ()),
        ):
            try:
                take(0)
                figures[key] = sample(take, count, self.effort.budget)
            except BenchError as error:
                figures[key] = Figure(note=f"failed: {error}")
        return figures

    def _start_one(self) -> Figures:
        def take(number: int) -> float:
            self.peer.stop_job(self.names[number])
            self.probe.drain()
            time.sleep(0.1)
            before = self.peer.start_job(self.names[number])
            return (self.probe.wait([number], 20)[number].ns - before) / 1e6

        self._settled(1.2)  # runit and s6 make a younger job wait
        return {"start": sample(take, self.effort.start, self.effort.budget)}

    def _restart(self) -> Figures:
        def take(number: int) -> float:
            index = JOBS - 1 - number  # not one that has just been started
            time.sleep(0.1)
            self.probe.drain()
            before = time.monotonic_ns()
            os.kill(self.pids[index], 9)
            return (self.probe.wait([index], 20)[index].ns - before) / 1e6

        self._settled(1.2)
        return {"restart": sample(take, self.effort.restart, self.effort.budget)}


def logs(peer_type: type[Peer], directory: str, probe: Probe, effort: Effort) -> Figures:
    """Return MB/s from a writer's first instruction until all its bytes are in the log files."""
    chunks = {"log_block": 4096, "log_line": LINE}
    names = [f"{kind}{number}" for kind in chunks for number in range(effort.log)]
    jobs = []
    for index, name in enumerate(names):
        argument = probe.argument(index, effort.lines, chunks[name.rstrip("0123456789")])
        jobs.append(Job(name, probe.program, argument, autostart=False, logged=True))
    peer = peer_type(directory, jobs)
    total = effort.lines * LINE

    def take(kind: str, number: int) -> float:
        name = f"{kind}{number}"
        index = names.index(name)
        probe.drain()
        proc.fresh_memory(peer.log_dir, total + total // 4)
        size = proc.tree_size(peer.log_dir)
        peer.start_job(name)
        begin = probe.wait([index], 20)[index].ns
        end = probe.wait([index], 60, done=True)[index].ns
        late = time.monotonic() + 5
        while (kept := proc.tree_size(peer.log_dir) - size) < total:
            end = time.monotonic_ns()
            if time.monotonic() > late:
                raise BenchError(f"{kept / 1e6:.1f} of {total / 1e6:.0f} MB are in the log files")
            time.sleep(0.001)
        peer.stop_job(name)
        return total / 1e6 / ((end - begin) / 1e9)

    figures: Figures = {}
    peer.prepare()
    try:
        peer.start()
        peer.connect()
        for kind in chunks:
            try:
                figures[kind] = sample(partial(take, kind), effort.log, effort.budget)
            except (BenchError, OSError) as error:
                figures[kind] = Figure(note=f"failed: {error}")
    finally:
        peer.stop()
    return figures


def last_lines(peer_type: type[Peer], directory: str, probe: Probe, effort: Effort) -> Figures:
    """Return how long the command takes to show the last lines of a log that is very long already."""
    peer = peer_type(
        directory, [Job("talker", probe.program, probe.argument(0), autostart=False, logged=True)]
    )
    command = peer.tail_command("talker", 10)
    if not command:
        return {}
    peer.prepare()
    block = b"".join(b"a line of this log, number %012d\n" % number for number in range(20_000))
    try:
        with open(os.path.join(peer.log_dir, "talker.log"), "wb") as file:
            while file.tell() < effort.tail_size:
                file.write(block)

        def take(_: int) -> float:
            start = time.perf_counter()
            done = subprocess.run(command, capture_output=True)
            taken = (time.perf_counter() - start) * 1000
            if done.stdout.count(b"\n") != 10:
                raise BenchError(f"logs shows {done.stdout[-200:]!r} {done.stderr[-200:]!r}")
            return taken

        peer.start()
        peer.connect()
        take(0)
        return {"tail": sample(take, effort.tail, effort.budget)}
    except (BenchError, OSError) as error:
        return {"tail": Figure(note=f"failed: {error}")}
    finally:
        peer.stop()


def measure(
    peer_type: type[Peer], base: str, probe: Probe, effort: Effort, groups: Collection[str]
) -> Figures:
    """Return all figures of one supervisor, in a directory of its own that is gone afterwards."""
    figures: Figures = {}
    directory = os.path.join(base, peer_type.name)
    parts: list[tuple[str, Collection[str], Callable[[str], Figures]]] = [
        (
            "idle",
            [group for group in groups if group not in ("log", "image", "tail", "upgrade", "isolation")],
            lambda path: Idle(peer_type, path, probe, effort).measure(groups),
        ),
        (
            "log",
            [group for group in groups if group == "log"],
            lambda path: logs(peer_type, path, probe, effort),
        ),
        (
            "tail",
            [group for group in groups if group == "tail"],
            lambda path: last_lines(peer_type, path, probe, effort),
        ),
        (
            "upgrade",
            [group for group in groups if group == "upgrade" and peer_type is Maestro],
            lambda path: {"upgrade": Figure(silences(path, probe, effort.upgrades))},
        ),
    ]
    for part, wanted, run in parts:
        if not wanted:
            continue
        path = os.path.join(directory, part)
        try:
            figures |= run(path)
        except (BenchError, OSError, subprocess.SubprocessError) as error:
            figures |= {row.key: Figure(note=f"failed: {error}") for row in ROWS if row.group in wanted}
            tail = Peer.output_tail(path)
            print(f"{peer_type.name}: {error}\n{tail}", file=sys.stderr)
        finally:
            shutil.rmtree(path, ignore_errors=True)
    return figures
