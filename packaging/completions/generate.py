# SPDX-License-Identifier: Apache-2.0
"""Writes the shell completions from the table of commands: `python packaging/completions/generate.py`.

Three files beside this one: maestro.bash, _maestro for zsh, maestro.fish. Names of jobs and the like
are asked of the daemon when a word is completed, through `maestro _names`.
"""

from __future__ import annotations

import signal
from pathlib import Path

from maestro_py.cli.grammar import Command, Option
from maestro_py.cli.parser import CHOICES
from maestro_py.cli.table import COMMANDS, GLOBAL_OPTIONS

HERE = Path(__file__).parent
# REUSE-IgnoreStart
ABOUT = "# SPDX-License-Identifier: Apache-2.0\n# Made from the table of commands; do not edit.\n"
# REUSE-IgnoreEnd

SIGNALS = sorted(s.name for s in (signal.SIGTERM, signal.SIGKILL, signal.SIGHUP, signal.SIGINT,
                 signal.SIGUSR1, signal.SIGUSR2, signal.SIGQUIT, signal.SIGSTOP, signal.SIGCONT))  # fmt: skip

ASKED = ("jobs", "composites", "templates", "images", "tasks")
"""Kinds of words that the daemon knows."""


def kind_of(command: Command, metavar: str) -> str:
    """Return what completes a word: one of ASKED, files, dirs, commands, or nothing."""
    word = metavar.split("|")[0]
    if word == "JOB":
        return "images" if command.name in ("image remove", "image pin", "image unpin") else "jobs"
    if word == "NAME":
        return "templates" if command.name.startswith("template") else ""
    if word == "ID":
        return "tasks" if command.name == "task" else "composites" if command.name == "status" else ""
    return {"FILE": "files", "PATH": "files", "DIR": "dirs", "COMMAND": "commands"}.get(word, "")


def value_of(command: Command, option: Option) -> str:
    """Return what completes an option's value: a kind, or the words themselves."""
    if option.kind == "signal":
        return " ".join(SIGNALS)
    if option.kind in CHOICES:
        return " ".join(choice.lower() for choice in CHOICES[option.kind])
    return kind_of(command, option.metavar)


def options_of(command: Command) -> list[Option]:
    """Return the options a command takes, the global ones too."""
    return [*command.options, *GLOBAL_OPTIONS[:3]]


def spellings(option: Option) -> list[str]:
    """Return how an option may be written."""
    return [option.short, option.long] if option.short else [option.long]


def firsts() -> dict[str, list[Command]]:
    """Return first word -> commands that begin with it, in the table's order."""
    found: dict[str, list[Command]] = {}
    for command in COMMANDS:
        found.setdefault(command.name.split()[0], []).append(command)
    return found


def groups() -> list[str]:
    """Return first words that need a second."""
    return [first for first, commands in firsts().items() if " " in commands[0].name]


# bash


def bash() -> str:
    """Return the completion for bash; it needs nothing besides bash 4."""
    lines = [
        ABOUT,
        "_maestro_words() {",
        "    # what completes the word: names of the daemon, files, or the given words",
        '    case "$1" in',
        f'        {"|".join(ASKED)}) mapfile -t COMPREPLY < <(compgen -W "$(maestro "${{socket[@]}}" '
        '_names "$1" 2>/dev/null)" -- "$cur") ;;',
        '        files) compopt -o filenames; mapfile -t COMPREPLY < <(compgen -f -- "$cur") ;;',
        '        dirs) compopt -o filenames; mapfile -t COMPREPLY < <(compgen -d -- "$cur") ;;',
        '        commands) mapfile -t COMPREPLY < <(compgen -c -- "$cur") ;;',
        '        *) mapfile -t COMPREPLY < <(compgen -W "$1" -- "$cur") ;;',
        "    esac",
        "}",
        "",
        "_maestro() {",
        '    local cur="${COMP_WORDS[COMP_CWORD]}" prev="${COMP_WORDS[COMP_CWORD - 1]}"',
        '    local command="" count=0 i word socket=()',
        "    COMPREPLY=()",
        "    for ((i = 1; i < COMP_CWORD; i++)); do",
        '        word="${COMP_WORDS[i]}"',
        '        case "$command:$word" in',
        '            *:--socket) socket=(--socket "${COMP_WORDS[i + 1]}"); ((i++)) ;;',
        *(
            f"            {_alternatives(command.name, option)}) ((i++)) ;;"
            for command in COMMANDS
            for option in command.options
            if option.metavar
        ),
        "            *:-*) ;;",
        f'            :{"|:".join(groups())}) command="$word" ;;',
        f'            {"|".join(f"{group}:*" for group in groups())}) command="$command $word" ;;',
        '            :*) command="$word" ;;',
        "            *) ((count++)) ;;",
        "        esac",
        "    done",
        '    case "$command:$prev" in',
        "        *:--socket) _maestro_words files; return ;;",
    ]
    for command in COMMANDS:
        for option in command.options:
            if option.metavar:
                value = value_of(command, option)
                lines.append(
                    f'        {_alternatives(command.name, option)}) _maestro_words "{value}"; return ;;'
                )
    lines += ["    esac", '    case "$cur:$command" in']
    words = " ".join(word for option in GLOBAL_OPTIONS for word in spellings(option))
    lines.append(f'        -*:) _maestro_words "{words}" ;;')
    for command in COMMANDS:
        words = " ".join(word for option in options_of(command) for word in spellings(option))
        lines.append(f'        -*:"{command.name}") _maestro_words "{words}" ;;')
    lines.append(f'        *:) _maestro_words "{" ".join(firsts())}" ;;')
    for group in groups():
        seconds = " ".join(command.name.split()[1] for command in firsts()[group])
        lines.append(f'        *:{group}) _maestro_words "{seconds}" ;;')
    for command in COMMANDS:
        if command.arguments:
            lines.append(f'        *:"{command.name}")')
            lines.append('            case "$count" in')
            for number, argument in enumerate(command.arguments):
                kind = kind_of(command, argument.metavar)
                if kind:
                    place = "*" if argument.many else str(number)
                    lines.append(f'                {place}) _maestro_words "{kind}" ;;')
            lines += ["            esac", "            ;;"]
    lines += ["    esac", "}", "", "complete -F _maestro maestro", ""]
    return "\n".join(lines)


def _alternatives(command: str, option: Option) -> str:
    return "|".join(f'"{command}:{word}"' for word in spellings(option))


# zsh


def zsh() -> str:
    """Return the completion for zsh."""
    lines = [
        "#compdef maestro",
        ABOUT,
        "_maestro_names() {",
        "    local -a names",
        "    local -a socket",
        "    socket=(${(kv)opt_args[(I)--socket]})",
        '    names=(${(f)"$(maestro $socket _names $1 2>/dev/null)"})',
        "    compadd -a names",
        "}",
        "",
        "_maestro_commands() {",
        "    local -a commands",
        "    commands=(",
        *(f"        {_quoted(f'{first}:{_help(first)}')}" for first in firsts()),
        "    )",
        "    _describe -t commands command commands",
        "}",
        "",
    ]
    for group in groups():
        lines += [
            f"_maestro_{group}() {{",
            "    local -a commands",
            "    commands=(",
            *(f"        {_quoted(f'{c.name.split()[1]}:{c.help}')}" for c in firsts()[group]),
            "    )",
            f"    _describe -t commands '{group} command' commands",
            "}",
            "",
        ]
    lines += [
        "_maestro() {",
        "    local curcontext=$curcontext state line",
        "    typeset -A opt_args",
        "    _arguments -C -S \\",
        *(f"        {spec} \\" for option in GLOBAL_OPTIONS for spec in _zsh_option(None, option)),
        "        '1: :_maestro_commands' '*:: :->rest' && return",
        '    case "$line[1]" in',
    ]
    for first, commands in firsts().items():
        lines.append(f"        {first})")
        if first in groups():
            lines += [
                f"            _arguments -C '1: :_maestro_{first}' '*:: :->second' && return",
                '            case "$line[1]" in',
            ]
            for command in commands:
                lines += [
                    f"                {command.name.split()[1]})",
                    *_zsh_command(command, "                    "),
                    "                    ;;",
                ]
            lines.append("            esac")
        else:
            lines += _zsh_command(commands[0], "            ")
        lines.append("            ;;")
    lines += ["    esac", "}", "", '_maestro "$@"', ""]
    return "\n".join(lines)


def _zsh_command(command: Command, margin: str) -> list[str]:
    specs = [spec for option in options_of(command) for spec in _zsh_option(command, option)]
    for argument in command.arguments:
        place = "*" if argument.many else ":" if argument.optional else ""
        head = (
            f"{place}:"
            if argument.many
            else f":{place.removeprefix(':')}" + (":" if argument.optional else "")
        )
        specs.append(
            _quoted(
                f"{head}{argument.metavar.split('|')[0]}:{_zsh_action(kind_of(command, argument.metavar))}"
            )
        )
    return [
        f"{margin}_arguments -S \\",
        *(f"{margin}    {spec} \\" for spec in specs[:-1]),
        f"{margin}    {specs[-1]}",
    ]


def _zsh_option(command: Command | None, option: Option) -> list[str]:
    help = option.help.replace("[", "(").replace("]", ")").replace(":", " ")
    value = ""
    if option.metavar:
        kind = value_of(command, option) if command else "files"
        value = f":{option.metavar}:{_zsh_action(kind)}"
    together = f"({' '.join(spellings(option))})" if option.short else ""
    return [_quoted(f"{together}{word}[{help}]{value}") for word in spellings(option)]


def _zsh_action(kind: str) -> str:
    if kind in ASKED:
        return f" _maestro_names {kind}"  # the blank keeps zsh from adding words of its own
    return {"files": "_files", "dirs": "_files -/", "commands": "_normal", "": " "}.get(kind) or f"({kind})"


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


def _help(first: str) -> str:
    commands = firsts()[first]
    if first in groups():
        return ", ".join(command.name.split()[1] for command in commands)
    return commands[0].help


# fish


def fish() -> str:
    """Return the completion for fish."""
    lines = [
        ABOUT,
        "function __maestro_command",
        "    # the words of the command line that are no options, the word being completed left out",
        "    set -l skip 0",
        "    for word in (commandline -opc)[2..]",
        "        if test $skip = 1",
        "            set skip 0",
        "        else if test $word = --socket",
        "            set skip 1",
        "        else if not string match -q -- '-*' $word",
        "            echo $word",
        "        end",
        "    end",
        "end",
        "",
        "function __maestro_at",
        "    # whether the command line is at this command; without one, whether it has none yet",
        "    set -l words (__maestro_command)",
        "    if test (count $argv) = 0",
        "        test (count $words) = 0",
        "    else",
        "        set -l wanted (count $argv)",
        "        test (count $words) -ge $wanted; or return 1",
        "        set -l head $words[1..$wanted]",
        '        test "$head" = "$argv"',
        "    end",
        "end",
        "",
        "function __maestro_names",
        "    set -l words (commandline -opc)",
        "    set -l socket",
        "    if set -l at (contains -i -- --socket $words)",
        "        set socket --socket $words[(math $at + 1)]",
        "    end",
        "    maestro $socket _names $argv[1] 2>/dev/null",
        "end",
        "",
        "complete -c maestro -f",
    ]
    for option in GLOBAL_OPTIONS:
        lines.append(_fish_option(None, option))
    for first in firsts():
        lines.append(f"complete -c maestro -n __maestro_at -a {first} -d {_quoted(_help(first))}")
    for group in groups():
        for command in firsts()[group]:
            second = command.name.split()[1]
            condition = _quoted(f"__maestro_at {group}; and test (count (__maestro_command)) = 1")
            lines.append(f"complete -c maestro -n {condition} -a {second} -d {_quoted(command.help)}")
    for command in COMMANDS:
        lines += [_fish_option(command, option) for option in command.options]
        before = len(command.name.split())
        for number, argument in enumerate(command.arguments):
            kind = kind_of(command, argument.metavar)
            if not kind:
                continue
            test = "-ge" if argument.many else "="
            condition = (
                f"__maestro_at {command.name}; and test (count (__maestro_command)) {test} {before + number}"
            )
            lines.append(f"complete -c maestro -n {_quoted(condition)} {_fish_action(kind)}")
    return "\n".join([*lines, ""])


def _fish_option(command: Command | None, option: Option) -> str:
    parts = ["complete -c maestro"]
    if command:
        parts.append(f"-n '__maestro_at {command.name}'")
    parts.append(f"-l {option.long.removeprefix('--')}")
    if option.short:
        parts.append(f"-s {option.short.removeprefix('-')}")
    if option.metavar:
        kind = value_of(command, option) if command else "files"
        parts.append("-r " + _fish_action(kind) if kind else "-x")
    parts.append(f"-d {_quoted(option.help)}")
    return " ".join(parts)


def _fish_action(kind: str) -> str:
    if kind in ASKED:
        return f"-x -a '(__maestro_names {kind})'"
    return {
        "files": "-F",
        "dirs": "-x -a '(__fish_complete_directories)'",
        "commands": "-x -a '(__fish_complete_command)'",
    }.get(kind, f"-x -a '{kind}'")


FILES = {"maestro.bash": bash, "_maestro": zsh, "maestro.fish": fish}
"""File -> what makes its text."""

if __name__ == "__main__":
    for name, make in FILES.items():
        (HERE / name).write_text(make())
