# SPDX-License-Identifier: Apache-2.0
"""What every command is given: the parsed call, the screen, and the daemon on demand."""

from __future__ import annotations

TYPE_CHECKING = False  # typing's constant, without the import of typing
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from maestro_py.cli.parser import Call
    from maestro_py.cli.screen import Screen
    from maestro_py.client import Client
    from maestro_py.errors import MaestroError, Problem


class Session:
    """One run of the command."""

    def __init__(self, call: Call, screen: Screen) -> None:
        self.call = call
        self.screen = screen
        self.json = call.flag("json")
        self._client: Client | None = None

    @property
    def client(self) -> Client:
        """The daemon."""
        if self._client is None:
            from maestro_py.client import Client

            self._client = Client(self.call.text("socket") or None)
        return self._client

    def fail(self, error: MaestroError) -> None:
        """Say what went wrong, and what to do about it, on standard error."""
        if self.json:
            self.screen.out.flush()
            self.screen.err.write(_error_json(error) + "\n")
            return
        self.screen.note(error.message)
        if error.hint:
            self.screen.note(error.hint)

    def warn(self, warnings: Sequence[Mapping[str, Any] | Problem]) -> None:
        """Say the warnings of a document on standard error; JSON documents carry them themselves."""
        if not self.json:
            for warning in warnings:
                self.screen.note(f"warning: {problem_text(warning)}")

    def job_names(self, words: Sequence[str]) -> list[str]:
        """Return the jobs that words mean: names as they are, patterns as what they match, each once.

        Raises NotFound for a pattern that matches nothing.
        """
        if not any(is_pattern(word) for word in words):
            return list(dict.fromkeys(words))
        import fnmatch

        from maestro_py.errors import NotFound

        known = [str(job["job"]) for job in self.client.status([])["jobs"]]
        names: list[str] = []
        for word in words:
            found = [word]
            if is_pattern(word) and word not in known:
                found = sorted(name for name in known if fnmatch.fnmatchcase(name, word))
                if not found:
                    raise NotFound(f"cannot find a job like '{word}'", hint="`maestro status` lists the jobs")
            names += found
        return list(dict.fromkeys(names))

    def one_per_process(self, names: list[str]) -> list[str]:
        """Return the names less those in a process another one already stands for: once is enough."""
        if len(names) < 2:
            return names
        process = {str(job["job"]): str(job["process"]) for job in self.client.status([])["jobs"]}
        seen: dict[str, str] = {}
        for name in names:
            first = seen.setdefault(process.get(name, name), name)
            if first != name and not self.json:
                self.screen.note(f"{name} is in one process with {first}")
        return list(seen.values())


def is_pattern(word: str) -> bool:
    """Whether a word given for a job is a pattern of names."""
    return any(c in word for c in "*?[")


def problem_text(problem: Mapping[str, Any] | Problem) -> str:
    """Return a problem as one line, whether it came from the API or from here."""
    from maestro_py.errors import Problem

    if isinstance(problem, Problem):
        return str(problem)
    return str(
        Problem(
            str(problem.get("path") or ""),
            str(problem.get("message") or ""),
            str(problem.get("hint") or ""),
            int(problem.get("line") or 0),
        )
    )


def counted(number: int, noun: str) -> str:
    """Return `1 job`, `2 jobs`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _error_json(error: MaestroError) -> str:
    import json

    problems = [problem.to_json() for problem in getattr(error, "problems", ())]
    body: dict[str, Any] = {"code": error.code, "message": error.message, "hint": error.hint}
    if problems:
        body["problems"] = problems
    return json.dumps({"error": body}, ensure_ascii=False)
