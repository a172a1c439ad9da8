# SPDX-License-Identifier: Apache-2.0
"""What this kernel takes to move a process into a control group: part of every launch with limits.

On a stock kernel the write waits for a grace period, whoever does it, so it is no supervisor's own cost.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import time

_BASE = "/sys/fs/cgroup"
_NEEDED = ("unified", "memory", "pids")  # v1 or hybrid: where a job with those two limits has to be


def measure(count: int) -> list[float]:
    """Return milliseconds a fresh process takes to join all it needs, idle before; empty if not allowed."""
    if os.path.exists(f"{_BASE}/cgroup.controllers"):
        places = [_BASE]
    else:
        places = [f"{_BASE}/{name}" for name in _NEEDED if os.path.exists(f"{_BASE}/{name}/cgroup.procs")]
    groups: list[str] = []
    values: list[float] = []
    try:
        for place in places:
            group = f"{place}/bench-join-{os.getpid()}"
            os.mkdir(group)
            groups.append(group)
        for _ in range(count if groups else 0):
            child = subprocess.Popen(["sleep", "60"])
            time.sleep(0.1)
            try:
                start = time.perf_counter()
                for group in groups:
                    with open(f"{group}/cgroup.procs", "w") as file:
                        file.write(str(child.pid))
                values.append((time.perf_counter() - start) * 1000)
            finally:
                child.kill()
                child.wait()
    except OSError:
        return []
    finally:
        for group in groups:
            with contextlib.suppress(OSError):
                os.rmdir(group)
    return values
