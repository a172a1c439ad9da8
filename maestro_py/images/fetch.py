# SPDX-License-Identifier: Apache-2.0
"""Helper program: one try to bring a file here, going on where an earlier one was cut.

`python -m maestro_py.images.fetch`, request on stdin, lines on stdout as in `maestro_py.helper`:

    {"url",                         http, https or file
     "part",                        where it arrives, as `images.part` has it
     "content",                     what proves the content afterwards, as its checksum; empty: nothing does
     "size", "max_size",            exact and greatest number of bytes; 0 or null: not said
     "connect_timeout", "read_timeout", "deadline",   seconds; read_timeout is per silence, deadline for all
     "tls": {"ca_file", "client_cert", "client_key"},
     "credentials": {"type", "user", "value" or "file"},
     "user",                        whom to become once the files are open, when this is root
     "sync"}                        false: the caller can do without the file after a power cut

The last line carries `bytes`, and `fetched`, what came over the line this time. A failure leaves what came:
an error with `after` may be tried again. What arrives is not looked at here, `verify` does that: this
program talks to servers nobody vouches for, and so has no rights. The body is taken as sent: no content
encoding is asked for or undone.
"""

from __future__ import annotations

import os
import signal
import stat
from collections.abc import Iterator
from types import FrameType
from typing import Any
from urllib.parse import unquote, urlsplit

from maestro_py import helper
from maestro_py.errors import MaestroError, NotFound, Passing, TimedOut
from maestro_py.faultpoint import reach
from maestro_py.images.answer import Answer, Cannot, StartAgain, shown
from maestro_py.images.part import Part
from maestro_py.units import MAX_SIZE, format_duration

CHUNK = 1 << 20
SECRET_LIMIT = 64 << 10
"""Bytes a file with a token or a password may have."""


class _Deadline(BaseException):
    """The time for the whole download is over; not an Exception, so that no library swallows it."""


def fetch(request: helper.Request) -> dict[str, Any]:
    """Fetch; return `bytes` and `fetched`. Raises MaestroError that names URL and reason."""
    url, deadline = str(request["url"]), float(request.get("deadline") or 0)
    signal.signal(signal.SIGALRM, _time_is_up)
    signal.setitimer(signal.ITIMER_REAL, deadline)
    part = None
    try:
        part = _part(str(request["part"]), str(request.get("content") or ""))
        return _fetch(url, part, request)
    except Cannot as error:
        if error.kind is StartAgain and part:
            part.forget()
        text = f"cannot download {shown(url)}: {error}"
        if error.after is not None:
            raise Passing(text, hint=error.hint, code=error.kind.code, after=error.after) from error
        raise error.kind(text, hint=error.hint) from error
    except _Deadline as error:
        raise TimedOut(
            f"cannot download {shown(url)}: it took longer than {format_duration(deadline)}"
        ) from error
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        if part:
            part.close()


def _part(path: str, content: str) -> Part:
    try:
        return Part(path, content)
    except OSError as error:
        raise Cannot(f"cannot create {error.filename}: {error.strerror}") from error


def _fetch(url: str, part: Part, request: helper.Request) -> dict[str, Any]:
    size = int(request.get("size") or 0)
    answer = _open(url, part, size, request)
    if answer is None:
        return {"bytes": part.size, "fetched": 0}
    reach("images.fetch.answered")
    try:
        part.begin(answer.start, answer.etag, answer.modified)
        count = _receive(part, answer, size, int(request.get("max_size") or 0))
        reach("images.fetch.received")
        if request.get("sync", True):
            part.sync()
    except OSError as error:
        raise Cannot(f"cannot write to disk: {error.strerror}") from error
    return {"bytes": count, "fetched": count - answer.start}


def _receive(part: Part, answer: Answer, size: int, largest: int) -> int:
    total = answer.total
    if size and total is not None and total != size:
        raise Cannot(f"the server offers {total} bytes, expected {size}")
    limit = min(n for n in (size, largest, MAX_SIZE) if n)
    if total is not None and total > limit:
        raise Cannot(f"the server offers {total} bytes, at most {limit} are allowed")
    count = answer.start
    progress = helper.Progress(count)
    for chunk in answer.chunks:
        count += len(chunk)
        if count > limit:
            raise Cannot(f"more than {limit} bytes arrive" + (", the size declared" if size else ""))
        part.write(chunk)
        progress.report(count, total or size or None)
    expected = size if total is None else total
    if expected and count != expected:
        raise Cannot(f"{count} of {expected} bytes arrived", after=0)
    return count


# ---- where bytes come from


def _open(url: str, part: Part, size: int, request: helper.Request) -> Answer | None:
    """Return what comes; None when everything is here already."""
    scheme = urlsplit(url).scheme
    if scheme == "file":
        return _open_file(url)
    if scheme not in ("http", "https"):
        raise Cannot(f"the scheme is {scheme!r}, expected http, https or file")
    if size and part.size == size:
        return None
    unproved = not request.get("content") and not part.validator
    if (size and part.size > size) or unproved:
        part.forget()
    from maestro_py.images.transport import Connection  # 100 ms and more; a file URL does without

    connection = Connection({**request, "credentials": _credentials(request)})
    helper.give_up_root(request.get("user"))
    return connection.get(url, part.size, part.validator)


def _credentials(request: helper.Request) -> dict[str, str] | None:
    given: dict[str, str] | None = request.get("credentials")
    if not given or "file" not in given:
        return given
    try:
        with open(given["file"], encoding="utf-8") as file:
            value = file.read(SECRET_LIMIT).strip("\r\n")
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not text"
        raise Cannot(f"the secret in {given['file']} cannot be read: {why}") from error
    if not value or not value.isprintable():
        raise Cannot(f"the secret in {given['file']} is not one line of text")
    return {**given, "value": value}


def _open_file(url: str) -> Answer:
    parts = urlsplit(url)
    if parts.netloc not in ("", "localhost"):
        raise Cannot(f"a file URL names no host, this one names {parts.netloc!r}", hint="write file:///path")
    try:
        fd = os.open(unquote(parts.path), os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        kind = NotFound if isinstance(error, FileNotFoundError) else MaestroError
        raise Cannot(str(why), kind=kind) from error
    found = os.fstat(fd)
    if not stat.S_ISREG(found.st_mode):
        os.close(fd)
        raise Cannot("it is not a regular file")
    return Answer(0, found.st_size, _file_chunks(fd))


def _file_chunks(fd: int) -> Iterator[bytes]:
    try:
        while chunk := os.read(fd, CHUNK):
            yield chunk
    except OSError as error:
        raise Cannot(f"cannot read it: {error.strerror}") from error
    finally:
        os.close(fd)


def _time_is_up(number: int, frame: FrameType | None) -> None:
    raise _Deadline


if __name__ == "__main__":
    helper.main(fetch)
