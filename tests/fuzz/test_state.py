# SPDX-License-Identifier: Apache-2.0
"""Databases and copies with bytes flipped, cut, gone or of another day: opened, and nothing lost in silence.

The state directory is seen as a crash leaves it after any change: database, write-ahead log, copy.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import pytest
from support.fuzzing import SEED, TIMEOUT, kept, memory, rounds, spoiled

from maestro_py.errors import MaestroError
from maestro_py.state.running import Record, RunStore
from maestro_py.state.store import Key, Note, Store

Opened = TypeVar("Opened")
Files = dict[str, bytes]
State = dict[Key, Any]

NAMES = ("state.db", "state.db-wal", "state.db-shm", "state.db-copy")
COPY = "state.db-copy"


def files(directory: Path) -> Files:
    """Return what is in a directory; the shared memory of the log is what a power cut takes."""
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def put(directory: Path, found: Files) -> None:
    """Make a directory hold these files and no other."""
    for path in directory.iterdir():
        path.unlink()
    for name, data in found.items():
        (directory / name).write_bytes(data)


def state(store: Store) -> State:
    """Return all entries."""
    return {key: store.entries(key[0])[key[1]] for key in store.all_keys()}


def damaged(dice: random.Random, data: bytes) -> bytes:
    """Return a file as a bad disk, a cut write or a careless hand leaves it."""
    what = dice.randrange(6)
    if what == 0:
        return data[: dice.randrange(len(data) + 1)]
    if what == 1:
        return b""
    if what == 2 and data:  # one bit, anywhere
        out, at = bytearray(data), dice.randrange(len(data))
        out[at] ^= 1 << dice.randrange(8)
        return bytes(out)
    if what == 3:  # a sector or a page that was never written
        size = dice.choice((512, 4096))
        at = dice.randrange(len(data) // size + 1) * size
        return data[:at] + bytes(len(data[at : at + size])) + data[at + size :]
    return spoiled(dice, data, (1, 4, 512, 4096))


@pytest.fixture
def place() -> Iterator[Path]:
    with memory() as directory:
        yield directory


@pytest.fixture(scope="module")
def days() -> list[tuple[Files, State]]:
    """Return the directory after each change, and what is wanted then."""
    with memory() as directory:
        return lived(directory)


def lived(directory: Path) -> list[tuple[Files, State]]:
    """Keep a store for a while, and take a picture after each change."""
    dice = random.Random(SEED)
    store = Store(str(directory / "state.db"))
    found = []
    for day in range(40):
        name = f"job {dice.randrange(8)}"
        if day and dice.random() < 0.2:
            store.change({}, [("job", name)])
        else:
            size = dice.choice((0, 10, 300, 6000))
            store.change({("job", name): {"day": day, "ä": "x" * size}, ("template", "t"): day})
        if dice.random() < 0.5:
            store.note(name, Note(True, f"exit: exit code {day}"), durable=dice.random() < 0.5)
        if dice.random() < 0.2:  # the log is folded into the database now and then
            store._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        found.append((files(directory), state(store)))
    store.close()
    return found


@pytest.mark.timeout(TIMEOUT)
def test_no_damage_to_database_or_log_loses_what_the_copy_has(
    days: list[tuple[Files, State]], place: Path
) -> None:
    dice = random.Random(SEED)
    restored = 0
    for count in rounds(least=50):
        day = dice.randrange(len(days))
        found, wanted = days[day]
        broken = dict(found)
        for name in dice.sample(NAMES[:3], dice.choice((1, 1, 2, 3))):
            if dice.random() < 0.1:
                broken.pop(name)
            elif dice.random() < 0.1:
                broken[name] = dice.choice(days[: day + 1])[0][name]  # as a write that never came
            else:
                broken[name] = damaged(dice, broken[name])
        changed = [name for name in NAMES if broken.get(name) != found[name]]
        with kept(f"state {count}, {changed}", broken):
            put(place, broken)
            store = Store(str(place / "state.db"))
            try:
                assert state(store) == wanted, store.warning
                store.notes()
                store.change({("job", "next"): count})
                restored += bool(store.warning)
            finally:
                store.close()
            again = Store(str(place / "state.db"))
            assert again.warning == ""
            assert state(again) == {**wanted, ("job", "next"): count}
            again.notes()
            again.close()
    print(f"\n| state database damaged, copy whole | {count + 1} | 0 lost | {restored} by the copy |")
    assert restored


@pytest.mark.timeout(TIMEOUT)
def test_no_damage_to_the_copy_touches_what_the_database_has(
    days: list[tuple[Files, State]], place: Path
) -> None:
    dice = random.Random(SEED)
    for count in rounds(least=50):
        found, wanted = dice.choice(days)
        broken = {**found, COPY: damaged(dice, found[COPY])}
        with kept(f"copy {count}", broken):
            put(place, broken)
            store = Store(str(place / "state.db"))
            assert (state(store), store.warning) == (wanted, "")
            store.close()
    print(f"\n| copy of the state damaged, database whole | {count + 1} | 0 lost |")


@pytest.mark.timeout(TIMEOUT)
def test_whatever_the_state_directory_holds_there_is_a_store_afterwards(
    days: list[tuple[Files, State]], place: Path
) -> None:
    """Everything may be damaged at once: what comes back was there one day, or is said to be gone."""
    dice = random.Random(SEED)
    for count in rounds(least=50):
        broken: Files = {}
        for name in NAMES:
            if dice.random() < 0.9:
                broken[name] = damaged(dice, dice.choice(days)[0][name])
        with kept(f"state {count}", broken):
            put(place, broken)
            usable(partial(Store, str(place / "state.db")), broken)
    print(f"\n| everything of the state damaged | {count + 1} | always opened |")


def newer(opened: Callable[[], Opened]) -> Opened | None:
    """Return an opened database, None when it seems to be of a newer version, which is left alone."""
    try:
        return opened()
    except MaestroError as error:
        why = error.message
    assert "written by a newer maestro" in why
    return None


def usable(opened: Callable[[], Store], broken: Files) -> None:
    """Open a store, read all of it, change it and find the change again."""
    store = newer(opened)
    if store is None:
        return
    before = state(store)
    store.notes()
    store.change({("job", "next"): 1})
    store.close()
    store = opened()
    assert state(store) == {**before, ("job", "next"): 1}
    store.close()


@pytest.mark.timeout(TIMEOUT)
def test_a_damaged_run_database_is_begun_anew_or_read_to_the_end(place: Path) -> None:
    dice = random.Random(SEED)
    made = RunStore(str(place / "run.db"))
    for i in range(30):
        event = (i + 1, 1.5 * i, "process-running", "", f"p{i % 5}", f"event {i}")
        made.flush({f"p{i % 5}": Record("boot", i + 1, i, "{}" * i, "d" * 900)}, [event], 20)
    whole = files(place)
    made.close()
    anew = 0
    for count in rounds(least=50):
        broken = dict(whole)
        for name in dice.sample(sorted(whole), dice.choice((1, 1, 2))):
            broken[name] = damaged(dice, broken[name])
        with kept(f"run database {count}", broken):
            put(place, broken)
            store = newer(partial(RunStore, str(place / "run.db")))
            if store is None:
                continue
            for record in store.records().values():
                assert [type(part) for part in vars(record).values()] == [str, int, int, str, str]
            for row in store.events():
                assert [type(part) for part in row] == [int, float, str, str, str, str]
            store.flush({"next": Record("boot", 1, 1, "{}", "d")}, [(1 << 40, 1.0, "t", "", "", "m")], 20)
            assert store.records()["next"].definition == "d"
            anew += bool(store.warning)
            store.close()
    print(f"\n| run database damaged | {count + 1} | {anew} begun anew |")
