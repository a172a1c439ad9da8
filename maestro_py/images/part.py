# SPDX-License-Identifier: Apache-2.0
"""A file that arrives in pieces, and beside it, in `<path>.json`, what the next try has to know.

    {"content",                     what proves the content in the end
     "etag", "modified",            what to ask the server by when it goes on
     "boot",                        boot id of the system that wrote it (proc_sys_kernel(5))
     "safe"}                        bytes that were on disk when this was written

While the same system runs, the length of the file is what came, however the program ended. After a power cut
the length may promise bytes that never reached the disk: then only `safe` bytes count, and what came in the
last SYNC_INTERVAL at most is fetched again.
"""

from __future__ import annotations

import json
import os
import time
from typing import Any

from maestro_py.images.flush import write_soon

STATE_SUFFIX = ".json"

SYNC_INTERVAL = 5.0
"""Seconds of a download that a power cut may cost; a quicker one is over before anything is synced."""

WRITE_SOON = 4 << 20
"""Bytes after which what came begins its way to disk: a later sync of the unpacked tree waits for it too."""

_OPEN = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
_BOOT_ID = "/proc/sys/kernel/random/boot_id"


class Part:
    """The two files. They stay open: whoever writes them later has no other way to them. Raises OSError.

    size: bytes to go on from; validator: what names the content they are of. Of another content, or
    nobody knows which, there are none.
    """

    def __init__(self, path: str, content: str) -> None:
        self._directory = os.open(os.path.dirname(path) or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self.fd = os.open(path, _OPEN, 0o600)
        self._state = os.open(path + STATE_SUFFIX, _OPEN, 0o600)
        self._boot = _boot_id()
        self._about: dict[str, Any] = {"content": content, "etag": "", "modified": "", "safe": 0}
        known = self._read()
        if known.get("content") == content:
            self._about.update({key: known[key] for key in ("etag", "modified", "safe") if key in known})
        else:
            os.ftruncate(self.fd, 0)
        self.size = os.fstat(self.fd).st_size
        if known.get("boot") != self._boot:
            self.size = min(self.size, self._safe())
            os.ftruncate(self.fd, self.size)
        self.validator = str(self._about["etag"] or self._about["modified"])
        self._next = time.monotonic() + SYNC_INTERVAL
        self._unwritten = 0

    def close(self) -> None:
        """Close everything."""
        for fd in (self.fd, self._state, self._directory):
            os.close(fd)

    def forget(self) -> None:
        """Drop what came so far."""
        os.ftruncate(self.fd, 0)
        os.ftruncate(self._state, 0)
        self.size, self.validator = 0, ""

    def begin(self, start: int, etag: str, modified: str) -> None:
        """Note what is coming, from byte `start` on."""
        os.ftruncate(self.fd, start)
        os.lseek(self.fd, start, os.SEEK_SET)
        before = self._safe()
        self._write(etag=etag, modified=modified, safe=min(start, before))
        if start < before:  # nothing on disk may claim more than there is
            os.fsync(self._state)

    def write(self, data: bytes) -> None:
        """Add what came; from time to time bring it to disk."""
        view = memoryview(data)
        while view:
            view = view[os.write(self.fd, view) :]
        self._unwritten += len(data)
        if self._unwritten >= WRITE_SOON:
            write_soon(self.fd, os.lseek(self.fd, 0, os.SEEK_CUR) - self._unwritten, self._unwritten)
            self._unwritten = 0
        if time.monotonic() >= self._next:
            self.sync()

    def sync(self) -> None:
        """Bring to disk what came, and only then say so."""
        os.fsync(self.fd)
        self._write(safe=os.lseek(self.fd, 0, os.SEEK_CUR))
        os.fsync(self._state)
        os.fsync(self._directory)
        self._next = time.monotonic() + SYNC_INTERVAL

    def _safe(self) -> int:
        safe = self._about["safe"]
        return safe if isinstance(safe, int) else 0

    def _read(self) -> dict[str, Any]:
        try:
            known = json.loads(os.pread(self._state, 1 << 16, 0))
        except ValueError:
            known = None
        return known if isinstance(known, dict) else {}

    def _write(self, **facts: Any) -> None:
        self._about.update(facts, boot=self._boot)
        data = json.dumps(self._about).encode()
        os.pwrite(self._state, data.ljust(os.fstat(self._state).st_size), 0)  # one write: never half of it


def _boot_id() -> str:
    with open(_BOOT_ID, encoding="ascii") as file:
        return file.read().strip()
