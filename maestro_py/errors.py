# SPDX-License-Identifier: Apache-2.0
"""One error base for everything a user may see.

Messages read "cannot <verb> <thing>: <why>". `code` is stable and travels through the API to the
exit status; `hint` is one more sentence that says what to do.
"""

from __future__ import annotations

from collections.abc import Sequence


class MaestroError(Exception):
    """Base of all errors that are meant to be read by a person."""

    code = "failed"

    def __init__(self, message: str, *, hint: str = "", code: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        if code:
            self.code = code

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message


class NotFound(MaestroError):
    """The named job, image, template, config or task is not known."""

    code = "not-found"


class Conflict(MaestroError):
    """The request contradicts what is there: an older document, a busy job."""

    code = "conflict"


class Forbidden(MaestroError):
    """The peer may not do this."""

    code = "forbidden"


class Unsupported(MaestroError):
    """This device or this user cannot do what was asked."""

    code = "unsupported"


class Unavailable(MaestroError):
    """The daemon cannot be reached."""

    code = "unavailable"


class TimedOut(MaestroError):
    """The result did not come in time; the work goes on."""

    code = "timeout"


class Passing(MaestroError):
    """It did not work now, and may the next time. after: seconds to wait at least, when somebody said so."""

    def __init__(self, message: str, *, hint: str = "", code: str = "", after: float = 0.0) -> None:
        super().__init__(message, hint=hint, code=code)
        self.after = after


class Problem:
    """One mistake in a document.

    Written out because `dataclasses` costs the command a third of its start.

    path: where, as `jobs[2].cgroup.mem_limit`; empty for the document itself.
    message: what is wrong, with the value seen and what was expected.
    hint: "did you mean `mem_limit`?" and the like.
    line: 1-based line in the source where it is known, else 0.
    """

    __slots__ = ("hint", "line", "message", "path")

    def __init__(self, path: str, message: str, hint: str = "", line: int = 0) -> None:
        self.path = path
        self.message = message
        self.hint = hint
        self.line = line

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Problem) and self.to_json() == other.to_json()

    def __hash__(self) -> int:
        return hash((self.path, self.message, self.hint, self.line))

    def __repr__(self) -> str:
        return f"Problem({self.path!r}, {self.message!r}, {self.hint!r}, {self.line!r})"

    def __str__(self) -> str:
        where = f"{self.path}: " if self.path else ""
        line = f"line {self.line}: " if self.line else ""
        return f"{line}{where}{self.message}" + (f" ({self.hint})" if self.hint else "")

    def to_json(self) -> dict[str, object]:
        """Return the problem as the API sends it."""
        return {"path": self.path, "message": self.message, "hint": self.hint, "line": self.line}


class InvalidDocument(MaestroError):
    """A document with every problem found in it; nothing of it was applied."""

    code = "invalid"

    def __init__(self, source: str, problems: Sequence[Problem]) -> None:
        self.source = source
        self.problems = tuple(problems)
        count = len(self.problems)
        super().__init__(
            f"cannot accept {source}: {count} problem{'s' if count != 1 else ''}\n"
            + "\n".join(f"  {problem}" for problem in self.problems)
        )
