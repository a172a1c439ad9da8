# SPDX-License-Identifier: Apache-2.0
"""The socket API of maestrod as a Python class. The command and the adapters talk through this alone.

    client = Client()
    task = client.apply(document)["task_id"]
    for state in client.follow_task(task): ...

Small on purpose: a command that asks one thing shall not spend its time importing. Each call is one
connection, so a client has no state, may be shared, and needs no closing; streams do.
"""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Callable, Iterator, Mapping

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

DEFAULT_SOCKET = "/run/maestro/maestro.sock"
TIMEOUT = 60.0
"""Seconds for an answer to begin and between its pieces. Streams that follow have no limit between pieces."""

RECONNECT_TRIES, RECONNECT_PAUSE = 250, 0.02
"""How often, and how many seconds apart, a follower looks for a daemon that went away."""

_ERRORS: dict[str, type[MaestroError]] = {
    error.code: error for error in (NotFound, Conflict, Forbidden, Unsupported, Unavailable, TimedOut)
}
_PLAIN = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")  # RFC 3986, 2.3
_LINE = 64 << 10  # bytes of a line in an answer's head


class Client:
    """Calls of the API. Answers are the decoded JSON; see `GET /v1/openapi.json` for what is in them.

    socket_path: None takes $MAESTRO_SOCKET, else /run/maestro/maestro.sock. timeout: seconds, None for none.

    All calls raise MaestroError: what the daemon answered, Unavailable when there is none to be reached,
    TimedOut when it does not answer in time.
    """

    def __init__(self, socket_path: str | None = None, timeout: float | None = TIMEOUT) -> None:
        self.socket_path = socket_path or os.environ.get("MAESTRO_SOCKET") or DEFAULT_SOCKET
        self.timeout = timeout

    # The daemon

    def version(self) -> Any:
        """Return version, pid, uptime in seconds and root directory of the daemon."""
        return self.request("GET", "/v1/version")

    def doctor(self) -> Any:
        """Return what the device offers."""
        return self.request("GET", "/v1/doctor")

    def metrics(self, *, openmetrics: bool = True) -> str:
        """Return the metrics as OpenMetrics, or in the Prometheus text format that came before it."""
        page: bytes = self.request("GET", "/v1/metrics", {"format": "openmetrics" if openmetrics else "text"})
        return page.decode()

    def upgrade(self) -> Any:
        """Have the daemon replaced in place by what is installed now; return versions, pid and generation.

        It takes over soon after; `version` then tells that generation. Raises MaestroError when the new
        one could not go on, and then nothing has changed.
        """
        return self.request("POST", "/v1/upgrade", extra=60)

    def shutdown(self, jobs: str | None = None) -> Any:
        """Stop the daemon. jobs: `stop`, `keep`, or None for what its config says."""
        return self.request("POST", "/v1/shutdown", body={"jobs": jobs})

    # The running config

    def apply(self, document: object, *, dry_run: bool = False, force: bool = False) -> Any:
        """Apply a running config; return task_id, plan and warnings. Raises InvalidDocument, Conflict."""
        return self.request("POST", "/v1/apply", {"dry_run": dry_run, "force": force}, document)

    def check(self, document: object) -> Any:
        """Have a running config validated. Raises InvalidDocument."""
        return self.request("POST", "/v1/check", body=document)

    def diff(self, document: object) -> Any:
        """Return the plan that applying would carry out. Raises InvalidDocument."""
        return self.request("POST", "/v1/diff", body=document)

    def last_plan(self) -> Any:
        """Return the plan that was carried out last: what for, when, how many steps, the first of them."""
        return self.request("GET", "/v1/plan")

    def running_config(self) -> Any:
        """Return the document in force."""
        return self.request("GET", "/v1/running-config")

    # Jobs

    def status(self, jobs: list[str] | tuple[str, ...] = (), *, memory: bool = False) -> Any:
        """Return the state of these jobs, of all when none is named. Raises NotFound.

        memory: what they use of it too, which costs the daemon a look at each group.
        """
        return self.request("GET", "/v1/status", {"job": list(jobs), "memory": memory})

    def action(self, job: str, verb: str) -> Any:
        """Have something done to a job; return the task's id.

        verb: start, stop, restart, reload, pause, resume, enable or disable.
        """
        return self.request("POST", f"/v1/jobs/{quote(job)}/{quote(verb)}")

    def kill(self, job: str, signal: str = "SIGTERM") -> Any:
        """Send a signal to a job's process."""
        return self.request("POST", f"/v1/jobs/{quote(job)}/kill", body={"signal": signal})

    def why(self, job: str) -> Any:
        """Return sentences that say why a job is in its state."""
        return self.request("GET", f"/v1/jobs/{quote(job)}/why")

    def process(self, job: str) -> Any:
        """Return what leads to a job's process: pid, start ticks, boot id. Raises Conflict."""
        return self.request("GET", f"/v1/jobs/{quote(job)}/process")

    def logs(
        self,
        job: str,
        n: int | None = None,
        *,
        follow: bool = False,
        previous: bool = False,
        since: float | None = None,
        until: float | None = None,
        offset: int | None = None,
    ) -> Stream:
        """Return the job's output in pieces, the last `n` lines; `follow` goes on with what comes.

        since, until: unix seconds. offset: a place in the log; `offset` of the stream says where it is.
        """
        query = {
            "n": n, "follow": follow, "previous": previous, "since": since, "until": until, "offset": offset
        }  # fmt: skip
        return self.stream("GET", f"/v1/jobs/{quote(job)}/logs", query)

    # What happens

    def events(self, since: int | None = None, *, follow: bool = False, n: int | None = None) -> Lines:
        """Return events after number `since`, at most the last `n`; `follow` goes on with what comes.

        Followed ones go on after an upgrade or a quick restart of the daemon, none lost and none twice.
        """

        def ask(last: Any) -> Stream:
            query = {"since": since, "n": n} if last is None else {"since": last["id"]}
            return self.stream("GET", "/v1/events", {**query, "follow": follow})

        return Lines(ask(None), ask if follow else None)

    def tasks(self) -> Any:
        """Return what is being done and was done lately."""
        return self.request("GET", "/v1/tasks")

    def task(self, task_id: str, wait: float | None = None) -> Any:
        """Return a task, at its end or after `wait` seconds, whichever is first."""
        return self.request("GET", f"/v1/tasks/{quote(task_id)}", {"wait": wait}, extra=wait or 0)

    def cancel_task(self, task_id: str) -> Any:
        """End a task that has not changed anything yet; return it. Raises Conflict when it is too late."""
        return self.request("POST", f"/v1/tasks/{quote(task_id)}/cancel")

    def follow_task(self, task_id: str) -> Lines:
        """Return the task again and again, once for each change, until it has ended.

        Goes on after an upgrade of the daemon.
        """

        def ask(last: Any) -> Stream:
            return self.stream("GET", f"/v1/tasks/{quote(task_id)}", {"follow": True})

        return Lines(ask(None), ask)

    # What is stored

    def images(self) -> Any:
        """Return the images on the device."""
        return self.request("GET", "/v1/images")

    def image_install(self, job: str, image: object) -> Any:
        """Make an image a job's, as an entry of `images` without its `job`; return the task's id.

        Raises NotFound, InvalidDocument.
        """
        return self.request("PUT", f"/v1/images/{quote(job)}", body=image)

    def image_rollback(self, job: str) -> Any:
        """Bring the version before a job's current image back; return the task's id. Raises NotFound."""
        return self.request("POST", f"/v1/images/{quote(job)}/rollback")

    def image_verify(self, job: str = "", *, repair: bool = False) -> Any:
        """Look for damaged images, of one job or all; return the task's id. repair: fetch them anew."""
        return self.request("POST", "/v1/image-verify", {"job": job or None, "repair": repair})

    def image_pin(self, job: str, version: str = "", *, on: bool = True) -> Any:
        """Keep a version, by default the current one, from every removal, or not any more; return its row."""
        verb = "pin" if on else "unpin"
        return self.request("POST", f"/v1/images/{quote(job)}/{verb}", {"version": version or None})

    def image_remove(self, job: str, version: str = "") -> Any:
        """Remove a version, or all of a job that nobody uses; return them as `removed`. Raises Conflict."""
        return self.request("DELETE", f"/v1/images/{quote(job)}", {"version": version or None})

    def image_gc(self) -> Any:
        """Remove every version that nobody needs; return their names as `removed`."""
        return self.request("POST", "/v1/image-gc")

    def lock(self, job: str, reason: str = "") -> Any:
        """Keep updates from taking a job down until `unlock`; return who holds the lock and since when."""
        return self.request("PUT", f"/v1/jobs/{quote(job)}/lock", body={"reason": reason})

    def unlock(self, job: str) -> Any:
        """Give a job's update lock back; what waited for it is carried out. Raises NotFound."""
        return self.request("DELETE", f"/v1/jobs/{quote(job)}/lock")

    def configs(self) -> Any:
        """Return all configs."""
        return self.request("GET", "/v1/configs")

    def config_get(self, job: str, name: str) -> Any:
        """Return one config. Raises NotFound."""
        return self.request("GET", f"/v1/configs/{quote(job)}/{quote(name)}")

    def config_put(self, job: str, name: str, config: object) -> Any:
        """Store a config. Raises InvalidDocument."""
        return self.request("PUT", f"/v1/configs/{quote(job)}/{quote(name)}", body=config)

    def config_delete(self, job: str, name: str) -> Any:
        """Remove a config. Raises NotFound."""
        return self.request("DELETE", f"/v1/configs/{quote(job)}/{quote(name)}")

    def templates(self) -> Any:
        """Return all container templates."""
        return self.request("GET", "/v1/templates")

    def template(self, name: str) -> Any:
        """Return one container template. Raises NotFound."""
        return self.request("GET", f"/v1/templates/{quote(name)}")

    # Anything

    def request(
        self,
        method: str,
        path: str,
        query: Mapping[str, object] | None = None,
        body: object = None,
        *,
        extra: float = 0,
    ) -> Any:
        """Return the answer: decoded when it is JSON, None when it is empty, else bytes.

        path: percent-encoded. query: a list gives its name several times; None and False leave it out.
        body: bytes are sent as they are, anything but None as JSON. extra: seconds beyond the timeout.
        """
        timeout = None if self.timeout is None else self.timeout + extra
        with self._open(method, path, query, body, timeout) as stream:
            data = b"".join(stream)
            if not data:
                return None
            return stream.decode(data) if stream.content_type == "application/json" else data

    def stream(self, method: str, path: str, query: Mapping[str, object] | None = None) -> Stream:
        """Return an answer in pieces as they come, without a limit in time between them."""
        stream = self._open(method, path, query, None, self.timeout)
        stream.wait_for_ever()
        return stream

    def _open(
        self, method: str, path: str, query: Mapping[str, object] | None, body: object, timeout: float | None
    ) -> Stream:
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
                sock.connect(self.socket_path)
            except OSError as error:
                # A path that is too long has a message but no number.
                raise Unavailable(
                    f"cannot reach maestrod at {self.socket_path}: {error.strerror or error}",
                    hint="is it running? start it with `maestrod`, or name the socket with --socket",
                ) from error
            try:
                sock.sendall(f"{head}\r\n".encode("ascii") + payload)
            except (BrokenPipeError, ConnectionResetError):
                pass  # refused before all was sent: the answer says why
            except TimeoutError as error:
                raise _no_answer(self.socket_path) from error
            return Stream(sock, self.socket_path)
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


class Lines:
    """A stream of JSON values, one to a line. Close it when you do not read to the end.

    again: asks for what follows a value once more, when the daemon went away in the middle.
    """

    def __init__(self, stream: Stream, again: Callable[[Any], Stream] | None = None) -> None:
        self._stream = stream
        self._again = again
        self._last: Any = None
        self._rest = b""
        self._lines: list[bytes] = []

    def __enter__(self) -> Lines:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        while not self._lines:
            try:
                piece = next(self._stream)
            except Unavailable as error:
                self._reconnect(error)
                continue
            *lines, self._rest = (self._rest + piece).split(b"\n")
            self._lines = [line for line in reversed(lines) if line]
        self._last = self._stream.decode(self._lines.pop())
        return self._last

    def _reconnect(self, error: Unavailable) -> None:
        """Ask for the rest, again and again for a while; raises what came instead."""
        if self._again is None:
            raise error
        self._rest = b""
        for _ in range(RECONNECT_TRIES):
            try:
                self._stream = self._again(self._last)
                return
            except Unavailable:
                time.sleep(RECONNECT_PAUSE)
        raise error

    def close(self) -> None:
        """Give up the rest."""
        self._stream.close()


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
