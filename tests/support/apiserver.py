# SPDX-License-Identifier: Apache-2.0
"""The daemon's real loop and HTTP server in a thread, with whatever routes a test brings."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable
from typing import Any

from maestro_py.daemon.http import Peer, Server
from maestro_py.daemon.loop import Loop
from maestro_py.daemon.router import Role, Route, Router, bound


class ApiServer:
    """Serves while the `with` lasts. `errors` is what on_error heard, of the server or of the loop."""

    def __init__(
        self,
        path: str,
        routes: Iterable[Route],
        *,
        role_of: Callable[[Peer], Role] = lambda _: Role.ADMIN,
        handlers: object = None,
        **limits: Any,
    ) -> None:
        self.path = path
        self.loop = Loop()
        self.errors: list[tuple[str, BaseException]] = []
        self.loop.on_error = lambda task, error: self.errors.append((f"loop: {task}", error))
        self.server = Server(
            self.loop,
            Router(bound(routes, handlers) if handlers else routes),
            on_error=lambda what, error: self.errors.append((what, error)),
            role_of=role_of,
            **limits,
        )
        self._calls: list[Callable[[], object]] = []
        self._wake_read, self._wake_write = os.pipe()
        self._thread = threading.Thread(target=self.loop.run)

    def __enter__(self) -> ApiServer:
        self.server.listen(self.path)
        self.loop.add_reader(self._wake_read, self._woken)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.call(self.server.close)
        self.call(self.loop.stop)
        self._thread.join(10)
        assert not self._thread.is_alive()
        self.loop.close()
        os.close(self._wake_read)
        os.close(self._wake_write)

    def call(self, callback: Callable[[], object]) -> None:
        """Have `callback` run in the loop's thread."""
        self._calls.append(callback)
        os.write(self._wake_write, b"x")

    def ask(self, callback: Callable[[], Any]) -> Any:
        """Return what `callback` returns in the loop's thread."""
        done = threading.Event()
        result: list[Any] = []

        def answer() -> None:
            result.append(callback())
            done.set()

        self.call(answer)
        assert done.wait(10)
        return result[0]

    def _woken(self) -> None:
        for _ in os.read(self._wake_read, 100):
            self._calls.pop(0)()
