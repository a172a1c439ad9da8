# SPDX-License-Identifier: Apache-2.0
"""Moments as people write them, and what they become in a request."""

from __future__ import annotations

import time
from typing import Any

import pytest

from maestro_py.cli.moments import parse_moment

NOW = 1_700_000_000.0  # 2023-11-14 22:13:20 UTC


@pytest.fixture(autouse=True)
def utc(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("TZ", "UTC-2")  # POSIX has it the other way round: two hours east
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize(
    ("text", "ago"),
    [
        ("10m", 600),
        ("1h30m ago", 5400),
        ("90", 90),
        ("now", 0),
        ("@1699999990", 10),
        ("2023-11-15 00:13:00", 20),
        ("2023-11-15T00:13", 20),
        ("2023-11-14T22:13:00Z", 20),
        ("2023-11-15", 13 * 60 + 20),
        ("00:13", 20),
        ("00:13:10", 10),
        ("22:13Z", 20),
        ("00:14", 86400 - 40),  # that of yesterday: it is not yet 00:14
        ("22:14Z", 86400 - 40),
    ],
)
def test_moments(text: str, ago: float) -> None:
    assert parse_moment(text, NOW) == NOW - ago


@pytest.mark.parametrize("text", ["yesterday", "", "25:00", "2023-13-01", "@", "10 parsecs", "@nan-"])
def test_what_is_no_moment_is_refused_with_examples(text: str, run: Any) -> None:
    with pytest.raises(ValueError, match="10m"):
        parse_moment(text, NOW)
    said = run("logs", "web", "--since", text)
    assert said.status == 2
    assert f"cannot take --since {text}: expected 10m (ago), 14:30" in said.err


def test_a_span_of_time_is_sent_as_unix_seconds(run: Any, daemon: Any, make: Any) -> None:
    daemon.answers["GET", "/v1/jobs/web/logs"] = make.lines([b"one\n"])
    run("logs", "web", "--since", "@100", "--until", "@200.5")
    assert daemon.requests[-1].query == {"since": ["100.0"], "until": ["200.5"]}
    run("logs", "web", "-n", "all")
    assert daemon.requests[-1].query == {"since": ["1.0"]}
    assert run("logs", "web", "-n", "some").err.startswith(
        "maestro: cannot take -n some: expected a whole number"
    )
    assert run("logs", "web", "--previous", "-f").status == 2
