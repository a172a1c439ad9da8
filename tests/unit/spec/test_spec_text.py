# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from maestro_py.errors import InvalidDocument, Problem
from maestro_py.spec.text import load, load_json
from maestro_py.spec.yamltext import load_yaml

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def refused(loader, text: bytes | str) -> Problem:
    with pytest.raises(InvalidDocument) as caught:
        loader(text, "doc")
    assert caught.value.source == "doc"
    return caught.value.problems[0]


@given(JSON)
def test_json_comes_back(data: object) -> None:
    assert load_json(json.dumps(data), "doc") == data
    assert load_json(json.dumps(data).encode(), "doc") == data


def test_a_json_mistake_has_line_and_column() -> None:
    problem = refused(load_json, '{\n "a": 1,\n "b" 2\n}')
    assert problem.line == 3
    assert "column 6" in problem.message


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ('{"a": 1, "b": {"x": 1, "x": 2}}', 'the key "x" is given twice'),
        ('{"a": NaN}', "NaN"),
        ('{"a": -Infinity}', "-Infinity"),
        ('{"a": 1e400}', "the number 1e400 is too large"),
        ('{"a": -1' + "0" * 400 + ".5}", "the number -1000000000000000000… is too large"),
        ("[" * 100_000, "nested too deeply"),
        ('{"a":' * 100_000, "nested too deeply"),
        ("1" * 5000, "too many digits"),
        (b'{"a": "\xff"}', "not UTF-8 text: byte 0xff"),
        ("", "not valid JSON"),
    ],
)
def test_what_json_may_not_have_is_named(text: bytes | str, why: str) -> None:
    assert why in refused(load_json, text).message


def test_bytes_that_are_not_utf8_have_their_line() -> None:
    assert refused(load_json, b'{\n\n"\xe9": 1}').line == 3


def test_a_byte_order_mark_is_passed_over() -> None:
    assert load_json(b'\xef\xbb\xbf{"a": 1}', "doc") == {"a": 1}


@given(JSON.filter(lambda data: isinstance(data, (dict, list))))
def test_a_document_that_looks_like_json_is_read_as_json(data: object) -> None:
    assert load(json.dumps(data), "doc") == data


def test_flow_style_yaml_is_read_though_it_begins_like_json() -> None:
    assert load("{a: 1, b: [x, y]}", "doc") == {"a": 1, "b": ["x", "y"]}


def test_what_is_neither_gets_the_reason_of_json() -> None:
    problem = refused(load, '{\n "a" 1\n}}')
    assert problem.line == 2
    assert "not valid JSON" in problem.message


def test_yaml_is_read_as_pyyaml_does_but_dates_stay_text() -> None:
    text = "a: 022\nb: 2021-01-01\nc: yes\n3: [x]\nd: =\nbig: 1_000\n"
    assert load_yaml(text, "doc") == {
        "a": 18,
        "b": "2021-01-01",
        "c": True,
        "3": ["x"],
        "d": "=",
        "big": 1000,
    }


def test_an_empty_yaml_document_is_none() -> None:
    assert load_yaml("# nothing\n", "doc") is None


def test_aliases_and_merges_are_written_out() -> None:
    text = "base: &b {x: 1}\nmore:\n  <<: *b\n  y: 2\nagain: *b\n"
    assert load_yaml(text, "doc") == {"base": {"x": 1}, "more": {"x": 1, "y": 2}, "again": {"x": 1}}


BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12)
)
CHAIN = "a0: &a0 [x]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}]\n" for i in range(1, 3000))


@pytest.mark.parametrize(
    ("text", "why", "line"),
    [
        ("a: 1\nb: [1\nc: 2\n", "not valid YAML", 3),
        ("a: 1\nb: 2\na: 3\n", 'the key "a" is given twice', 3),
        ("a: 1\n? [x]\n: 2\n", "a key must be text", 2),
        ("a: &x [*x]\n", "not valid YAML", 1),
        (BOMB, "aliases write out to too much", 0),
        (CHAIN, "aliases write out to too much", 0),
        ("[" * 50_000, "nested too deeply", 1),
        ("- " * 50_000 + "x", "nested too deeply", 1),
        ("a: .nan\n", "a number without end", 0),
        ("a: !!binary aGk=\n", "a value of type bytes", 0),
        ("a: !!python/object:os.system x\n", "could not determine a constructor", 1),
        ("a: 1\nb: " + "1" * 5000 + "\n", "not valid YAML", 0),
        ("a: 1\nb: \x07\n", "not valid YAML", 2),
        ("a: 1\n---\nb: 2\n", "not valid YAML", 2),
        (b"a: \xff\n", "not UTF-8", 1),
    ],
)
def test_what_yaml_may_not_have_is_named(text: bytes | str, why: str, line: int) -> None:
    problem = refused(load_yaml, text)
    assert why in problem.message
    if line:
        assert problem.line == line


@pytest.mark.parametrize("text", ["a:\n\t- b\n", "a:\n  b: 1\n \tc: 2\n"])
def test_a_tab_for_an_indent_is_named(text: str) -> None:
    assert refused(load_yaml, text).hint == "indent with spaces, this line begins with a tab"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("!!timestamp x", "a value is not what its tag says"),
        ("!!bool x", "a value is not what its tag says"),
        ("a: 0x" + "9" * 5000, "a number of so many digits is nothing a document may have"),
        ("!!float " + "x" * 5000, "could not convert string to float"),
        ("!!binary \u2028\ufeffx", "not valid YAML"),
        ('"\\ufeffa": .inf', "a number without end is nothing a document may have"),
    ],
)
def test_odd_tags_and_numbers_are_refused_in_few_words_a_terminal_can_show(text: str, why: str) -> None:
    problem = refused(load_yaml, text)
    assert why in problem.message
    assert f"{problem.path}{problem.message}".isprintable()
    assert len(problem.message) < 600


def test_an_unquoted_variable_gets_a_hint() -> None:
    problem = refused(load_yaml, "a: 1\nb: {{NAME}}\n")
    assert problem.line == 2
    assert "quotes" in problem.hint


@given(st.text(max_size=200) | st.binary(max_size=200))
def test_any_text_is_data_or_a_problem(text: str | bytes) -> None:
    try:
        json.dumps(load(text, "doc"), allow_nan=False)
    except InvalidDocument as error:
        str(error).encode()


def run_helper(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "maestro_py.spec.yamltext", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=30)


def test_the_helper_program_prints_json(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text("a: é\nb: [1, 2]\n")
    done = run_helper(str(file))
    assert (done.returncode, json.loads(done.stdout)) == (0, {"document": {"a": "é", "b": [1, 2]}})


@pytest.mark.parametrize(("content", "why"), [("a: [1\n", "not valid YAML"), (None, "No such file")])
def test_the_helper_program_prints_problems(tmp_path: Path, content: str | None, why: str) -> None:
    file = tmp_path / "a.yaml"
    if content is not None:
        file.write_text(content)
    done = run_helper(str(file))
    assert done.returncode == 1
    assert why in json.loads(done.stdout)["problems"][0]["message"]
    assert not done.stderr
