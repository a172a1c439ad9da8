# SPDX-License-Identifier: Apache-2.0
"""The engine under the field tables: plain data in, attribute values and problems out, and back.

It knows nothing about jobs or images. A `Table` lists the `Field`s of one kind of object; a `Kind`
reads and writes one value. A reading goes on after a mistake, so that every one is found.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import MISSING, field, fields, is_dataclass
from typing import Any

from maestro_py.errors import Problem
from maestro_py.spec.nearest import EFFORT, nearest
from maestro_py.valueclass import valueclass

MOST_PROBLEMS = 1000
"""Mistakes listed of one document; nobody reads on, and a hostile one has a million."""

MORE_PROBLEMS = Problem("", "there are more mistakes; they are not listed")
"""Stands behind those that are listed."""


class Wrong(ValueError):
    """A value is not acceptable; without a message the kind's expectation is the message."""

    def __init__(self, message: str = "", hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class Reading:
    """One pass over one document.

    lenient: unknown keys are warnings, and numbers are accepted where text is expected.
    render: applied to every text before it is read (the daemon file's variables).
    """

    def __init__(self, *, lenient: bool = False, render: Callable[[str], str] | None = None) -> None:
        self.lenient = lenient
        self.render = render
        self.problems: list[Problem] = []
        self.warnings: list[Problem] = []
        self._effort = EFFORT

    def problem(self, path: str, message: str, hint: str = "") -> None:
        """Note a mistake; the document will be refused."""
        if len(self.problems) < MOST_PROBLEMS:
            self.problems.append(Problem(path, message, hint))
        elif len(self.problems) == MOST_PROBLEMS:
            self.problems.append(MORE_PROBLEMS)

    @property
    def enough(self) -> bool:
        """Whether so many mistakes are known that nothing more need be read."""
        return len(self.problems) > MOST_PROBLEMS

    def warn(self, path: str, message: str, hint: str = "") -> None:
        """Note something to tell; the document stays acceptable."""
        if len(self.warnings) < MOST_PROBLEMS:
            self.warnings.append(Problem(path, message, hint))

    def suggest(self, word: str, known: Iterable[str]) -> str:
        """Return a did-you-mean sentence, or nothing; one document gets only so many."""
        word, self._effort = nearest(word, known, self._effort)
        return _asked(word)


@valueclass(frozen=True)
class Kind:
    """How one value is read and written.

    expected: completes "expected ...".
    read: (value, path, reading) -> attribute value; raises ValueError, reports parts by itself.
    write: attribute value -> what reads back to it.
    schema: JSON Schema of what is read, in which a Kind or a Table stands for its own; None: anything.
    """

    expected: str
    read: Callable[[Any, str, Reading], Any]
    write: Callable[[Any], object] = lambda value: value
    schema: Any = None


@valueclass(frozen=True)
class Field:
    """One row: a key of a document and the attribute it fills, `attr`, named as the key unless said.

    doc: one sentence for the manual. default: what happens without it, in words.
    aliases: other spellings accepted; never written.
    """

    key: str
    kind: Kind
    doc: str
    default: str = ""
    aliases: tuple[str, ...] = ()
    required: bool = False
    attr: str = ""

    def __post_init__(self) -> None:
        if not self.attr:
            object.__setattr__(self, "attr", self.key)


@valueclass(frozen=True)
class Table:
    """The fields of one kind of object, and where written values come from.

    noun: completes "expected ..." (`a job`).
    cls: what `build` makes; `dict` for tables that are only read.
    nested: the attribute that holds those fields which are not attributes of `cls` itself
    (`settings`), with its class.
    label: names one object in messages, from the texts in it (`job "{job}"`).
    """

    noun: str
    cls: type
    fields: tuple[Field, ...]
    nested: str = ""
    nested_cls: type | None = None
    label: str = ""
    keys: dict[str, Field] = field(init=False, default_factory=dict)
    _defaults: dict[str, Any] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        for row in self.fields:
            for key in (row.key, *row.aliases):
                self.keys[key.lower()] = row
        for cls in (self.nested_cls, self.cls):
            for attribute in fields(cls) if is_dataclass(cls) else ():
                if attribute.default is not MISSING:
                    self._defaults[attribute.name] = attribute.default
                elif attribute.default_factory is not MISSING:
                    self._defaults[attribute.name] = attribute.default_factory()
                else:
                    self._defaults[attribute.name] = MISSING

    def spellings(self) -> list[str]:
        """Return every key as it is written in the table, aliases after their keys."""
        return [key for row in self.fields for key in (row.key, *row.aliases)]

    def name(self, raw: object) -> str:
        """Return what to call this object in a message, or "" when it does not say."""
        if not self.label or not isinstance(raw, dict):
            return ""
        texts = {str(key).lower(): show(text)[1:-1] for key, text in raw.items() if isinstance(text, str)}
        try:
            return self.label.format_map(texts)
        except KeyError:
            return ""

    def build(self, values: dict[str, Any]) -> Any:
        """Return the object for attribute values, splitting off the nested ones."""
        if self.nested_cls is None:
            return self.cls(**values)
        own = {f.name for f in fields(self.cls)}
        inner = {name: value for name, value in values.items() if name not in own}
        outer = {name: value for name, value in values.items() if name in own}
        if inner:
            outer[self.nested] = self.nested_cls(**inner)
        return self.cls(**outer)

    def write(self, item: Any) -> dict[str, object]:
        """Return the canonical object for `item`: keys of the table, in its order, without defaults."""
        inner = getattr(item, self.nested) if self.nested else None
        data: dict[str, object] = {}
        for row in self.fields:
            value = getattr(item if hasattr(item, row.attr) else inner, row.attr)
            if value is not None and (row.required or value != self._defaults[row.attr]):
                data[row.key] = row.kind.write(value)
        return data


BAD = object()
"""Stands for a value that was refused; the problem is noted already."""


def read_value(kind: Kind, raw: object, path: str, reading: Reading) -> Any:
    """Return what `kind` makes of `raw`, or BAD after noting why not."""
    try:
        if reading.render is not None and isinstance(raw, str):
            raw = reading.render(raw)
        return kind.read(raw, path, reading)
    except ValueError as error:
        message = str(error) or f"expected {kind.expected}, not {show(raw)}"
        reading.problem(path, message, getattr(error, "hint", ""))
        return BAD


def read_object(table: Table, raw: object, path: str, reading: Reading) -> dict[str, Any]:
    """Return attribute values of an object; refused and absent ones are left out.

    null means not said. Keys match whatever their case, as upstream's JSON reader does.
    Raises ValueError when `raw` is not an object.
    """
    if not isinstance(raw, dict):
        raise Wrong(f"expected {table.noun} as an object, not {show(raw)}")
    # The label goes in front of the problems of this object and of all in it.
    before = len(reading.problems)
    values: dict[str, Any] = {}
    given: dict[str, str] = {}
    for key, item in raw.items():
        row = table.keys.get(key) or table.keys.get(str(key).lower())
        at = below(path, str(key))
        if row is None:
            note = reading.warn if reading.lenient else reading.problem
            why = "unknown key, ignored" if reading.lenient else f"unknown key in {table.noun}"
            note(at, why, reading.suggest(str(key)[:64], table.spellings()))
            continue
        if row.attr in given and item is not None:
            reading.problem(at, f"says the same as `{given[row.attr]}`; give one of them")
            continue
        if item is None:
            continue
        given[row.attr] = str(key)
        value = read_value(row.kind, item, at, reading)
        if value is not BAD and value is not None:
            values[row.attr] = value
    for row in table.fields:
        if row.required and row.attr not in given:
            reading.problem(path, f"`{row.key}` is missing", row.doc)
    label = table.name(raw) if len(reading.problems) > before else ""
    if label:
        told = reading.problems[before:]
        reading.problems[before:] = [
            each
            if each is MORE_PROBLEMS
            else Problem(each.path, f"{label}: {each.message}", each.hint, each.line)
            for each in told
        ]
    return values


def below(path: str, key: str) -> str:
    """Return the path of what stands at a key, fit for a message."""
    key = key if key.isprintable() and len(key) <= 64 else show(key)
    return f"{path}.{key}" if path else key


def show(value: object) -> str:
    """Return a short spelling of a value for a message."""
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, (list, tuple)):
        return "a list"
    if value is None or isinstance(value, (str, int, float)):
        if isinstance(value, int) and value.bit_length() > 200:
            return "a very large number"
        text = json.dumps(value[:61] if isinstance(value, str) else value, ensure_ascii=False)
        text = visible(text)
        return text if len(text) <= 60 else f"{text[:57]}..."
    return f"a {type(value).__name__}"


def visible(text: str) -> str:
    """Return text with what cannot be printed, and what steers a terminal, spelled out."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def suggest(word: str, known: Iterable[str]) -> str:
    """Return "did you mean `x`?" for the nearest known word, or "" when none is near."""
    return _asked(nearest(word, known)[0])


def _asked(word: str) -> str:
    return f"did you mean `{word}`?" if word else ""
