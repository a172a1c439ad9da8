# SPDX-License-Identifier: Apache-2.0
"""A small part of Markdown to man(7), which groff, mandoc and every man(1) read.

What a page may have: `# name(1) - what it is` first, `## section`, `### part`, paragraphs, fenced blocks,
`- item` lists, and terms with what they mean (`term`, next line `: meaning`). A line that ends in two blanks
ends there. Inline: `code`, **strong** and *other words*, as an argument that stands for something.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import maestro_py

DATE = "2026-11-21"
"""Date in the foot of the pages: that of the version."""

_TITLE = re.compile(r"# ([\w.-]+)\((\d)\) - (.*)")
_INLINE = re.compile(r"`([^`]+)`|\*\*([^*]+)\*\*|(?<![\w*])\*([^*\s][^*]*)\*(?![\w*])|\[([^\]]+)\]\([^)]*\)")
_PLAIN = str.maketrans({"\\": "\\e"})
_CODE = str.maketrans(
    {"\\": "\\e", "-": "\\-", "'": "\\(aq", "`": "\\(ga", "^": "\\(ha", "~": "\\(ti", '"': "\\(dq"}
)


class BadPage(ValueError):
    """A page has something that is not part of the markup."""


def page(text: str) -> str:
    """Return the man page of a page. Raises BadPage."""
    lines = text.splitlines()
    title = _TITLE.fullmatch(lines[0] if lines else "")
    if not title:
        raise BadPage("the first line is not `# name(1) - what it is`")
    name, section, what = title.groups()
    head = [
        '.\\" Made by `make docs`; edit docs/pages/ instead.',
        f".TH {name.upper()} {section} {DATE} maestro_py\\ {maestro_py.__version__}",
        ".ad l",  # even gaps and whole words read better on a narrow screen than an even edge
        ".nh",
        ".SH NAME",
        f"{_plain(name)} \\- {_inline(what)}",
    ]
    return "\n".join([*head, *_body(lines[1:])]) + "\n"


def _body(lines: list[str]) -> Iterator[str]:
    at = 0
    fresh = True  # right after a heading, where no paragraph begins
    while at < len(lines):
        line = lines[at]
        at += 1
        if not line.strip():
            continue
        if line.startswith("```"):
            end = at + lines[at:].index("```")
            yield from _literal(lines[at:end], fresh)
            at = end + 1
        elif line.startswith("## "):
            yield f".SH {_heading(line[3:]).upper()}"
            fresh = True
            continue
        elif line.startswith("### "):
            yield f".SS {_heading(line[4:])}"
            fresh = True
            continue
        elif line.startswith("- "):
            text, at = _joined(line[2:], lines, at)
            yield from (".IP \\(bu 2", _inline(text))
        elif at < len(lines) and lines[at].startswith(": "):
            text, at = _joined(lines[at][2:], lines, at + 1)
            yield from (".TP", _inline(line), _inline(text))
        else:
            text, at = _joined(line, lines, at)
            yield from ((_inline(text),) if fresh else (".PP", _inline(text)))
        fresh = False


def _joined(first: str, lines: list[str], at: int) -> tuple[str, int]:
    """Return a text with the lines that go on with it, and where the next begins."""
    parts = [_unbroken(first)]
    while at < len(lines) and lines[at].strip() and not re.match(r"- |: |#|```", lines[at]):
        if at + 1 < len(lines) and lines[at + 1].startswith(": "):
            break
        parts.append(_unbroken(lines[at]))
        at += 1
    return " ".join(parts).replace("\n ", "\n").rstrip("\n"), at


def _unbroken(line: str) -> str:
    return line.strip() + ("\n" if line.endswith("  ") else "")


def _literal(lines: list[str], fresh: bool) -> Iterator[str]:
    if not fresh:
        yield ".PP"
    yield from (".RS 4", ".EX")
    for line in lines:
        text = line.translate(_CODE)
        yield "\\&" + text if text[:1] in (".", "\\") and line[:1] in (".", "'") else text
    yield from (".EE", ".RE")


def _heading(text: str) -> str:
    return f'"{_plain(text)}"' if " " in text else _plain(text)


def _plain(text: str) -> str:
    return text.translate(_PLAIN)


def _inline(text: str) -> str:
    """Return a text, its lines kept apart; one that would be taken for a request is kept from it."""
    return "\n.br\n".join(map(_line, text.split("\n")))


def _line(text: str) -> str:
    written = ""
    end = 0
    for match in _INLINE.finditer(text):
        code, strong, other, link = match.groups()
        written += _plain(text[end : match.start()])
        if code or strong:
            written += f"\\fB{(code or strong).translate(_CODE)}\\fR"
        elif other:
            written += f"\\fI{_plain(other)}\\fR"
        else:
            written += _line(link)
        end = match.end()
    written += _plain(text[end:])
    return "\\&" + written if written[:1] in (".", "'") else written
