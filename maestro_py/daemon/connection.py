# SPDX-License-Identifier: Apache-2.0
"""One HTTP/1.1 connection: h11 says what the bytes mean, the loop moves them.

A connection is one task. It reads a request, checks who asks for what before it takes the body, awaits
the handler and writes the answer. Memory is bounded: the head and the body of a request have a limit, and
a stream is asked for its next piece only when the one before is written. A client that is gone ends the
handler that works for it.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import h11

from maestro_py.daemon.loop import Task, TimedOutError
from maestro_py.daemon.messages import Peer, Request, Response, Stream, conditional, problem
from maestro_py.daemon.router import Role, Route, check_query, parse_query
from maestro_py.errors import Forbidden, MaestroError
from maestro_py.units import format_size

if TYPE_CHECKING:
    from maestro_py.daemon.access import Door
    from maestro_py.daemon.http import Server

MAX_HEAD = 32 << 10
"""Bytes of a request's line and headers."""
LINGER = 1.0
"""Seconds in which a refused request may still be sent, so that its sender comes to read the answer."""

_PIECE = 64 << 10
_SHARE = 4  # who is no administrator may fill a quarter of what an administrator may


class _Gone(Exception):
    """The client closed the connection, or takes nothing any more."""


class Connection:
    """What the server does for one client."""

    def __init__(self, server: Server, sock: socket.socket, peer: Peer, door: Door | None) -> None:
        self.server = server
        self.door = door
        self.loop = server.loop
        self.sock = sock
        self.fd = sock.fileno()
        self.peer = peer
        self.http = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD)
        self.what = "request"
        self.head_only = False
        self.held = 0

    async def run(self) -> None:
        """Answer requests until the client has gone, or was told to."""
        try:
            while await self._exchange():
                await self.loop.sleep(0)  # whoever sends requests without a pause waits for the others
        except _Gone:
            pass
        finally:
            self._let_go()
            self.loop.remove_reader(self.fd)
            self.sock.close()

    async def _exchange(self) -> bool:
        """Take one request and answer it; return whether another may come."""
        self.what, self.head_only = "request", False
        self._let_go()
        answer: Response | Stream | None = None
        received = None
        try:
            received = await self.loop.wait_for(self._receive(), self.server.patience)
        except TimedOutError:
            if self.http.their_state is h11.IDLE and not self.http.trailing_data[0]:
                return False
            answer = problem(MaestroError("cannot wait any longer for the request", code="timeout"), 408)
        except h11.RemoteProtocolError as error:
            broken = MaestroError(f"cannot read the request: {error}", code="bad-request")
            answer = problem(broken, error.error_status_hint)
        except Exception as error:
            answer = self._failed(error)
        if received is None and answer is None:
            return False
        # From here on nothing is read, but a hang-up is heard.
        task = self.loop.current
        assert task is not None
        self.loop.add_reader(self.fd, lambda: self._hung_up(task), priority=True)
        try:
            if received is not None:
                route, request = received
                try:
                    answer = await route.handler(request)
                    if isinstance(answer, Response):
                        answer = conditional(request, answer)
                except Exception as error:
                    answer = self._failed(error)
            if isinstance(answer, Stream):
                if not await self._stream(answer):
                    return False
            elif answer is not None:
                if len(answer.body) > _PIECE:
                    try:
                        self._hold(len(answer.body), self.server.max_held)
                    except MaestroError as error:
                        answer = problem(error)
                await self._write(encode(self.http, answer, self.head_only), self.server.patience)
        finally:
            self.loop.remove_reader(self.fd)
        if self.http.our_state is h11.DONE and self.http.their_state is h11.DONE:
            self.http.start_next_cycle()
            return True
        if self.http.their_state in (h11.IDLE, h11.SEND_BODY, h11.ERROR):
            await self._linger()
        return False

    def _failed(self, error: Exception) -> Response:
        if isinstance(error, _Gone):
            raise error
        if isinstance(error, MaestroError):
            return problem(error)
        self.server.on_error(self.what, error)
        return problem(
            MaestroError("cannot answer this request: internal error; the daemon's log has the details")
        )

    def _hung_up(self, task: Task[None]) -> None:
        self.loop.remove_reader(self.fd)
        task.cancel()

    async def _receive(self) -> tuple[Route, Request] | None:
        """Return the next request and its route, or None at the end of the connection.

        A body is read only for a request that will be answered: whoever may not ask cannot make us keep it.
        Raises MaestroError when the request is refused.
        """
        head = await self._event()
        if not isinstance(head, h11.Request):
            return None
        try:
            route, request = self._admit(head)
            small = 1 if request.role is Role.ADMIN else _SHARE
            limit, held = self.server.max_body // small, self.server.max_held // small
            for name, value in head.headers:
                if name == b"content-length" and int(value) > limit:
                    raise self._too_large(limit)
        except MaestroError:
            # When what came already is all of it, the connection can go on.
            while isinstance(self.http.next_event(), h11.Data):
                pass
            raise
        body = []
        size = 0
        while isinstance(event := await self._event(), h11.Data):
            size += len(event.data)
            if size > limit:
                raise self._too_large(limit)
            self._hold(len(event.data), held)
            body.append(event.data)
            await self.loop.sleep(0)
        request.body = b"".join(body)
        return route, request

    async def _event(self) -> object:
        while (event := self.http.next_event()) is h11.NEED_DATA:
            if self.http.they_are_waiting_for_100_continue:
                go_on = h11.InformationalResponse(status_code=100, headers=[])
                await self._write(self.http.send(go_on), self.server.patience)
            try:
                self.http.receive_data(self.sock.recv(_PIECE))
            except BlockingIOError:
                await self.loop.readable(self.fd)
            except OSError as error:
                raise _Gone from error
        return event

    def _admit(self, head: h11.Request) -> tuple[Route, Request]:
        method = head.method.decode("ascii")
        path, _, query = head.target.decode("ascii").partition("?")
        self.what = f"{method} {path}"
        self.head_only = method == "HEAD"
        role = self.door.role(head.headers) if self.door else self.server.role_of(self.peer)
        if role is Role.NONE and not self.door:
            raise Forbidden(f"cannot use the maestro socket as uid {self.peer.uid}: this user has no role")
        try:
            route, params = self.server.router.match(method, path)
        except MaestroError as error:  # which paths there are is not for everybody
            raise error if role else self._refused(method, path, role, Role.READ) from None
        if role < route.role:
            raise self._refused(method, path, role, route.role)
        values = parse_query(query)
        if route.query is not None:
            check_query(values, route.query)
        request = Request(
            method,
            path,
            self.peer,
            query=values,
            headers=list(head.headers),
            params=params,
            role=role,
        )
        return route, request

    def _refused(self, method: str, path: str, role: Role, least: Role) -> MaestroError:
        """Return what somebody is told whose role is not enough."""
        takes = f"it takes the role {least.name.lower()}"
        if self.door:
            return MaestroError(
                f"cannot {method} {path} without a token: {takes}",
                hint=f"send the token in {self.door.token_file} as `Authorization: Bearer TOKEN`",
                code="unauthorized",
            )
        has = role.name.lower() if role > Role.JOB else "none"
        return Forbidden(
            f"cannot {method} {path} as {self.peer.who}: {takes}, this user has {has}",
            hint="root may do it, and members of the groups that maestro.yaml names for roles",
        )

    def _too_large(self, limit: int) -> MaestroError:
        size = format_size(limit)
        return MaestroError(f"cannot take the request: its body is larger than {size}", code="too-large")

    def _hold(self, size: int, limit: int) -> None:
        """Count bytes kept in memory for this client. Raises MaestroError when all clients' are too many."""
        if self.server.held + size > limit:
            raise MaestroError(
                "cannot take the request now: others are being served as much as memory allows",
                hint="try again in a moment",
                code="unavailable",
            )
        self.server.held += size
        self.held += size

    def _let_go(self) -> None:
        self.server.held -= self.held
        self.held = 0

    async def _stream(self, answer: Stream) -> bool:
        """Send a stream; return False when it broke off."""
        chunks = answer.chunks
        try:
            headers = [*answer.headers, ("content-type", answer.content_type)]
            head = h11.Response(status_code=answer.status, headers=headers)
            await self._write(self.http.send(head), None)
            if not self.head_only:
                async for chunk in chunks:
                    if chunk:
                        await self._write(self.http.send(h11.Data(data=chunk)), None)
                        await self.loop.sleep(0)
            await self._write(self.http.send(h11.EndOfMessage()), None)
            return True
        except _Gone:
            raise
        except Exception as error:
            # The status is sent; a stream without its end is all the client can be told.
            self.server.on_error(self.what, error)
            return False
        finally:
            close = getattr(chunks, "aclose", None)
            if close is not None:
                await close()

    async def _write(self, data: bytes | None, patience: float | None) -> None:
        """Send all of it; `patience` limits each time the client takes nothing; None is for ever."""
        rest = memoryview(data or b"")
        while True:
            try:
                rest = rest[self.sock.send(rest) :]
                if not rest:
                    return
            except BlockingIOError:
                pass
            except OSError as error:
                raise _Gone from error
            try:
                await self.loop.wait_for(self.loop.writable(self.fd), patience)
            except TimedOutError as error:
                raise _Gone from error

    async def _linger(self) -> None:
        """Let the client finish sending what nobody reads: closing at once could lose it our answer."""

        async def drain() -> None:
            while True:
                await self.loop.readable(self.fd)
                if not self.sock.recv(_PIECE):
                    return

        try:
            self.sock.shutdown(socket.SHUT_WR)
            await self.loop.wait_for(drain(), LINGER)
        except (OSError, TimedOutError):
            pass


def encode(http: h11.Connection, answer: Response, head_only: bool) -> bytes:
    """Return the bytes of an answer."""
    headers = [*answer.headers]
    if answer.content_type and answer.status not in (204, 304):
        headers.append(("content-type", answer.content_type))
    if answer.status not in (204, 304):
        headers.append(("content-length", str(len(answer.body))))
    if http.their_state is not h11.DONE:
        headers.append(("connection", "close"))
    parts = [http.send(h11.Response(status_code=answer.status, headers=headers))]
    if answer.body and not head_only:
        parts.append(http.send(h11.Data(data=answer.body)))
    parts.append(http.send(h11.EndOfMessage()))
    return b"".join(part for part in parts if part)
