# SPDX-License-Identifier: Apache-2.0
"""YAML documents to plain data. The daemon never imports this: it runs it as a helper program.

`python -m maestro_py.spec.yamltext FILE` prints `{"document": ...}`, or `{"problems": [...]}` and exits 1.
YAML 1.1 as PyYAML reads it (so 022 is eighteen), except that dates stay text.
"""

from __future__ import annotations

import json
import math
import sys
from typing import Any

import yaml

from maestro_py.errors import InvalidDocument, Problem
from maestro_py.spec.reader import visible
from maestro_py.spec.text import decode, load

MAX_DEPTH = 100
"""Levels of nesting a document may have."""

MAX_NODES = 2_000_000
"""Values a document may have once its aliases are written out; 10 000 jobs have about 200 000."""

MAX_BITS = 1024
"""Of an integer; Python does not write down those of some 14 000, which YAML may spell in base 16."""

MAX_QUOTED = 200
"""Letters of what PyYAML says; it quotes whole values."""

_Base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _Loader(_Base):  # type: ignore[misc]
    """PyYAML's safe loader without the types JSON has not."""

    yaml_implicit_resolvers = {  # noqa: RUF012
        first: [(tag, pattern) for tag, pattern in entries if not tag.endswith((":timestamp", ":value"))]
        for first, entries in _Base.yaml_implicit_resolvers.items()
    }


def load_yaml(text: bytes | str, source: str) -> object:
    """Return the data of a YAML text, None for an empty one.

    Raises InvalidDocument, with the line, for what is not YAML, for a key given twice in one mapping,
    for nesting too deep and aliases that multiply, and for values that JSON does not have.
    """
    text = decode(text, source)
    problems: list[Problem] = []
    try:
        _bound_depth(text)
        loader = _Loader(text)
        try:
            node = loader.get_single_node()
            if node is None:
                return None
            _check_nodes(node, problems)
            data = None if problems else loader.construct_document(node)
        finally:
            loader.dispose()
        if not problems:
            data = _plain(data, "", problems)
    except yaml.YAMLError as error:
        problems.append(_yaml_problem(error, text))
    except (ValueError, OverflowError) as error:  # numbers Python cannot take, odd explicit tags
        problems.append(Problem("", f"not valid YAML: {_said(str(error).partition(';')[0])}"))
    except (AttributeError, LookupError, TypeError):  # as PyYAML answers `!!bool x` and `!!timestamp x`
        problems.append(Problem("", "not valid YAML: a value is not what its tag says"))
    if problems:
        raise InvalidDocument(source, problems)
    return data


def _yaml_problem(error: yaml.YAMLError, text: str) -> Problem:
    mark = getattr(error, "problem_mark", None)
    why = getattr(error, "problem", None) or getattr(error, "reason", None) or "cannot be read"
    context = getattr(error, "context", None)
    message = f"not valid YAML: {_said(why)}" + (f", {_said(context)}" if context else "")
    line = mark.line + 1 if mark else 0
    if not line and isinstance(getattr(error, "position", None), int):  # a character YAML does not allow
        line = text.count("\n", 0, error.position) + 1  # type: ignore[attr-defined]
    lines = text.split("\n")
    return Problem("", message, _hint(lines[line - 1]) if 0 < line <= len(lines) else "", line)


def _hint(line: str) -> str:
    """Return what is most likely wrong with a line."""
    if "\t" in line[: len(line) - len(line.lstrip())]:
        return "indent with spaces, this line begins with a tab"
    return "a value that begins with {{ needs quotes around it" if "{{" in line else ""


def _said(why: str) -> str:
    return visible(why[:MAX_QUOTED])


def _bound_depth(text: str) -> None:
    """Look at the nesting before anything recursive does."""
    depth = 0
    for event in yaml.parse(text, Loader=_Loader):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > MAX_DEPTH:
                raise _refused(event, "nested too deeply")
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1


def _check_nodes(root: yaml.Node, problems: list[Problem]) -> None:
    """Note keys given twice or that are no text, and aliases that write out to too much."""
    measured: dict[int, tuple[int, int]] = {}
    open_nodes: set[int] = set()

    def measure(node: yaml.Node) -> tuple[int, int]:
        """Return the values and the depth of a node with its aliases written out."""
        if id(node) in measured:
            return measured[id(node)]
        if id(node) in open_nodes:
            raise _refused(node, "an alias refers to what it is part of")
        open_nodes.add(id(node))
        parts = node.value if isinstance(node, yaml.SequenceNode) else []
        if isinstance(node, yaml.MappingNode):
            seen: set[tuple[str, str]] = set()
            for key, _ in node.value:
                if not isinstance(key, yaml.ScalarNode):
                    raise _refused(key, "a key must be text")
                if (key.tag, key.value) in seen:
                    message = f"the key {json.dumps(key.value)} is given twice in one mapping"
                    problems.append(Problem("", message, line=_line(key)))
                seen.add((key.tag, key.value))
            parts = [value for _, value in node.value]
        size, depth = 1, 1
        for part in parts:
            more, below = measure(part)
            size, depth = size + more, max(depth, below + 1)
        if size > MAX_NODES or depth > MAX_DEPTH:
            raise _refused(node, "its aliases write out to too much")
        open_nodes.discard(id(node))
        measured[id(node)] = size, depth
        return size, depth

    measure(root)


def _line(node: yaml.Node) -> int:
    return node.start_mark.line + 1 if node.start_mark else 0


def _refused(node: Any, why: str) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=why, problem_mark=node.start_mark)


def _below(path: str, key: object) -> str:
    name = visible(str(key))
    return f"{path}.{name}" if path else name


def _plain(value: Any, path: str, problems: list[Problem]) -> Any:
    """Return the value as JSON has it: keys become text, what has no JSON form is a problem."""
    if isinstance(value, dict):
        return {_key(key): _plain(item, _below(path, key), problems) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item, f"{path}[{i}]", problems) for i, item in enumerate(value)]
    if (
        value is None
        or isinstance(value, (str, bool))
        or (isinstance(value, int) and value.bit_length() <= MAX_BITS)
        or (isinstance(value, float) and math.isfinite(value))
    ):
        return value
    what = f"a value of type {type(value).__name__}"
    if isinstance(value, (int, float)):
        what = "a number without end" if isinstance(value, float) else "a number of so many digits"
    problems.append(Problem(path, f"{what} is nothing a document may have"))
    return None


def _key(key: object) -> str:
    return key if isinstance(key, str) else json.dumps(key, default=str)


def main(arguments: list[str]) -> int:
    """Print the document in the named file as JSON; return the exit status."""
    if len(arguments) != 1:
        print("usage: python -m maestro_py.spec.yamltext FILE", file=sys.stderr)
        return 2
    try:
        with open(arguments[0], "rb") as file:
            data = load(file.read(), arguments[0])
        text = json.dumps({"document": data})
    except OSError as error:
        problems = [Problem("", f"cannot read {arguments[0]}: {error.strerror}")]
    except InvalidDocument as error:
        problems = list(error.problems)
    else:
        print(text)
        return 0
    print(json.dumps({"problems": [problem.to_json() for problem in problems]}))
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
