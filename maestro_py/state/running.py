# SPDX-License-Identifier: Apache-2.0
"""What has to survive a crash of the daemon and no more than that: who runs as what, and recent events.

Lives in the run directory, which a reboot empties, and never waits for a disk.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from maestro_py.faultpoint import reach
from maestro_py.state.database import Database
from maestro_py.valueclass import valueclass

SCHEMAS = (
    """
CREATE TABLE identities (
  process TEXT PRIMARY KEY, boot_id TEXT, pid INTEGER, ticks INTEGER, cgroup TEXT
) WITHOUT ROWID;
CREATE TABLE events (id INTEGER PRIMARY KEY, time REAL, type TEXT, job TEXT, process TEXT, message TEXT);
""",
    """
DROP TABLE identities;
CREATE TABLE records (
  process TEXT PRIMARY KEY, boot_id TEXT NOT NULL, pid INTEGER NOT NULL, ticks INTEGER NOT NULL,
  kept TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE definitions (process TEXT PRIMARY KEY, definition TEXT NOT NULL) WITHOUT ROWID;
""",
)

Row = tuple[int, float, str, str, str, str]
"""An event: id, unix seconds, type, job, process, message."""


@valueclass(frozen=True)
class Record:
    """One process: boot and start of its main process (0: it has none), and JSON of what is known of it.

    definition: JSON of how it was launched; empty when it is the one written before.
    """

    boot_id: str
    pid: int
    ticks: int
    kept: str
    definition: str = ""


class RunStore(Database):
    """Records of processes and recent events. Errors are MaestroError."""

    def __init__(self, path: str) -> None:
        # a log even here: a process killed while it writes into the file itself would leave it torn
        pragmas = ("journal_mode=WAL", "synchronous=OFF", "wal_autocheckpoint=64", "cache_size=16")
        super().__init__(path, SCHEMAS, pragmas)

    def check(self) -> None:
        """Look whether every value can be read. Raises Damaged."""
        self.check_rows("SELECT * FROM records", str, str, int, int, str)
        self.check_rows("SELECT * FROM definitions", str, str)
        self.check_rows("SELECT * FROM events", int, float, str, str, str, str)

    def flush(
        self, records: Mapping[str, Record | None], events: Iterable[Row] = (), keep_events: int = 0
    ) -> None:
        """Write a batch; None drops the record of a process. Of the events, the last ones are kept."""
        writes: list[tuple[str, tuple[object, ...]]] = []
        for process, record in records.items():
            if record is None:
                writes.append(("DELETE FROM records WHERE process=?", (process,)))
                writes.append(("DELETE FROM definitions WHERE process=?", (process,)))
                continue
            row = (process, record.boot_id, record.pid, record.ticks, record.kept)
            writes.append(("INSERT OR REPLACE INTO records VALUES (?,?,?,?,?)", row))
            if record.definition:
                known = (process, record.definition)
                writes.append(("INSERT OR REPLACE INTO definitions VALUES (?,?)", known))
        last = 0
        for event in events:
            writes.append(("INSERT OR REPLACE INTO events VALUES (?,?,?,?,?,?)", event))
            last = event[0]
        if last:
            writes.append(("DELETE FROM events WHERE id<=?", (last - keep_events,)))
        if writes:
            self._write(writes)
            reach("state.run.flushed")

    def records(self) -> dict[str, Record]:
        """Return what is recorded, by process."""
        rows = self._read("SELECT r.*, definition FROM records r JOIN definitions USING (process)")
        return {row[0]: Record(*row[1:]) for row in rows}

    def forget_records(self) -> None:
        """Drop all records: nothing runs any more."""
        self._write([("DELETE FROM records", ()), ("DELETE FROM definitions", ())])

    def events(self) -> list[Row]:
        """Return the recorded events, oldest first."""
        return self._read("SELECT id, time, type, job, process, message FROM events ORDER BY id")
