# SPDX-License-Identifier: Apache-2.0
"""From the words of a command line to a `Call`, by the table of commands.

Options may stand anywhere, `--` ends them, `--lines=5`, `-n5` and `-fn 5` are understood. Long
options are not guessed from their beginnings: a script must not change its meaning when an option
is added.
"""

from __future__ import annotations

from maestro_py.cli.grammar import Command, Option
from maestro_py.cli.table import ALIASES, COMMANDS, GLOBAL_OPTIONS, HIDDEN

TYPE_CHECKING = False  # typing's constant, without the import of typing
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Any


class UsageError(Exception):
    """The command line makes no sense; `hint` says what would."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class Call:
    """A parsed command line. `command` is None when only help or the version was asked for."""

    def __init__(self, command: Command | None, values: dict[str, Any]) -> None:
        self.command = command
        self.values = values

    def flag(self, name: str) -> bool:
        """Return whether a flag was given."""
        return bool(self.values.get(name, False))

    def text(self, name: str) -> str:
        """Return an argument's or option's text; empty when it was not given."""
        return str(self.values.get(name, ""))

    def many(self, name: str) -> list[str]:
        """Return the words of an argument that takes several."""
        return list(self.values.get(name, ()))

    def count(self, name: str) -> int | None:
        """Return a whole number, None when it was not given."""
        value = self.values.get(name)
        return None if value is None else int(value)

    def seconds(self, name: str) -> float | None:
        """Return a duration in seconds, None when it was not given."""
        value = self.values.get(name)
        return None if value is None else float(value)


def parse(words: Sequence[str]) -> Call:
    """Return the call a command line asks for. Raises UsageError."""
    command, rest = _find_command(words)
    if command is None:
        values, extra = _read_options(rest, GLOBAL_OPTIONS, "maestro")
        if extra:
            raise _no_command(extra)
        return Call(None, values)
    verbatim = next((i for i, argument in enumerate(command.arguments) if argument.verbatim), None)
    options = (*GLOBAL_OPTIONS, *command.options)
    values, positional = _read_options(rest, options, command.name, verbatim)
    if not values.get("help"):
        values.update(_assign(command, positional))
    return Call(command, values)


def _find_command(words: Sequence[str]) -> tuple[Command | None, list[str]]:
    """Take the command's words out of the line; they come before every other positional word."""
    at: list[int] = []
    skip = False
    for index, word in enumerate(words):
        if skip:
            skip = False
        elif word == "--":
            break
        elif word == "--socket":
            skip = True
        elif not word.startswith("-"):
            at.append(index)
            if len(at) == 2:
                break
    names = [words[index] for index in at]
    for count in (2, 1):
        wanted = " ".join(names[:count])
        wanted = next((command for alias, command in ALIASES if alias == wanted), wanted)
        for command in (*COMMANDS, *HIDDEN):
            if len(names) >= count and command.name == wanted:
                taken = set(at[:count])
                return command, [word for index, word in enumerate(words) if index not in taken]
    if names and names[0] == "help":
        if len(names) > 1 and names[1] not in {
            word for c in COMMANDS for word in (c.name, c.name.split()[0])
        }:
            raise _no_command(names[1:])
        return _find_command([*(w for i, w in enumerate(words) if i != at[0]), "--help"])
    if names and "--help" not in words and "-h" not in words:
        raise _no_command(names)
    # `maestro config --help`: the overview is the best answer there is
    return None, [word for index, word in enumerate(words) if index not in at]


def _no_command(names: Sequence[str]) -> UsageError:
    known = [*(c.name for c in (*COMMANDS, *HIDDEN)), *(alias for alias, _ in ALIASES)]
    group = [name for name in known if name.startswith(names[0] + " ")]
    if group:
        words = [name.split()[1] for name in group]
        if len(names) == 1:
            return UsageError(f"cannot run '{names[0]}': it needs one of {', '.join(words)}")
        near = closest(names[1], words)
        return UsageError(
            f"cannot run '{names[0]} {names[1]}': no such command",
            f"did you mean '{names[0]} {near}'?" if near else f"there is {', '.join(group)}",
        )
    firsts = {c.name.split()[0] for c in COMMANDS}
    near = closest(names[0], firsts)
    return UsageError(
        f"cannot run '{names[0]}': no such command",
        f"did you mean '{near}'?" if near else "`maestro --help` lists the commands",
    )


def closest(word: str, known: Iterable[str]) -> str:
    """Return the known word that `word` most likely was meant to be, or nothing."""
    from maestro_py.spec.nearest import nearest  # only when something was mistyped

    return nearest(word, known)[0]


def _read_options(
    words: Sequence[str], options: Sequence[Option], where: str, verbatim: int | None = None
) -> tuple[dict[str, Any], list[str]]:
    """Return the options' values by name, and the words that are no options.

    verbatim: from the positional word of this number on, all words are positional.
    """
    values: dict[str, Any] = {}
    positional: list[str] = []
    queue = list(words)
    while queue:
        word = queue.pop(0)
        if word == "--" or (verbatim is not None and len(positional) > verbatim):
            positional += queue if word == "--" else [word, *queue]
            break
        if word.startswith("--"):
            name, equals, value = word.partition("=")
            option = next((o for o in options if o.long == name), None)
            if option is None:
                raise _no_option(name, options, where)
            if equals and not option.metavar:
                raise UsageError(f"cannot take '{word}': {name} takes no value")
            if option.metavar and not equals:
                value = _value_of(option, name, queue)
            values[option.name] = _convert(option, name, value) if option.metavar else True
        elif word.startswith("-") and len(word) > 1:
            letters = word[1:]
            while letters:
                name, letters = "-" + letters[0], letters[1:]
                option = next((o for o in options if o.short == name), None)
                if option is None:
                    raise _no_option(name, options, where)
                if option.metavar:
                    value = letters or _value_of(option, name, queue)
                    values[option.name] = _convert(option, name, value)
                    break
                values[option.name] = True
        else:
            positional.append(word)
    return values, positional


def _value_of(option: Option, name: str, queue: list[str]) -> str:
    if not queue:
        raise UsageError(f"cannot take {name}: it needs a value, {name} {option.metavar}")
    return queue.pop(0)


def _no_option(name: str, options: Sequence[Option], where: str) -> UsageError:
    near = closest(name, [o.long for o in options]) if name.startswith("--") else ""
    help_of = "maestro --help" if where == "maestro" else f"maestro {where} --help"
    return UsageError(
        f"cannot take option {name}: {where} has no such option",
        f"did you mean {near}?" if near else f"`{help_of}` lists the options",
    )


CHOICES = {
    "states": (
        "NEVER_RAN",
        "WAITING_FOR_DEPS",
        "STARTING",
        "RUNNING",
        "STOPPING",
        "STOPPED",
        "RESTARTING",
        "FAILED",
    ),
    "sort": ("cpu", "memory", "job"),
}
"""What options of these kinds take; states may be several, with commas between them."""


def _convert(option: Option, name: str, text: str) -> Any:
    if option.kind == "text":
        return text
    if option.kind == "lines" and text == "all":
        return text
    if option.kind in ("count", "lines"):
        if text.isascii() and text.isdigit():
            return int(text)
        besides = " or `all`" if option.kind == "lines" else ""
        raise UsageError(f"cannot take {name} {text}: expected a whole number{besides}")
    if option.kind in CHOICES:
        words = text.split(",") if option.kind == "states" else [text]
        return [_choice(name, word, CHOICES[option.kind]) for word in words]
    if option.kind == "moment":
        from maestro_py.cli.moments import parse_moment

        try:
            return parse_moment(text)
        except ValueError as error:
            raise UsageError(f"cannot take {name} {text}: expected {error}") from None
    from maestro_py.units import parse_duration, parse_signal, signal_name

    try:
        if option.kind == "seconds":
            return parse_duration(text)
        number = parse_signal(text)
    except ValueError as error:
        hint = _near_signal(text) if option.kind == "signal" else ""
        raise UsageError(f"cannot take {name} {text}: expected {error}", hint) from None
    plain = signal_name(number)
    return plain if plain.startswith("SIG") else str(number)


def _near_signal(text: str) -> str:
    from signal import Signals

    near = closest(text.upper().removeprefix("SIG"), [signal.name.removeprefix("SIG") for signal in Signals])
    return f"did you mean SIG{near}?" if near else ""


def _choice(name: str, word: str, choices: Sequence[str]) -> str:
    for choice in choices:
        if choice.lower() == word.lower().replace("-", "_"):
            return choice
    near = closest(word, choices)
    shown = ", ".join(choice.lower() for choice in choices)
    hint = f"did you mean {near.lower()}?" if near else ""
    raise UsageError(f"cannot take {name} {word}: expected one of {shown}", hint)


def _assign(command: Command, words: Sequence[str]) -> dict[str, Any]:
    """Give the positional words to the command's arguments, in order."""
    values: dict[str, Any] = {}
    rest = list(words)
    for argument in command.arguments:
        if argument.many:
            taken, rest = rest, []
            if taken:
                values[argument.name] = taken
        elif rest:
            values[argument.name] = rest.pop(0)
        if argument.name not in values and not argument.optional:
            raise UsageError(
                f"cannot run {command.name}: {argument.metavar.split('|')[0]} is missing",
                f"usage: maestro {command.usage}",
            )
    if rest:
        raise UsageError(
            f"cannot run {command.name}: '{rest[0]}' is one word too many", f"usage: maestro {command.usage}"
        )
    for name, value in values.items():
        if value == "" or (isinstance(value, list) and "" in value):
            raise UsageError(f"cannot run {command.name}: an empty {name} makes no sense")
    return values
