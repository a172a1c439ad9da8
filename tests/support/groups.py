# SPDX-License-Identifier: Apache-2.0
"""Processes in real control groups, and their end."""

from __future__ import annotations

import os
import select
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from maestro_py.process.cgroups import Cgroup, Cgroups, detect

ENTER = """
import os, sys
for fd in sys.argv[1].split(","):
    if fd:
        os.write(int(fd), b"0")
os.execv(sys.executable, [sys.executable, "-c", *sys.argv[2:]])
"""


def groups_of_kind(kind: str, base: str, place: Path) -> Cgroups:
    """Return the backend of a kind, as a device with only that much mounted would choose it."""
    lines = Path("/proc/self/mountinfo").read_text().splitlines(keepends=True)
    wanted = {
        "hybrid": ("cgroup", "cgroup2"),
        "v1": ("cgroup",),
        "v2": ("cgroup2",),
        "none": (),
    }[kind]
    mounts = place / "mountinfo"
    mounts.write_text("".join(line for line in lines if line.partition(" - ")[2].split()[0] in wanted))
    return detect(base, mounts=str(mounts))


class Started:
    """A Python program in a group; its standard output is a pipe, its standard input too."""

    def __init__(self, group: Cgroup, code: str, *arguments: str) -> None:
        directory = group.clone_fd()
        own = [] if directory is None else [os.open("cgroup.procs", os.O_WRONLY, dir_fd=directory)]
        fds = [*own, *group.join_fds()]
        self.process = subprocess.Popen(
            [sys.executable, "-c", ENTER, ",".join(map(str, fds)), code, *arguments],
            pass_fds=fds,
            env={**os.environ, **dict(group.env)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        group.attach(self.process.pid)
        for fd in own:
            os.close(fd)
        self.pid = self.process.pid

    def line(self, seconds: float = 10.0) -> str:
        """Return the next line it says; empty when it says none in time."""
        assert self.process.stdout
        fd = self.process.stdout.fileno()
        text = b""
        while not text.endswith(b"\n") and select.select([fd], [], [], seconds)[0]:
            byte = os.read(fd, 1)
            if not byte:
                break
            text += byte
        return text.decode().strip()

    def say(self, text: str) -> None:
        """Write a line to its standard input."""
        assert self.process.stdin
        self.process.stdin.write(text.encode() + b"\n")
        self.process.stdin.flush()

    def end(self) -> None:
        """End it and wait for it."""
        self.process.kill()
        self.process.wait(10)
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe
            pipe.close()


def wait_until(condition: Callable[[], bool], seconds: float = 5.0) -> float:
    """Return the seconds until a condition held that no event announces; fails when it does not."""
    start = time.monotonic()
    while not condition():
        assert time.monotonic() - start < seconds, "not in time"
        time.sleep(0.001)
    return time.monotonic() - start


def clear(groups: Cgroups) -> None:
    """End and remove whatever is left below the base."""
    for name in groups.existing():
        group = groups.open(name)
        if group:

            def emptied(group: Cgroup = group) -> bool:
                group.kill()
                return not group.populated()

            wait_until(emptied)
            wait_until(group.remove)
            group.close()
    groups.remove_base()


def left_overs(base: str) -> Iterator[Path]:
    """Return the directories of that name in any tree."""
    for place, _, _ in os.walk("/sys/fs/cgroup"):  # which minds nothing that others remove meanwhile
        if place.endswith(f"/{base}"):
            yield Path(place)
