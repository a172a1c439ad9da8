# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from maestro_py.exits import Exit
from maestro_py.process.okstring import Matcher

OK = b"!!OK!!"


def through(string: bytes, pieces: list[bytes]) -> tuple[bytes, bool]:
    """Everything that comes out for a stream that comes in pieces, and whether the string was found."""
    matcher = Matcher(string)
    out, found = b"", False
    for piece in pieces:
        if found:
            out += piece
            continue
        passed, found, rest = matcher.feed(piece)
        out += passed + rest
    return (out if found else out + matcher.flush()), found


pieces = st.lists(st.lists(st.sampled_from([b"!", b"O", b"K", b"x", OK, b"!!OK!"]), max_size=6).map(b"".join))


@given(pieces, st.sampled_from([OK, b"!", b"!!", b"!O!O!", b"OK"]))
def test_the_stream_is_unchanged_but_for_the_first_ok_string(stream: list[bytes], string: bytes) -> None:
    whole = b"".join(stream)
    assert through(string, stream) == (whole.replace(string, b"", 1), string in whole)


@pytest.mark.parametrize("size", range(1, 13))
def test_the_string_is_found_however_it_is_split(size: int) -> None:
    data = b"log\n!!!OK!!\nmore"
    split = [data[at : at + size] for at in range(0, len(data), size)]
    assert through(OK, split) == (b"log\n!\nmore", True)


@given(st.binary(max_size=50))
def test_no_more_is_held_back_than_could_begin_the_string(data: bytes) -> None:
    passed, found, _ = Matcher(OK).feed(data)
    assert found or len(data) - len(passed) < len(OK)
    assert found or OK.startswith(data[len(passed) :])


def test_a_stream_without_the_string_passes_at_once() -> None:
    matcher = Matcher(OK)
    assert matcher.feed(b"line\n") == (b"line\n", False, b"")
    assert matcher.flush() == b""


def test_an_empty_string_is_refused() -> None:
    with pytest.raises(ValueError, match="empty"):
        Matcher(b"")


@pytest.mark.parametrize(
    ("status", "text"),
    [
        (3 << 8, "exit code 3"),
        (0, "exit code 0"),
        (15, "killed by SIGTERM"),
        (11 | 0x80, "killed by SIGSEGV (core dumped)"),
        (40, "killed by signal 40"),
    ],
)
def test_an_exit_describes_itself(status: int, text: str) -> None:
    assert Exit.from_wait_status(status).describe() == text


def test_an_unknown_exit_says_so() -> None:
    assert Exit().describe() == "ended, exit code not known"
