# SPDX-License-Identifier: Apache-2.0
"""How much of the disk logs may take: one file, one process, all together.

Every process has the same share of the total, so that the sum is kept without anybody counting while
logs are written. Logs of processes that are gone stay as long as there is room.
"""

from __future__ import annotations

import os
from collections.abc import Collection

from maestro_py.spec.daemonconfig import DaemonConfig
from maestro_py.spec.names import safe_name
from maestro_py.valueclass import valueclass

_PART = 10
"""The default total is this part of the file system, as journald has it, …"""
_MOST = 1 << 30
"""… but no more than this."""
_LEAST = 4096
"""Bytes below which a log file is of no use to anybody."""


@valueclass(frozen=True)
class LogRoom:
    """The limits: bytes of one file, files of one process, bytes of all."""

    directory: str
    file_size: int
    files: int
    total: int

    @classmethod
    def of(cls, directory: str, config: DaemonConfig) -> LogRoom:
        """Return what the config file says; without a total there, what the file system allows."""
        total = config.log_total_size
        if not total:
            disk = os.statvfs(directory)
            total = min(_MOST, disk.f_blocks * disk.f_frsize // _PART)
        return cls(directory, config.log_max_size, config.log_max_files, total)

    def size_for(self, processes: int) -> int:
        """Return how large one log file may become when there are so many processes."""
        share = self.total // (max(1, processes) * self.files)
        return max(_LEAST, min(self.file_size, share))

    def clean(self, processes: Collection[str]) -> list[str]:
        """Delete what is more than the total, oldest first; return the names of the files.

        First everything of processes that are not there any more, then older files of those that are.
        """
        known = {safe_name(name) for name in processes}
        sizes, gone, old = 0, [], []
        with os.scandir(self.directory) as entries:
            for entry in entries:
                stem, dot, kind = entry.name.rpartition(".")
                if kind.isdigit():
                    stem, dot, kind = stem.rpartition(".")
                if not dot or kind not in ("log", "idx", "times"):
                    continue  # not ours
                info = entry.stat(follow_symlinks=False)
                sizes += info.st_size
                if stem not in known:
                    gone.append((info.st_mtime, entry.path, info.st_size))
                elif entry.name[-1].isdigit():
                    old.append((info.st_mtime, entry.path, info.st_size))
        deleted = []
        for _, path, size in [*sorted(gone), *sorted(old)]:
            if sizes <= self.total:
                break
            os.unlink(path)
            sizes -= size
            deleted.append(os.path.basename(path))
        return deleted
