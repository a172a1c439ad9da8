# SPDX-License-Identifier: Apache-2.0
"""Did-you-mean: near words are found, and a document full of mistakes does not make it expensive."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from maestro_py.errors import InvalidDocument, Problem
from maestro_py.spec.documents import read_running_config
from maestro_py.spec.nearest import EFFORT, nearest
from maestro_py.spec.reader import MOST_PROBLEMS
from maestro_py.spec.references import check_references

KNOWN = ["jobs", "templates", "mem_limit", "mem_high", "depends_on"]


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("job", "jobs"),
        ("JBOS", "jobs"),
        ("mem_limti", "mem_limit"),
        ("mem_hihg", "mem_high"),
        ("dependson", "depends_on"),
        ("depends", "depends_on"),
        ("mem", ""),
        ("nothing", ""),
        ("", ""),
    ],
)
def test_the_nearest_word_is_found_or_none(word: str, meant: str) -> None:
    assert nearest(word, KNOWN)[0] == meant


@given(st.text(min_size=1, max_size=30), st.lists(st.text(max_size=30)))
def test_a_known_word_is_nearest_to_itself(word: str, others: list[str]) -> None:
    assert nearest(word, [*others, word])[0].lower() == word.lower()


def test_no_more_words_are_looked_at_than_the_effort_allows() -> None:
    looked = 0

    def names() -> Iterator[str]:
        nonlocal looked
        for number in range(1_000_000):
            looked += 1
            yield f"service-number-{number:06}"

    assert nearest("servise-numbr-000000", names(), 10_000)[1] <= 0
    assert looked < 1000


def test_ten_thousand_mistyped_names_share_one_effort() -> None:
    document = {
        "jobs": [
            {"job": f"service-number-{n}", "exec_cmd": "/x", "depends_on": [f"servise-numbr-{n}"]}
            for n in range(2000)
        ]
    }
    config, _ = read_running_config(document)
    problems, _ = check_references(config.jobs, (), (), ())
    suggested = [problem for problem in problems if problem.hint]
    assert 0 < len(suggested) < EFFORT / 2000  # each looks at all names, until the effort is used up
    assert suggested[0].hint == "did you mean `service-number-0`?"


def test_that_there_are_more_mistakes_is_said_once() -> None:
    job = {"job": "a", "exec_cmd": "/x", "depends_on": ["b"], **{f"unknown{n}": 1 for n in range(5000)}}
    with pytest.raises(InvalidDocument) as refused:
        read_running_config({"jobs": [job]}, references=lambda _: [Problem("", "more")])
    assert len(refused.value.problems) == MOST_PROBLEMS + 1
    assert str(refused.value.problems[-1]) == "there are more mistakes; they are not listed"
