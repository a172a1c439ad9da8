# SPDX-License-Identifier: Apache-2.0
"""Help, written from the table of commands; fits 80 columns."""

from __future__ import annotations

from maestro_py.cli.grammar import Command, Option
from maestro_py.cli.table import COMMANDS, GLOBAL_OPTIONS

EXIT_STATUS = (
    ("0", "done"),
    ("1", "what was asked for failed"),
    ("2", "the command line makes no sense"),
    ("3", "the daemon cannot be reached"),
)
"""Exit statuses and what they mean."""


def overview() -> str:
    """Return the help of the whole program."""
    lines = ["usage: maestro [--socket PATH] [--json] COMMAND ...", ""]
    section = ""
    for command in COMMANDS:
        if command.section != section:
            section = command.section
            lines += ["", section + ":"] if lines[-1] else [section + ":"]
        lines.append(_row(command.name, command.help))
    lines += ["", "Options:", *(_row(_spelling(option), option.help) for option in GLOBAL_OPTIONS)]
    lines += ["", "Exit status:", *(_row(number, text) for number, text in EXIT_STATUS)]
    lines += ["", "`maestro COMMAND --help` says more about one command."]
    return "\n".join(lines) + "\n"


def about(command: Command) -> str:
    """Return the help of one command."""
    lines = [_usage(command), "", command.help[0].upper() + command.help[1:] + ".", ""]
    if command.arguments:
        lines += ["Arguments:", *(_row(a.metavar, a.help) for a in command.arguments), ""]
    lines += ["Options:", *(_row(_spelling(o), o.help) for o in (*command.options, *GLOBAL_OPTIONS[:3]))]
    return "\n".join(lines) + "\n"


def _usage(command: Command) -> str:
    """Return the usage line, broken where it would pass the 80th column."""
    first = f"usage: maestro {command.name}"
    lines = [first]
    for part in command.parts_usage:
        if len(lines[-1]) + 1 + len(part) > 79:
            lines.append(" " * len(first))
        lines[-1] += " " + part
    return "\n".join(lines)


def _spelling(option: Option) -> str:
    both = f"{option.short}, {option.long}" if option.short else option.long
    return f"{both} {option.metavar}" if option.metavar else both


def _row(left: str, right: str) -> str:
    return f"  {left:<17} {right}" if len(left) <= 17 else f"  {left}\n{'':20}{right}"
