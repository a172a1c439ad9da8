# SPDX-License-Identifier: Apache-2.0
"""Image install by maestrod against the plain pipeline: download, checksum, unpack, from loopback.

Both leave the same tree on the same disk. maestrod has it on disk when it says so, with the checksum of each
file beside it; the pipeline leaves it to the kernel, so its time with `sync -f` is told as well. What was
unpacked stays until the end: ext4 is slow to make files while the inodes of deleted ones rest.
"""

from __future__ import annotations

import hashlib
import io
import itertools
import os
import random
import re
import resource
import shutil
import subprocess
import sys
import tarfile
import threading
import time
from dataclasses import dataclass
from typing import Any

from . import proc
from .peers.base import Job
from .peers.maestro import Maestro
from .probe import BenchError, Probe

UNPACKED = 300_000_000
"""Bytes of the tree: about 4000 files whose sizes are those of a root file system."""

LARGER = 5
"""Times as large is the archive that shows whether memory grows."""

PACKERS = {"gz": ("gzip", "-6"), "zst": ("zstd", "-q", "-3")}
FLAGS = {"gz": "xzf", "zst": "--zstd -xf"}
"""How tar is told the compression."""

_WORDS = 2500  # of which all content is made, some more often than others: gzip brings it to a third
_PIPELINE = 'curl -sS -o f "$1" && sha256sum f && tar {flags} f && date +%s.%N && sync -f .'


@dataclass(frozen=True)
class Archive:
    """What is served."""

    url: str
    size: int
    sha256: str


@dataclass(frozen=True)
class Cost:
    """Wall and processor seconds. synced: wall until it was on disk as well."""

    wall: float
    cpu: float
    synced: float


class Installs:
    """Makes archives of one kind (`gz`, `zst`), serves them, and takes what each way of installing costs."""

    def __init__(self, directory: str, kind: str, scale: float) -> None:
        for program in ("curl", PACKERS[kind][0]):
            if not shutil.which(program):
                raise BenchError(f"cannot run the pipeline to compare with: apt-get install {program}")
        self.directory = directory
        self.kind = kind
        self._places = map(str, itertools.count())
        self._served = os.path.join(directory, "served")
        os.makedirs(self._served)
        self._server = subprocess.Popen(
            [sys.executable, "-u", "-m", "http.server", "--bind", "127.0.0.1", "0"],
            cwd=self._served,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        line = self._server.stdout.readline() if self._server.stdout else ""
        port = re.search(r"port (\d+)", line)
        if not port:
            self.close()
            raise BenchError("cannot serve the archive: http.server did not start")
        self._url = f"http://127.0.0.1:{port[1]}"
        self.archive = self.make(scale)

    def close(self) -> None:
        """End the server."""
        self._server.kill()
        self._server.communicate()

    def make(self, scale: float) -> Archive:
        """Make an archive of a tree of this many times UNPACKED, and serve it."""
        name = f"image-{scale:g}.tar.{self.kind}"
        path = os.path.join(self._served, name)
        with open(path, "xb") as out:
            packer = subprocess.Popen(PACKERS[self.kind], stdin=subprocess.PIPE, stdout=out)
            assert packer.stdin
            with packer.stdin, tarfile.open(fileobj=packer.stdin, mode="w|", bufsize=1 << 20) as archive:
                _fill(archive, scale)
            if packer.wait():
                raise BenchError(f"cannot make the archive: {PACKERS[self.kind][0]} failed")
        with open(path, "rb") as file:
            digest = hashlib.sha256()
            while data := file.read(1 << 20):
                digest.update(data)
        return Archive(f"{self._url}/{name}", os.path.getsize(path), digest.hexdigest())

    def pipeline(self) -> Cost:
        """Return what `curl -o f; sha256sum f; tar xf f` costs."""
        target = self._place()
        os.makedirs(target)
        argv = ["/bin/sh", "-c", _PIPELINE.format(flags=FLAGS[self.kind]), "sh", self.archive.url]
        os.sync()
        before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.time()
        done = subprocess.run(argv, cwd=target, capture_output=True, text=True)
        synced, after = time.time() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
        if done.returncode or self.archive.sha256 not in done.stdout:
            raise BenchError(f"the pipeline failed: {done.stderr.strip()}")
        cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        return Cost(float(done.stdout.split()[-1]) - start, cpu, synced)

    def maestro(self, probe: Probe) -> Cost:
        """Return what an install costs, from apply to the first instruction of the job that needs it."""
        with _Device(self._place(), probe) as peer:
            os.sync()
            before = peer.cpu()
            applied = peer.bring(self.archive)
            wall = (probe.wait([0], 5)[0].ns - applied) / 1e9
            return Cost(wall, peer.cpu() - before, wall)

    def peak(self, probe: Probe, archive: Archive) -> float:
        """Return the most MiB (PSS) that the daemon and its programs had at a time, the job left out."""
        with _Device(self._place(), probe) as peer:
            done = threading.Event()
            most = 0.0

            def watch() -> None:
                nonlocal most
                while not done.wait(0.01):
                    most = max(most, proc.pss([peer.process.pid, *peer.helpers()]))

            watcher = threading.Thread(target=watch)
            watcher.start()
            try:
                peer.bring(archive)
            finally:
                done.set()
                watcher.join()
            return most

    def _place(self) -> str:
        return os.path.join(self.directory, next(self._places))


class _Device(Maestro):
    """A maestrod of its own with nothing on it."""

    def __init__(self, directory: str, probe: Probe) -> None:
        super().__init__(directory, [])
        self._probe = probe

    def __enter__(self) -> _Device:
        self.prepare()
        try:
            self.start()
            self.connect()
        except BaseException:
            self.__exit__()
            raise
        self._probe.drain()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def bring(self, archive: Archive) -> int:
        """Apply a document with one job and its image; return the monotonic time in ns it was sent at."""
        document = self.document()
        document["date"] += 1
        document["jobs"] = [self.job_entry(Job("image", self._probe.program, self._probe.argument(0)))]
        document["images"] = [_entry(archive)]
        try:
            return self.apply(document)
        except BenchError as error:
            raise BenchError(f"{error}\n{self.output_tail(self.directory)}") from None

    def cpu(self) -> float:
        """Return the processor seconds of the daemon and of all its programs that have ended."""
        with open(f"/proc/{self.process.pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
        return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")  # utime to cstime, proc(5)

    def helpers(self) -> list[int]:
        """Return the daemon's programs for downloads and unpacking, and what those started."""
        found: list[int] = []
        for pid in proc.descendants(self.process.pid):
            try:
                with open(f"/proc/{pid}/cmdline", "rb") as file:
                    words = file.read()
            except OSError:
                continue
            if self._probe.program.encode() not in words:
                found.append(pid)
        return found


def _entry(archive: Archive) -> dict[str, Any]:
    return {
        "job": "image",
        "version": "1",
        "url": archive.url,
        "size": archive.size,
        "checksum": {"type": "sha256sum", "value": archive.sha256},
        "image_type": "tarball",
    }


def _fill(archive: tarfile.TarFile, scale: float) -> None:
    """Add files until the tree has its size: many small ones, a few large, one directory after another."""
    dice = random.Random(1)
    words = [dice.randbytes(dice.randrange(4, 16)) for _ in range(_WORDS)]
    text = b"".join(words[min(_WORDS - 1, int(dice.expovariate(8 / _WORDS)))] for _ in range(1 << 20))
    left, number = int(UNPACKED * scale), 0
    while left > 0:
        info = tarfile.TarInfo(f"usr/lib/part{number // 70}/file{number}")
        info.size = min(left, 4 << 20, int(dice.lognormvariate(9.3, 2)))
        info.mode = 0o644
        at = dice.randrange(len(text) - info.size)
        archive.addfile(info, io.BytesIO(text[at : at + info.size]))
        left -= info.size
        number += 1
