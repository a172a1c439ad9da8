# SPDX-License-Identifier: Apache-2.0
"""Update locks: while one is held no change of its definition takes a process down.

A job holds one through the API, which lasts until it is given back, or as a lock of flock(2) on the file
`update.lock` in its run directory, which ends with whoever holds it.
"""

from __future__ import annotations

import fcntl
import os
import stat
import time
from typing import Any

from maestro_py.spec.resolved import ResolvedProcess
from maestro_py.state.store import Store

LOCK_FILE = "update.lock"
"""Name of the file in MAESTRO_RUN_DIR."""

_KIND = "update-lock"


class UpdateLocks:
    """The locks of this device; those through the API are kept in the store."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._held: dict[str, dict[str, Any]] = store.entries(_KIND)

    def hold(self, job: str, owner: str, reason: str) -> dict[str, Any]:
        """Lock a job, or change the reason; return the lock as the API shows it. Raises MaestroError."""
        lock = {"owner": owner, "reason": reason, "since": time.time()}
        self._store.change({(_KIND, job): lock})
        self._held[job] = lock
        return {"job": job, **lock}

    def release(self, job: str) -> bool:
        """Give a lock back; say whether there was one. Raises MaestroError."""
        if job not in self._held:
            return False
        self._store.change({}, [(_KIND, job)])
        del self._held[job]
        return True

    def of(self, process: ResolvedProcess) -> str:
        """Return who holds a lock on a process, and why, in words; nothing when nobody does."""
        for job in process.members:
            lock = self._held.get(job)
            if isinstance(lock, dict):
                reason = f" ({lock['reason']})" if lock.get("reason") else ""
                return f"{lock.get('owner', 'somebody')}{reason}"
        return "itself, by its file" if process.run_dir and _is_locked(process.run_dir) else ""


def _is_locked(directory: str) -> bool:
    """Whether somebody holds the lock file; the directory is the job's own, so anything may be in it."""
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        fd = os.open(os.path.join(directory, LOCK_FILE), flags)
    except OSError:
        return False
    try:
        if stat.S_ISREG(os.fstat(fd).st_mode):
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        pass
    finally:
        os.close(fd)
    return False
