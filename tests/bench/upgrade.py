# SPDX-License-Identifier: Apache-2.0
"""How long who follows a log hears nothing while `maestro upgrade` replaces the daemon."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from itertools import pairwise
from typing import IO

from .peers import Job
from .peers.base import write
from .peers.maestro import Maestro
from .probe import BenchError, Probe

OTHERS = 10
"""Idle jobs that the new program finds besides the one that is followed."""

LOUD = "n=0; while :; do echo $n; n=$((n + 1)); sleep 0.005; done\n"
AROUND = 0.5
"""Seconds that are listened to after an upgrade."""


def silences(directory: str, probe: Probe, count: int) -> list[float]:
    """Return the longest silence in a followed log during each of `count` upgrades, in ms.

    Raises BenchError when a line is lost.
    """
    script = os.path.join(directory, "loud.sh")
    jobs = [Job(f"j{number}", probe.program, probe.argument(number)) for number in range(OTHERS)]
    peer = Maestro(directory, [*jobs, Job("loud", "/bin/sh", script, autostart=False)])
    write(script, LOUD)
    peer.prepare()
    heard: list[tuple[int, float]] = []

    def listen(pipe: IO[bytes]) -> None:
        heard.extend((int(line), time.monotonic()) for line in pipe)

    found: list[float] = []
    try:
        peer.start()
        peer.connect()
        peer.start_job("loud")
        with subprocess.Popen(peer.follow_command("loud"), stdout=subprocess.PIPE) as follower:
            assert follower.stdout
            listener = threading.Thread(target=listen, args=(follower.stdout,))
            listener.start()
            try:
                time.sleep(AROUND)
                for _ in range(count):
                    since = len(heard)
                    subprocess.run(peer.upgrade_command(), check=True, stdout=subprocess.DEVNULL)
                    time.sleep(AROUND)
                    moments = [moment for _, moment in heard[since:]]
                    found.append(max(later - sooner for sooner, later in pairwise(moments)) * 1000)
            finally:
                follower.kill()
                listener.join()
    finally:
        peer.stop()
    numbers = [number for number, _ in heard]
    if numbers != list(range(numbers[0], numbers[0] + len(numbers))):
        raise BenchError("lines of the log were lost, or came twice")
    return found
