# SPDX-License-Identifier: Apache-2.0
"""Files named on the command line: their bytes, and documents with the lines of their mistakes."""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False  # typing's constant, without the import of typing
if TYPE_CHECKING:
    from collections.abc import Sequence

    from maestro_py.errors import InvalidDocument, Problem


def read_input(name: str) -> bytes:
    """Return the bytes of a file, or of standard input for `-`. Raises MaestroError."""
    from maestro_py.errors import MaestroError

    try:
        if name == "-":
            return sys.stdin.buffer.read()
        with open(name, "rb") as file:
            return file.read()
    except OSError as error:
        hint = _near(name) if isinstance(error, FileNotFoundError) else ""
        raise MaestroError(f"cannot read {name}: {error.strerror}", hint=hint) from None


def _near(path: str) -> str:
    """Return a did-you-mean sentence for a path that does not exist, or nothing."""
    from maestro_py.cli.parser import closest

    directory, name = os.path.split(path)
    try:
        near = closest(name, os.listdir(directory or "."))
    except OSError:
        return f"there is no directory {directory}"
    return f"did you mean {os.path.join(directory, near)}?" if near else ""


class Document:
    """A document named on the command line.

    source: what to call it in messages. data: plain data; None for an empty one.
    """

    def __init__(self, name: str) -> None:
        """Read it. Raises MaestroError, InvalidDocument for what is neither JSON nor YAML."""
        from maestro_py.spec.text import load

        self.source = "standard input" if name == "-" else name
        self._text = read_input(name)
        self.data = load(self._text, self.source)

    def located(self, problems: Sequence[Problem]) -> list[Problem]:
        """Return problems of this document, with the line of each where it is known."""
        if not problems:
            return []
        from maestro_py.cli.lines import located

        return located(problems, self._text)

    def refused(self, error: InvalidDocument) -> InvalidDocument:
        """Return the refusal of this document with its name and with lines."""
        from maestro_py.errors import InvalidDocument

        refused = InvalidDocument(self.source, self.located(error.problems))
        refused.hint = error.hint
        return refused
