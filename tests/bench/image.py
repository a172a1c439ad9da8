# SPDX-License-Identifier: Apache-2.0
"""Image install by maestrod against the plain pipeline: download, checksum, unpack, from loopback."""

from __future__ import annotations

import hashlib
import io
import os
import random
import re
import shutil
import subprocess
import sys
import tarfile
import time
from dataclasses import dataclass

from .peers.base import Job
from .peers.maestro import Maestro
from .probe import BenchError, Probe

_ENTRIES = 4700
_UNPACKED = 322_000_000
_RANDOM = 0.4  # share that does not compress: 135 MB remain


@dataclass(frozen=True)
class Archive:
    """A tar.gz being served."""

    url: str
    size: int
    sha256: str


class Installs:
    """Makes an archive, serves it, and times both ways of installing it."""

    def __init__(self, directory: str, scale: float) -> None:
        if not shutil.which("curl"):
            raise BenchError("cannot run the pipeline to compare with: apt-get install curl")
        self.directory = directory
        served = os.path.join(directory, "served")
        os.makedirs(served)
        path = os.path.join(served, "image.tar.gz")
        _make(path, scale)
        with open(path, "rb") as file:
            checksum = hashlib.sha256(file.read()).hexdigest()
        self._server = subprocess.Popen(
            [sys.executable, "-u", "-m", "http.server", "--bind", "127.0.0.1", "--directory", served, "0"],
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
        self.archive = Archive(f"http://127.0.0.1:{port[1]}/image.tar.gz", os.path.getsize(path), checksum)

    def close(self) -> None:
        """End the server."""
        self._server.kill()
        self._server.communicate()

    def pipeline(self) -> float:
        """Return seconds of `curl -o f; sha256sum f; tar xzf f`."""
        target = os.path.join(self.directory, "pipeline")
        os.makedirs(target)
        script = 'curl -sS -o f "$1" && sha256sum f && tar xzf f'
        os.sync()
        start = time.monotonic()
        argv = ["/bin/sh", "-c", script, "sh", self.archive.url]
        done = subprocess.run(argv, cwd=target, capture_output=True, text=True)
        taken = time.monotonic() - start
        if done.returncode or self.archive.sha256 not in done.stdout:
            raise BenchError(f"the pipeline failed: {done.stderr.strip()}")
        shutil.rmtree(target)
        return taken

    def maestro(self, probe: Probe) -> float:
        """Return seconds from apply to the first instruction of the job that needs the image."""
        directory = os.path.join(self.directory, "maestro")
        peer = Maestro(directory, [])
        peer.prepare()
        try:
            peer.start()
            peer.connect()
            document = peer.document()
            document["date"] += 1
            document["jobs"] = [peer.job_entry(Job("image", probe.program, probe.argument(0)))]
            document["images"] = [
                {
                    "job": "image",
                    "version": "1",
                    "url": self.archive.url,
                    "size": self.archive.size,
                    "checksum": {"type": "sha256sum", "value": self.archive.sha256},
                    "image_type": "tarball",
                }
            ]
            probe.drain()
            os.sync()
            before = peer.apply(document)
            return (probe.wait([0], 5)[0].ns - before) / 1e9
        except BenchError as error:
            raise BenchError(f"{error}\n{peer.output_tail(directory)}") from None
        finally:
            peer.stop()
            shutil.rmtree(directory, ignore_errors=True)


def _make(path: str, scale: float) -> None:
    """Write a tar.gz like a software image: many small files, a few large ones, half of it compressible."""
    rng = random.Random(1)
    noise = rng.randbytes(8 << 20)
    text = b"".join(b"%08x key = value of setting %d\n" % (rng.getrandbits(32), n) for n in range(200_000))
    mean = _UNPACKED / _ENTRIES
    with tarfile.open(path, "w:gz", compresslevel=1) as archive:
        for number in range(max(1, int(_ENTRIES * scale))):
            info = tarfile.TarInfo(f"usr/lib/part{number % 60}/file{number}")
            info.size = min(4 << 20, int(rng.expovariate(1 / mean)))
            info.mode = 0o644
            source = noise if rng.random() < _RANDOM * 0.85 else text
            at = rng.randrange(max(1, len(source) - info.size))
            archive.addfile(info, io.BytesIO(source[at : at + info.size]))
