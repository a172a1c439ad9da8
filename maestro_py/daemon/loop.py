# SPDX-License-Identifier: Apache-2.0
"""The daemon's only event loop: file descriptors, timers, signals and coroutines on one epoll, one thread.

An idle loop sleeps in epoll_wait without a timeout: nothing wakes it but an event. Every round runs the
callbacks of ready descriptors once each, then the timers that are due, then what is queued; what the queue
itself adds waits for the next round, so that no descriptor, timer or task starves another.

Times are seconds on CLOCK_BOOTTIME, which neither steps nor stops in suspend. The kernel's epoll timeout
does stop in suspend, so no wait is longer than LONGEST_WAIT: a timer that came due while the device slept
is at most that late, and only a loop that has a timer pays this one wake-up.
"""

from __future__ import annotations

import heapq
import os
import select
import signal
import sys
import time
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from maestro_py.daemon.waiting import Cancelled, Event, Expired, Future, Signal, Task, TimedOutError
from maestro_py.timing import Timing

__all__ = ["Cancelled", "Event", "Future", "Loop", "Signal", "Task", "TimedOutError", "Timer"]

T = TypeVar("T")
Callback = Callable[[], object]

LONGEST_WAIT = 300.0
"""Seconds after which a loop with a pending timer looks at the clock again."""

_GONE = select.EPOLLHUP | select.EPOLLERR
_FEW = 64  # cancelled timers that are not worth a sweep of the heap


class Timer:
    """One callback at one time, `when` on the loop's clock. Made by call_at and call_later."""

    __slots__ = ("_callback", "_loop", "when")

    def __init__(self, loop: Loop, when: float, callback: Callback) -> None:
        self._loop = loop
        self.when = when
        self._callback: Callback | None = callback

    @property
    def pending(self) -> bool:
        """Whether the callback is still to come."""
        return self._callback is not None

    def cancel(self) -> None:
        """Drop the callback; nothing happens when it ran or was cancelled already."""
        if self._callback is not None:
            self._callback = None
            self._loop._timer_cancelled()


class _Descriptor:
    __slots__ = ("priority", "reader", "registered", "writer")

    def __init__(self) -> None:
        self.registered = False
        self.reader: Callback | None = None
        self.writer: Callback | None = None
        self.priority = False

    def wanted(self) -> int:
        read = (select.EPOLLPRI if self.priority else select.EPOLLIN) if self.reader else 0
        return read | (select.EPOLLOUT if self.writer else 0)


class Loop:
    """One epoll and what hangs on it. Not for use from another thread.

    clock: where times come from; None is CLOCK_BOOTTIME. on_error(task, error), an attribute, hears of
    exceptions nobody handles: `task` is None for a plain callback. It prints to stderr until replaced.
    rounds: how long each took, which is how long an event may have waited for its turn.
    """

    def __init__(self, clock: Callable[[], float] | None = None) -> None:
        self._clock = clock or _boottime
        self.on_error: Callable[[Task[Any] | None, BaseException], object] = _print_error
        self.current: Task[Any] | None = None
        self._epoll = select.epoll()
        self._fds: dict[int, _Descriptor] = {}
        self._ready: deque[Callback] = deque()
        self._timers: list[tuple[float, int, Timer]] = []
        self._timer_count = 0
        self._timers_cancelled = 0
        self.tasks: set[Task[Any]] = set()
        self._signals: dict[int, Callback] = {}
        self._old_handlers: dict[int, Any] = {}
        self._signal_pipe: tuple[int, int] | None = None
        self._stopping = False
        self.rounds = Timing()

    def time(self) -> float:
        """Return seconds on the loop's clock."""
        return self._clock()

    # Descriptors

    def add_reader(self, fd: int, callback: Callback, *, priority: bool = False) -> None:
        """Call `callback` whenever `fd` can be read, or is broken or hung up; replaces the reader before.

        priority: wait for EPOLLPRI instead of data, as cgroup.events tells of a change. With it also a
        hang-up alone can be awaited: a peer that closed its socket, a pidfd whose process was reaped.
        """
        entry = self._fds.setdefault(fd, _Descriptor())
        entry.reader, entry.priority = callback, priority
        self._update(fd, entry)

    def remove_reader(self, fd: int) -> None:
        """Forget the reader of `fd`, if there is one. Do it before closing the descriptor."""
        entry = self._fds.get(fd)
        if entry is not None and entry.reader is not None:
            entry.reader = None
            self._update(fd, entry)

    def add_writer(self, fd: int, callback: Callback) -> None:
        """Call `callback` whenever `fd` can be written to, or is broken; replaces the writer before."""
        entry = self._fds.setdefault(fd, _Descriptor())
        entry.writer = callback
        self._update(fd, entry)

    def remove_writer(self, fd: int) -> None:
        """Forget the writer of `fd`, if there is one. Do it before closing the descriptor."""
        entry = self._fds.get(fd)
        if entry is not None and entry.writer is not None:
            entry.writer = None
            self._update(fd, entry)

    def _update(self, fd: int, entry: _Descriptor) -> None:
        if entry.reader is None and entry.writer is None:
            del self._fds[fd]
            try:
                self._epoll.unregister(fd)
            except OSError:
                pass  # closed already, and with that out of the epoll
            return
        try:
            if entry.registered:
                try:
                    self._epoll.modify(fd, entry.wanted())
                    return
                except FileNotFoundError:
                    pass  # the descriptor was closed and its number is another file now
            self._epoll.register(fd, entry.wanted())
            entry.registered = True
        except OSError:
            del self._fds[fd]
            raise

    # Later

    def call_soon(self, callback: Callback) -> None:
        """Run `callback` in the next round."""
        self._ready.append(callback)

    def call_at(self, when: float, callback: Callback) -> Timer:
        """Run `callback` when the clock shows `when`; callbacks of one time run in the order given."""
        timer = Timer(self, when, callback)
        self._timer_count += 1
        heapq.heappush(self._timers, (when, self._timer_count, timer))
        return timer

    def call_later(self, delay: float, callback: Callback) -> Timer:
        """Run `callback` in `delay` seconds."""
        return self.call_at(self._clock() + delay, callback)

    def _timer_cancelled(self) -> None:
        self._timers_cancelled += 1
        if self._timers_cancelled > _FEW and self._timers_cancelled * 2 > len(self._timers):
            self._timers = [entry for entry in self._timers if entry[2]._callback is not None]
            heapq.heapify(self._timers)
            self._timers_cancelled = 0

    def add_signal(self, signum: int, callback: Callback) -> None:
        """Run `callback` in the loop after the process received `signum`; several at once count as one."""
        if self._signal_pipe is None:
            self._signal_pipe = read, write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
            signal.set_wakeup_fd(write, warn_on_full_buffer=False)
            self.add_reader(read, self._read_signals)
        self._signals[signum] = callback
        # The handler in Python has nothing to do, but without one the kernel would act on the signal.
        before = signal.signal(signum, lambda *_: None)
        self._old_handlers.setdefault(signum, before)

    def _read_signals(self) -> None:
        assert self._signal_pipe is not None
        for signum in dict.fromkeys(os.read(self._signal_pipe[0], 4096)):
            callback = self._signals.get(signum)
            if callback is not None:
                self._call(callback)

    # Coroutines

    def spawn(self, coro: Coroutine[Any, Any, T], *, name: str = "") -> Task[T]:
        """Run a coroutine as a task of its own, beginning in the next round."""
        return Task(self, coro, name)

    async def sleep(self, seconds: float) -> None:
        """Return after `seconds`; 0 lets everyone else have a turn."""
        future: Future[None] = Future(self)
        if seconds <= 0:
            self.call_soon(lambda: future.set_result(None))
            await future
            return
        timer = self.call_later(seconds, lambda: future.set_result(None))
        try:
            await future
        finally:
            timer.cancel()

    async def readable(self, fd: int) -> None:
        """Return once `fd` can be read or has hung up. It must have no other reader."""
        future: Future[None] = Future(self)
        self.add_reader(fd, lambda: future.set_result(None))
        try:
            await future
        finally:
            self.remove_reader(fd)

    async def writable(self, fd: int) -> None:
        """Return once `fd` can be written to or is broken. It must have no other writer."""
        future: Future[None] = Future(self)
        self.add_writer(fd, lambda: future.set_result(None))
        try:
            await future
        finally:
            self.remove_writer(fd)

    async def wait_for(self, awaitable: Awaitable[T], timeout: float | None) -> T:
        """Await with a limit in seconds; None is no limit. Raises TimedOutError.

        A coroutine is cancelled when the time is up. A task or future is only no longer awaited.
        """
        if timeout is None:
            return await awaitable
        task = self.current
        assert task is not None, "wait_for runs in a task"
        expired = Expired()
        timer = self.call_later(timeout, lambda: task.interrupt(expired))
        try:
            return await awaitable
        except Expired as reason:
            if reason is expired:
                raise TimedOutError(f"nothing came within {timeout:g} s") from None
            raise
        finally:
            timer.cancel()
            if expired in task.interrupts:
                task.interrupts.remove(expired)

    # Running

    def run(self) -> None:
        """Run until stop()."""
        try:
            while not self._stopping:
                self._round()
        finally:
            self._stopping = False

    def stop(self) -> None:
        """Make run() return after this round."""
        self._stopping = True

    def run_until(self, coro: Coroutine[Any, Any, T]) -> T:
        """Run the loop until this coroutine ends; return its result or raise its exception."""
        task = self.spawn(coro)
        while not task.done:
            self._round()
        return task.result()

    def close(self) -> None:
        """End tasks where they wait, restore signal handlers, close the loop's own descriptors."""
        while self.tasks:
            task = next(iter(self.tasks))
            try:
                task.close()
            except Exception as error:
                self.failed(task, error)
        for signum, handler in self._old_handlers.items():
            signal.signal(signum, handler)
        if self._signal_pipe is not None:
            signal.set_wakeup_fd(-1)
            for fd in self._signal_pipe:
                os.close(fd)
        self._signal_pipe = None
        self._old_handlers = {}
        self._fds.clear()
        self._ready.clear()
        self._timers.clear()
        self._epoll.close()

    def _timeout(self) -> float | None:
        """Seconds to sleep at most; None is for ever."""
        if self._ready or self._stopping:
            return 0
        while self._timers and self._timers[0][2]._callback is None:
            heapq.heappop(self._timers)
            self._timers_cancelled -= 1
        if not self._timers:
            return None
        return min(max(self._timers[0][0] - self._clock(), 0), LONGEST_WAIT)

    def _wait(self, timeout: float | None) -> list[tuple[int, int]]:
        return self._epoll.poll(timeout, 64)

    def _round(self) -> None:
        # Looked up first: a callback may close a descriptor, and its number may serve something new.
        entries = [(self._fds.get(fd), mask) for fd, mask in self._wait(self._timeout())]
        began = self._clock()
        for entry, mask in entries:
            if entry is None:
                continue
            if entry.reader is not None and mask & (select.EPOLLIN | select.EPOLLPRI | _GONE):
                self._call(entry.reader)
            if entry.writer is not None and mask & (select.EPOLLOUT | _GONE):
                self._call(entry.writer)
        if self._timers:
            now = self._clock()
            due = []
            while self._timers and self._timers[0][0] <= now:
                due.append(heapq.heappop(self._timers)[2])
            for timer in due:
                callback, timer._callback = timer._callback, None
                if callback is None:
                    self._timers_cancelled -= 1
                else:
                    self._call(callback)
        for _ in range(len(self._ready)):
            self._call(self._ready.popleft())
        self.rounds.add(self._clock() - began)

    def _call(self, callback: Callback) -> None:
        try:
            callback()
        except Exception as error:
            self.failed(None, error)

    def failed(self, task: Task[Any] | None, error: BaseException) -> None:
        """Hand an error nobody handled to on_error."""
        try:
            self.on_error(task, error)
        except Exception as worse:
            _print_error(task, worse)


def _boottime() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def _print_error(task: object, error: BaseException) -> None:
    print(f"unhandled error in {task or 'a callback'}:", file=sys.stderr)
    sys.excepthook(type(error), error, error.__traceback__)
