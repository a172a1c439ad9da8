# SPDX-License-Identifier: Apache-2.0
"""The table of routes: which handler answers which method and path, and who may ask."""

from __future__ import annotations

import enum
import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from operator import attrgetter
from typing import Any

from maestro_py.errors import MaestroError, NotFound
from maestro_py.valueclass import valueclass

_ESCAPE = re.compile(rb"%([0-9A-Fa-f]{2})?")
_PARAM = re.compile(r"\{([a-z_]+)\}")


class Role(enum.IntEnum):
    """What a peer may do; each role includes those before it."""

    NONE = 0
    JOB = 1  # anybody: what the caller's own job may ask, the handler looks at who it is
    READ = 2
    OPERATE = 3
    ADMIN = 4


class MethodNotAllowed(MaestroError):
    """The path is known, but not with this method."""

    code = "bad-request"

    def __init__(self, method: str, path: str, allow: Iterable[str]) -> None:
        self.allow = tuple(allow)
        super().__init__(f"cannot {method} {path}: this path takes {', '.join(self.allow)}")


@valueclass(frozen=True)
class Route:
    """One row of the table.

    pattern: path with parameters that fill a whole segment, as `/v1/jobs/{job}/why`.
    handler: coroutine function of a Request, or the name of one to be bound, as `jobs.start`.
    role: the least role that may use it. summary: one line for people.
    query: names of the query parameters it takes; None: whatever comes, what is not known is passed over.
    """

    method: str
    pattern: str
    handler: Any
    role: Role = Role.ADMIN
    summary: str = ""
    query: frozenset[str] | None = None


def bound(routes: Iterable[Route], handlers: object) -> list[Route]:
    """Return the routes with the handlers they name on `handlers`. AttributeError when it lacks one."""
    return [replace(route, handler=attrgetter(route.handler)(handlers)) for route in routes]


class Router:
    """Finds the route for a method and a path.

    ValueError when two routes are the same or a pattern is malformed: at start, not at a request.
    """

    def __init__(self, routes: Iterable[Route]) -> None:
        self.routes = tuple(routes)
        # By number of segments, then in an order in which fixed segments come before parameters.
        self._tables: dict[int, list[tuple[tuple[str | None, ...], dict[str, Route]]]] = {}
        names: dict[tuple[str | None, ...], dict[str, Route]] = {}
        for route in self.routes:
            key = tuple(_fixed(segment, route.pattern) for segment in _split(route.pattern))
            methods = names.get(key)
            if methods is None:
                methods = names[key] = {}
                self._tables.setdefault(len(key), []).append((key, methods))
            if route.method in methods:
                raise ValueError(f"two routes for {route.method} {route.pattern}")
            methods[route.method] = route
        for table in self._tables.values():
            table.sort(key=lambda entry: [segment is None for segment in entry[0]])

    def match(self, method: str, path: str) -> tuple[Route, dict[str, str]]:
        """Return the route and the decoded path parameters. HEAD finds the route of GET.

        path: as sent, percent-encoded, without the query; a slash at its end makes it another path.
        Raises NotFound, MethodNotAllowed, or MaestroError `bad-request` for a malformed encoding.
        """
        segments = [decode(segment) for segment in _split(path)] if path.startswith("/") else []
        allowed: dict[str, None] = {}
        for key, methods in self._tables.get(len(segments), ()):
            if not all(
                segment == fixed if fixed is not None else segment
                for fixed, segment in zip(key, segments, strict=True)
            ):
                continue
            route = methods.get(method) or (methods.get("GET") if method == "HEAD" else None)
            if route is not None:
                names = _split(route.pattern)
                return route, {
                    name[1:-1]: segment
                    for name, fixed, segment in zip(names, key, segments, strict=True)
                    if fixed is None
                }
            allowed.update(dict.fromkeys(methods))
            if "GET" in methods:
                allowed["HEAD"] = None
        if allowed:
            raise MethodNotAllowed(method, path, sorted(allowed))
        raise NotFound(f"cannot {method} {path}: there is no such path")


def parse_query(query: str) -> dict[str, list[str]]:
    """Return the values of each name in a query string, in order; `+` is a blank, a name alone has ""."""
    values: dict[str, list[str]] = {}
    for part in query.split("&"):
        if part:
            name, _, value = part.replace("+", " ").partition("=")
            values.setdefault(decode(name), []).append(decode(value))
    return values


def check_query(query: Mapping[str, list[str]], known: Iterable[str]) -> None:
    """Refuse names nobody reads, and all but the jobs given twice: nothing said is passed over.

    Raises MaestroError `bad-request`.
    """
    takes = sorted(known)
    for name, values in query.items():
        if len(values) > 1 and name != "job":
            raise MaestroError(
                f"cannot read the query parameter {name[:60]!r}: it is given twice", code="bad-request"
            )
        if name not in takes:
            what = f"it takes {', '.join(takes)}" if takes else "it takes none"
            raise MaestroError(f"cannot read the query parameter {name[:60]!r}: {what}", code="bad-request")


def decode(text: str) -> str:
    """Return percent-encoded UTF-8 as text. Raises MaestroError `bad-request` when it is neither."""
    if "%" not in text:
        return text
    try:
        return _ESCAPE.sub(_byte, text.encode()).decode()
    except ValueError:
        raise MaestroError(f"cannot decode {text!r}: bad percent-encoding", code="bad-request") from None


def _byte(match: re.Match[bytes]) -> bytes:
    if match[1] is None:
        raise ValueError
    return bytes((int(match[1], 16),))


def _split(path: str) -> list[str]:
    return path.split("/")[1:]


def _fixed(segment: str, pattern: str) -> str | None:
    """The segment a path must have here, or None for a parameter."""
    if _PARAM.fullmatch(segment):
        return None
    if "{" in segment or "}" in segment:
        raise ValueError(f"a parameter must fill a whole segment: {pattern}")
    return segment
