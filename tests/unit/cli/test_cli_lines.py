# SPDX-License-Identifier: Apache-2.0
"""The line of a mistake, from the path the reader gives it."""

from __future__ import annotations

import pytest
import yaml

from maestro_py.cli import lines
from maestro_py.cli.lines import located
from maestro_py.errors import Problem

JSON = b"""{
  "jobs": [
    {"job": "web"},
    {
      "job": "db",
\t\t"cgroup": {
        "mem_limit": "16Q"
      }
    }
  ],
  "Templates": [
    {"name": "t",
     "restart": 7}
  ]
}
"""
YAML = b"""# a comment
jobs:
  - job: web
  - job: db
    cgroup:
      mem_limit: 16Q
Templates: [{name: t,
  restart: 7}]
"""


@pytest.mark.parametrize(
    ("path", "in_json", "in_yaml"),
    [
        ("jobs", 2, 2),
        ("jobs[0]", 3, 3),
        ("jobs[1].cgroup.mem_limit", 7, 6),
        ('jobs["db"].cgroup', 6, 5),
        ('jobs["db"].exec_cmd', 4, 4),
        ('jobs["nobody"].exec_cmd', 2, 2),
        ("jobs[7]", 2, 2),
        ("templates[0].restart", 13, 8),
        ("elsewhere", 0, 0),
        ("", 0, 0),
    ],
)
def test_the_line_of_a_path_is_found(path: str, in_json: int, in_yaml: int) -> None:
    assert [problem.line for problem in located([Problem(path, "wrong")], JSON)] == [in_json]
    assert [problem.line for problem in located([Problem(path, "wrong")], YAML)] == [in_yaml]


def test_the_lines_are_the_same_without_libyaml(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "_Loader", yaml.SafeLoader)
    for text, line in ((JSON, 7), (YAML, 6)):
        (problem,) = located([Problem("jobs[1].cgroup.mem_limit", "wrong")], text)
        assert problem.line == line


def test_a_line_that_is_known_stays() -> None:
    assert located([Problem("jobs", "wrong", "hint", 9)], YAML) == [Problem("jobs", "wrong", "hint", 9)]


@pytest.mark.parametrize("text", [b"", b"{", b"\xff", b"[" * 5000, b"- a\n- b", b"null"])
def test_a_text_that_gives_no_lines_leaves_the_problems_as_they_are(text: bytes) -> None:
    assert located([Problem("jobs", "wrong")], text) == [Problem("jobs", "wrong")]
