# SPDX-License-Identifier: Apache-2.0
"""The output of a job: raw bytes, or line by line as records that can be resumed.

A place in a log is the number of bytes ever logged before it, which no rotation changes. An answer says in
the header Maestro-Offset where it begins, and each record where its line ends; `offset` goes on from there.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

from maestro_py.daemon import streams
from maestro_py.daemon.messages import Request, Stream
from maestro_py.daemon.view import View
from maestro_py.process import logfile

OFFSET = "maestro-offset"
_LONGEST_LINE = 64 << 10  # bytes; what is longer comes as several records
_LINES = 100  # lines shown when nothing is said


class Logs:
    """Handlers of logs."""

    def __init__(self, view: View) -> None:
        self.view = view
        self.supervisor = view.supervisor

    async def logs(self, request: Request) -> Stream:
        unit = self.view.unit(request.params["job"])
        directory, name = self.supervisor.paths.log, unit.name
        records = streams.wants_records(request)
        follow = request.flag("follow") or streams.wants_sse(request)
        begin, end = self._range(request, directory, name)
        follower = logfile.Follower(directory, name, begin)

        async def pieces() -> AsyncIterator[bytes]:
            try:
                while follow or follower.offset < end:
                    expected = follower.offset
                    data = follower.read_new(
                        streams.PIECE if follow else min(streams.PIECE, end - follower.offset)
                    )
                    if data and not records and follower.offset - len(data) != expected:
                        return  # files fell out unread: a client that counts asks again, and sees it
                    if data:
                        yield data
                    elif follow and self.supervisor.units.get(name) is unit:
                        await unit.written.wait()
                    else:
                        return
            finally:
                follower.close()

        kind, chunks = "text/plain; charset=utf-8", pieces()
        if records:
            kind, encode = streams.encoding(request)
            chunks = _lines(chunks, follower, encode)
        return Stream(chunks, content_type=kind, headers=((OFFSET, str(follower.offset)),))

    def _range(self, request: Request, directory: str, name: str) -> tuple[int, int]:
        """Return where to begin, and where to end when the log is not followed."""
        offset = streams.resume_after(request, "offset")
        since, until = request.number("since", 0.0) or None, request.number("until", 0.0) or None
        some = bool(offset or since or until)
        lines = request.number("n", 0 if some else _LINES) if "n" in request.query or not some else None
        with logfile.Log(directory, name) as log:
            begin, end = log.select(lines=lines, since=since, until=until, previous=request.flag("previous"))
            return (max(offset, log.begin), log.end) if offset else (begin, end)


async def _lines(
    pieces: AsyncIterator[bytes], follower: logfile.Follower, encode: streams.Encode
) -> AsyncIterator[bytes]:
    """Yield each line as a record; the rest of an unfinished one when the log ends."""
    rest = b""
    try:
        async for piece in pieces:
            offset = follower.offset - len(piece) - len(rest)
            *whole, rest = (rest + piece).split(b"\n")
            if len(rest) > _LONGEST_LINE:
                whole, rest = [*whole, rest], b""
            found = []
            for line in whole:
                offset = min(offset + len(line) + 1, follower.offset)
                found.append(_record(line, offset, encode))
            if found:
                yield b"".join(found)
        if rest:
            yield _record(rest, follower.offset, encode)
    finally:
        close = getattr(pieces, "aclose", None)
        if close is not None:
            await close()


def _record(line: bytes, offset: int, encode: streams.Encode) -> bytes:
    return encode(offset, "line", {"offset": offset, "line": line.decode("utf-8", "replace")})
