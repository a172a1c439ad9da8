# SPDX-License-Identifier: Apache-2.0
"""Processes of the benchmark: who belongs to whom, what they cost, and their end.

The harness makes itself the reaper of orphans, so everything it has ever started stays below it and
can be found, measured and ended by pid.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import select
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterable, Sequence

from .probe import BenchError

_PR_SET_CHILD_SUBREAPER = 36


def adopt_orphans() -> None:
    """Make this process the parent of its descendants' orphans."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def descendants(root: int) -> list[int]:
    """Return the pids below `root`, zombies included, parents first."""
    children: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError), open(f"/proc/{name}/stat", "rb") as file:
                parent = int(file.read().rpartition(b")")[2].split()[1])
                children.setdefault(parent, []).append(int(name))
    found = [root]
    for pid in found:
        found += children.get(pid, ())
    return found[1:]


def spawn(
    argv: Sequence[str], cwd: str, env: dict[str, str] | None = None
) -> tuple[subprocess.Popen[bytes], int]:
    """Start a supervisor, its own output going to `cwd`/out; return it and the time just before (ns)."""
    with open(os.path.join(cwd, "out"), "ab") as out:
        before = time.monotonic_ns()
        child = subprocess.Popen(
            argv, cwd=cwd, env=env, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True
        )
    return child, before


def handles(pids: Iterable[int]) -> list[int]:
    """Return pidfds of those processes that are still there."""
    fds = []
    for pid in pids:
        with contextlib.suppress(OSError):  # ESRCH or, while it is being reaped, EINVAL
            fds.append(os.pidfd_open(pid))
    return fds


def end(child: subprocess.Popen[bytes], below: list[int], timeout: float) -> None:
    """Wait for a supervisor that was told to stop, then kill what is left of it and of its jobs.

    below: pidfds of what it had started by then; all are closed.
    """
    fds = below + handles(descendants(child.pid))
    try:
        child.wait(timeout)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()
    waiter = select.poll()
    for fd in fds:
        waiter.register(fd, select.POLLIN)
    deadline = time.monotonic() + 2
    killed = False
    while fds:
        for fd, _ in waiter.poll(100):
            waiter.unregister(fd)
            fds.remove(fd)
            os.close(fd)
        if fds and not killed and time.monotonic() > deadline:
            killed = True
            for fd in fds:
                with contextlib.suppress(ProcessLookupError):
                    signal.pidfd_send_signal(fd, signal.SIGKILL)
        elif time.monotonic() > deadline + 5:
            raise BenchError(f"cannot end {len(fds)} processes of {child.args!r}")
    reap()


def reap() -> None:
    """Collect orphans that have ended (never a child that somebody still waits for)."""
    for pid in descendants(os.getpid()):
        with contextlib.suppress(OSError), open(f"/proc/{pid}/stat", "rb") as file:
            if file.read().rpartition(b")")[2].split()[0] == b"Z":
                os.waitpid(pid, os.WNOHANG)


def end_everything() -> None:
    """Kill whatever is still below this process: the way out after an error."""
    for _ in range(50):
        reap()
        left = descendants(os.getpid())
        if not left:
            return
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.02)


def pss(pids: Iterable[int]) -> float:
    """Return the proportional set size of these processes together, in MiB."""
    total = 0
    for pid in pids:
        with (
            contextlib.suppress(FileNotFoundError, ProcessLookupError),
            open(f"/proc/{pid}/smaps_rollup") as file,
        ):
            match = re.search(r"^Pss:\s+(\d+) kB", file.read(), re.MULTILINE)
            total += int(match[1]) if match else 0
    return total / 1024


def switches(pids: Iterable[int]) -> int:
    """Return how often all threads of these processes were switched in so far, willing or not."""
    total = 0
    for pid in pids:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            for task in os.listdir(f"/proc/{pid}/task"):
                with open(f"/proc/{pid}/task/{task}/status") as file:
                    total += sum(int(n) for n in re.findall(r"ctxt_switches:\s+(\d+)", file.read()))
    return total


def system_calls(pids: Sequence[int], seconds: float) -> int | None:
    """Return the system calls these processes entered within `seconds`; None where strace cannot tell.

    Attaching makes sleeping calls return and be entered again, so the first half second does not count.
    """
    strace = shutil.which("strace")
    if not strace:
        return None
    with tempfile.TemporaryDirectory(prefix="bench-strace-") as directory:
        output = os.path.join(directory, "trace")
        argv = [strace, "-f", "-qq", "-ttt", "-o", output]
        for pid in pids:
            argv += ["-p", str(pid)]
        with open(os.path.join(directory, "err"), "w+") as err:
            tracer = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=err, stderr=err)
            time.sleep(0.5 + 0.005 * len(pids))
            start = time.time()
            time.sleep(seconds)
            stop = time.time()
            refused = tracer.poll() is not None
            tracer.terminate()
            tracer.wait()
        if refused:
            return None
        count = 0
        with open(output, errors="replace") as trace:
            for line in trace:
                words = line.split(maxsplit=2)  # pid (missing with a single thread), time, call
                stamp, call = (words[1], words[2]) if "." not in words[0] else (words[0], " ".join(words[1:]))
                count += start <= float(stamp) < stop and not call.startswith(("<...", "+++", "---"))
        return count


def tree_size(directory: str) -> int:
    """Return the bytes of all regular files below a directory."""
    total = 0
    for base, _, names in os.walk(directory):
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                total += os.lstat(os.path.join(base, name)).st_size
    return total


def fresh_memory(directory: str, size: int) -> None:
    """Forget the bytes in all large files below a directory, then touch and free `size` bytes of page cache.

    The first touch of a page of a virtual machine costs several times the write itself (measured:
    1400 or 260 MB/s for the same plain write); the pages freed here are those the next writer gets.
    """
    for base, _, names in os.walk(directory):
        for name in names:
            path = os.path.join(base, name)
            with contextlib.suppress(FileNotFoundError):
                if os.lstat(path).st_size > 1 << 20:
                    os.truncate(path, 0)
    path = os.path.join(directory, "touch")
    with open(path, "wb", buffering=0) as file:
        for _ in range(0, size, 1 << 20):
            file.write(bytes(1 << 20))
    os.unlink(path)
