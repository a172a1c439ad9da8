# SPDX-License-Identifier: Apache-2.0
"""What must survive a power cut: the wanted state, and what is remembered of each process.

Written rarely and with full synchronisation: every commit may be the last before the power goes. After
each, the whole of it is also written to a file of its own, `<database>-copy`, by one rename. When the
database is damaged, or lost its last commits with a damaged log, the copy is what comes back.
"""

from __future__ import annotations

import binascii
import json
import os
import sqlite3
from collections.abc import Iterable, Mapping
from typing import Any

from maestro_py.faultpoint import reach
from maestro_py.state.database import Damaged, Database
from maestro_py.valueclass import valueclass

SCHEMAS = (
    """
CREATE TABLE entries (
  kind TEXT NOT NULL, key TEXT NOT NULL, value TEXT NOT NULL, PRIMARY KEY (kind, key)
) WITHOUT ROWID;
CREATE TABLE notes (
  process TEXT PRIMARY KEY, stopped INTEGER NOT NULL, cause TEXT NOT NULL
) WITHOUT ROWID;
""",
    """
ALTER TABLE entries ADD COLUMN crc INTEGER NOT NULL DEFAULT 0;
UPDATE entries SET crc = crc32(value);
CREATE TABLE serial (number INTEGER NOT NULL);
INSERT INTO serial VALUES (0);
""",
    # a damaged kind or key is a loss too; where the value was damaged already, this fits no better
    "UPDATE entries SET crc = crc32(kind, key, value) WHERE crc = crc32(value);",
)

Key = tuple[str, str]
"""(kind, key) of an entry: kind is `job`, `template`, `image`, `config`, `override` or `meta`."""

_Row = tuple[str, str, str]
"""(kind, key, value as JSON text)."""


@valueclass(frozen=True)
class Note:
    """What is remembered of a process: stopped by hand, and its last cause as `kind: text`."""

    stopped: bool = False
    cause: str = ""


@valueclass(frozen=True)
class _Copy:
    serial: int
    entries: list[_Row]
    notes: list[tuple[str, int, str]]


class Store(Database):
    """The wanted state and what is remembered of each process. Errors are MaestroError."""

    def __init__(self, path: str) -> None:
        self.copy = path + "-copy"
        self._serial = 0  # of the last change
        self.copy_error = ""  # why the copy is older than the database
        super().__init__(path, SCHEMAS, ("journal_mode=WAL", "synchronous=FULL", "wal_autocheckpoint=64"))

    # what a damage looks like, and what is done about it

    def prepare(self, db: sqlite3.Connection) -> None:
        """Let SQL compute checksums."""
        db.create_function("crc32", -1, checksum, deterministic=True)

    def check(self) -> None:
        """Compare each row with its checksum, and all of it with the copy. Raises Damaged."""
        self.check_rows("SELECT number FROM serial", int)
        self.check_rows("SELECT kind, key, value, crc FROM entries", str, str, str, int)
        self.check_rows("SELECT process, stopped, cause FROM notes", str, int, str)
        row = self._db.execute(
            "SELECT kind, key FROM entries WHERE crc != crc32(kind, key, value)"
        ).fetchone()
        if row:
            raise Damaged(f"the {row[0]} {row[1]} is not what was written")
        serials = self._db.execute("SELECT number FROM serial").fetchall()
        if len(serials) != 1:
            raise Damaged("it does not say which change was the last")
        self._serial = serials[0][0]
        copy = _read_copy(self.copy)
        if copy is None:
            return
        if copy.serial > self._serial:
            # SQLite takes no file for an empty database, and what follows a bad piece of log for no log
            lost = f"it ends with change {self._serial} of {copy.serial}" if self._serial else "it is empty"
            raise Damaged(lost)
        if copy.serial == self._serial:
            entries = self._db.execute("SELECT kind, key, value FROM entries")
            if {tuple(row) for row in copy.entries} != set(entries):
                raise Damaged(f"it is not what it was after change {copy.serial}")

    def restore(self) -> str:
        """Take the copy's contents; return what to say of that."""
        copy = _read_copy(self.copy)
        if copy is None:
            return " and a new one begun: nothing of it could be saved"
        self._db.execute("BEGIN IMMEDIATE")
        # a commit that the copy does not know may be lost: what comes next must not have its number
        self._serial = copy.serial + 1
        self._db.execute("DELETE FROM entries")
        self._db.execute("DELETE FROM notes")
        self._db.executemany(_PUT, copy.entries)
        self._db.executemany("INSERT INTO notes VALUES (?,?,?)", copy.notes)
        self._db.execute("UPDATE serial SET number=?", (self._serial,))
        self._db.execute("COMMIT")
        return f" and what it held after change {copy.serial} was taken from {self.copy}"

    def change(self, put: Mapping[Key, Any], remove: Iterable[Key] = ()) -> None:
        """Store and remove entries in one transaction; equal values are not written.

        Values are anything JSON can hold; a key in both is stored. Raises MaestroError, and then
        nothing was changed.
        """
        find = "SELECT value FROM entries WHERE kind=? AND key=?"
        writes: list[tuple[str, tuple[Any, ...]]] = [
            ("DELETE FROM entries WHERE kind=? AND key=?", key)
            for key in remove
            if key not in put and self._read(find, key)
        ]
        for (kind, key), value in put.items():
            text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
            if self._read(find, (kind, key)) != [(text,)]:
                writes.append((_PUT, (kind, key, text)))
        if writes:
            self._commit(writes)

    def entries(self, kind: str) -> dict[str, Any]:
        """Return all values of a kind by key, in key order."""
        rows = self._read("SELECT key, value FROM entries WHERE kind=? ORDER BY key", (kind,))
        return {key: _value(value) for key, value in rows}

    def all_keys(self) -> set[Key]:
        """Return the (kind, key) of every entry."""
        return set(self._read("SELECT kind, key FROM entries"))

    def notes(self) -> dict[str, Note]:
        """Return what is remembered, by process name."""
        rows = self._read("SELECT process, stopped, cause FROM notes")
        return {process: Note(bool(stopped), cause) for process, stopped, cause in rows}

    def note(self, process: str, note: Note, *, durable: bool = True) -> None:
        """Remember something of a process. Not durable: a power cut may take the last seconds of it."""
        if durable:
            self._commit([_note_row(process, note)])
        else:
            self.note_all({process: note})

    def note_all(self, notes: Mapping[str, Note | None]) -> None:
        """Remember something of many processes, None: nothing any more; not durably, see `note`."""
        self._db.execute("PRAGMA synchronous=NORMAL")
        try:
            self._write(
                [
                    _note_row(process, note) if note else ("DELETE FROM notes WHERE process=?", (process,))
                    for process, note in notes.items()
                ]
            )
        finally:
            self._db.execute("PRAGMA synchronous=FULL")

    # writing

    def _commit(self, writes: list[tuple[str, tuple[Any, ...]]]) -> None:
        """Commit a change under the next number, then bring the copy up to it."""
        reach("state.change.begun")
        self._write([*writes, ("UPDATE serial SET number=?", (self._serial + 1,))])
        self._serial += 1
        reach("state.change.committed")
        try:
            self._write_copy()
            self.copy_error = ""
        except OSError as error:
            self.copy_error = f"cannot write {self.copy}: {error.strerror}"  # the next change tries again
        reach("state.change.copied")

    def _write_copy(self) -> None:
        body = json.dumps(
            {
                "serial": self._serial,
                "entries": self._read("SELECT kind, key, value FROM entries"),
                "notes": self._read("SELECT process, stopped, cause FROM notes"),
            },
            ensure_ascii=False,
            separators=(",", ":"),
        ).encode()
        head = json.dumps({"crc": binascii.crc32(body)})
        temporary = self.copy + ".new"
        with open(temporary, "wb", opener=_private) as file:
            file.write(head.encode() + b"\n" + body)
            file.flush()
            os.fsync(file.fileno())
        reach("state.copy.written")
        os.rename(temporary, self.copy)


_PUT = "INSERT OR REPLACE INTO entries VALUES (?1,?2,?3,crc32(?1,?2,?3))"


def checksum(*texts: str) -> int:
    """Return the CRC-32 of some texts, a zero byte between two."""
    return binascii.crc32("\0".join(texts).encode())


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_CLOEXEC, 0o600)


def _read_copy(path: str) -> _Copy | None:
    """Return the copy, None when there is none that is whole."""
    try:
        with open(path, "rb") as file:
            head, body = json.loads(file.readline()), file.read()
        if head["crc"] != binascii.crc32(body):
            return None
        found = json.loads(body)
        return _Copy(found["serial"], found["entries"], found["notes"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _value(text: str) -> Any:
    """Return a stored value; what is no JSON comes as the text it is, for its reader to refuse by name."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def _note_row(process: str, note: Note) -> tuple[str, tuple[Any, ...]]:
    return "INSERT OR REPLACE INTO notes VALUES (?,?,?)", (process, int(note.stopped), note.cause)
