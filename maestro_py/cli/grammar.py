# SPDX-License-Identifier: Apache-2.0
"""What a command line is made of: commands, their arguments and options.

Plain classes rather than dataclasses, so that `maestro --help` does not pay for those.
"""

from __future__ import annotations


class Part:
    """What may follow a command's name: an argument or an option.

    metavar: what stands for its value. spelling: how it is written. optional: it may be left out.
    """

    __slots__ = ("help", "metavar", "optional", "spelling")

    def __init__(self, metavar: str, help: str, spelling: str, optional: bool) -> None:
        self.metavar = metavar
        self.help = help
        self.spelling = spelling
        self.optional = optional

    @property
    def usage(self) -> str:
        """How it is written in a usage line."""
        return f"[{self.spelling}]" if self.optional else self.spelling


class Argument(Part):
    """A positional argument. `many` takes all that follow.

    verbatim: what follows its first word belongs to it as well, words that look like options too.
    """

    __slots__ = ("many", "name", "verbatim")

    def __init__(
        self,
        name: str,
        metavar: str,
        help: str,
        *,
        many: bool = False,
        optional: bool = False,
        verbatim: bool = False,
    ) -> None:
        super().__init__(metavar, help, metavar + ("..." if many else ""), optional)
        self.name = name
        self.many = many
        self.verbatim = verbatim


class Option(Part):
    """An option. Without a metavar it is a flag.

    kind: what its value is, text, count, lines (a count, or `all`), seconds, moment, signal, or states.
    """

    __slots__ = ("kind", "long", "short")

    def __init__(self, long: str, help: str, *, short: str = "", metavar: str = "", kind: str = "text"):
        super().__init__(metavar, help, f"{short or long} {metavar}".rstrip(), optional=True)
        self.long = long
        self.short = short
        self.kind = kind

    @property
    def name(self) -> str:
        """Key under which a parsed call holds it: `no_wait` for `--no-wait`."""
        return self.long.lstrip("-").replace("-", "_")


class Command:
    """One command: `name` may be two words (`config get`); runs `function` of cli module `family`."""

    __slots__ = ("arguments", "family", "function", "help", "name", "options", "section")

    def __init__(
        self,
        name: str,
        help: str,
        *parts: Part,
        section: str,
        family: str,
        function: str = "",
    ) -> None:
        self.name = name
        self.help = help
        self.arguments = tuple(p for p in parts if isinstance(p, Argument))
        self.options = tuple(p for p in parts if isinstance(p, Option))
        self.section = section
        self.family = family
        self.function = function or name.replace(" ", "_").replace("-", "_")

    @property
    def usage(self) -> str:
        """The usage line without the program's name."""
        return " ".join((self.name, *self.parts_usage))

    @property
    def parts_usage(self) -> list[str]:
        """How options and arguments are written in a usage line, one by one."""
        return [part.usage for part in (*self.options, *self.arguments)]
