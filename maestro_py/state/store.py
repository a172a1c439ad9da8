# SPDX-License-Identifier: Apache-2.0
"""What must survive: the wanted state on disk, the running processes' identities on tmpfs.

Two SQLite databases. `Store` (state directory) is written rarely and with full synchronisation:
every commit may be the last before the power goes. `RunStore` (run directory) only has to survive
a crash of the daemon, so it never waits for a disk.
"""

from __future__ import annotations

import json
import os
import sqlite3
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from maestro_py.errors import MaestroError

SCHEMA = 1
"""Version in `PRAGMA user_version`; a newer one is refused, an older one migrated."""

_STATE = """
CREATE TABLE entries (
  kind TEXT NOT NULL, key TEXT NOT NULL, value TEXT NOT NULL, PRIMARY KEY (kind, key)
) WITHOUT ROWID;
CREATE TABLE notes (
  process TEXT PRIMARY KEY, stopped INTEGER NOT NULL, cause TEXT NOT NULL
) WITHOUT ROWID;
"""

_RUN = """
CREATE TABLE identities (
  process TEXT PRIMARY KEY, boot_id TEXT, pid INTEGER, ticks INTEGER, cgroup TEXT
) WITHOUT ROWID;
CREATE TABLE events (id INTEGER PRIMARY KEY, time REAL, type TEXT, job TEXT, process TEXT, message TEXT);
"""

Key = tuple[str, str]
"""(kind, key) of an entry: kind is `job`, `template`, `image`, `config`, `override` or `meta`."""


@dataclass(frozen=True)
class Note:
    """What is remembered of a process: stopped by hand, and its last cause as `kind: text`."""

    stopped: bool = False
    cause: str = ""


class _Database:
    """One SQLite file with a schema version; a damaged one is moved aside and named in `warning`."""

    def __init__(self, path: str, schema: str, pragmas: Iterable[str]) -> None:
        self.path = path
        self.warning = ""
        try:
            try:
                self._db = self._open(schema, pragmas)
            except sqlite3.DatabaseError as error:
                if isinstance(error, sqlite3.OperationalError):
                    raise
                aside = self._move_aside()
                self.warning = f"{path} is damaged ({error}); it was moved to {aside} and a new one begun"
                self._db = self._open(schema, pragmas)
        except (sqlite3.Error, OSError) as error:
            raise MaestroError(f"cannot open {path}: {error}") from error

    def _move_aside(self) -> str:
        aside = f"{self.path}.damaged-{int(time.time())}"
        while os.path.exists(aside):
            aside += "x"
        for tail in (
            "-wal",
            "-shm",
            "",
        ):  # the file last: a log without its file would be taken for the next's
            if os.path.exists(self.path + tail):
                os.rename(self.path + tail, aside + tail)
        return aside

    def _open(self, schema: str, pragmas: Iterable[str]) -> sqlite3.Connection:
        db = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False)
        try:
            os.chmod(self.path, 0o600)
            for pragma in pragmas:
                db.execute(f"PRAGMA {pragma}")
            version = db.execute("PRAGMA user_version").fetchone()[0]
            if version > SCHEMA:
                newer = f"it was written by a newer maestro (schema {version}, known: {SCHEMA})"
                raise MaestroError(f"cannot open {self.path}: {newer}")
            if version == 0:
                db.executescript(f"BEGIN;{schema}PRAGMA user_version={SCHEMA};COMMIT;")
            elif db.execute("PRAGMA quick_check(1)").fetchone()[0] != "ok":
                raise sqlite3.DatabaseError("quick_check failed")
        except BaseException:
            db.close()
            raise
        return db

    def _write(self, statements: Iterable[tuple[str, tuple[Any, ...]]]) -> None:
        """Run statements as one transaction: all of them or none."""
        try:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                for statement, values in statements:
                    self._db.execute(statement, values)
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise
        except sqlite3.Error as error:
            raise MaestroError(f"cannot write {self.path}: {error}") from error

    def _read(self, query: str, values: tuple[Any, ...] = ()) -> list[Any]:
        try:
            return self._db.execute(query, values).fetchall()
        except sqlite3.Error as error:
            raise MaestroError(f"cannot read {self.path}: {error}") from error

    def close(self) -> None:
        """Close the file; the write-ahead log is folded in."""
        self._db.close()


class Store(_Database):
    """The wanted state and what is remembered of each process. Errors are MaestroError."""

    def __init__(self, path: str) -> None:
        super().__init__(path, _STATE, ("journal_mode=WAL", "synchronous=FULL", "wal_autocheckpoint=64"))

    def entries(self, kind: str) -> dict[str, Any]:
        """Return all values of a kind by key, in key order."""
        rows = self._read("SELECT key, value FROM entries WHERE kind=? ORDER BY key", (kind,))
        return {key: _value(value) for key, value in rows}

    def change(self, put: Mapping[Key, Any], remove: Iterable[Key] = ()) -> None:
        """Store and remove entries in one transaction; equal values are not written.

        Values are anything JSON can hold; a key in both is stored. Raises MaestroError, and then
        nothing was changed.
        """
        writes: list[tuple[str, tuple[Any, ...]]] = [
            ("DELETE FROM entries WHERE kind=? AND key=?", key) for key in remove if key not in put
        ]
        for (kind, key), value in put.items():
            text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
            if self._read("SELECT value FROM entries WHERE kind=? AND key=?", (kind, key)) != [(text,)]:
                writes.append(("INSERT OR REPLACE INTO entries VALUES (?,?,?)", (kind, key, text)))
        if writes:
            self._write(writes)

    def all_keys(self) -> set[Key]:
        """Return the (kind, key) of every entry."""
        return set(self._read("SELECT kind, key FROM entries"))

    def notes(self) -> dict[str, Note]:
        """Return what is remembered, by process name."""
        rows = self._read("SELECT process, stopped, cause FROM notes")
        return {process: Note(bool(stopped), cause) for process, stopped, cause in rows}

    def note(self, process: str, note: Note, *, durable: bool = True) -> None:
        """Remember something of a process. Not durable: a power cut may take the last seconds of it."""
        values = (process, int(note.stopped), note.cause)
        self._db.execute(f"PRAGMA synchronous={'FULL' if durable else 'NORMAL'}")
        try:
            self._write([("INSERT OR REPLACE INTO notes VALUES (?,?,?)", values)])
        finally:
            self._db.execute("PRAGMA synchronous=FULL")

    def forget(self, process: str) -> None:
        """Drop what is remembered of a process."""
        self._write([("DELETE FROM notes WHERE process=?", (process,))])


class RunStore(_Database):
    """Identities of running processes and recent events; lives as long as the boot."""

    def __init__(self, path: str) -> None:
        super().__init__(path, _RUN, ("journal_mode=MEMORY", "synchronous=OFF"))

    def flush(
        self,
        identities: Mapping[str, tuple[str, int, int, str] | None],
        events: Iterable[tuple[int, float, str, str, str, str]],
        keep_events: int,
    ) -> None:
        """Write a batch; an identity is (boot_id, pid, start ticks, cgroup), or None once it is gone."""
        writes: list[tuple[str, tuple[Any, ...]]] = []
        for process, identity in identities.items():
            if identity is None:
                writes.append(("DELETE FROM identities WHERE process=?", (process,)))
            else:
                writes.append(("INSERT OR REPLACE INTO identities VALUES (?,?,?,?,?)", (process, *identity)))
        last = 0
        for event in events:
            writes.append(("INSERT OR REPLACE INTO events VALUES (?,?,?,?,?,?)", event))
            last = event[0]
        if last:
            writes.append(("DELETE FROM events WHERE id<=?", (last - keep_events,)))
        if writes:
            self._write(writes)

    def identities(self) -> dict[str, tuple[str, int, int, str]]:
        """Return what was recorded of running processes."""
        rows = self._read("SELECT process, boot_id, pid, ticks, cgroup FROM identities")
        return {row[0]: (row[1], row[2], row[3], row[4]) for row in rows}

    def events(self) -> list[tuple[int, float, str, str, str, str]]:
        """Return the recorded events, oldest first."""
        return self._read("SELECT id, time, type, job, process, message FROM events ORDER BY id")


def _value(text: str) -> Any:
    """Return a stored value; what is no JSON comes as the text it is, for its reader to refuse by name."""
    try:
        return json.loads(text)
    except ValueError:
        return text
