# SPDX-License-Identifier: Apache-2.0
"""Streams of records: one JSON value to a line, or server-sent events for those who ask for them.

A record has a number. A client that was cut off names the last one it has, as `since` or in the header
Last-Event-ID that browsers send by themselves, and goes on behind it.
"""

from __future__ import annotations

import json
from collections.abc import Callable

from maestro_py.daemon.messages import Request, ndjson
from maestro_py.errors import MaestroError

PIECE = 64 << 10
"""Bytes of a stream made at a time."""
NDJSON = "application/x-ndjson"
SSE = "text/event-stream"

Encode = Callable[[int, str, object], bytes]
"""(number, type, value) -> one record; a number of 0 is none."""


def wants_sse(request: Request) -> bool:
    """Return whether the client asked for server-sent events by its Accept header."""
    return SSE in request.header("accept")


def wants_records(request: Request) -> bool:
    """Return whether the client asked for records where plain text is the rule."""
    accept = request.header("accept")
    return SSE in accept or NDJSON in accept


def encoding(request: Request) -> tuple[str, Encode]:
    """Return the content type of the records a client gets, and what makes one."""
    if wants_sse(request):
        return SSE, _sse
    return NDJSON, lambda number, type, value: ndjson(value)


def resume_after(request: Request, name: str = "since") -> int:
    """Return the number behind which a client goes on, 0 when it names none.

    Raises MaestroError `bad-request`.
    """
    if name in request.query:
        return request.number(name, 0)
    last = request.header("last-event-id").strip()
    if not last:
        return 0
    if last.isascii() and last.isdigit() and len(last) < 19:
        return int(last)
    raise MaestroError(
        f"cannot go on after {last[:60]!r}: Last-Event-ID is a whole number", code="bad-request"
    )


def _sse(number: int, type: str, value: object) -> bytes:
    # JSON has no raw line ends, so a record is always one data line
    data = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    head = f"id: {number}\n" if number else ""
    return f"{head}event: {type}\ndata: {data}\n\n".encode("utf-8", "replace")
