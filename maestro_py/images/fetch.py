# SPDX-License-Identifier: Apache-2.0
"""Helper program: download one file and verify it while it arrives.

`python -m maestro_py.images.fetch`, request on stdin, lines on stdout as in `maestro_py.helper`:

    {"url", "dest",                 http, https or file; a path that does not exist yet
     "size", "max_size",            exact and greatest number of bytes; 0 or null: not said
     "checksum": {"type", "value"}  sha256sum, sha512sum or md5sum; or null
     "connect_timeout", "read_timeout", "deadline",   seconds; read_timeout is per silence, deadline for all
     "sync"}                        false: the caller can do without the file after a power cut

The last line carries `bytes` and `sha256`. On any failure `dest` is removed. The body is taken as sent:
no content encoding is asked for or undone, the checksum is that of the file on the server.
"""

from __future__ import annotations

import hashlib
import os
import signal
import stat
import sys
import time
from collections.abc import Iterator, Mapping
from types import FrameType
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urljoin, urlsplit, urlunsplit

from maestro_py import __version__, helper
from maestro_py.errors import MaestroError, NotFound, TimedOut
from maestro_py.units import format_duration

if TYPE_CHECKING:
    import requests

MAX_REDIRECTS = 5
"""Redirects followed, never from https to http."""

CHUNK_SMALLEST, CHUNK_LARGEST = 16 << 10, 1 << 20
"""Bytes read at once: small on a slow line so that progress is seen, large on a quick one."""

DIGESTS = {"sha256sum": "sha256", "sha512sum": "sha512", "md5sum": "md5"}
"""Checksum types of an image definition, and the digest each means."""


class _Deadline(BaseException):
    """The time for the whole download is over; not an Exception, so that no library swallows it."""


class _Cannot(Exception):
    """A reason, still without the URL in front."""

    def __init__(self, why: str, *, hint: str = "", kind: type[MaestroError] = MaestroError) -> None:
        super().__init__(why)
        self.hint = hint
        self.kind = kind


def fetch(request: helper.Request) -> dict[str, Any]:
    """Download and verify; return `bytes` and `sha256`. Raises MaestroError that names URL and reason."""
    url, dest = str(request["url"]), str(request["dest"])
    deadline = float(request.get("deadline") or 0)
    signal.signal(signal.SIGALRM, _time_is_up)
    signal.setitimer(signal.ITIMER_REAL, deadline)
    try:
        return _fetch(url, dest, request)
    except _Cannot as error:
        raise error.kind(f"cannot download {shown(url)}: {error}", hint=error.hint) from error
    except _Deadline as error:
        raise TimedOut(
            f"cannot download {shown(url)}: it took longer than {format_duration(deadline)}"
        ) from error
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def _fetch(url: str, dest: str, request: helper.Request) -> dict[str, Any]:
    try:
        fd = os.open(dest, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise _Cannot(f"cannot create {dest}: {error.strerror}") from error
    try:
        try:
            total, chunks = _open(url, request)
            return _receive(fd, total, chunks, request)
        finally:
            os.close(fd)
    except BaseException:
        os.unlink(dest)
        raise


def _receive(fd: int, total: int | None, chunks: Iterator[bytes], request: helper.Request) -> dict[str, Any]:
    size, largest = int(request.get("size") or 0), int(request.get("max_size") or 0)
    checksum: Mapping[str, str] | None = request.get("checksum")
    if checksum and checksum.get("type") not in DIGESTS:
        raise _Cannot(
            f"checksum type {checksum.get('type')!r} is not known, expected one of {', '.join(DIGESTS)}"
        )
    if size and total is not None and total != size:
        raise _Cannot(f"the server offers {total} bytes, expected {size}")
    limit = min(n for n in (size, largest, sys.maxsize) if n)
    if total is not None and total > limit:
        raise _Cannot(f"the server offers {total} bytes, at most {limit} are allowed")
    sha256 = hashlib.sha256()
    digest = DIGESTS[checksum["type"]] if checksum else "sha256"
    other = None if digest == "sha256" else hashlib.new(digest, usedforsecurity=False)
    progress, count = helper.Progress(), 0
    for chunk in chunks:
        count += len(chunk)
        if count > limit:
            raise _Cannot(f"more than {limit} bytes arrive" + (", the size declared" if size else ""))
        _write(fd, chunk)
        sha256.update(chunk)
        if other:
            other.update(chunk)
        progress.report(count, total or size or None)
    if (total is not None and count != total) or (size and count != size):
        raise _Cannot(f"{count} of {total if total is not None else size} bytes arrived")
    if checksum:
        found, expected = (other or sha256).hexdigest(), checksum["value"].lower()
        if found != expected:
            raise _Cannot(f"checksum does not match: {digest} is {found}, expected {expected}")
    if request.get("sync", True):
        os.fsync(fd)
    return {"bytes": count, "sha256": sha256.hexdigest()}


def _write(fd: int, chunk: bytes) -> None:
    view = memoryview(chunk)
    try:
        while view:
            view = view[os.write(fd, view) :]
    except OSError as error:
        raise _Cannot(f"cannot write to disk: {error.strerror}") from error


# ---- where bytes come from


def _open(url: str, request: helper.Request) -> tuple[int | None, Iterator[bytes]]:
    """Return the announced length, if any, and the body in chunks."""
    scheme = urlsplit(url).scheme
    if scheme == "file":
        return _open_file(url)
    if scheme not in ("http", "https"):
        raise _Cannot(f"the scheme is {scheme!r}, expected http, https or file")
    return _open_http(url, request)


def _open_file(url: str) -> tuple[int, Iterator[bytes]]:
    parts = urlsplit(url)
    if parts.netloc not in ("", "localhost"):
        raise _Cannot(f"a file URL names no host, this one names {parts.netloc!r}", hint="write file:///path")
    try:
        fd = os.open(unquote(parts.path), os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        kind = NotFound if isinstance(error, FileNotFoundError) else MaestroError
        raise _Cannot(str(why), kind=kind) from error
    found = os.fstat(fd)
    if not stat.S_ISREG(found.st_mode):
        os.close(fd)
        raise _Cannot("it is not a regular file")
    return found.st_size, _file_chunks(fd)


def _file_chunks(fd: int) -> Iterator[bytes]:
    try:
        while chunk := os.read(fd, CHUNK_LARGEST):
            yield chunk
    except OSError as error:
        raise _Cannot(f"cannot read it: {error.strerror}") from error
    finally:
        os.close(fd)


def _open_http(url: str, request: helper.Request) -> tuple[int | None, Iterator[bytes]]:
    import requests  # 100 ms and more; a file URL does without

    connect = float(request.get("connect_timeout") or 10)
    silence = float(request.get("read_timeout") or 60)
    session = requests.Session()
    session.headers.update({"Accept-Encoding": "identity", "User-Agent": f"maestro-py/{__version__}"})
    seen = {url}
    while True:
        try:
            answer = session.get(url, stream=True, allow_redirects=False, timeout=(connect, silence))
        except (requests.RequestException, OSError, ValueError) as error:
            raise _cannot_connect(error, connect, silence) from error
        target = session.get_redirect_target(answer)
        if target is None:
            break
        answer.close()
        target = urljoin(url, target)
        if urlsplit(target).scheme not in ("http", "https"):
            raise _Cannot(f"redirected to {shown(target)}, which is not http or https")
        if url.startswith("https:") and not target.startswith("https:"):
            raise _Cannot(f"redirected from https to {shown(target)}, which is not protected")
        if target in seen:
            raise _Cannot(f"redirects in a circle, back to {shown(target)}")
        if len(seen) > MAX_REDIRECTS:
            raise _Cannot(f"redirected more than {MAX_REDIRECTS} times")
        seen.add(target)
        url = target
    if answer.status_code != 200:
        kind = NotFound if answer.status_code in (404, 410) else MaestroError
        raise _Cannot(f"the server answered {answer.status_code} {answer.reason or ''}".rstrip(), kind=kind)
    length = answer.headers.get("Content-Length", "")
    return int(length) if length.isdigit() else None, _http_chunks(answer, silence)


def _http_chunks(answer: requests.Response, silence: float) -> Iterator[bytes]:
    from urllib3.exceptions import HTTPError, ReadTimeoutError

    answer.raw.enforce_content_length = False  # the receiver counts, and says how many of how many
    # read1 gives what is there; without it (urllib3 1.x) a chunk must be full before it is counted
    read = getattr(answer.raw, "read1", answer.raw.read)
    chunk_size, count = CHUNK_SMALLEST, 0
    while True:
        began = time.monotonic()
        try:
            chunk = read(chunk_size, decode_content=False)
        except ReadTimeoutError as error:
            raise _Cannot(
                f"nothing came for {format_duration(silence)} after {count} bytes", kind=TimedOut
            ) from error
        except (HTTPError, OSError) as error:
            raise _Cannot(f"the connection was cut after {count} bytes: {_reason(error)}") from error
        if not chunk:
            return
        count += len(chunk)
        quick = time.monotonic() - began < 0.05
        chunk_size = min(chunk_size * 2, CHUNK_LARGEST) if quick else max(chunk_size // 2, CHUNK_SMALLEST)
        yield chunk


def _cannot_connect(error: Exception, connect: float, silence: float) -> _Cannot:
    import requests

    if isinstance(error, requests.ConnectTimeout):
        return _Cannot(f"no connection within {format_duration(connect)}", kind=TimedOut)
    if isinstance(error, requests.ReadTimeout):
        return _Cannot(f"the server did not answer within {format_duration(silence)}", kind=TimedOut)
    return _Cannot(_reason(error))


def _reason(error: BaseException) -> str:
    """Return the words of the system below the layers that wrapped its error."""
    seen: list[BaseException] = []
    queue: list[object] = [error]
    while queue:
        found = queue.pop(0)
        if not isinstance(found, BaseException) or any(found is one for one in seen):
            continue
        seen.append(found)
        verify = getattr(found, "verify_message", "")
        if verify:
            return f"the server's certificate is not accepted: {verify}"
        if isinstance(found, OSError) and found.strerror:
            return str(found.strerror)
        queue += [*found.args, getattr(found, "reason", None), found.__cause__, found.__context__]
    return str(seen[-1]) or type(error).__name__


def shown(url: str) -> str:
    """Return a URL as it may be shown: without user and password."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2])) if "@" in parts.netloc else url


def _time_is_up(number: int, frame: FrameType | None) -> None:
    raise _Deadline


if __name__ == "__main__":
    sys.exit(helper.main(fetch))
