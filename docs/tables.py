# SPDX-License-Identifier: Apache-2.0
"""The tables the program works by, as text of a page: fields, commands, options, routes, templates."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from maestro_py import shipped
from maestro_py.cli.answers import ANSWERS, FAILURE
from maestro_py.cli.grammar import Argument, Option
from maestro_py.cli.helptext import EXIT_STATUS
from maestro_py.cli.table import ALIASES, COMMANDS, GLOBAL_OPTIONS, HIDDEN
from maestro_py.daemon import api, arguments, upstream
from maestro_py.daemon.messages import STATUS
from maestro_py.daemon.openapi import document
from maestro_py.daemon.openapi.shapes import QUERY, SHAPES
from maestro_py.daemon.openapi.upstream import UPSTREAM_SHAPES
from maestro_py.daemon.router import Role
from maestro_py.spec import daemonfile, documents, fields, platform, schema
from maestro_py.spec.model import Settings
from maestro_py.spec.reader import Field, Table

_MARK = re.compile(r"^\{\{([a-z]+)((?: [\w-]+)*)\}\}$", re.MULTILINE)
_DAEMON_OPTION = re.compile(r"^  (--.+?)  +(.*(?:\n {6,}.*)*)$", re.MULTILINE)

_TABLES = {
    "running": documents.RUNNING,
    "operation": documents.RUNNING_OP,
    "job": fields.JOB,
    "template": fields.TEMPLATE,
    "image": fields.IMAGE,
    "config": fields.CONFIG,
    "daemon": daemonfile.DAEMON,
}
_ELSEWHERE = (*_TABLES.values(), fields.JOB_INLINE)
_SETTINGS = frozenset(field.name for field in dataclasses.fields(Settings))
_ROLES = {
    Role.NONE: "anybody",
    Role.JOB: "a job, about itself",
    Role.READ: "read",
    Role.OPERATE: "operate",
    Role.ADMIN: "admin",
}


def fill(page: str) -> str:
    """Return a page with every mark replaced by what it stands for. Raises KeyError for an unknown one."""
    return _MARK.sub(lambda match: "\n".join(_MAKERS[match[1]](*match[2].split())).rstrip("\n"), page)


# Fields


def _fields(name: str) -> Iterator[str]:
    """Yield the fields of a table, but for the settings that jobs and templates share."""
    table = _TABLES[name]
    for row in table.fields:
        if not (table.nested and row.attr in _SETTINGS):
            yield from _field(row)


def _settings() -> Iterator[str]:
    """Yield what jobs and templates both may say."""
    for row in fields.TEMPLATE.fields:
        if row.attr in _SETTINGS:
            yield from _field(row)


def _objects(*names: str) -> Iterator[str]:
    """Yield a part for every object that the fields of some tables lead to."""
    seen: list[Table] = []
    for name in names:
        others = [table for table in _ELSEWHERE if table is not _TABLES[name]]
        for table in schema.tables(_TABLES[name], without=others)[1:]:
            if not any(table is other for other in seen):
                seen.append(table)
                yield from (f"### {_title(table)}", "")
                for row in table.fields:
                    yield from _field(row)


def _title(table: Table) -> str:
    words = re.sub(r"^(a|an) ", "", table.noun)
    return words[0].upper() + words[1:]


def _field(row: Field) -> Iterator[str]:
    expected = re.split(r",? (?:as|or with) ", row.kind.expected)[0]  # NOTATION has the rest
    inside = schema.tables(_alone(row), without=_ELSEWHERE)[1:]
    text = row.doc
    if row.required:
        text += " Required."
    elif row.default not in ("", "none"):
        text += f" Default: {row.default}."
    if row.aliases:
        text += f" Also spelled {' and '.join(f'`{alias}`' for alias in row.aliases)}."
    if inside:
        text += f" See *{_title(inside[0])}*."
    yield from (f"`{row.key}` - {expected}", f": {text}", "")


def _alone(row: Field) -> Table:
    """Return a table of this one field: what it leads to is then what comes after the first."""
    return Table("", dict, (row,))


# Commands


def _commands() -> Iterator[str]:
    section = ""
    for command in COMMANDS:
        if command.section != section:
            section = command.section
            yield from (f"### {section}", "")
        yield f"`{' '.join(('maestro', command.name))}` {_usage(command.parts_usage)}".rstrip()
        details = [*(_argument(part) for part in command.arguments), *map(_option, command.options)]
        yield from ("  \n".join((f": {_sentence(command.help)}", *details)), "")


def _usage(parts: list[str]) -> str:
    """Return a usage line's parts: words that stand for something are marked as that."""
    return " ".join(
        re.sub(r"-{1,2}[\w-]+|[A-Z]{1,}\|?-?", lambda m: f"`{m[0]}`" if m[0][0] == "-" else f"*{m[0]}*", part)
        for part in parts
    )


def _argument(part: Argument) -> str:
    return f"*{part.metavar}*: {_ended(part.help)}"


def _option(part: Option) -> str:
    return f"{_spelling(part)}: {_ended(part.help)}"


def _spelling(part: Option) -> str:
    both = f"`{part.short}`, `{part.long}`" if part.short else f"`{part.long}`"
    return f"{both} *{part.metavar}*" if part.metavar else both


def _options() -> Iterator[str]:
    for part in GLOBAL_OPTIONS:
        yield from (_spelling(part), f": {_sentence(part.help)}", "")


def _exits() -> Iterator[str]:
    for number, meaning in EXIT_STATUS:
        yield from (f"`{number}`", f": {_sentence(meaning)}", "")


def _daemon() -> Iterator[str]:
    """Yield the options of maestrod, from what `maestrod --help` prints."""
    for option, help in _DAEMON_OPTION.findall(arguments.USAGE):
        name, _, argument = option.partition(" ")
        spelled = f"`{name}` *{argument.strip()}*" if argument else f"`{name}`"
        yield from (spelled, f": {_sentence(' '.join(help.split()))}", "")


def _synopsis() -> Iterator[str]:
    usage = arguments.USAGE.partition("\n\n")[0].removeprefix("usage: maestrod ")
    yield f"**maestrod** {_usage(usage.split())}"


def _sentence(text: str) -> str:
    return _ended(text[:1].upper() + text[1:]) if text else ""


def _ended(text: str) -> str:
    return text if text.endswith((".", ")")) else f"{text}."


def _answers() -> Iterator[str]:
    """Yield what each command prints with --json; commands that print the same share an entry."""
    alike: dict[str, list[str]] = {}
    for command, answer in ANSWERS.items():
        if isinstance(answer, str):
            route, _, more = answer.partition(": ")
            text = f"What `{route}` answers" + (f": {more}" if more else "")
        else:
            text = "  \n".join(f"`{key}`: {_ended(what)}" for key, what in answer.items())
        alike.setdefault(text, []).append(command)
    for text, commands in alike.items():
        yield from (", ".join(f"`{command}`" for command in commands), f": {_ended(text)}", "")
    for key, what in FAILURE.items():
        yield f"`{key}`: {_ended(what)}"


def _words() -> Iterator[str]:
    """Yield the words of upstream's shell that are understood."""
    for alias, command in ALIASES:
        yield from (f"`{alias}`", f": `maestro {command}`", "")
    for hidden in HIDDEN:
        if not hidden.name.startswith("_"):
            yield from (f"`{hidden.name}`", f": {_sentence(hidden.help)}", "")


# Routes


def _about() -> Iterator[str]:
    yield document.ABOUT


def _routes(which: str) -> Iterator[str]:
    table = {"v1": (api.ROUTES, SHAPES), "upstream": (upstream.ROUTES, UPSTREAM_SHAPES)}
    routes, shapes = table[which]
    for route in routes:
        yield f"`{route.method} {route.pattern}`"
        shape = shapes.get(f"{route.method} {route.pattern}")
        about = _sentence(shape.about) if shape else ""
        text = f": {_sentence(route.summary)} {about} *For:* {_ROLES[route.role]}."
        if route.query:
            text += f" *Query:* {', '.join(f'`{name}`' for name in sorted(route.query))}."
        yield from (text.replace("  ", " "), "")


def _query() -> Iterator[str]:
    for name, what in QUERY.items():
        yield from (f"`{name}`", f": {what['description']}", "")


def _codes() -> Iterator[str]:
    yield ", ".join(f"`{code}` ({status})" for code, status in STATUS.items()) + "."


# What else is in the program


def _templates() -> Iterator[str]:
    alike: dict[str, list[str]] = {}
    for path in sorted(Path(shipped.templates()).glob("*.json")):
        data = json.loads(path.read_text(encoding="utf-8"))
        for template in data.get("templates", [data]):
            said = json.dumps({key: value for key, value in template.items() if key != "name"})
            alike.setdefault(said[1:-1], []).append(template["name"])
    for said, names in alike.items():
        yield from (", ".join(f"`{name}`" for name in names), f": `{said}`", "")


def _sections() -> Iterator[str]:
    yield ", ".join(f"`{name}`" for name in sorted(daemonfile.OTHER_SECTIONS, key=str.lower)) + "."


def _identity() -> Iterator[str]:
    example = platform.identity(
        dict.fromkeys(platform.TEXTS.values(), "x")
        | {"ethernetMAC": [0] * 6, "sixBMAC": [0] * 8, "gatewayServicesAddress": "https://x"}
    )
    yield ", ".join(f"`{name}`" for name in sorted(example)) + "."


_MAKERS: dict[str, Callable[..., Iterator[str]]] = {
    "fields": _fields,
    "settings": _settings,
    "objects": _objects,
    "commands": _commands,
    "options": _options,
    "answers": _answers,
    "words": _words,
    "exits": _exits,
    "daemon": _daemon,
    "synopsis": _synopsis,
    "about": _about,
    "routes": _routes,
    "query": _query,
    "codes": _codes,
    "templates": _templates,
    "sections": _sections,
    "identity": _identity,
}
