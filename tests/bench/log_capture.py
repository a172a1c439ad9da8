# SPDX-License-Identifier: Apache-2.0
"""How fast a process may print: FIFO to rotated log with a plain selectors loop. Prints MB/s.

python tests/bench/log_capture.py [MEGABYTES]   writes of 4 kB and of one line (100 bytes) each
"""

from __future__ import annotations

import os
import selectors
import shutil
import statistics
import sys
import tempfile
import time

from maestro_py.process.launcher import helper_spec, start
from maestro_py.process.output import Output
from maestro_py.process.reaper import wait

_WRITER = (
    "import os,sys\nsize,count=map(int,sys.argv[1:])\ndata=b'x'*(size-1)+b'\\n'\nwrite=os.write\n"
    "for _ in range(count):\n write(1,data)\n"
)
_C_WRITER = r"""
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
int main(int argc, char **argv) {
    long size = atol(argv[1]), count = atol(argv[2]);
    char *data = malloc(size);
    memset(data, 'x', size - 1);
    data[size - 1] = '\n';
    while (count--)
        if (write(1, data, size) != size) return 1;
    return 0;
}
"""


def writer(directory: str) -> list[str]:
    """Return the command of a process that writes SIZE bytes COUNT times: in C where there is a compiler."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        return [sys.executable, "-I", "-S", "-c", _WRITER]
    source, program = os.path.join(directory, "writer.c"), os.path.join(directory, "writer")
    with open(source, "w") as file:
        file.write(_C_WRITER)
    null = os.open("/dev/null", os.O_RDWR)
    launch = start(helper_spec([compiler, "-O2", "-o", program, source], dict(os.environ), null, null, 2))
    os.waitpid(launch.pid, 0)
    for fd in (null, launch.pidfd, launch.report_fd):
        os.close(fd)
    return [program]


def capture(command: list[str], directory: str, size: int, count: int) -> tuple[float, int]:
    """Return (MB/s from start to the last byte in the log, turns of the poll loop)."""
    output = Output("bench", directory, directory, max_size=10 << 20, max_files=4)
    stdout, stderr = output.child_fds()
    null = os.open("/dev/null", os.O_RDONLY)
    spec = helper_spec([*command, str(size), str(count)], {}, null, stdout, stderr)
    selector = selectors.DefaultSelector()
    begin = time.perf_counter()
    launch = start(spec)
    for fd in (stdout, stderr, null):
        os.close(fd)
    for fd in (*output.fds(), launch.pidfd):
        selector.register(fd, selectors.EVENT_READ)
    before, exit, turns = output.position, None, 0
    while exit is None:
        for key, _ in selector.select():
            turns += 1
            if key.fd == launch.pidfd:
                exit = wait(launch.pid, launch.pidfd)
            else:
                output.pump(key.fd)
    output.finish()
    elapsed = time.perf_counter() - begin
    assert output.position - before == size * count, (output.position, output.error)
    selector.close()
    os.close(launch.pidfd)
    os.close(launch.report_fd)
    output.remove()
    return size * count / elapsed / 1e6, turns


def main() -> None:
    """Print both rows."""
    megabytes = int(sys.argv[1]) if len(sys.argv) > 1 else 100
    directory = tempfile.mkdtemp(prefix="maestro-bench-")
    try:
        command = writer(directory)
        for size in (4096, 100):
            runs = [capture(command, directory, size, megabytes * 1_000_000 // size) for _ in range(5)]
            rates = [rate for rate, _ in runs]
            print(
                f"log capture, {size} byte writes: {statistics.median(rates):.0f} MB/s, turns {runs[-1][1]}"
            )
            print("  runs: " + " ".join(f"{rate:.0f}" for rate in rates))
    finally:
        shutil.rmtree(directory)


if __name__ == "__main__":
    main()
