# SPDX-License-Identifier: Apache-2.0
"""Installing an image against `curl -o f; sha256sum f; tar xzf f`, same archive, same loopback server.

    python tests/bench/image_install.py [--mib 322] [--entries 4700] [--runs 5] [--zst]

Prints wall seconds (median, least, most) and CPU seconds (median) of both; the order alternates.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import resource
import shlex
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def make_tree(where: Path, mib: int, entries: int) -> None:
    """Write files whose sizes and compressibility are those of a root file system."""
    dice = random.Random(1)
    words = [dice.randbytes(dice.randrange(4, 15)) for _ in range(3000)]
    pool = b"".join(dice.choice(words) if dice.random() < 0.97 else dice.randbytes(7) for _ in range(1 << 20))
    sizes = [dice.lognormvariate(8.5, 2.2) for _ in range(entries)]
    scale = (mib << 20) / sum(sizes)
    for index, size in enumerate(sizes):
        folder = where / f"d{index % 60}" / f"e{index % 7}"
        folder.mkdir(parents=True, exist_ok=True)
        left = int(size * scale)
        with open(folder / f"f{index}", "wb") as file:
            while left > 0:
                start = dice.randrange(len(pool) - 65536)
                left -= file.write(pool[start : start + min(left, 65536)])


def measure(work: Callable[[], None]) -> tuple[float, float]:
    """Return wall and CPU seconds of child processes."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    work()
    wall, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def helper(module: str, request: dict[str, object]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", f"maestro_py.images.{module}"],
        input=json.dumps(request).encode() + b"\n",
        capture_output=True,
        cwd=ROOT,
    )
    if done.returncode:
        sys.exit(done.stdout.decode())


def main() -> None:
    """Build the archive, serve it, time both ways in turn."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--mib", type=int, default=322)
    parser.add_argument("--entries", type=int, default=4700)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--zst", action="store_true")
    parser.add_argument("--dir", default=None, help="where to work; the disk that is measured")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.dir) as directory:
        run(Path(directory), options)


def run(base: Path, options: argparse.Namespace) -> None:
    make_tree(base / "tree", options.mib, options.entries)
    name, flags = ("f.tar.zst", "--zstd") if options.zst else ("f.tar.gz", "-z")
    archive = base / name
    subprocess.run(["tar", flags, "-cf", archive, "-C", base / "tree", "."], check=True)
    shutil.rmtree(base / "tree")
    with open(archive, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    print(f"{archive.stat().st_size / 1e6:.0f} MB {name}, {options.mib} MiB in {options.entries} files")
    server = subprocess.Popen(
        [sys.executable, "-u", "-c", SERVER, base],
        cwd=ROOT / "tests",
        stdout=subprocess.PIPE,
        stdin=subprocess.PIPE,
    )
    assert server.stdout
    assert server.stdin
    url = server.stdout.readline().decode().strip() + "/" + name
    try:
        compare(base, url, flags, digest, options.runs)
    finally:
        server.stdin.close()
        server.stdout.close()
        server.wait()


SERVER = """
import sys
from support.httpserver import FileServer
with FileServer(sys.argv[1]) as url:
    print(url)
    sys.stdin.read()
"""


def compare(base: Path, url: str, flags: str, digest: str, runs: int) -> None:
    out, download, state = base / "out", base / "download", base / "download.json"
    sums = base / "out.sums"
    name = url.rpartition("/")[2]
    quoted = [shlex.quote(str(part)) for part in (download, url, out)]
    script = (
        "curl -sSf -o {0} {1} && sha256sum {0} >/dev/null && mkdir {2} && tar " + flags + " -xf {0} -C {2}"
    )

    def pipeline() -> None:
        subprocess.run(["sh", "-c", script.format(*quoted)], check=True)

    def ours(sync: bool) -> None:
        checks = {"name": name, "checksum": {"type": "sha256sum", "value": digest}}
        helper("fetch", {"url": url, "part": str(download), "content": digest, "sync": sync})
        paths = {"archive": str(download), "dest": str(out), "sums": str(sums)}
        helper("unpack", {**paths, "image_type": "tarball", "checks": checks})

    ways: dict[str, Callable[[], None]] = {
        "curl; sha256sum; tar": pipeline,
        "curl; sha256sum; tar; sync -f": lambda: (
            pipeline(),
            subprocess.run(["sync", "-f", out], check=True),
        )[0],
        "maestro": lambda: ours(True),
        "maestro, download not synced": lambda: ours(False),
    }
    figures: dict[str, list[tuple[float, float]]] = {way: [] for way in ways}
    for _ in range(runs):
        for way, work in ways.items():
            figures[way].append(measure(work))
            shutil.rmtree(out)
            download.unlink()
            state.unlink(missing_ok=True)
            sums.unlink(missing_ok=True)
            os.sync()
    for way, found in figures.items():
        walls = sorted(wall for wall, _ in found)
        cpu = statistics.median(cpu for _, cpu in found)
        span = f"{statistics.median(walls):6.2f} s [{walls[0]:.2f} - {walls[-1]:.2f}]"
        print(f"{way:32} wall {span}  CPU {cpu:6.2f} s")


if __name__ == "__main__":
    main()
