# SPDX-License-Identifier: Apache-2.0
"""The HTTP server of the socket API: who listens where, and how many may come."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Callable

import h11

from maestro_py.daemon.access import Door
from maestro_py.daemon.connection import Connection, encode
from maestro_py.daemon.loop import Cancelled, Loop, Task, TimedOutError
from maestro_py.daemon.messages import (
    NOBODY,
    Handler,
    Peer,
    Request,
    Response,
    Stream,
    json_response,
    problem,
)
from maestro_py.daemon.router import Role, Router
from maestro_py.errors import Conflict, MaestroError

__all__ = ["Handler", "Peer", "Request", "Response", "Server", "Stream", "json_response", "problem"]

MAX_BODY = 16 << 20
"""Bytes of a request's body, of an administrator's; others may send a quarter of it."""
MAX_HELD = 32 << 20
"""Bytes of bodies, and of long answers not yet taken, for all clients together."""
MAX_CONNECTIONS = 256
"""Connections at a time. The last quarter is kept for root and the daemon's own user, TCP gets half."""
PATIENCE = 30.0
"""Seconds for a request to arrive, idle time before it included, and for an answer to be taken."""
SILENCE = 30
"""Seconds after which the kernel asks a silent TCP client whether it is there, then after each third of them:
one that shut its side and left later tells nobody."""

ENDING_TIME = 1.0
"""Seconds that whatever serves a connection has to take itself away when the server ends."""

_SUN_PATH = 107  # bytes of a socket's path without the closing NUL, unix(7)
_BACKLOG = 1024  # connections that wait to be taken; on a Unix socket one more is refused at once
_ACCEPTS = 32  # connections taken in one round of the loop
_PAUSE = 1.0  # seconds without accepting when descriptors have run out


class Server:
    """Answers requests on listening sockets.

    on_error(what, error): hears of errors in handlers that are not MaestroErrors; the client sees a 500
    that says nothing of them. role_of(peer): what a peer may do; it may raise Forbidden with the reason.
    """

    def __init__(
        self,
        loop: Loop,
        router: Router,
        *,
        on_error: Callable[[str, BaseException], object],
        role_of: Callable[[Peer], Role],
        max_body: int = MAX_BODY,
        max_held: int = MAX_HELD,
        max_connections: int = MAX_CONNECTIONS,
        patience: float = PATIENCE,
    ) -> None:
        self.loop = loop
        self.router = router
        self.on_error = on_error
        self.role_of = role_of
        self.max_body = max_body
        self.max_held = max_held
        self.held = 0
        self.max_connections = max_connections
        self.patience = patience
        self._listeners: dict[int, socket.socket] = {}
        self._door: Door | None = None
        self._paths: dict[str, tuple[int, int]] = {}
        self._connections: set[Task[None]] = set()

    @property
    def listening(self) -> list[int]:
        """The listening descriptors, to be handed over when the daemon replaces itself."""
        return list(self._listeners)

    def listen(self, path: str, mode: int = 0o666) -> None:
        """Listen at `path` with these permissions; a socket nobody answers on any more is replaced.

        Raises Conflict when somebody answers there or it is another kind of file, MaestroError otherwise.
        """
        if len(os.fsencode(path)) > _SUN_PATH:
            raise MaestroError(
                f"cannot listen on {path}: the path of a socket has at most {_SUN_PATH} bytes",
                hint="name a shorter one with --socket",
            )
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            _remove_stale(path)
            # The mode is right from the beginning: nobody connects before a chmod.
            before = os.umask(0o777 & ~mode)
            try:
                sock.bind(path)
            finally:
                os.umask(before)
            sock.listen(_BACKLOG)
            self.adopt(sock.detach())
        except OSError as error:
            raise MaestroError(f"cannot listen on {path}: {error.strerror}") from error
        finally:
            sock.close()

    def open_door(self, door: Door | None) -> None:
        """Listen on TCP by the rules of `door`, on no other address any more; None: not at all.

        A listener that is there already goes on. Raises MaestroError; then there is none.
        """
        self._door = None
        for fd, sock in list(self._listeners.items()):
            if sock.family != socket.AF_UNIX and (door is None or sock.getsockname()[:2] != door.address):
                self._stop_listening(fd)
        if door is None:
            return
        door.prepare()
        self._door = door
        if any(sock.family != socket.AF_UNIX for sock in self._listeners.values()):
            return
        host, port = door.address
        sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind(door.address)
            sock.listen(_BACKLOG)
            self.adopt(sock.detach())
        except OSError as error:
            raise MaestroError(f"cannot listen on {host} port {port}: {error.strerror}") from error
        finally:
            sock.close()

    def adopt(self, fd: int) -> None:
        """Answer on a socket that listens already; descriptor and path are the server's from here on.

        One on TCP answers once its door is open.
        """
        sock = socket.socket(fileno=fd)
        sock.setblocking(False)
        path = sock.getsockname()
        if isinstance(path, str) and path:
            found = os.stat(path)
            self._paths[path] = (found.st_dev, found.st_ino)
        self._listeners[fd] = sock
        self.loop.add_reader(fd, lambda: self._accept(sock))

    def listens_at(self, path: str) -> bool:
        """Return whether this socket is served."""
        return path in self._paths

    def listeners(self) -> tuple[int, ...]:
        """Return the descriptors of all listening sockets."""
        return tuple(self._listeners)

    def close(self) -> None:
        """Stop listening, remove the sockets' paths, end all connections."""
        for fd in list(self._listeners):
            self._stop_listening(fd)
        for path, identity in self._paths.items():
            # Not if it was replaced: it is then another daemon's.
            try:
                found = os.stat(path)
                if (found.st_dev, found.st_ino) == identity:
                    os.unlink(path)
            except OSError:
                pass
        self._paths.clear()
        for task in self._connections:
            task.cancel()

    async def ended(self) -> None:
        """Return once the connections that `close` ended are gone, what served them included."""
        for task in list(self._connections):
            try:
                await self.loop.wait_for(task, ENDING_TIME)
            except TimedOutError:
                return
            except (Exception, Cancelled):
                pass  # its own; it is told where it was served

    def _stop_listening(self, fd: int) -> None:
        self.loop.remove_reader(fd)
        self._listeners.pop(fd).close()

    def _accept(self, listener: socket.socket) -> None:
        for _ in range(_ACCEPTS):
            try:
                sock, _ = listener.accept()
            except (BlockingIOError, ConnectionAbortedError):
                return
            except OSError as error:
                # Out of descriptors or memory: the connection stays in the queue and would wake us at once.
                self.on_error("accept", error)
                self.loop.remove_reader(listener.fileno())
                self.loop.call_later(_PAUSE, lambda: self._resume(listener))
                return
            self._serve(sock)

    def _resume(self, listener: socket.socket) -> None:
        if listener.fileno() in self._listeners:
            self.loop.add_reader(listener.fileno(), lambda: self._accept(listener))

    def _serve(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        door = None
        try:
            if sock.family == socket.AF_UNIX:
                peer = Peer.of(sock)
                share = 1 if peer.uid in (0, os.geteuid()) else 0.75
            else:
                # the kernel asks a silent peer whether it lives; we would have to wake up for it
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, SILENCE)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, max(1, SILENCE // 3))
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                peer, share, door = Peer(NOBODY, NOBODY, NOBODY), 0.5, self._door
        except OSError:
            sock.close()
            return
        if sock.family != socket.AF_UNIX and door is None:
            sock.close()
            return
        if len(self._connections) >= self.max_connections * share:
            busy = problem(MaestroError("cannot take one more connection: too many", code="unavailable"))
            try:
                sock.send(encode(h11.Connection(h11.SERVER), busy, False))
            except OSError:
                pass
            sock.close()
            return
        task = self.loop.spawn(Connection(self, sock, peer, door).run(), name="connection")
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)


def _remove_stale(path: str) -> None:
    """Unlink a socket that nobody listens on. Raises Conflict when it is anything else."""
    try:
        kind = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(kind):
        raise Conflict(f"cannot listen on {path}: there is a file that is not a socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as probe:
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
            return
        except BlockingIOError:
            pass  # its queue is full: somebody listens
    raise Conflict(f"cannot listen on {path}: another daemon answers there")
