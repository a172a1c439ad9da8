# SPDX-License-Identifier: Apache-2.0
"""One process under supervision: its definition, its life, and what it holds of the kernel."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from maestro_py.daemon.loop import Timer as LoopTimer
from maestro_py.daemon.oom import OomWatch
from maestro_py.daemon.waiting import Signal
from maestro_py.exits import Exit
from maestro_py.lifecycle import Cause, Life
from maestro_py.process import launcher
from maestro_py.process.cgroups import Cgroup
from maestro_py.process.output import Output
from maestro_py.spec.resolved import ResolvedProcess

if TYPE_CHECKING:
    from maestro_py.daemon.probing import Probing

DESCRIPTORS = 8
"""Descriptors a running process takes at most: pidfd, report, two FIFOs, log, group and its limits."""


class Unit:
    """A process: its definition, its life, and what it holds of the kernel while it runs.

    process: the definition in force. running: the one it was last launched with.
    since: unix time of the last change of state, for people.
    """

    def __init__(self, process: ResolvedProcess, written: Signal) -> None:
        self.process = process
        self.running = process
        self.written = written  # told when output was added to the log
        self.life = Life()
        self.since = time.time()
        self.stopped_by_hand = False
        self.timer: LoopTimer | None = None
        self.launch: launcher.Launch | None = None
        self.launches = 0
        self.reported = False
        self.failure: launcher.LaunchFailure | None = None
        self.exit: Exit | None = None
        self.killed_for_memory = ""
        self.death = Cause()  # the last one nobody asked for
        self.deaths = 0  # of those, since the daemon knows it; not for a dependency's sake
        self.asked: tuple[int, str] | None = None  # last signal sent by hand, and by whom
        self.paused = ""  # by whom
        self.restarts: dict[str, int] = {}  # since the daemon knows it, by kind of cause
        self.launched: float | None = None  # the loop's time of the last launch
        self.ready_after: float | None = None  # seconds from its last launch to RUNNING
        self.cgroup: Cgroup | None = None
        self.oom: OomWatch | None = None
        self.output: Output | None = None
        self.pumped = 0.0
        self.eager = 0  # readings of its output that do not wait for more
        self.watching: int | None = None
        self.listening = False  # its output is read
        self.probing: Probing | None = None
        self.cleaning = False  # its post_stop runs

    @property
    def name(self) -> str:
        """Name of the process."""
        return self.process.name

    @property
    def pid(self) -> int | None:
        """Pid of the main process while there is one."""
        return self.launch.pid if self.launch and self.exit is None else None
