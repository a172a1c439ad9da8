# SPDX-License-Identifier: Apache-2.0
"""`python -m tests.bench.footprint`: what maestro takes of the machine this runs on, and others beside it.

Installed size is that of the files without byte code, beyond Python itself. Memory is the PSS of the
supervisor with idle jobs. Writes are what a disk has taken (sectors of 512 bytes, as
Documentation/block/stat.rst has them) or, where no disk is named, what the supervisor has had written to
disks; 10 jobs run, idle without output, busy with a line a second each; scaled to a day from the seconds
asked for.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from typing import Any

from . import proc
from .peers import Job, Peer
from .peers.base import write
from .peers.maestro import Maestro
from .peers.supervisord import Supervisord
from .peers.systemd import Systemd
from .probe import BenchError, Probe

PEERS: tuple[type[Peer], ...] = (Maestro, Supervisord, Systemd)
COUNTS = (0, 10, 100)
SCRIPTS = {
    "idle": "exec sleep 100000\n",
    "busy": "while :; do echo a line of forty characters, more or less; sleep 1; done\n",
}
DAY = 86400
STARTED = 180.0
"""Seconds for all jobs to start: the machine may be an emulated one."""


def memory(peer_type: type[Peer], probe: Probe, base: str) -> list[float]:
    """Return PSS in MiB with each number of jobs."""
    found = []
    for count in COUNTS:
        jobs = [Job(f"j{number:03}", probe.program, probe.argument(number)) for number in range(count)]
        peer = peer_type(os.path.join(base, f"{peer_type.name}-{count}"), jobs)
        peer.prepare()
        probe.drain()
        peer.start()
        try:
            peer.connect()
            probe.wait(range(count), STARTED)
            time.sleep(2)  # what came with the start is given back
            found.append(proc.pss(peer.pids(probe.program)))
        finally:
            peer.stop()
    return found


def written_by(pids: Sequence[int]) -> int:
    """Return bytes these processes have had written to disks (proc_pid_io(5)); tmpfs does not count."""
    total = 0
    for pid in pids:
        with open(f"/proc/{pid}/io") as file:
            total += int(dict(line.split(": ") for line in file)["write_bytes"])
    return total


def written_to(disk: str) -> int:
    """Return bytes a disk has taken since it is there."""
    with open(f"/sys/block/{disk}/stat") as file:
        return int(file.read().split()[6]) * 512


def writes(peer_type: type[Peer], kind: str, seconds: float, disk: str, base: str) -> float:
    """Return MB a day with ten jobs."""
    directory = os.path.join(base, f"{peer_type.name}-{kind}")
    script = os.path.join(base, f"{kind}.sh")
    write(script, SCRIPTS[kind])
    peer = peer_type(directory, [Job(f"w{number}", "/bin/sh", script) for number in range(10)])
    peer.prepare()
    peer.start()
    try:
        peer.connect()
        time.sleep(10)  # the start itself is written down
        pids = peer.pids("/bin/sh")
        taken: Callable[[], int] = (lambda: written_to(disk)) if disk else (lambda: written_by(pids))
        os.sync()
        before = taken()
        time.sleep(seconds)
        os.sync()
        return (taken() - before) / seconds * DAY / 1e6
    finally:
        peer.stop()


def measure(seconds: float, disk: str) -> dict[str, Any]:
    """Return for each supervisor `pss` in MiB for COUNTS and `writes` in MB a day, or why it is `absent`."""
    # a home that is a disk, not in memory: writes count
    base = tempfile.mkdtemp(prefix="footprint-", dir="/var/tmp")
    found: dict[str, Any] = {}
    try:
        probe = Probe(base)
        for peer_type in PEERS:
            if absent := peer_type.missing():
                found[peer_type.name] = {"absent": absent}
                continue
            pss = memory(peer_type, probe, base)
            taken = {kind: writes(peer_type, kind, seconds, disk, base) for kind in SCRIPTS}
            found[peer_type.name] = {"pss": pss, "writes": taken}
    finally:
        proc.end_everything()
        shutil.rmtree(base, ignore_errors=True)
    return found


def main() -> int:
    """Print the figures. Exit status 1 when one could not be taken."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.footprint", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60, help="time to watch writes for (default 60)")
    parser.add_argument("--disk", default="", help="count what this disk takes, e.g. vda")
    parser.add_argument("--json", action="store_true", help="print them for a program")
    options = parser.parse_args()
    try:
        found = measure(options.seconds, options.disk)
    except (BenchError, OSError) as error:
        print(f"footprint: {error}", file=sys.stderr)
        return 1
    if options.json:
        print(json.dumps(found))
        return 0
    print(f"{platform.machine()}, Python {platform.python_version()}, Linux {platform.release()}\n")
    print(f"{'':14}{'PSS, MiB, with jobs':>24}{'written, MB a day':>20}")
    print(f"{'':14}{''.join(f'{count:8}' for count in COUNTS)}{''.join(f'{kind:>10}' for kind in SCRIPTS)}")
    for name, figures in found.items():
        if "absent" in figures:
            print(f"{name:14}{figures['absent']}")
            continue
        pss = "".join(f"{figure:8.1f}" for figure in figures["pss"])
        taken = "".join(f"{figures['writes'][kind]:10.2f}" for kind in SCRIPTS)
        print(f"{name:14}{pss}{taken}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
