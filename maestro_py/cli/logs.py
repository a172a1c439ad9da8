# SPDX-License-Identifier: Apache-2.0
"""`logs` and `events`: what jobs said, and what happened to them."""

from __future__ import annotations

import sys

from maestro_py.cli.screen import clean, wrap
from maestro_py.cli.tasks import clock

TYPE_CHECKING = False  # typing's constant, without the import of typing
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import Any

    from maestro_py.cli.screen import Screen
    from maestro_py.cli.session import Session
    from maestro_py.client import Client


_NAMES = 12
"""Columns for the name of a job among events; a longer one moves its line on."""

LAST = 100
"""So many of the last events are shown when nothing else is asked for."""

_RECONNECT_TRIES, _RECONNECT_PAUSE = 100, 0.05
"""How often, and how many seconds apart, a follower looks for a daemon that went away."""


def logs(session: Session) -> int:
    """`maestro logs JOB... [-f] [-n N] [--since T] [--until T] [--previous]`.

    The bytes of one job as they are; of several whole lines, each behind its job's name.
    """
    names = session.job_names(session.call.many("job"))
    if len(names) > 1:
        names = session.one_per_process(names)
    query = _query(session)
    # asked for one by one, so that a name that is none ends it before anything is shown
    streams = {name: _Output(session, name, query) for name in names}
    if len(names) > 1:
        return _several(session, streams)
    (name, output), json = next(iter(streams.items())), session.json
    if json and not output.follow:
        lines = [line.decode(errors="replace") for line in _lines(output)]
        session.screen.json({"job": name, "lines": lines})
    elif json:
        for line in _lines(output):
            session.screen.json({"job": name, "line": line.decode(errors="replace")}, lines=True)
    else:
        out = sys.stdout.buffer
        for chunk in output:
            out.write(chunk)
            out.flush()
    return 0


def _query(session: Session) -> dict[str, Any]:
    call = session.call
    if call.flag("previous") and call.flag("follow"):
        from maestro_py.cli.parser import UsageError

        raise UsageError("cannot follow what is over: --previous and --follow do not go together")
    count, since = call.values.get("lines"), call.seconds("since")
    if count == "all":
        count, since = None, since or 1.0  # from a second after the beginning of time
    return {
        "n": count,
        "follow": call.flag("follow"),
        "previous": call.flag("previous"),
        "since": since,
        "until": call.seconds("until"),
    }


class _Output:
    """The output of one job in pieces; followed, it outlives an upgrade or a quick restart of the daemon."""

    def __init__(self, session: Session, job: str, query: dict[str, Any]) -> None:
        self.job = job
        self.follow = bool(query["follow"])
        self._client: Client = session.client
        self._note: Callable[[str], None] = session.screen.note
        self._stream = self._client.logs(job, **query)

    def __iter__(self) -> Iterator[bytes]:
        from maestro_py.errors import NotFound, Unavailable

        while True:
            place = self._stream.offset
            try:
                yield from self._stream
            except Unavailable:
                if not self.follow:
                    raise
            if not self.follow:
                return
            before, place = place, self._stream.offset
            try:
                self._stream = self._again(place, pause=place == before)
            except NotFound:
                return  # the job was removed
            if self._stream.offset > place:
                lost = self._stream.offset - place
                self._note(f"{lost} bytes of {self.job} are gone: they were rotated away unread")

    def _again(self, place: int, *, pause: bool) -> Any:
        """Ask for what comes after a place in the log, until a daemon answers. Raises what comes instead."""
        import time

        from maestro_py.errors import Unavailable

        for tried in range(_RECONNECT_TRIES):
            if tried or pause:
                time.sleep(_RECONNECT_PAUSE)
            try:
                return self._client.logs(self.job, follow=True, offset=place)
            except Unavailable as error:
                last = error
        raise last


def _several(session: Session, outputs: dict[str, _Output]) -> int:
    width = max(len(clean(name)) for name in outputs)
    colours = {name: _COLOURS[number % len(_COLOURS)] for number, name in enumerate(outputs)}
    follow = any(output.follow for output in outputs.values())
    collected: dict[str, list[str]] = {name: [] for name in outputs}

    def show(name: str, line: bytes) -> None:
        if not session.json:
            head = f"{clean(name):<{width}} | "
            if session.screen.colours:
                head = f"\x1b[{colours[name]}m{head}\x1b[0m"
            session.screen.out.write(head)
            session.screen.out.flush()
            sys.stdout.buffer.write(line + b"\n")
            if follow:
                sys.stdout.buffer.flush()
        elif follow:
            session.screen.json({"job": name, "line": line.decode(errors="replace")}, lines=True)
        else:
            collected[name].append(line.decode(errors="replace"))

    if follow:
        _together(outputs, show)
    else:
        for name, output in outputs.items():
            for line in _lines(output):
                show(name, line)
        if session.json:
            session.screen.json({"jobs": [{"job": n, "lines": lines} for n, lines in collected.items()]})
    return 0


_COLOURS = ("36", "33", "35", "32", "34", "31")
"""SGR codes that tell jobs apart."""


def _together(outputs: dict[str, _Output], show: Callable[[str, bytes], None]) -> None:
    """Show the lines of all as they come, until every job is gone. Raises the first error of any."""
    import queue
    import threading

    lines: queue.Queue[tuple[str, bytes | BaseException | None]] = queue.Queue(1000)

    def read(name: str, output: _Output) -> None:
        try:
            for line in _lines(output):
                lines.put((name, line))
            lines.put((name, None))
        except BaseException as error:
            lines.put((name, error))

    for name, output in outputs.items():
        threading.Thread(target=read, args=(name, output), daemon=True).start()
    left = len(outputs)
    while left:
        name, line = lines.get()
        if line is None:
            left -= 1
        elif isinstance(line, bytes):
            show(name, line)
        else:
            raise line


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
            session.screen.line(_line(session.screen, event))
            if follow:
                session.screen.out.flush()
    return 0


def _line(screen: Screen, event: dict[str, Any]) -> str:
    about = event.get("job") or event.get("process") or "-"
    head = f"{clock(event['time'])}  {event['id']:>5}  {clean(about):<{_NAMES}}  "
    message = clean(event["message"])
    if screen.terminal:
        message = wrap(message, max(20, screen.width - len(head)), min(len(head), screen.width - 20))
    return head + message
