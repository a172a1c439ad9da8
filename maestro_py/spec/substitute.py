# SPDX-License-Identifier: Apache-2.0
"""`{{NAME}}` in a text. Both `{{NAME}}` and `{{{NAME}}}` give the value as it is, nothing is escaped."""

from __future__ import annotations

import re
from collections.abc import Callable

_NAME = re.compile(r"\{\{\{\s*([\w.-]+)\s*\}\}\}|\{\{\s*([\w.-]+)\s*\}\}")

MAX_TEXT = 8 << 20
"""Characters a text may grow to; variables made of variables grow without bound otherwise."""


class TooLong(ValueError):
    """A text grew beyond MAX_TEXT."""


def names(text: str) -> set[str]:
    """Return the names a text uses."""
    return {match[1] or match[2] for match in _NAME.finditer(text)} if "{{" in text else set()


def substitute(text: str, lookup: Callable[[str], str | None]) -> str:
    """Return the text with every name replaced by what `lookup` returns; None leaves it as written.

    A value `/` takes no second slash after it, so that a path below it stays one.
    Raises TooLong.
    """
    if "{{" not in text:
        return text
    pieces: list[str] = []
    end = size = 0
    for match in _NAME.finditer(text):
        value = lookup(match[1] or match[2])
        if value is None:
            continue
        if value == "/" and text.startswith("/", match.end()):
            value = ""
        size += match.start() - end + len(value)
        if size > MAX_TEXT:
            raise TooLong(f"its variables make it longer than {MAX_TEXT >> 20} million characters")
        pieces += (text[end : match.start()], value)
        end = match.end()
    pieces.append(text[end:])
    return "".join(pieces)
