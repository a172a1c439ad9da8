# SPDX-License-Identifier: Apache-2.0
"""What the command writes: text for a terminal or for a pipe, tables, JSON.

Texts that come from jobs and documents are cleaned of control characters before they reach a
terminal. Colours are used on a terminal only, and not with NO_COLOR (https://no-color.org) or
TERM=dumb.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False  # typing's constant, without the import of typing
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import TextIO

COLOURS = {
    "RUNNING": "32",
    "complete": "32",
    "yes": "32",
    "ok": "32",
    "+": "32",
    "STARTING": "33",
    "STOPPING": "33",
    "RESTARTING": "33",
    "WAITING_FOR_DEPS": "33",
    "running": "33",
    "queued": "33",
    "no": "33",
    "missing": "33",
    "~": "33",
    "FAILED": "31",
    "failed": "31",
    "-": "31",
}
"""SGR codes of the words that have a colour: green is well, yellow on its way, red wants attention."""


def clean(text: object) -> str:
    """Return text that cannot move the cursor or ring the bell: control characters become `?`."""
    plain = str(text).replace("\n", " ").replace("\t", " ")
    if plain.isprintable():
        return plain
    return "".join(c if c.isprintable() else "?" for c in plain)


def wrap(text: str, width: int, margin: int = 0) -> str:
    """Return text broken between words at a width, lines after the first moved in by a margin."""
    lines = [""]
    for word in text.split(" "):
        if lines[-1] and len(lines[-1]) + 1 + len(word) > width:
            lines.append("")
        lines[-1] += (" " if lines[-1] else "") + word
    return ("\n" + " " * margin).join(lines)


class Screen:
    """Standard output and standard error, and what they can do."""

    def __init__(self, out: TextIO, err: TextIO) -> None:
        self.out = out
        self.err = err
        dumb = os.environ.get("TERM", "") in ("", "dumb")
        self.terminal = out.isatty()
        self.folds = err.isatty()
        self.moves = self.terminal and not dumb
        self.colours = self.moves and not os.environ.get("NO_COLOR")
        self.ellipsis = "…" if (out.encoding or "").lower().replace("-", "") == "utf8" else "~"

    @property
    def width(self) -> int:
        """Columns: $COLUMNS, else the terminal's, else 80."""
        columns = os.environ.get("COLUMNS", "")
        if columns.isascii() and columns.isdigit() and int(columns) > 0:
            return int(columns)
        if self.terminal:
            try:
                return os.get_terminal_size(self.out.fileno()).columns or 80
            except OSError:
                pass
        return 80

    def line(self, text: str = "") -> None:
        """Write one line to standard output."""
        self.out.write(text + "\n")

    def lines(self, texts: Iterable[str]) -> None:
        """Write lines to standard output."""
        for text in texts:
            self.line(text)

    def fold(self, text: str, margin: int = 0) -> str:
        """Return text broken between words for a terminal, as it is for anything else."""
        return wrap(text, max(20, self.width - margin), margin) if self.terminal else text

    def prose(self, text: str, *, margin: int = 0) -> None:
        """Write a sentence; a terminal gets it broken between words, anything else on one line."""
        self.line(self.fold(text, margin))

    def note(self, text: str) -> None:
        """Write a sentence about the run itself to standard error, after what was printed so far.

        Lines after the first belong to it and are moved in by two. A terminal gets all of it folded.
        """
        self.out.flush()
        for number, line in enumerate(text.split("\n")):
            head, margin = ("  ", 4) if number else ("maestro: ", 9)
            body = line.strip()
            self.err.write(head + (wrap(body, self.width - margin, margin) if self.folds else body) + "\n")
        self.err.flush()

    def json(self, value: object, *, lines: bool = False) -> None:
        """Write a JSON document, indented; with `lines` on one line and at once, for followers."""
        import json

        self.out.write(json.dumps(value, indent=None if lines else 2, ensure_ascii=False) + "\n")
        if lines:
            self.out.flush()

    def paint(self, word: str, text: str = "") -> str:
        """Return text (the word itself by default) in the colour of `word`, if there is one to use."""
        code = COLOURS.get(word) if self.colours else None
        return f"\x1b[{code}m{text or word}\x1b[0m" if code else text or word

    def clip(self, text: str, width: int) -> str:
        """Return text cut to a width, the cut marked."""
        if len(text) <= width:
            return text
        return text[: width - 1] + self.ellipsis if width > 0 else ""

    def table(
        self,
        head: Sequence[str],
        rows: Sequence[Sequence[object]],
        *,
        shrink: Sequence[tuple[int, int]] = (),
        right: Sequence[int] = (),
        drop: Sequence[int] = (),
        wide: bool = False,
    ) -> list[str]:
        """Return an aligned table that fits the width; columns move closer before any is cut.

        shrink: (column, least width) in the order in which columns give way. drop: columns left out, in
        this order, where that is not enough. right: columns aligned to the right. Words that have a
        colour get it.
        """
        cells = [[clean(cell) for cell in row] for row in rows]
        widths = [max(len(row[i]) for row in (head, *cells)) for i in range(len(head))]
        least = {**dict(enumerate(widths)), **{i: min(widths[i], size) for i, size in shrink}}
        shown = list(least)
        for i in () if wide else drop:
            if sum(least[i] + 1 for i in shown) - 1 > self.width:
                shown.remove(i)
                widths[i] = 0
        gaps = len(shown) - 1
        over = 0 if wide else sum(widths) + 2 * gaps - self.width
        gap = "  "
        if over > 0:
            over -= gaps
            gap = " "
        for column, size in shrink:
            if over > 0:
                cut = min(over, max(0, widths[column] - size))
                widths[column] -= cut
                over -= cut
        lines = []
        for number, row in enumerate((head, *cells)):
            parts = []
            for i in shown:
                cell = row[i]
                text = self.clip(cell, widths[i])
                text = text.rjust(widths[i]) if i in right else text.ljust(widths[i])
                parts.append(self.paint(cell, text) if number else text)
            lines.append(gap.join(parts).rstrip())
        return lines


def standard() -> Screen:
    """Return the screen of this process; what its encoding cannot say becomes `?`."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # the caller closed it
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115
        else:
            stream.reconfigure(errors="replace")
    return Screen(sys.stdout, sys.stderr)
