# SPDX-License-Identifier: Apache-2.0
"""From the text of a document to plain data (dict, list, str, numbers, bool, None)."""

from __future__ import annotations

import json
import math
from typing import Any

from maestro_py.errors import InvalidDocument, Problem

_SHOWN = 20  # characters of a number that is too long


class _Refused(ValueError):
    """Something JSON's grammar allows, or Python's reader does, and a document may not have."""


def load_json(text: bytes | str, source: str) -> object:
    """Return the data of a JSON text.

    Raises InvalidDocument, with line and column where they are known, for text that is not UTF-8 or
    not JSON, for a key given twice in one object, for NaN and infinities, numbers as large as one
    (1e400) and nesting too deep.
    """
    text = decode(text, source)
    try:
        data: object = json.loads(
            text, object_pairs_hook=distinct, parse_constant=no_constant, parse_float=finite
        )
    except json.JSONDecodeError as error:
        why = error.msg[:1].lower() + error.msg[1:]
        problem = Problem("", f"not valid JSON: {why}, column {error.colno}", line=error.lineno)
    except _Refused as error:
        problem = Problem("", str(error))
    except RecursionError:
        problem = Problem("", "nested too deeply")
    except ValueError:  # Python's bound on the digits of an integer
        problem = Problem("", "a number has too many digits")
    else:
        return data
    raise InvalidDocument(source, [problem])


def load(text: bytes | str, source: str) -> object:
    """Return the data of a JSON or YAML text.

    What begins with `{` or `[` is read as JSON. Only when that is a syntax error is YAML tried,
    whose flow style begins the same way, and when YAML refuses too, JSON's reason is the one given.
    Raises InvalidDocument.
    """
    text = decode(text, source)
    first_error: InvalidDocument | None = None
    if text.lstrip()[:1] in ("{", "["):
        try:
            return load_json(text, source)
        except InvalidDocument as error:
            if not error.problems[0].line:
                raise
            first_error = error

    from maestro_py.spec.yamltext import load_yaml  # the daemon never gets here

    try:
        return load_yaml(text, source)
    except InvalidDocument:
        if first_error is not None:
            raise first_error from None
        raise


def decode(text: bytes | str, source: str) -> str:
    """Return text from UTF-8, without a byte order mark. Raises InvalidDocument with the line."""
    if isinstance(text, str):
        return text.removeprefix("\ufeff")
    try:
        return text.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = text.count(b"\n", 0, error.start) + 1
        problem = Problem("", f"not UTF-8 text: byte 0x{text[error.start]:02x}", line=line)
        raise InvalidDocument(source, [problem]) from None


def distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return the object of pairs. Raises ValueError for a key given twice."""
    data = dict(pairs)
    if len(data) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise _Refused(f"the key {json.dumps(key)} is given twice in one object")
            seen.add(key)
    return data


def finite(text: str) -> float:
    """Return a number. Raises ValueError for one beyond what a float holds."""
    value = float(text)
    if math.isinf(value):
        raise _Refused(f"the number {text[:_SHOWN]}{'…' * (len(text) > _SHOWN)} is too large")
    return value


def no_constant(name: str) -> object:
    """Refuse NaN and the infinities, which Python's reader takes. Raises ValueError."""
    raise _Refused(f"{name} is not a number a document may have")
