# SPDX-License-Identifier: Apache-2.0
"""One SQLite file: opened, checked, brought to the newest schema, written in whole transactions."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterable, Sequence
from typing import Any

from maestro_py.errors import MaestroError
from maestro_py.timing import Timing

_NO_DAMAGE = ("unable to open", "locked", "full", "readonly", "memory", "I/O")
"""Parts of what SQLite says when the file is good and its surroundings are not."""


MOST_VERSIONS = 1000
"""No maestro ever has so many: a greater version is damage, not a newer one."""


class Damaged(Exception):
    """The file is not what was written. The message says how that was seen."""


class Database:
    """An open file. `schemas` are the scripts from nothing to version 1, from there to 2, and so on.

    The version is in `PRAGMA user_version`: an older file is brought forward in one transaction, a newer
    one is refused. A damaged file is moved aside and named in `warning`; a new one is begun, which
    `restore` may fill. writes: how long each transaction took.
    """

    def __init__(self, path: str, schemas: Sequence[str], pragmas: Iterable[str]) -> None:
        self.path = path
        self.warning = ""
        self.writes = Timing()
        self._schemas = tuple(schemas)
        self._pragmas = tuple(pragmas)
        try:
            try:
                self._open()
                self._checked()
            except (sqlite3.DatabaseError, UnicodeDecodeError, Damaged) as error:
                if isinstance(error, sqlite3.OperationalError) and any(w in str(error) for w in _NO_DAMAGE):
                    raise
                aside = move_aside(path)
                self.warning = f"{path} is damaged ({error}); it was moved to {aside}"
                self._open()
                self.warning += self.restore()
        except (sqlite3.Error, OSError) as error:
            raise MaestroError(f"cannot open {path}: {error}") from error

    def check(self) -> None:
        """Look whether the contents are as they were written. Raises Damaged; none here."""

    def check_rows(self, query: str, *types: type) -> None:
        """Read all rows of a query. Raises Damaged when a value is not of its column's type."""
        for row in self._db.execute(query):
            if tuple(map(type, row)) != types:
                raise Damaged("a row in it is not what was written")

    def restore(self) -> str:
        """Fill the new file in place of a damaged one; return what to say of that."""
        return " and a new one begun"

    def prepare(self, db: sqlite3.Connection) -> None:
        """Give a connection what the schema scripts need; nothing here."""

    def _open(self) -> None:
        self._db = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False)
        try:
            os.chmod(self.path, 0o600)
            self._db.text_factory = bytes.decode  # sqlite3's own reports bad text as an error of any kind
            for pragma in self._pragmas:
                self._db.execute(f"PRAGMA {pragma}")
            self.prepare(self._db)
            version = self._db.execute("PRAGMA user_version").fetchone()[0]
            known = len(self._schemas)
            if not 0 <= version <= MOST_VERSIONS:
                raise Damaged(f"{version} is no version of it")
            if version > known:
                raise MaestroError(
                    f"cannot open {self.path}: it was written by a newer maestro (schema {version},"
                    f" known: {known})",
                    hint="install that version again, or move the file away to begin anew",
                )
            if version and self._db.execute("PRAGMA quick_check(1)").fetchone()[0] != "ok":
                raise Damaged("quick_check failed")
            if version < known:
                steps = "".join(self._schemas[version:])
                self._db.executescript(f"BEGIN IMMEDIATE;{steps}PRAGMA user_version={known};COMMIT;")
            if _layout(self._db) != self._intended():
                raise Damaged("its tables are not those that were made")
            if not _may_be_written(self._db) and self._is_ours():
                raise Damaged("it says that it must not be written")
        except BaseException:
            self._db.close()
            raise

    def _is_ours(self) -> bool:
        """Say whether the system lets this process write the file, and those that go with it."""
        found = [self.path + tail for tail in ("", "-wal", "-shm") if os.path.exists(self.path + tail)]
        return all(os.access(path, os.W_OK) for path in [os.path.dirname(self.path) or ".", *found])

    def _intended(self) -> set[tuple[object, ...]]:
        """Return the layout of a new file."""
        db = sqlite3.connect(":memory:")
        try:
            self.prepare(db)
            db.executescript("".join(self._schemas))
            return _layout(db)
        finally:
            db.close()

    def _checked(self) -> None:
        try:
            self.check()
        except BaseException:
            self._db.close()
            raise

    def _write(self, statements: Iterable[tuple[str, tuple[Any, ...]]]) -> None:
        """Run statements as one transaction: all of them or none."""
        began = time.monotonic()
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
            raise MaestroError(f"cannot write {self.path}: {_why(self.path, error)}") from error
        finally:
            self.writes.add(time.monotonic() - began)

    def _read(self, query: str, values: tuple[Any, ...] = ()) -> list[Any]:
        try:
            return self._db.execute(query, values).fetchall()
        except (sqlite3.Error, UnicodeDecodeError) as error:
            raise MaestroError(f"cannot read {self.path}: {error}") from error

    def close(self) -> None:
        """Close the file; the write-ahead log is folded in."""
        self._db.close()


def _may_be_written(db: sqlite3.Connection) -> bool:
    """Say whether SQLite would write a file.

    With a write version in the header that it does not know it only reads ("Database File Format", 1.3.3).
    """
    db.execute("BEGIN")
    try:
        db.execute("PRAGMA user_version=0")  # taken back: nothing reaches the file
        return True
    except sqlite3.OperationalError as error:
        return "readonly" not in str(error)
    finally:
        if db.in_transaction:
            db.execute("ROLLBACK")


def _layout(db: sqlite3.Connection) -> set[tuple[object, ...]]:
    """Return (table, column, type, place in the primary key) of every column."""
    columns = "SELECT m.name, c.name, c.type, c.pk FROM sqlite_master m JOIN pragma_table_info(m.name) c"
    return set(db.execute(columns))


def move_aside(path: str) -> str:
    """Rename a database with its logs to `<path>.damaged-<n>`, n counting from 1; return that path."""
    number = 1
    while os.path.exists(f"{path}.damaged-{number}"):
        number += 1
    aside = f"{path}.damaged-{number}"
    # the file last: a log without its file would be taken for the next's
    for tail in ("-wal", "-shm", ""):
        if os.path.exists(path + tail):
            os.rename(path + tail, aside + tail)
    return aside


def damaged_files(directory: str) -> list[str]:
    """Return the paths of the databases in a directory that were moved aside."""
    try:
        names = os.listdir(directory)
    except OSError:
        return []
    found = [name for name in names if name.rpartition(".damaged-")[2].isdigit()]
    return [os.path.join(directory, name) for name in sorted(found)]


def _why(path: str, error: sqlite3.Error) -> str:
    """Return why a write failed in the kernel's words, where SQLite's are as vague as "disk I/O error"."""
    probe = f"{path}.probe"
    try:
        fd = os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.write(fd, bytes(4096))
        finally:
            os.close(fd)
            os.unlink(probe)
    except OSError as told:
        return told.strerror or str(error)
    return str(error)
