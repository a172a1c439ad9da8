# SPDX-License-Identifier: Apache-2.0
"""What coroutines wait for on the daemon's loop: futures, tasks, events and signals of news."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Generator
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:
    from maestro_py.daemon.loop import Loop

T = TypeVar("T")


class Cancelled(BaseException):
    """Thrown into a coroutine whose task is cancelled, and raised to who awaits a cancelled future."""


class TimedOutError(Exception):
    """What was awaited with a limit did not come in time."""


class Expired(Cancelled):
    """How wait_for ends its awaitable; never seen by its caller."""


class Future(Generic[T]):
    """A result that will come. Await it, from as many tasks as you like.

    Whoever awaits is resumed in a later step of the loop, never inside set_result.
    """

    __slots__ = ("_callbacks", "_error", "_loop", "_retrieved", "_value", "done")

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self.done = False
        self._value: T | None = None
        self._error: BaseException | None = None
        self._retrieved = False
        self._callbacks: list[Callable[[Any], object]] = []

    def set_result(self, value: T) -> None:
        """Give the result; nothing happens when there is one already."""
        self._finish(value, None)

    def set_exception(self, error: BaseException) -> None:
        """Give an exception as the result; nothing happens when there is a result already."""
        self._finish(None, error)

    def cancel(self) -> None:
        """End it with Cancelled; nothing happens when it is done."""
        self._finish(None, Cancelled())

    def result(self) -> T:
        """Return the result or raise the exception. RuntimeError while there is neither."""
        if not self.done:
            raise RuntimeError("the result is not there yet")
        self._retrieved = True
        if self._error is not None:
            raise self._error
        return self._value  # type: ignore[return-value]

    def add_done_callback(self, callback: Callable[[Any], object]) -> None:
        """Have `callback(self)` run by the loop once there is a result."""
        if self.done:
            self._loop.call_soon(partial(callback, self))
        else:
            self._callbacks.append(callback)

    def __await__(self) -> Generator[Future[Any], None, T]:
        if not self.done:
            yield self
        return self.result()

    def _finish(self, value: T | None, error: BaseException | None) -> None:
        if self.done:
            return
        self.done = True
        self._value, self._error = value, error
        callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            self._loop.call_soon(partial(callback, self))


class Task(Future[T]):
    """A coroutine the loop runs, and its result. Made by Loop.spawn.

    An exception that nobody awaits or asks for goes to Loop.on_error.
    """

    __slots__ = ("_coro", "_waits_for", "interrupts", "name")

    def __init__(self, loop: Loop, coro: Coroutine[Any, Any, T], name: str) -> None:
        super().__init__(loop)
        self.name = name
        self._coro = coro
        self._waits_for: Future[Any] | None = None
        self.interrupts: list[Cancelled] = []
        loop.tasks.add(self)
        loop.call_soon(self._start)

    def __repr__(self) -> str:
        return f"<Task {self.name or self._coro}>"

    def cancel(self) -> None:
        """Throw Cancelled into the coroutine where it waits; what it waits for stays as it is.

        A result that came already is delivered first; a coroutine that never began never begins.
        """
        self.interrupt(Cancelled())

    def interrupt(self, reason: Cancelled) -> None:
        """Throw `reason` into the coroutine where it waits; what cancel and wait_for are made of."""
        if self.done:
            return
        self.interrupts.append(reason)
        if self._waits_for is not None and not self._waits_for.done:
            self._waits_for._callbacks.remove(self._wake)
            self._waits_for = None
            self._loop.call_soon(self._throw)

    def close(self) -> None:
        """End the coroutine where it waits, at once and without a result: the loop is being closed."""
        self._loop.tasks.discard(self)
        self.done = True
        self._coro.close()

    def _start(self) -> None:
        if self.interrupts:
            self._throw()
        else:
            self._step(None)

    def _wake(self, _: object) -> None:
        self._waits_for = None
        self._step(None)

    def _throw(self) -> None:
        self._step(self.interrupts.pop(0))

    def _step(self, interrupt: Cancelled | None) -> None:
        if self.done:
            return
        loop = self._loop
        outer, loop.current = loop.current, self
        try:
            future = self._coro.send(None) if interrupt is None else self._coro.throw(interrupt)
        except StopIteration as stop:
            self._end(stop.value, None)
        except (Exception, Cancelled) as error:
            self._end(None, error)
        except BaseException as error:
            self._retrieved = True
            self._end(None, error)
            raise
        else:
            if self.interrupts:
                loop.call_soon(self._throw)
            else:
                self._waits_for = future
                future._callbacks.append(self._wake)
        finally:
            loop.current = outer

    def _end(self, value: T | None, error: BaseException | None) -> None:
        self._loop.tasks.discard(self)
        self._finish(value, error)
        if error is not None and not isinstance(error, Cancelled):
            # Queued behind those who await: they have taken the result by then.
            self._loop.call_soon(self._report)

    def _report(self) -> None:
        if not self._retrieved and self._error is not None:
            self._loop.failed(self, self._error)


class Event:
    """A flag that tasks wait for. Once set it stays set."""

    def __init__(self, loop: Loop) -> None:
        self._future: Future[None] = Future(loop)

    @property
    def is_set(self) -> bool:
        """Whether set() was called."""
        return self._future.done

    def set(self) -> None:
        """Let everyone who waits go on, now and later."""
        self._future.set_result(None)

    async def wait(self) -> None:
        """Return once the event is set."""
        await self._future


class Signal:
    """Tells all who wait at this moment that there is something new; it keeps no state.

    A follower looks at its source, and waits when there is nothing: no step of the loop lies between.
    """

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._next: Future[None] | None = None

    def notify(self) -> None:
        """Let everyone who waits now go on. Costs nothing while nobody does."""
        waiters, self._next = self._next, None
        if waiters is not None:
            waiters.set_result(None)

    async def wait(self) -> None:
        """Return at the next notify."""
        if self._next is None:
            self._next = Future(self._loop)
        await self._next
