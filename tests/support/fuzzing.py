# SPDX-License-Identifier: Apache-2.0
"""What the fuzzers share: how long they work, where their chance comes from, bytes that went wrong.

MAESTRO_FUZZ_SECONDS says how long each works (default 3), MAESTRO_FUZZ_SEED makes a run again.
"""

from __future__ import annotations

import os
import random
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

SECONDS = float(os.environ.get("MAESTRO_FUZZ_SECONDS", "3"))
SEED = int(os.environ.get("MAESTRO_FUZZ_SEED", "0")) or random.SystemRandom().randrange(1 << 32)

TIMEOUT = max(120, int(SECONDS * 2))
"""Seconds after which a test that fuzzes hangs."""


def rounds(seconds: float = SECONDS, least: int = 1) -> Iterator[int]:
    """Count from 0 until the time is over, and at least so many times."""
    until, count = time.monotonic() + seconds, 0
    while count < least or time.monotonic() < until:
        yield count
        count += 1


@contextmanager
def memory() -> Iterator[Path]:
    """Lend a directory, in memory where there is such a thing: nothing in it has to survive."""
    where = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="maestro-fuzz-", dir=where) as name:
        yield Path(name)


@contextmanager
def kept(what: str, files: Mapping[str, bytes]) -> Iterator[None]:
    """Keep the input that breaks a rule, and say where."""
    try:
        yield
    except BaseException as error:
        place = Path(tempfile.mkdtemp(prefix="maestro-fuzz-kept-"))
        for name, data in files.items():
            (place / name).write_bytes(data)
        raise AssertionError(f"{what} of seed {SEED}, kept in {place}") from error


def spoiled(dice: random.Random, data: bytes, lengths: tuple[int, ...] = (1, 4, 100, 512)) -> bytes:
    """Return data with a few bytes changed, moved, doubled or gone."""
    out = bytearray(data)
    for _ in range(dice.choice((1, 1, 2, 5))):
        if not out:
            break
        at = dice.randrange(len(out))
        length = dice.choice(lengths)
        what = dice.randrange(6)
        if what == 0:
            out[at] ^= 1 << dice.randrange(8)
        elif what == 1:
            out[at : at + length] = dice.randbytes(length)
        elif what == 2:
            del out[at : at + length]
        elif what == 3:
            out[at:at] = out[at : at + length]
        elif what == 4:
            out[at : at + 4] = dice.choice((b"\xff" * 4, bytes(4), b"7777", b"\x80\0\0\0"))
        else:
            del out[at:]
    return bytes(out)
