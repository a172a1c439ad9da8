# SPDX-License-Identifier: Apache-2.0
"""What a command line is made of: commands, their arguments and options.

Plain classes rather than dataclasses, so that `maestro --help` does not pay for those.
"""

from __future__ import annotations


class Argument:
    """A positional argument. `many` takes all that follow; an optional one may be left out.

    verbatim: what follows its first word belongs to it as well, words that look like options too.
    """

    __slots__ = ("help", "many", "metavar", "name", "optional", "verbatim")

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
        self.name = name
        self.metavar = metavar
        self.help = help
        self.many = many
        self.optional = optional
        self.verbatim = verbatim

    @property
    def usage(self) -> str:
        """How it is written in a usage line."""
        text = self.metavar + ("..." if self.many else "")
        return f"[{text}]" if self.optional else text


class Option:
    """An option. Without a metavar it is a flag.

    kind: what its value is, text, count, lines (a count, or `all`), seconds, moment, signal, or states.
    """

    __slots__ = ("help", "kind", "long", "metavar", "short")

    def __init__(self, long: str, help: str, *, short: str = "", metavar: str = "", kind: str = "text"):
        self.long = long
        self.short = short
        self.metavar = metavar
        self.help = help
        self.kind = kind

    @property
    def name(self) -> str:
        """Key under which a parsed call holds it: `no_wait` for `--no-wait`."""
        return self.long.lstrip("-").replace("-", "_")

    @property
    def usage(self) -> str:
        """How it is written in a usage line."""
        text = self.short or self.long
        return f"[{text} {self.metavar}]" if self.metavar else f"[{text}]"


class Command:
    """One command: `name` may be two words (`config get`); runs `function` of cli module `family`."""

    __slots__ = ("arguments", "family", "function", "help", "name", "options", "section")

    def __init__(
        self,
        name: str,
        help: str,
        *parts: Argument | Option,
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
        return [option.usage for option in self.options] + [argument.usage for argument in self.arguments]
