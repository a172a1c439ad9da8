# SPDX-License-Identifier: Apache-2.0
"""A value class is what `@dataclass(frozen=True)` would have made, but for the look at assignments."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from typing import Any

import pytest

from maestro_py.valueclass import valueclass


@valueclass(frozen=True)
class Light:
    name: str
    secret: str = field(default="", repr=False)
    more: tuple[int, ...] = ()


@dataclass(frozen=True)
class Full:
    name: str
    secret: str = field(default="", repr=False)
    more: tuple[int, ...] = ()


@valueclass(frozen=True)
class Wider(Light):
    width: int = 1


VALUES: list[tuple[Any, ...]] = [("a",), ("a", "hush"), ("a", "", (1,)), ("b",)]


@pytest.mark.parametrize("one", VALUES)
@pytest.mark.parametrize("other", VALUES)
def test_equality_and_hash_are_those_of_a_dataclass(one: tuple[Any, ...], other: tuple[Any, ...]) -> None:
    assert (Light(*one) == Light(*other)) == (Full(*one) == Full(*other))
    assert (hash(Light(*one)) == hash(Light(*other))) == (one == other)
    assert len({Light(*one), Light(*other)}) == len({Full(*one), Full(*other)})


def test_it_is_shown_as_a_dataclass_is_without_what_shall_not_be_seen() -> None:
    assert repr(Light("a", "hush", (1,))) == repr(Full("a", "hush", (1,))).replace("Full", "Light")
    assert "hush" not in repr(Wider("a", "hush", width=3))


def test_what_dataclasses_offers_works_on_it() -> None:
    assert [each.name for each in fields(Wider)] == ["name", "secret", "more", "width"]
    assert replace(Wider("a"), width=2) == Wider("a", width=2)
    assert Wider("a") != Light("a")
    assert Light("a") != ("a", "", ())


def test_one_with_a_list_has_no_hash() -> None:
    with pytest.raises(TypeError, match="unhashable"):
        hash(Light("a", more=[1]))  # type: ignore[arg-type]
