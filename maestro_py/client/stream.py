# SPDX-License-Identifier: Apache-2.0
"""One request to the daemon, and its answer in pieces: HTTP/1.1 over a Unix socket."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator, Mapping

from maestro_py.errors import (
    Conflict,
    Forbidden,
    InvalidDocument,
    MaestroError,
    NotFound,
    Problem,
    TimedOut,
    Unavailable,
    Unsupported,
)

TYPE_CHECKING = False  # what typing's constant is, without importing typing
if TYPE_CHECKING:
    from io import BufferedReader
    from typing import Any

_ERRORS: dict[str, type[MaestroError]] = {
    error.code: error for error in (NotFound, Conflict, Forbidden, Unsupported, Unavailable, TimedOut)
}
_PLAIN = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")  # RFC 3986, 2.3
_BELOW_ROOT = "/run/maestro.sock"  # where `maestrod --root` has its socket
_LINE = 64 << 10  # bytes of a line in an answer's head


def open_stream(
    socket_path: str,
    timeout: float | None,
    method: str,
    path: str,
    query: Mapping[str, object] | None = None,
    body: object = None,
) -> Stream:
    """Ask the daemon and return its answer, whose head has come by then.

    timeout: seconds without a piece of it, None for ever. The rest: see `Client.request`.
    Raises what the daemon answered, Unavailable, TimedOut.
    """
    payload = b""
    kind = ""
    if isinstance(body, bytes):
        payload, kind = body, "application/octet-stream"
    elif body is not None:
        payload, kind = json.dumps(body, separators=(",", ":")).encode(), "application/json"
    head = f"{method} {path}{_query(query or {})} HTTP/1.1\r\nHost: maestro\r\nConnection: close\r\n"
    if kind:
        head += f"Content-Type: {kind}\r\n"
    if kind or method in ("POST", "PUT"):
        head += f"Content-Length: {len(payload)}\r\n"
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.settimeout(timeout)
        try:
            sock.connect(socket_path)
        except OSError as error:
            # A path that is too long has a message but no number.
            raise Unavailable(
                f"cannot reach maestrod at {socket_path}: {error.strerror or error}",
                hint=_remedy(socket_path, error),
            ) from error
        try:
            sock.sendall(f"{head}\r\n".encode("ascii") + payload)
        except (BrokenPipeError, ConnectionResetError):
            pass  # refused before all was sent: the answer says why
        except TimeoutError as error:
            raise _no_answer(socket_path) from error
        return Stream(sock, socket_path)
    except BaseException:
        sock.close()
        raise


class Stream:
    """An answer: iterate over its pieces as they come. Close it when you do not read to the end.

    offset: of a log, the place behind what was read; what asks again with it misses and repeats nothing.
    """

    def __init__(self, sock: socket.socket, path: str) -> None:
        self.content_type = ""
        self.offset = 0
        self._sock = sock
        self._path = path
        self._file: BufferedReader = sock.makefile("rb")
        self._length: int | None = None
        self._chunked = False
        self._ended = False
        try:
            self._read_head()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        try:
            piece = b"" if self._ended else self._piece()
        except BaseException:
            self.close()
            raise
        if not piece:
            self.close()
            raise StopIteration
        self.offset += len(piece)
        return piece

    def close(self) -> None:
        """Give up the rest of the answer."""
        self._ended = True
        self._file.close()
        self._sock.close()

    def wait_for_ever(self) -> None:
        """Wait for each next piece without a limit."""
        if not self._ended:
            self._sock.settimeout(None)

    def decode(self, data: bytes) -> Any:
        """Return JSON that came in this answer. Raises MaestroError."""
        try:
            return json.loads(data)
        except ValueError as error:
            raise self._broken("it is not JSON") from error

    def _read_head(self) -> None:
        while True:
            status = self._line().split(b" ", 2)
            if len(status) < 2 or not status[0].startswith(b"HTTP/1.") or not status[1].isdigit():
                raise self._broken("it is not HTTP")
            while line := self._line():
                name, _, value = line.partition(b":")
                name, value = name.strip().lower(), value.strip()
                if name == b"content-length":
                    if not value.isdigit():
                        raise self._broken("its length is no number")
                    self._length = int(value)
                elif name == b"transfer-encoding":
                    self._chunked = value.lower() == b"chunked"
                elif name == b"maestro-offset" and value.isdigit():
                    self.offset = int(value)
                elif name == b"content-type":
                    self.content_type = value.partition(b";")[0].strip().decode("latin-1").lower()
            code = int(status[1])
            if code >= 200:
                break
        if code in (204, 304):
            self._length = 0
        if code >= 400:
            raise self._error(code, b"".join(self))

    def _piece(self) -> bytes:
        """Return what comes next, b"" at the end."""
        if self._chunked:
            try:
                size = int(self._line().partition(b";")[0], 16)
            except ValueError:
                raise self._broken("a chunk has no size") from None
            piece = self._read(size)
            while self._line() and not size:
                pass  # trailers
            return piece
        if self._length is None:
            return self._receive(self._file.read1)
        piece = self._read(self._length)
        self._length = 0
        return piece

    def _read(self, size: int) -> bytes:
        data = self._receive(lambda: self._file.read(size))
        if len(data) < size:
            raise self._broken("it ends too early")
        return data

    def _line(self) -> bytes:
        line = self._receive(lambda: self._file.readline(_LINE))
        if not line.endswith(b"\n"):
            raise self._broken("it ends too early")
        return line.rstrip(b"\r\n")

    def _receive(self, read: Any) -> bytes:
        try:
            data: bytes = read()
            return data
        except TimeoutError as error:
            raise _no_answer(self._path) from error
        except OSError as error:
            raise self._broken(error.strerror or str(error)) from error

    def _broken(self, why: str) -> Unavailable:
        return Unavailable(f"cannot read the answer of maestrod at {self._path}: {why}")

    def _error(self, status: int, data: bytes) -> MaestroError:
        """Return the exception the daemon raised (application/problem+json)."""
        found = self.decode(data) if self.content_type.endswith("json") else None
        if not isinstance(found, dict) or "title" not in found:
            return MaestroError(f"cannot do this: maestrod at {self._path} answered with status {status}")
        title, code, hint = (str(found.get(key) or "") for key in ("title", "code", "hint"))
        if code == InvalidDocument.code and found.get("problems"):
            # "cannot accept SOURCE: 2 problems", the text InvalidDocument makes of its source.
            source = title.split("\n")[0].removeprefix("cannot accept ").rpartition(": ")[0]
            return InvalidDocument(source or "the document", [Problem(**each) for each in found["problems"]])
        return _ERRORS.get(code, MaestroError)(title, hint=hint, code=code)


def quote(text: str) -> str:
    """Return text percent-encoded for one segment of a path or one value of a query."""
    # Arguments of a command may be no UTF-8; the daemon then says so.
    data = text.encode("utf-8", "surrogatepass")
    return "".join(chr(byte) if byte in _PLAIN else f"%{byte:02X}" for byte in data)


def _query(query: Mapping[str, object]) -> str:
    parts = []
    for name, value in query.items():
        for each in value if isinstance(value, (list, tuple)) else (value,):
            if each is not None and each is not False:
                parts.append(f"{quote(name)}={quote('1' if each is True else str(each))}")
    return f"?{'&'.join(parts)}" if parts else ""


def _no_answer(path: str) -> TimedOut:
    return TimedOut(f"cannot get an answer from maestrod at {path}: none came in time")


def _remedy(path: str, error: OSError) -> str:
    """Return what to do when nobody answers at a socket."""
    if isinstance(error, PermissionError):
        return "this user may not use it; root may"
    root, end = path[: -len(_BELOW_ROOT)], path[-len(_BELOW_ROOT) :]
    start = f"maestrod --root {root}" if end == _BELOW_ROOT and root else "maestrod"
    return f"is it running? start it with `{start}`, or name another socket with --socket or MAESTRO_SOCKET"
