# SPDX-License-Identifier: Apache-2.0
"""`python -m tests.bench.footprint`: what maestro takes of a device, as a table.

Installed size is that of the files without byte code, beyond Python itself. Memory is the PSS of the
supervisor with idle jobs. Writes are what the daemon has had the kernel write to a disk, 10 jobs running:
idle without output, busy with a line a second each; scaled to a day from the seconds asked for. With `--disk`
what the whole disk took, for a device that does nothing else (sectors of 512 bytes, as
Documentation/block/stat.rst has them).
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from importlib.metadata import Distribution
from pathlib import Path

from . import proc
from .peers import Job, Peer
from .peers.maestro import Maestro
from .peers.supervisord import Supervisord
from .probe import BenchError, Probe

PROJECT = Path(__file__).parents[2]
sys.path.insert(0, str(PROJECT / "packaging"))
import sbom  # noqa: E402  # what is installed is known there

COUNTS = (0, 10, 100)
LINE_A_SECOND = "while :; do echo a line of forty characters, more or less; sleep 1; done"
DAY = 86400


def installed(dist: Distribution) -> int:
    """Return the bytes of a distribution's files, byte code excluded."""
    files = [Path(str(dist.locate_file(file))) for file in dist.files or [] if file.suffix != ".pyc"]
    return sum(path.stat().st_size for path in files if path.is_file())


def own() -> int:
    """Return the bytes of the program itself and of the templates."""
    paths = [path for top in ("maestro_py", "templates") for path in (PROJECT / top).rglob("*")]
    return sum(path.stat().st_size for path in paths if path.is_file() and path.suffix != ".pyc")


def sizes(extras: Sequence[str]) -> list[tuple[str, float]]:
    """Return rows of (what, MB): the program, each dependency, the sum, and what each extra adds."""
    core, _ = sbom.collect(set())
    rows = [("maestro_py", own() / 1e6)]
    needed = sorted(((installed(dist) / 1e6, name) for name, dist in core.items() if name != sbom.PROJECT))
    rows += [(name, size) for size, name in reversed(needed)]
    rows.append(("together", sum(size for _, size in rows)))
    for extra in extras:
        more, _ = sbom.collect({extra})
        added = sum(installed(dist) for name, dist in more.items() if name not in core)
        rows.append((f"extra {extra}", added / 1e6))
    return rows


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
            probe.wait(range(count), 60)
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


def writes(busy: bool, seconds: float, disk: str, base: str) -> float:
    """Return MB a day with ten jobs."""
    script = LINE_A_SECOND if busy else "exec sleep 100000"
    jobs = [Job(f"w{number}", "/bin/sh", script) for number in range(10)]
    peer = _Shell(os.path.join(base, f"writes-{busy}"), jobs)
    peer.prepare()
    peer.start()
    try:
        peer.connect()
        time.sleep(5)  # the start itself is written down
        pids = [peer.process.pid]
        taken: Callable[[], int] = (lambda: written_to(disk)) if disk else (lambda: written_by(pids))
        os.sync()
        before = taken()
        time.sleep(seconds)
        os.sync()
        return (taken() - before) / seconds * DAY / 1e6
    finally:
        peer.stop()


class _Shell(Maestro):
    """maestrod with jobs that are shell scripts."""

    def job_entry(self, job: Job) -> dict[str, object]:
        return {**super().job_entry(job), "exec_args": ["-c", job.argument]}


def main() -> int:
    """Print the tables. Exit status 1 when a figure of maestro could not be taken."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.footprint", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60, help="time to watch writes for (default 60)")
    parser.add_argument("--disk", default="", help="count what this disk takes, e.g. vda")
    optional = ["seccomp", "signature"]
    parser.add_argument("--extra", action="append", default=optional, help="optional parts to weigh")
    options = parser.parse_args()
    python = platform.python_version()
    print(f"{platform.machine()}, Python {python}, Linux {platform.release()}\n")
    for what, size in sizes(options.extra):
        print(f"  {what:22} {size:7.2f} MB")
    # a home that is a disk, not in memory: writes count
    base = tempfile.mkdtemp(prefix="footprint-", dir="/var/tmp")
    try:
        probe = Probe(base)
        print(f"\n  PSS, MiB, jobs:        {''.join(f'{count:7}' for count in COUNTS)}")
        for peer_type in (Maestro, Supervisord):
            if absent := peer_type.missing():
                print(f"  {peer_type.name:22} {absent}")
                continue
            figures = memory(peer_type, probe, base)
            print(f"  {peer_type.name:22} {''.join(f'{figure:7.1f}' for figure in figures)}")
        print()
        for name, busy in (("idle", False), ("busy", True)):
            print(f"  writes a day, {name:8} {writes(busy, options.seconds, options.disk, base):7.2f} MB")
    except (BenchError, OSError) as error:
        print(f"footprint: {error}", file=sys.stderr)
        return 1
    finally:
        proc.end_everything()
        shutil.rmtree(base, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
