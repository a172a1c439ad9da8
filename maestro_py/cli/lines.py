# SPDX-License-Identifier: Apache-2.0
"""In which line of a JSON or YAML text the thing stands that a problem is about."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import yaml

from maestro_py.errors import Problem

_STEP = re.compile(r'\.?([^.\[\]]+)|\[(\d+)\]|\["((?:[^"\\]|\\.)*)"\]')
"""A step of a path as `jobs[2].cgroup.mem_limit`, `jobs["web"].depends_on`: key, number or name."""

_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def located(problems: Iterable[Problem], text: bytes) -> list[Problem]:
    """Return the problems of a document with the lines they are about, as far as those can be known.

    A path that leads to nothing (a key that is missing) has the line of what it should be in.
    """
    problems = list(problems)
    try:
        # YAML's flow style is JSON, but for tabs, and for few documents, which then do without lines
        root = yaml.compose(text.decode("utf-8-sig").replace("\t", " "), Loader=_Loader)
    except (yaml.YAMLError, ValueError, RecursionError):
        return problems
    places = _Places(root)
    return [
        problem
        if problem.line
        else Problem(problem.path, problem.message, problem.hint, places.line(problem.path))
        for problem in problems
    ]


class _Places:
    """Knows the nodes of one document by their paths."""

    def __init__(self, root: yaml.Node | None) -> None:
        self._root = root
        self._names: dict[int, dict[str, yaml.Node]] = {}

    def line(self, path: str) -> int:
        """Return the line of a path, counted from 1; 0 when nothing of it is there."""
        node, line = self._root, 0
        for key, number, name in _STEP.findall(path):
            mark = None
            if key and isinstance(node, yaml.MappingNode):
                mark, node = self._entry(node, key)
            elif number and isinstance(node, yaml.SequenceNode) and int(number) < len(node.value):
                node = node.value[int(number)]
                mark = node.start_mark
            elif name and isinstance(node, yaml.SequenceNode):
                node = self._named(node).get(name)
                mark = node.start_mark if node else None
            else:
                node = None
            if mark is None:
                break
            line = mark.line + 1
        return line

    def _entry(self, node: yaml.MappingNode, key: str) -> tuple[yaml.Mark | None, yaml.Node | None]:
        for name, value in node.value:
            if str(name.value).lower() == key.lower():  # as the reader takes keys
                return name.start_mark, value
        return None, None

    def _named(self, node: yaml.SequenceNode) -> dict[str, yaml.Node]:
        """Return the objects of a list by what names them."""
        if id(node) not in self._names:
            found = self._names[id(node)] = {}
            for item in node.value:
                for key in ("job", "name") if isinstance(item, yaml.MappingNode) else ():
                    value = self._entry(item, key)[1]
                    if isinstance(value, yaml.ScalarNode):
                        found.setdefault(value.value, item)
        return self._names[id(node)]
