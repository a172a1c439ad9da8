# SPDX-License-Identifier: Apache-2.0
"""`logs` and `events`: what jobs said, and what happened to them."""

from __future__ import annotations

import sys

from maestro_py.cli.screen import clean
from maestro_py.cli.tasks import clock

TYPE_CHECKING = False  # typing's constant, without the import of typing
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any

    from maestro_py.cli.session import Session


LAST = 100
"""So many of the last events are shown when nothing else is asked for."""


def logs(session: Session) -> int:
    """`maestro logs JOB [-f] [-n N] [--previous]`: the job's bytes as they are."""
    job, follow = session.call.text("job"), session.call.flag("follow")
    count, previous = session.call.count("lines"), session.call.flag("previous")
    with session.client.logs(job, count, follow=follow, previous=previous) as chunks:
        if session.json:
            lines = (line.decode(errors="replace") for line in _lines(chunks))
            if follow:
                for line in lines:
                    session.screen.json({"job": job, "line": line}, lines=True)
            else:
                session.screen.json({"job": job, "lines": list(lines)})
            return 0
        out = sys.stdout.buffer
        for chunk in chunks:
            out.write(chunk)
            out.flush()
    return 0


def _lines(chunks: Iterable[bytes]) -> Iterator[bytes]:
    rest = b""
    for chunk in chunks:
        *whole, rest = (rest + chunk).split(b"\n")
        yield from whole
    if rest:
        yield rest


def events(session: Session) -> int:
    """`maestro events [-f] [--since ID] [-n N]`: one line each, local time."""
    follow = session.call.flag("follow")
    since, count = session.call.count("since"), session.call.count("lines")
    if since is None and count is None:
        count = LAST
    with session.client.events(since, follow=follow, n=count) as stream:
        if session.json and not follow:
            session.screen.json({"events": list(stream)})
            return 0
        for event in stream:
            if session.json:
                session.screen.json(event, lines=True)
                continue
            session.screen.line(_line(event))
            if follow:
                session.screen.out.flush()
    return 0


def _line(event: dict[str, Any]) -> str:
    about = event.get("job") or event.get("process") or "-"
    return f"{clock(event['time'])}  {event['id']:>5}  {clean(about)}  {clean(event['message'])}"
