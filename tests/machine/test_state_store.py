# SPDX-License-Identifier: Apache-2.0
"""The databases on a real file system: whole transactions, few writes, and what a crash leaves."""

from __future__ import annotations

import os
import signal
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from maestro_py.errors import MaestroError
from maestro_py.state.database import MOST_VERSIONS, damaged_files
from maestro_py.state.events import Happened, History
from maestro_py.state.running import SCHEMAS as RUN_SCHEMAS
from maestro_py.state.running import Record, RunStore
from maestro_py.state.store import SCHEMAS, Key, Note, Store, checksum

ROOT = Path(__file__).parents[2]


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "state.db")


@pytest.fixture
def store(path: str) -> Iterator[Store]:
    opened = Store(path)
    yield opened
    opened.close()


def reopened(store: Store) -> Store:
    store.close()
    return Store(store.path)


def set_user_version(path: str, version: int) -> None:
    db = sqlite3.connect(path)
    db.execute(f"PRAGMA user_version={version}")
    db.close()


# What is kept


def test_a_new_store_is_empty_and_only_its_owner_may_read_it(store: Store) -> None:
    assert (store.all_keys(), store.notes(), store.warning) == (set(), {}, "")
    for tail in ("", "-wal", "-shm"):
        if os.path.exists(store.path + tail):
            assert stat.S_IMODE(os.stat(store.path + tail).st_mode) == 0o600


def test_every_commit_is_synchronised_and_logged_ahead(store: Store) -> None:
    assert store._db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert store._db.execute("PRAGMA synchronous").fetchone() == (2,)  # FULL


def test_entries_come_back_as_they_were_put_in_key_order(store: Store) -> None:
    value = {"b": [1, 2.5, None, True], "ä": "\u2028 <&> 💡", "a": {}}
    store.change({("job", "z"): value, ("job", "a"): 1, ("template", "a"): 2})
    store = reopened(store)
    assert list(store.entries("job").items()) == [("a", 1), ("z", value)]
    assert list(store.entries("job")["z"]) == ["b", "ä", "a"]
    assert store.all_keys() == {("job", "a"), ("job", "z"), ("template", "a")}
    store.close()


def test_entries_are_replaced_and_removed_in_one_change(store: Store) -> None:
    store.change({("job", "a"): 1, ("job", "b"): 1})
    store.change({("job", "a"): 2}, [("job", "b"), ("job", "never was")])
    assert store.entries("job") == {"a": 2}


def test_a_key_that_is_stored_and_removed_at_once_is_stored(store: Store) -> None:
    store.change({("job", "a"): 1})
    store.change({("job", "a"): 1}, [("job", "a")])
    assert store.entries("job") == {"a": 1}


def test_notes_are_kept_and_forgotten(store: Store) -> None:
    store.note("web", Note(True, "signal: killed by SIGSEGV"))
    store.note("web", Note(False, "exit: exit code 1"))
    store.note("db", Note(True))
    store = reopened(store)
    assert store.notes() == {"web": Note(False, "exit: exit code 1"), "db": Note(True, "")}
    store.note_all({"web": None})
    assert set(store.notes()) == {"db"}
    store.close()


# What is written


def test_equal_values_are_not_written(store: Store) -> None:
    value = {"a": [1, "x"]}
    store.change({("job", "a"): value, ("job", "b"): 2})
    changes = store._db.total_changes
    wal = os.stat(store.path + "-wal")
    store.change({("job", "a"): {"a": [1, "x"]}, ("job", "b"): 2}, [("job", "never was")])
    after = os.stat(store.path + "-wal")
    assert store._db.total_changes == changes
    assert (after.st_size, after.st_mtime_ns) == (wal.st_size, wal.st_mtime_ns)


def test_one_changed_value_among_many_is_one_row(store: Store) -> None:
    many: dict[Key, object] = {("job", str(i)): i for i in range(500)}
    store.change(many)
    changes = store._db.total_changes
    store.change(many | {("job", "250"): "new"})
    assert store._db.total_changes == changes + 2  # itself, and the number of the change


# All or nothing


def test_a_change_with_a_value_that_cannot_be_stored_changes_nothing(store: Store) -> None:
    store.change({("job", "a"): 1})
    with pytest.raises(TypeError):
        store.change({("job", "b"): 2, ("job", "c"): object()}, [("job", "a")])
    assert store.entries("job") == {"a": 1}


def test_a_change_that_fills_the_disk_changes_nothing_and_the_store_goes_on(store: Store) -> None:
    store.change({("job", "a"): 1})
    pages = store._db.execute("PRAGMA page_count").fetchone()[0]
    store._db.execute(f"PRAGMA max_page_count={pages + 4}")
    big: dict[Key, object] = {("job", f"big{i}"): "x" * 4000 for i in range(50)}
    with pytest.raises(MaestroError, match=r"^cannot write .*state\.db: database or disk is full"):
        store.change({("job", "b"): 2, **big}, [("job", "a")])
    assert store.entries("job") == {"a": 1}
    store.change({("job", "c"): 3})
    store = reopened(store)
    assert store.entries("job") == {"a": 1, "c": 3}
    store.close()


def test_a_store_that_cannot_be_read_says_so(store: Store) -> None:
    store._db.execute("DROP TABLE notes")
    with pytest.raises(MaestroError, match=r"^cannot read .*state\.db: no such table"):
        store.notes()


WRITER = """
import sys
from maestro_py.state.store import Store
store = Store(sys.argv[1])
n = store.entries("meta").get("n", 0)
while True:
    n += 1
    put = {("meta", "n"): n, ("job", "a"): [n] * 300, ("job", "b"): [n] * 300}
    store.change(put, [("job", f"only {n - 1}")])
    store.change({("job", f"only {n}"): n})
    sys.stdout.write(f"{n}\\n")
    sys.stdout.flush()
"""


def test_reopening_after_kill_9_of_a_writer_sees_every_commit_whole(path: str) -> None:
    """Killed after a growing number of commits, at whatever point of the next one."""
    committed = 0
    for commits in (1, 2, 3, 7, 19, 40, 80):
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, path], stdout=subprocess.PIPE, text=True, cwd=ROOT
        )
        assert writer.stdout is not None
        for _ in range(commits):
            committed = int(writer.stdout.readline())
        writer.send_signal(signal.SIGKILL)
        rest = writer.stdout.read().splitlines()
        if rest and rest[-1].isdigit():
            committed = max(committed, *(int(line) for line in rest))
        writer.stdout.close()
        assert writer.wait() == -signal.SIGKILL
        store = Store(path)
        assert store.warning == ""
        n = store.entries("meta")["n"]
        assert n >= committed
        jobs = store.entries("job")
        assert jobs.pop("a") == jobs.pop("b") == [n] * 300
        assert jobs in ({}, {f"only {n}": n})
        store.close()


# Files that are not what they should be


def test_a_newer_schema_is_refused_and_left_as_it_is(store: Store) -> None:
    store.change({("job", "a"): 1})
    store.close()
    newer = len(SCHEMAS) + 1
    set_user_version(store.path, newer)
    before = Path(store.path).read_bytes()
    with pytest.raises(MaestroError) as caught:
        Store(store.path)
    assert str(caught.value).startswith(
        f"cannot open {store.path}: it was written by a newer maestro (schema {newer}, known: {newer - 1})"
    )
    assert Path(store.path).read_bytes() == before


def test_every_older_schema_is_brought_forward_with_all_it_holds(path: str) -> None:
    for version in range(1, len(SCHEMAS)):
        db = sqlite3.connect(path, isolation_level=None)
        db.create_function("crc32", -1, checksum)
        db.executescript("".join(SCHEMAS[:version]))
        db.execute(f"PRAGMA user_version={version}")
        rest = ", crc32('{\"x\":1}')" if version > 1 else ""
        db.execute(f"INSERT INTO entries VALUES ('job', 'a', '{{\"x\":1}}'{rest})")
        db.execute("INSERT INTO notes VALUES ('web', 1, 'exit: exit code 1')")
        db.close()
        store = Store(path)
        assert store.warning == ""
        assert store.entries("job") == {"a": {"x": 1}}
        assert store.notes() == {"web": Note(True, "exit: exit code 1")}
        store.change({("job", "b"): 2})
        store = reopened(store)
        assert (store.entries("job"), store.warning) == ({"a": {"x": 1}, "b": 2}, "")
        store.close()
        for each in Path(path).parent.iterdir():
            each.unlink()


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "other file": lambda content: b"this is no database\n" * 1000,
    "half": lambda content: content[: len(content) // 2 // 4096 * 4096],
    "page": lambda content: content[:8192] + b"\xff" * 4096 + content[12288:],
    "header": lambda content: b"\xff" * 100 + content[100:],
    "version": lambda content: content[:60] + b"\0\0\xff\xff" + content[64:],
    "write version": lambda content: content[:18] + b"\6" + content[19:],
    "one letter of a column": lambda content: content.replace(b"stopped INTEGER", b"stoppef INTEGER"),
    "one letter of a kind": lambda content: content.replace(b"jobjob 7", b"jorjob 7"),
    "one letter of a key": lambda content: content.replace(b"jobjob 7", b"jobjob W"),
    "one letter of a value": lambda content: content.replace(b"x" * 500, b"x" * 499 + b"y"),
    "nothing": lambda content: b"",
}


@pytest.mark.parametrize("copied", [True, False])
@pytest.mark.parametrize("damage", list(DAMAGES))
def test_a_damaged_file_is_moved_aside_and_the_copy_takes_its_place(
    store: Store, damage: str, copied: bool
) -> None:
    store.change({("job", f"job {i}"): "x" * 1000 for i in range(200)})
    store.note("web", Note(True))
    whole = store.entries("job")
    store.close()
    file = Path(store.path)
    if not copied:
        Path(store.copy).unlink()
        if damage == "nothing":
            pytest.skip("without a copy nothing tells an empty file from a new one")
    broken = DAMAGES[damage](file.read_bytes())
    file.write_bytes(broken)
    again = Store(store.path)
    aside = Path(f"{store.path}.damaged-1")
    assert again.warning.startswith(f"{store.path} is damaged (")
    assert f"it was moved to {aside}" in again.warning
    if damage != "nothing":  # SQLite makes an empty file a database before anybody can look
        assert aside.read_bytes() == broken
    if copied:
        assert again.entries("job") == whole
        assert again.notes() == {"web": Note(True)}
    else:
        assert again.entries("job") == {}
        assert "nothing of it could be saved" in again.warning
    again.change({("job", "a"): 1})
    again = reopened(again)
    assert (again.entries("job")["a"], again.warning) == (1, "")
    again.close()


def test_any_flipped_bit_of_the_header_is_harmless_or_the_copy_takes_its_place(store: Store) -> None:
    store.change({("job", f"job {i}"): "x" * 100 for i in range(20)})
    store.close()
    file, copy = Path(store.path), Path(store.copy).read_bytes()
    whole = file.read_bytes()
    known = len(SCHEMAS)
    newer = [60 * 8 + bit for bit in range(32) if known < known ^ 1 << (31 - bit) <= MOST_VERSIONS]
    for bit in range(100 * 8):
        if bit in newer:  # a newer version's, as far as anybody can tell
            continue
        broken = bytearray(whole)
        broken[bit // 8] ^= 128 >> bit % 8
        for each in file.parent.iterdir():
            each.unlink()
        file.write_bytes(broken)
        Path(store.copy).write_bytes(copy)
        again = Store(store.path)
        assert len(again.entries("job")) == 20, bit
        again.change({("job", "new"): 1})
        again = reopened(again)
        assert (len(again.entries("job")), again.warning) == (21, ""), bit
        again.close()


def test_commits_lost_with_a_damaged_log_come_back_from_the_copy(store: Store) -> None:
    """SQLite takes what follows a bad piece of the log for no log, and says nothing."""
    store.change({("job", "a"): 1})
    store._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    store.change({("job", "b"): 2})
    files = {tail: Path(store.path + tail).read_bytes() for tail in ("", "-wal")}
    copy = Path(store.copy).read_bytes()
    store.close()
    log = bytearray(files["-wal"])
    log[40] ^= 0xFF
    Path(store.path).write_bytes(files[""])
    Path(store.path + "-wal").write_bytes(log)
    Path(store.copy).write_bytes(copy)
    again = Store(store.path)
    assert again.entries("job") == {"a": 1, "b": 2}
    assert "it ends with change 1 of 2" in again.warning
    again.close()


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE entries SET key='b'",
        "UPDATE entries SET kind='jor'",
        "UPDATE notes SET cause=CAST(x'65ff' AS TEXT)",
        "UPDATE notes SET stopped='yes'",
        "UPDATE serial SET number='one'",
    ],
)
def test_a_row_that_nobody_wrote_is_a_damage(store: Store, damage: str) -> None:
    store.note("web", Note(True, "exit: exit code 1"))
    store.change({("job", "a"): 1})
    store._db.execute(damage)
    again = reopened(store)
    assert f"{store.path} is damaged (" in again.warning
    assert again.entries("job") == {"a": 1}
    assert again.notes() == {"web": Note(True, "exit: exit code 1")}
    again.close()


def test_a_copy_whose_number_is_not_the_one_written_is_no_copy(store: Store) -> None:
    store.change({("job", "a"): 1})
    store.close()
    copy = Path(store.copy)
    copy.write_bytes(copy.read_bytes().replace(b'"serial":1', b'"serial":9'))
    again = Store(store.path)
    assert (again.entries("job"), again.warning) == ({"a": 1}, "")
    again.close()


def test_a_run_database_with_text_that_is_none_is_begun_anew(tmp_path: Path) -> None:
    path = str(tmp_path / "run.db")
    store = RunStore(path)
    store.flush({"web": Record("boot", 1, 2, "{}", "{}")})
    store._db.execute("UPDATE records SET kept=CAST(x'7bff' AS TEXT)")
    store.close()
    store = RunStore(path)
    assert "is damaged" in store.warning
    assert store.records() == {}
    store.close()


@pytest.mark.parametrize("copy", [b"", b"{}", b"no json\n{}", b'{"crc":1}\n{"entries":[]}'])
def test_a_copy_that_is_not_whole_is_no_copy(store: Store, copy: bytes) -> None:
    store.change({("job", "a"): 1})
    store.close()
    Path(store.copy).write_bytes(copy)
    again = Store(store.path)
    assert (again.entries("job"), again.warning) == ({"a": 1}, "")
    again.close()


def test_a_copy_that_cannot_be_written_costs_nothing_but_itself(store: Store) -> None:
    os.mkdir(store.copy + ".new")
    store.change({("job", "a"): 1})
    assert store.copy_error == f"cannot write {store.copy}: Is a directory"
    os.rmdir(store.copy + ".new")
    store.change({("job", "a"): 2})
    assert store.copy_error == ""
    store.close()
    Path(store.path).write_bytes(b"gone" * 1000)
    again = Store(store.path)
    assert again.entries("job") == {"a": 2}
    again.close()


def test_files_damaged_one_after_the_other_are_all_kept(path: str) -> None:
    for content in (b"first" * 1000, b"second" * 1000):
        Path(path).write_bytes(content)
        Store(path).close()
    aside = sorted(p.read_bytes()[:6] for p in Path(path).parent.iterdir() if ".damaged-" in p.name)
    assert aside == [b"firstf", b"second"]
    assert damaged_files(os.path.dirname(path)) == [f"{path}.damaged-1", f"{path}.damaged-2"]


def test_a_place_that_cannot_be_opened_is_named(tmp_path: Path) -> None:
    for where in (tmp_path / "missing" / "state.db", tmp_path):
        with pytest.raises(MaestroError, match=f"^cannot open {where}: unable to open database file"):
            Store(str(where))


def test_an_empty_file_left_by_a_crash_becomes_a_store(path: str) -> None:
    Path(path).touch()
    store = Store(path)
    store.change({("job", "a"): 1})
    assert (store.warning, store.entries("job")) == ("", {"a": 1})
    store.close()


# The run database


def record(pid: int, kept: str = "{}", definition: str = "") -> Record:
    return Record("boot", pid, pid * 10, kept, definition)


def test_records_and_events_are_written_in_batches_and_bounded(tmp_path: Path) -> None:
    path = str(tmp_path / "run.db")
    store = RunStore(path)
    rows = [(i, 1.5, "process-running", "", "web", f"event {i}") for i in range(1, 31)]
    store.flush({"web": record(12, "1", "a"), "db": record(13, "2", "b")}, rows[:20], 10)
    store.flush({"db": None, "never was": None, "web": record(14, "3")}, rows[20:], 10)
    store.flush({}, [], 10)
    store.close()
    store = RunStore(path)
    assert store.records() == {"web": record(14, "3", "a")}
    assert store.events() == rows[20:]
    store.forget_records()
    assert store.records() == {}
    assert store.events() == rows[20:]
    store.close()


def test_a_run_database_of_before_loses_its_identities_and_keeps_its_events(tmp_path: Path) -> None:
    path = str(tmp_path / "run.db")
    db = sqlite3.connect(path, isolation_level=None)
    db.executescript(RUN_SCHEMAS[0])
    db.execute("PRAGMA user_version=1")
    db.execute("INSERT INTO identities VALUES ('web', 'boot', 12, 345, 'web')")
    db.execute("INSERT INTO events VALUES (7, 1.5, 't', '', 'web', 'm')")
    db.close()
    store = RunStore(path)
    assert (store.warning, store.records()) == ("", {})
    assert store.events() == [(7, 1.5, "t", "", "web", "m")]
    store.close()


RUN_WRITER = """
import sys
from maestro_py.state.running import Record, RunStore
store = RunStore(sys.argv[1])
n = 0
while True:
    n += 1
    store.flush({f"p{i}": Record("boot", n, n, "k" * 300, f"{n} " * 300) for i in range(n % 7, 20)})
    sys.stdout.write(f"{n}\\n")
    sys.stdout.flush()
"""


def test_a_run_database_survives_kill_9_of_its_writer_at_any_moment(tmp_path: Path) -> None:
    path = str(tmp_path / "run.db")
    for batches in (1, 5, 20, 50, 100):
        command = [sys.executable, "-c", RUN_WRITER, path]
        writer = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)
        assert writer.stdout is not None
        for _ in range(batches):
            done = int(writer.stdout.readline())
        writer.kill()
        writer.stdout.close()
        writer.wait()
        store = RunStore(path)
        assert store.warning == ""
        records = store.records()
        assert records["p19"].pid >= done
        assert all(found.definition == f"{found.pid} " * 300 for found in records.values())
        store.close()


def history(*ids: int, keep: int = 1000) -> History:
    return History(keep, [Happened(id, 0.0, "t", "", "p", f"event {id}") for id in ids])


def test_a_history_numbers_on_from_what_was_recorded() -> None:
    assert History().last_id == 0
    assert History().add(1.0, "t", "first").id == 1
    told = history(7, 8)
    assert told.add(2.0, "t", "next", job="j", process="p").to_json() == {
        "id": 9,
        "time": 2.0,
        "type": "t",
        "job": "j",
        "process": "p",
        "message": "next",
    }
    assert told.last_id == 9


def test_a_follower_gets_what_came_after_its_id_in_order() -> None:
    told = history(*range(1, 11))
    assert [e.id for e in told.since(7)] == [8, 9, 10]
    assert [e.id for e in told.since(0, 2)] == [9, 10]
    assert [e.id for e in told.since(0)] == list(range(1, 11))
    assert told.since(0, 0) == told.since(10) == told.since(99) == []


def test_a_history_is_bounded_and_an_old_follower_gets_what_is_left() -> None:
    told = history(keep=3)
    for i in range(10):
        told.add(float(i), "t", "")
    assert [e.id for e in told.since(0)] == [8, 9, 10]


def test_a_gap_in_what_was_recorded_costs_a_follower_nothing() -> None:
    told = history(1, 2, 10, 11)
    assert [e.id for e in told.since(2)] == [10, 11]
    assert [e.id for e in told.since(10)] == [11]
