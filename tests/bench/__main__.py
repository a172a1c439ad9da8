# SPDX-License-Identifier: Apache-2.0
"""`python -m tests.bench [--rows a,b] [--peers x,y] [--quick]`: print the figures side by side.

The row `isolation` is a table of its own: other tools are its peers.
"""

from __future__ import annotations

import argparse
import compileall
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from types import FrameType

import maestro_py

from . import cgroup_join, proc
from .image import LARGER, PACKERS, Cost, Installs
from .peers import PEERS
from .probe import BenchError, Probe
from .rows import GROUPS, QUICK, ROWS, Effort, Figure, Figures, measure
from .table import cell, heading, render


def _listed(text: str, known: Sequence[str], what: str) -> list[str]:
    words = [word.strip() for word in text.split(",") if word.strip()]
    for word in words:
        if word not in known:
            raise SystemExit(f"bench: unknown {what} {word!r}; known: {', '.join(known)}")
    return words


def _images(base: str, kind: str, probe: Probe, effort: Effort) -> tuple[Figures, str]:
    """Return maestro's figures for installs of one kind of archive, and a line about the pipeline."""
    directory, key = os.path.join(base, f"image-{kind}"), f"image_{kind}"
    plain: list[Cost] = []
    ours: list[Cost] = []
    try:
        installs = Installs(directory, kind, effort.image_scale)
        try:
            for _ in range(effort.image):  # in turns: the machine's mood changes by the minute
                plain.append(installs.pipeline())
                ours.append(installs.maestro(probe))
            peaks = {f"{key}_peak": Figure([installs.peak(probe, installs.archive)])}
            if effort.image_larger:
                larger = installs.make(effort.image_scale * LARGER)
                peaks[f"{key}_larger"] = Figure([installs.peak(probe, larger)])
        finally:
            installs.close()
    except (BenchError, OSError) as error:
        return {key: Figure(note=f"failed: {error}")}, ""
    pairs = list(zip(ours, plain, strict=True))
    figures = {
        key: Figure([cost.wall for cost in ours]),
        f"{key}_wall": Figure([mine.wall / other.wall for mine, other in pairs]),
        f"{key}_synced": Figure([mine.synced / other.synced for mine, other in pairs]),
        f"{key}_cpu": Figure([mine.cpu / other.cpu for mine, other in pairs]),
    }
    size = f"{installs.archive.size / 1e6:.0f} MB tar.{kind}"
    walls, cpus = Figure([cost.wall for cost in plain]), Figure([cost.cpu for cost in plain])
    return figures | peaks, f"{size}: curl; sha256sum; tar: {cell(walls)} s, CPU {cell(cpus)} s"


def _isolation(quick: bool) -> str:
    """Return the table of what isolation costs per launch; it takes a program with namespaces of its own."""
    if os.geteuid():
        return "isolation: it needs root"
    done = subprocess.run(
        [sys.executable, "-m", "tests.bench.isolation", "15" if quick else "50"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    return f"\n{done.stdout}"


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print, leave nothing behind. Exit status 1 when a figure of maestro could not be taken."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    known = (*GROUPS, "isolation")
    parser.add_argument("--rows", default=",".join(known), help=f"of {', '.join(known)}; default: all")
    parser.add_argument("--peers", default=",".join(PEERS), help=f"of {', '.join(PEERS)}; default: all")
    parser.add_argument("--quick", action="store_true", help="fewer samples, a smaller image")
    arguments = parser.parse_args(argv)
    groups = _listed(arguments.rows, known, "row")
    peers = _listed(arguments.peers, list(PEERS), "peer")
    effort = QUICK if arguments.quick else Effort()

    def leave(number: int, _: FrameType | None) -> None:
        raise SystemExit(128 + number)

    signal.signal(signal.SIGTERM, leave)
    for name in ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE"):
        os.environ.pop(name, None)  # an init has none, and reading them takes a while
    compileall.compile_dir(os.path.dirname(maestro_py.__file__), quiet=1)  # as it is wherever it is installed
    proc.adopt_orphans()
    began = time.monotonic()
    base = tempfile.mkdtemp(prefix="bench-")
    os.chmod(base, 0o755)  # jobs of another user come through here
    results: dict[str, Figures] = {}
    notes: list[str] = []
    join = Figure()
    try:
        probe = Probe(base)
        for name in peers if set(groups) != {"isolation"} else ():
            peer = PEERS[name]
            if why := peer.missing():
                notes.append(f"{name}: {why}")
                continue
            print(f"measuring {name} …", file=sys.stderr, flush=True)
            results[name] = measure(peer, base, probe, effort, groups)
            if name.startswith("maestro"):  # beside what it is a part of: it differs with the machine's load
                join.values += cgroup_join.measure(5)
            if peer.note:
                notes.append(f"{name}: {peer.note}")
        if "image" in groups and "maestro" in results:
            for kind in PACKERS:
                print(f"measuring image installs, {kind} …", file=sys.stderr, flush=True)
                figures, line = _images(base, kind, probe, effort)
                results["maestro"] |= figures
                notes.append(line)
        if "isolation" in groups:
            print("measuring isolation …", file=sys.stderr, flush=True)
            notes.append(_isolation(arguments.quick))
        probe.close()
    except BenchError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    finally:
        proc.end_everything()
        shutil.rmtree(base, ignore_errors=True)
    print(f"{heading()}; {time.monotonic() - began:.0f} s; median (min-max)\n")
    print(render([row for row in ROWS if row.group in groups], results, join))
    print("\n".join(note for note in notes if note))
    mine = [
        figure
        for name, figures in results.items()
        if name.startswith("maestro")
        for figure in figures.values()
    ]
    return int(any(figure.note.startswith("failed") for figure in mine))


if __name__ == "__main__":
    sys.exit(main())
