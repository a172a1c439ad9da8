# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from maestro_py.spec.graph import find_cycle, start_order

GRAPHS = st.dictionaries(st.sampled_from("abcdefgh"), st.lists(st.sampled_from("abcdefghx"), max_size=4))


def test_dependencies_come_first_and_the_rest_keeps_its_order() -> None:
    assert start_order({"c": ["b"], "b": [], "a": ["c"], "d": []}) == ["b", "c", "a", "d"]


def test_an_unknown_dependency_is_passed_over() -> None:
    assert start_order({"a": ["nowhere"]}) == ["a"]
    assert find_cycle({"a": ["nowhere"]}) is None


def test_a_circle_is_spelled_from_its_start_to_its_start() -> None:
    assert find_cycle({"x": ["a"], "a": ["b"], "b": ["a"]}) == ["a", "b", "a"]
    assert find_cycle({"a": ["a"]}) == ["a", "a"]


def test_a_diamond_is_no_circle() -> None:
    assert find_cycle({"a": ["b", "c"], "b": ["d"], "c": ["d"], "d": []}) is None


def test_a_chain_of_ten_thousand_works() -> None:
    names = [f"j{i}" for i in range(10_000)]
    deps = {name: [after] for name, after in zip(names, [*names[1:], "end"], strict=True)}
    assert start_order(deps) == names[::-1]
    assert find_cycle(deps) is None
    deps[names[-1]] = [names[0]]
    assert find_cycle(deps) == [*names, names[0]]


@given(GRAPHS)
def test_every_name_is_ordered_once_and_after_what_it_needs(deps: dict[str, list[str]]) -> None:
    order = start_order(deps)
    assert sorted(order) == sorted(deps)
    cycle = find_cycle(deps)
    if cycle is None:
        place = {name: i for i, name in enumerate(order)}
        assert all(place[d] < place[n] for n, needed in deps.items() for d in needed if d in deps)
    else:
        assert cycle[0] == cycle[-1]
        assert all(after in deps[name] for name, after in pairwise(cycle))
