# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import signal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from maestro_py.exits import Exit
from maestro_py.units import (
    format_duration,
    format_size,
    parse_duration,
    parse_signal,
    parse_size,
    signal_name,
)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        (0, 0),
        (10485100, 10485100),
        ("0", 0),
        ("512", 512),
        ("512B", 512),
        ("16M", 16 << 20),
        ("16m", 16 << 20),
        ("16 MiB", 16 << 20),
        ("16MB", 16 << 20),
        ("1.5G", 3 << 29),
        (" 2T ", 2 << 40),
        ("0.5k", 512),
        ("9007199254740993", 9007199254740993),  # no detour through floating point
        ((1 << 63) - 1, (1 << 63) - 1),
    ],
)
def test_sizes_are_read(text: object, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "text",
    [
        "",
        "M",
        "-1",
        -1,
        "16X",
        "1.M",
        ".5M",
        "1e6",
        "16 M B",
        1.5,
        True,
        None,
        [],
        "9" * 400,
        1 << 63,
        "8388608T",
        "٣",
    ],
)
def test_what_is_no_size_is_refused_with_what_was_expected(text: object) -> None:
    with pytest.raises(ValueError, match="a size in bytes or with a unit"):
        parse_size(text)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        (0, 0),
        (2.5, 2.5),
        ("5", 5),
        ("0.25", 0.25),
        ("5s", 5),
        ("500ms", 0.5),
        ("250us", 0.00025),
        ("1m30s", 90),
        ("1m 30s", 90),
        ("2h", 7200),
        ("1d", 86400),
        ("1w", 604800),
        ("1.5min", 90),
    ],
)
def test_durations_are_read(text: object, seconds: float) -> None:
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "s",
        "-5",
        -5,
        "5x",
        "5s,",
        "1h then",
        "nan",
        "inf",
        float("nan"),
        float("inf"),
        True,
        None,
        1e12,
        "9" * 400 + "s",
        "9" * 400,
        "99999999999w",
        10**400,
    ],
)
def test_what_is_no_duration_is_refused_with_what_was_expected(text: object) -> None:
    with pytest.raises(ValueError, match="a duration in seconds or with units"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("SIGTERM", 15),
        ("term", 15),
        (" sigkill ", 9),
        (15, 15),
        ("15", 15),
        (int(signal.SIGRTMIN) + 3, int(signal.SIGRTMIN) + 3),
    ],
)
def test_signals_are_read(text: object, number: int) -> None:
    assert parse_signal(text) == number


@pytest.mark.parametrize(
    "text", ["", "SIGNOTHING", 0, 65, -1, True, None, 15.0, "²", "SIG_DFL", "SIGSIGTERM"]
)
def test_what_is_no_signal_is_refused_with_what_was_expected(text: object) -> None:
    with pytest.raises(ValueError, match="a signal, as SIGTERM or 15"):
        parse_signal(text)


@given(st.one_of(st.text(), st.integers(), st.floats(), st.booleans(), st.none()))
def test_readers_return_what_they_promise_or_say_what_they_expected(value: object) -> None:
    for reader in (parse_size, parse_duration, parse_signal):
        try:
            number = reader(value)
        except ValueError:
            continue
        assert 0 <= number < float(1 << 63)


def test_signals_have_their_names() -> None:
    assert signal_name(15) == "SIGTERM"
    assert signal_name(int(signal.SIGRTMIN) + 6) == f"signal {int(signal.SIGRTMIN) + 6}"


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0B"),
        (1023, "1023B"),
        (1024, "1.0K"),
        (10485760, "10.0M"),
        ((1 << 20) - 1, "1.0M"),
        ((1 << 30) - 1, "1.0G"),
        (3 << 39, "1.5T"),
        (5000 << 40, "5000.0T"),
    ],
)
def test_sizes_for_people(size: float, text: str) -> None:
    assert format_size(size) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (-3, "0s"),
        (0.0001, "0s"),
        (0.25, "250ms"),
        (0.9996, "1s"),
        (1.5, "1.5s"),
        (5, "5s"),
        (5.04, "5s"),
        (9.96, "10s"),
        (59.4, "59s"),
        (59.6, "1m"),
        (90, "1m30s"),
        (3600, "1h"),
        (3605, "1h"),
        (7260, "2h1m"),
        (187200, "2d4h"),
    ],
)
def test_durations_for_people(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


@given(st.floats(0, 1e11))
def test_a_duration_for_people_can_be_read_again(seconds: float) -> None:
    again = parse_duration(format_duration(seconds))
    assert again == pytest.approx(seconds, rel=0.06, abs=0.0006)


@pytest.mark.parametrize(
    ("status", "exit", "text"),
    [
        (0x0000, Exit(code=0), "exit code 0"),
        (0x0300, Exit(code=3), "exit code 3"),
        (0x0009, Exit(signal=9), "killed by SIGKILL"),
        (0x008B, Exit(signal=11, core=True), "killed by SIGSEGV (core dumped)"),
    ],
)
def test_a_wait_status_says_how_a_process_ended(status: int, exit: Exit, text: str) -> None:
    assert Exit.from_wait_status(status) == exit
    assert exit.describe() == text


def test_an_end_that_nobody_saw_is_said_so() -> None:
    assert Exit().describe() == "ended, exit code not known"
