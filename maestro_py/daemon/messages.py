# SPDX-License-Identifier: Apache-2.0
"""Requests and responses of the socket API, and how an error looks in one."""

from __future__ import annotations

import json
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from maestro_py.daemon.router import MethodNotAllowed, Role
from maestro_py.daemon.tasks import Task
from maestro_py.errors import InvalidDocument, MaestroError
from maestro_py.spec.text import distinct, finite, no_constant

STATUS = {
    "bad-request": 400,
    "unauthorized": 401,
    "forbidden": 403,
    "not-found": 404,
    "conflict": 409,
    "too-large": 413,
    "invalid": 422,
    "failed": 500,
    "unsupported": 501,
    "unavailable": 503,
    "timeout": 504,
}
"""HTTP status by MaestroError.code; a code that is not here is 500."""

_SO_PEERGROUPS = 59  # asm-generic/socket.h; not in the socket module
_MOST_MARKS = 2_000_000  # in one body: three bytes of JSON can make an object of seventy
_TOO_MUCH = 1 << 53  # what every reader of JSON has as it is, and a 64-bit column takes

Number = TypeVar("Number", int, float)


NOBODY = -1
"""The uid, gid and pid of a peer that came over TCP."""


class Peer:
    """Who is at the other end of a Unix socket, as of its connect (SO_PEERCRED, unix(7)).

    read_groups: how to learn the supplementary groups, asked once and only when somebody wants them.
    """

    __slots__ = ("_groups", "_read_groups", "gid", "pid", "uid")

    def __init__(
        self, pid: int, uid: int, gid: int, read_groups: Callable[[], frozenset[int]] = frozenset
    ) -> None:
        self.pid = pid
        self.uid = uid
        self.gid = gid
        self._read_groups = read_groups
        self._groups: frozenset[int] | None = None

    @classmethod
    def of(cls, sock: socket.socket) -> Peer:
        """Return the peer of a connected socket. Raises OSError."""
        pid, uid, gid = struct.unpack("=iII", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        return cls(pid, uid, gid, lambda: _peer_groups(sock))

    @property
    def who(self) -> str:
        """Who it is, for messages and records."""
        if self.uid == NOBODY:
            return "a client on TCP"
        return "root" if self.uid == 0 else f"uid {self.uid}"

    @property
    def groups(self) -> frozenset[int]:
        """The supplementary group ids; empty where the kernel cannot tell (before 4.13, more than 256)."""
        if self._groups is None:
            self._groups = self._read_groups()
        return self._groups


def _peer_groups(sock: socket.socket) -> frozenset[int]:
    try:
        # 1024 bytes is all getsockopt() hands out in Python.
        data = sock.getsockopt(socket.SOL_SOCKET, _SO_PEERGROUPS, 1024)
    except OSError:
        return frozenset()
    return frozenset(struct.unpack(f"={len(data) // 4}I", data))


@dataclass
class Request:
    """One request with its whole body. `path` is as sent; `query` and `params` are decoded."""

    method: str
    path: str
    peer: Peer
    query: dict[str, list[str]] = field(default_factory=dict)
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)
    body: bytes = b""
    params: dict[str, str] = field(default_factory=dict)
    role: Role = Role.NONE

    def json(self) -> Any:
        """Return the body read as JSON. Raises MaestroError `bad-request` that says where it is not."""
        if sum(map(self.body.count, (b",", b":", b"[", b"{"))) > _MOST_MARKS:
            raise MaestroError(
                f"cannot take the request body: it has more than {_MOST_MARKS} commas, colons and brackets",
                code="too-large",
            )
        try:
            return json.loads(
                self.body,
                parse_constant=no_constant,
                parse_float=_number,
                object_pairs_hook=distinct,
            )
        except json.JSONDecodeError as error:
            why = f"line {error.lineno} column {error.colno}: {error.msg}" if self.body else "it is empty"
        except UnicodeDecodeError:
            why = "it is not UTF-8"
        except ValueError as error:
            why = str(error)
        except RecursionError:
            why = "it is nested too deeply"
        raise MaestroError(f"cannot read the request body as JSON: {why}", code="bad-request")

    def object(self, *, optional: bool = False) -> dict[str, Any]:
        """Return the body as a JSON object; an empty one when there is none and it is optional.

        Errors as `json`.
        """
        body = {} if optional and not self.body else self.json()
        if not isinstance(body, dict):
            raise MaestroError("cannot read the request body: expected a JSON object", code="bad-request")
        return body

    def header(self, name: str) -> str:
        """Return the value of a header, "" when it was not sent. name: in lower case."""
        wanted = name.encode()
        return next((value.decode("latin-1") for key, value in self.headers if key == wanted), "")

    def first(self, name: str, default: str = "") -> str:
        """Return the first value of a query parameter."""
        values = self.query.get(name)
        return values[0] if values else default

    def flag(self, name: str) -> bool:
        """Return whether a query parameter is there and on: `?force`, `?force=1`, `?force=true`.

        Raises MaestroError `bad-request` for a value that is neither on nor off.
        """
        values = self.query.get(name)
        value = values[0].lower() if values else "0"
        if value in ("", "1", "true", "yes"):
            return True
        if value in ("0", "false", "no"):
            return False
        raise MaestroError(f"cannot read {name}={value!r}: expected 1 or 0", code="bad-request")

    def number(self, name: str, default: Number) -> Number:
        """Return a query parameter that is 0 or more: whole when `default` is an int, else any finite number.

        Raises MaestroError `bad-request`.
        """
        if name not in self.query:
            return default
        text = self.first(name)
        try:
            value = type(default)(text)
            if 0 <= value < _TOO_MUCH:
                return value
        except ValueError:
            pass
        kind = "a whole number" if isinstance(default, int) else "a number"
        raise MaestroError(f"cannot read {name}={text!r}: expected {kind}, 0 or more", code="bad-request")


@dataclass
class Response:
    """An answer that is there as a whole. An empty content type sends none."""

    status: int = 200
    body: bytes = b""
    content_type: str = "application/json"
    headers: Sequence[tuple[str, str]] = ()


@dataclass
class Stream:
    """An answer in pieces. The next piece is asked for when the one before is on its way.

    What can be refused is refused before a stream is returned: an error inside it only cuts it off.
    `chunks` is closed when the client goes away.
    """

    chunks: AsyncIterator[bytes]
    status: int = 200
    content_type: str = "application/octet-stream"
    headers: Sequence[tuple[str, str]] = ()


Handler = Callable[[Request], Awaitable["Response | Stream"]]


def json_response(value: object, status: int = 200) -> Response:
    """Return a response with `value` as compact JSON in UTF-8."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    # File names may hold bytes that are no UTF-8; they show as question marks.
    return Response(status, text.encode("utf-8", "replace"))


def page(request: Request, names: Iterable[str]) -> tuple[list[str], dict[str, str]]:
    """Return the names on the page asked for, in order, and what the answer says of the next one.

    `?limit=N` makes pages, and `next` in an answer is what the following request has as `after`.
    Names that come and go between two requests shift no other to a page already read, or yet to come.
    """
    after, limit = request.first("after"), request.number("limit", 0)
    found = sorted(name for name in names if name > after)
    if not limit or len(found) <= limit:
        return found, {}
    return found[:limit], {"next": found[limit - 1]}


def accepted(task: Task) -> Response:
    """Return the answer to work that has begun and goes on: its task's id."""
    return json_response({"task_id": task.id}, 202)


def ndjson(value: object) -> bytes:
    """Return one line of a stream of JSON values."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace") + b"\n"


def conditional(request: Request, answer: Response) -> Response:
    """Return the answer to a GET with its ETag, or 304 when the client has it already (RFC 9110, 13.1.2).

    The tag is the hash of the body under this daemon's own key: it holds until the daemon is another.
    """
    if request.method not in ("GET", "HEAD") or answer.status != 200 or not answer.body:
        return answer
    tag = f'"{hash(answer.body) & 0xFFFFFFFFFFFFFFFF:x}"'
    answer.headers = (*answer.headers, ("etag", tag), ("cache-control", "no-cache"))
    known = [each.strip().removeprefix("W/") for each in request.header("if-none-match").split(",")]
    return replace(answer, status=304, body=b"") if tag in known or "*" in known else answer


def problem(error: MaestroError, status: int = 0) -> Response:
    """Return an error as application/problem+json (RFC 9457); `status` 0 takes the one of its code."""
    headers: list[tuple[str, str]] = []
    if isinstance(error, MethodNotAllowed):
        status = 405
        headers.append(("allow", ", ".join(error.allow)))
    if error.code == "unauthorized":
        headers.append(("www-authenticate", "Bearer"))
    status = status or STATUS.get(error.code, 500)
    problems = error.problems if isinstance(error, InvalidDocument) else ()
    response = json_response(
        {
            "status": status,
            "code": error.code,
            "title": error.message,
            "hint": error.hint,
            "problems": [each.to_json() for each in problems],
        },
        status,
    )
    response.content_type = "application/problem+json"
    response.headers = headers
    return response


def _number(text: str) -> int | float:
    """Return a number; 5.0 is 5, as JSON Schema has it."""
    value = finite(text)
    return int(value) if abs(value) < _TOO_MUCH and value.is_integer() else value
