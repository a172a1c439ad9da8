# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os
import select
import signal
import socket
import time
from collections.abc import Callable, Iterator
from functools import partial

import pytest

from maestro_py.daemon.loop import Cancelled, Event, Future, Loop, Signal, Task, TimedOutError


class Clock:
    """A clock that stands still until somebody moves it."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class JumpLoop(Loop):
    """A loop whose waiting takes no time: the clock jumps to the next timer."""

    def __init__(self) -> None:
        self.hands = Clock()
        self.waits: list[float | None] = []
        super().__init__(clock=self.hands)

    def _wait(self, timeout: float | None) -> list[tuple[int, int]]:
        self.waits.append(timeout)
        assert timeout is not None, "the loop would sleep for ever"
        self.hands.now += timeout
        return super()._wait(0)


def both(first: Callable[[], object], second: Callable[[], object]) -> Callable[[], object]:
    return lambda: (first(), second())


def closing(loop: Loop) -> Iterator[Loop]:
    errors: list[BaseException] = []
    loop.on_error = lambda _, error: errors.append(error)
    yield loop
    loop.close()
    assert not errors


@pytest.fixture
def loop() -> Iterator[Loop]:
    yield from closing(Loop())


@pytest.fixture
def jump() -> Iterator[JumpLoop]:
    loop = JumpLoop()
    yield from closing(loop)  # type: ignore[misc]


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    a, b = socket.socketpair()
    a.setblocking(False)
    b.setblocking(False)
    with a, b:
        yield a, b


# Timers


def test_timers_run_in_order_of_time_and_equal_ones_in_the_order_given(jump: JumpLoop) -> None:
    seen: list[str] = []
    jump.call_later(5, lambda: seen.append("c"))
    for name in "ab":
        jump.call_at(1001, partial(seen.append, name))
    jump.call_later(9, jump.stop)
    jump.run()
    assert seen == ["a", "b", "c"]
    assert jump.time() == 1009


def test_a_cancelled_timer_does_not_run_even_when_its_neighbour_cancels_it(jump: JumpLoop) -> None:
    seen: list[str] = []
    first = jump.call_later(1, lambda: second.cancel())  # noqa: PLW0108 - defined below
    second = jump.call_later(1, lambda: seen.append("second"))
    third = jump.call_later(1, lambda: seen.append("third"))
    jump.call_later(2, jump.stop)
    third.cancel()
    third.cancel()
    jump.run()
    assert seen == []
    assert not first.pending


def test_a_timer_set_for_now_by_a_timer_waits_for_the_next_round(jump: JumpLoop) -> None:
    count = 0

    def again() -> None:
        nonlocal count
        count += 1
        jump.call_later(0, again if count < 5 else jump.stop)

    jump.call_later(0, again)
    jump.run()
    assert count == 5


def test_ten_thousand_cancelled_timers_do_not_pile_up(loop: Loop) -> None:
    keep = loop.call_later(3600, lambda: None)
    for _ in range(10_000):
        loop.call_later(1800, lambda: None).cancel()
    assert len(loop._timers) < 300
    assert keep.pending
    assert any(entry[2] is keep for entry in loop._timers)


def test_a_timer_in_a_thousand_years_is_waited_for_in_bounded_steps(jump: JumpLoop) -> None:
    jump.call_later(3e10, lambda: None)
    for _ in range(3):
        jump._round()
    assert jump.waits == [300, 300, 300]


def test_an_idle_loop_sleeps_without_a_timeout(loop: Loop) -> None:
    timer = loop.call_later(5, lambda: None)
    assert loop._timeout() is not None
    timer.cancel()
    assert loop._timeout() is None


def test_the_clock_is_boottime(loop: Loop) -> None:
    before = time.clock_gettime(time.CLOCK_BOOTTIME)
    assert before <= loop.time() <= before + 5


# Descriptors


def test_reader_and_writer_live_on_one_descriptor(
    loop: Loop, pair: tuple[socket.socket, socket.socket]
) -> None:
    a, b = pair
    seen: list[str] = []

    def write() -> None:
        seen.append("write")
        loop.remove_writer(a.fileno())
        b.send(b"x")

    def read() -> None:
        seen.append("read")
        a.recv(10)
        loop.remove_reader(a.fileno())
        loop.stop()

    loop.add_reader(a.fileno(), read)
    loop.add_writer(a.fileno(), write)
    loop.run()
    assert seen == ["write", "read"]
    assert not loop._fds


def test_a_busy_descriptor_starves_neither_timers_nor_tasks_nor_other_descriptors(loop: Loop) -> None:
    counts = {"busy": 0, "other": 0, "task": 0}
    r, w = os.pipe()
    other_r, other_w = os.pipe()
    os.write(w, b"x")
    os.write(other_w, b"x")

    def count(name: str) -> None:
        counts[name] += 1

    async def task() -> None:
        for _ in range(50):
            counts["task"] += 1
            await loop.sleep(0)

    loop.add_reader(r, lambda: count("busy"))
    loop.add_reader(other_r, lambda: count("other"))
    loop.spawn(task())
    loop.call_later(0.05, loop.stop)
    loop.run()
    for fd in (r, other_r):
        loop.remove_reader(fd)
    for fd in (r, w, other_r, other_w):
        os.close(fd)
    assert counts["task"] == 50
    assert counts["busy"] == counts["other"] > 50


def test_a_callback_may_close_a_descriptor_that_is_ready_in_the_same_round(loop: Loop) -> None:
    """The number is taken by a new file at once; its callback must not hear of the old one's data."""
    seen: list[str] = []
    pipes = [os.pipe(), os.pipe()]
    for _, w in pipes:
        os.write(w, b"x")
    fresh: list[int] = []

    def close_other(mine: int) -> None:
        seen.append("first")
        other = pipes[1 - mine][0]
        loop.remove_reader(other)
        os.close(other)
        fresh.extend(os.pipe())
        assert fresh[0] == other
        loop.add_reader(fresh[0], lambda: seen.append("stale"))
        os.read(pipes[mine][0], 1)

    for i, (r, _) in enumerate(pipes):
        loop.add_reader(r, partial(close_other, i))
    loop.call_later(0.02, loop.stop)
    loop.run()
    assert seen == ["first"]
    for fd in {*pipes[0], *pipes[1], *fresh}:
        loop.remove_reader(fd)
        os.close(fd)


def test_a_descriptor_closed_without_notice_can_be_used_again(loop: Loop) -> None:
    r, w = os.pipe()
    loop.add_reader(r, lambda: None)
    os.close(r)
    again, other = os.pipe()
    assert again == r
    os.write(other, b"x")
    loop.add_reader(again, loop.stop)
    loop.run()
    loop.remove_reader(again)
    for fd in (w, again, other):
        os.close(fd)


def test_a_file_that_cannot_be_polled_is_refused_and_forgotten(loop: Loop) -> None:
    with open(__file__, "rb") as file:
        with pytest.raises(PermissionError):
            loop.add_reader(file.fileno(), lambda: None)
        loop.remove_reader(file.fileno())


def test_priority_reads_no_data_but_sees_out_of_band_data_and_the_hang_up(loop: Loop) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        a = socket.create_connection(server.getsockname())
        b, _ = server.accept()
    with a, b:
        events: list[str] = []
        loop.add_reader(a.fileno(), both(partial(events.append, "urgent"), loop.stop), priority=True)
        b.send(b"plain")
        assert not select.select([], [], [], 0.01)[0]
        loop.call_later(0.02, lambda: b.send(b"!", socket.MSG_OOB))
        loop.run()
        assert events == ["urgent"]
        loop.remove_reader(a.fileno())
    a, b = socket.socketpair()
    with a, b:
        loop.add_reader(a.fileno(), loop.stop, priority=True)
        b.close()
        loop.run()
        loop.remove_reader(a.fileno())


def test_the_loops_own_descriptors_are_closed_on_exec_and_on_close() -> None:
    def open_fds() -> set[str]:
        return set(os.listdir("/proc/self/fd"))

    before = open_fds()
    loop = Loop()
    loop.add_signal(signal.SIGUSR2, lambda: None)
    for fd in open_fds() - before:
        if os.path.exists(f"/proc/self/fd/{fd}"):
            assert not os.get_inheritable(int(fd))
    loop.close()
    assert open_fds() == before


# Signals


def test_signals_run_in_the_loop_and_handlers_come_back_at_the_end() -> None:
    before = signal.getsignal(signal.SIGUSR1)
    loop = Loop()
    seen: list[str] = []
    loop.add_signal(signal.SIGUSR1, lambda: seen.append("usr1"))
    loop.add_signal(signal.SIGUSR2, both(partial(seen.append, "usr2"), loop.stop))
    for signum in (signal.SIGUSR1, signal.SIGUSR1, signal.SIGUSR2):
        os.kill(os.getpid(), signum)
    assert seen == []
    loop.run()
    assert seen == ["usr1", "usr2"]
    loop.close()
    assert signal.getsignal(signal.SIGUSR1) == before
    assert signal.set_wakeup_fd(-1) == -1


def test_a_signal_wakes_a_loop_that_sleeps_for_ever(loop: Loop) -> None:
    loop.add_signal(signal.SIGALRM, loop.stop)
    signal.setitimer(signal.ITIMER_REAL, 0.02)
    loop.run()


# Tasks


def test_a_task_gives_its_result_to_all_who_await_it(loop: Loop) -> None:
    async def work() -> int:
        await loop.sleep(0.001)
        return 42

    async def main() -> list[int]:
        task = loop.spawn(work(), name="work")
        assert repr(task) == "<Task work>"
        others = [loop.spawn(ask(task)) for _ in range(3)]
        return [await other for other in others] + [await task]

    async def ask(task: Task[int]) -> int:
        return await task

    assert loop.run_until(main()) == [42] * 4
    assert not loop.tasks


def test_a_thousand_tasks_wait_and_end(loop: Loop) -> None:
    done: list[int] = []

    async def work(i: int) -> None:
        await loop.sleep(0.001 * (i % 7))
        await loop.sleep(0)
        done.append(i)

    async def main() -> None:
        for task in [loop.spawn(work(i)) for i in range(1000)]:
            await task

    loop.run_until(main())
    assert sorted(done) == list(range(1000))
    assert not loop.tasks
    assert len(loop._timers) == 0


def test_the_first_step_of_tasks_and_soon_callbacks_keeps_their_order(loop: Loop) -> None:
    seen: list[int] = []

    async def note(i: int) -> None:
        seen.append(i)

    loop.spawn(note(1))
    loop.call_soon(lambda: seen.append(2))
    loop.spawn(note(3))
    loop.call_soon(loop.stop)
    loop.run()
    assert seen == [1, 2, 3]


def test_an_exception_in_a_callback_is_reported_and_the_loop_lives_on(loop: Loop) -> None:
    heard: list[tuple[object, str]] = []
    loop.on_error = lambda task, error: heard.append((task, str(error)))

    def bad() -> None:
        raise ValueError("bad callback")

    async def worse() -> None:
        raise ValueError("bad task")

    loop.call_soon(bad)
    loop.call_later(0, bad)
    task = loop.spawn(worse(), name="worse")
    loop.call_later(0.01, loop.stop)
    loop.run()
    assert sorted(heard, key=lambda item: item[1]) == [(None, "bad callback")] * 2 + [(task, "bad task")]


def test_an_error_in_on_error_is_printed_not_raised(loop: Loop, capsys: pytest.CaptureFixture[str]) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("the reporter is broken too")

    loop.on_error = fail
    loop.call_soon(lambda: 1 / 0)
    loop.call_soon(loop.stop)
    loop.run()
    assert "the reporter is broken too" in capsys.readouterr().err


def test_the_default_report_names_the_task_and_the_error(capsys: pytest.CaptureFixture[str]) -> None:
    loop = Loop()

    async def bad() -> None:
        raise ValueError("no such luck")

    loop.spawn(bad(), name="fetch")
    loop.call_later(0.001, loop.stop)
    loop.run()
    loop.close()
    err = capsys.readouterr().err
    assert "<Task fetch>" in err
    assert "no such luck" in err


def test_an_awaited_failure_goes_to_who_awaits_and_is_not_reported(loop: Loop) -> None:
    async def bad() -> None:
        await loop.sleep(0)
        raise ValueError("for you")

    async def main() -> None:
        with pytest.raises(ValueError, match="for you"):
            await loop.spawn(bad())
        task = loop.spawn(bad())
        asked: list[str] = []

        def ask(done: Task[None]) -> None:
            with pytest.raises(ValueError, match="for you"):
                done.result()
            asked.append("asked")

        task.add_done_callback(ask)
        await loop.sleep(0.005)
        assert asked == ["asked"]

    loop.run_until(main())


def test_system_exit_in_a_task_or_callback_leaves_run(loop: Loop) -> None:
    async def leave() -> None:
        raise SystemExit(3)

    loop.spawn(leave())
    with pytest.raises(SystemExit):
        loop.run()


def test_cancel_ends_a_task_where_it_waits_and_runs_its_finally(loop: Loop) -> None:
    seen: list[str] = []

    async def work() -> None:
        try:
            await loop.sleep(3600)
        finally:
            seen.append("tidied")

    async def main() -> None:
        task = loop.spawn(work())
        await loop.sleep(0)
        task.cancel()
        with pytest.raises(Cancelled):
            await task
        task.cancel()

    loop.run_until(main())
    assert seen == ["tidied"]
    assert loop._timeout() is None


def test_a_task_cancelled_before_it_began_never_begins(loop: Loop) -> None:
    seen: list[str] = []

    async def work() -> None:
        seen.append("began")

    task = loop.spawn(work())
    task.cancel()
    loop.call_later(0, loop.stop)
    loop.run()
    assert task.done
    assert seen == []


def test_cancelling_a_waiter_leaves_what_it_waits_for_alone(loop: Loop) -> None:
    async def work() -> str:
        await loop.sleep(0.01)
        return "done"

    async def main() -> str:
        task = loop.spawn(work())

        async def wait() -> None:
            await task

        waiter = loop.spawn(wait())
        await loop.sleep(0)
        waiter.cancel()
        with pytest.raises(Cancelled):
            await waiter
        assert not task.done
        return await task

    assert loop.run_until(main()) == "done"


def test_a_result_that_came_before_the_cancel_is_delivered_first(loop: Loop) -> None:
    got: list[str] = []

    async def main() -> None:
        future: Future[str] = Future(loop)

        async def wait() -> None:
            got.append(await future)
            await loop.sleep(3600)
            got.append("not reached")

        task = loop.spawn(wait())
        await loop.sleep(0)
        future.set_result("kept")
        task.cancel()
        with pytest.raises(Cancelled):
            await task

    loop.run_until(main())
    assert got == ["kept"]


def test_a_task_may_cancel_itself(loop: Loop) -> None:
    async def work() -> None:
        assert loop.current is not None
        loop.current.cancel()
        await loop.sleep(0)
        raise AssertionError("not reached")

    with pytest.raises(Cancelled):
        loop.run_until(work())


def test_close_ends_what_still_waits_and_runs_its_finally() -> None:
    loop = Loop()
    seen: list[str] = []

    async def work() -> None:
        try:
            await loop.sleep(3600)
        finally:
            seen.append("tidied")

    async def never() -> None:
        seen.append("began")

    loop.spawn(work())
    loop._round()
    loop.spawn(never())
    loop.close()
    assert seen == ["tidied"]


# Futures and friends


def test_a_future_keeps_its_first_result(loop: Loop) -> None:
    future: Future[int] = Future(loop)
    with pytest.raises(RuntimeError):
        future.result()
    future.set_result(1)
    future.set_result(2)
    future.set_exception(ValueError())
    future.cancel()
    assert future.result() == 1


def test_done_callbacks_run_in_the_loop_not_inside_set_result(loop: Loop) -> None:
    seen: list[int] = []
    future: Future[int] = Future(loop)
    future.add_done_callback(lambda done: seen.append(done.result()))
    future.set_result(7)
    future.add_done_callback(lambda done: both(partial(seen.append, 8), loop.stop)())
    assert seen == []
    loop.run()
    assert seen == [7, 8]


def test_wait_for_returns_the_result_or_raises_when_time_is_up(jump: JumpLoop) -> None:
    async def work(seconds: float) -> str:
        await jump.sleep(seconds)
        return "done"

    async def main() -> None:
        assert await jump.wait_for(work(2), 3) == "done"
        assert await jump.wait_for(work(2), None) == "done"
        start = jump.time()
        with pytest.raises(TimedOutError, match="within 3 s"):
            await jump.wait_for(work(100), 3)
        assert jump.time() == start + 3

    jump.run_until(main())
    assert jump._timeout() is None


def test_wait_for_leaves_a_task_running(jump: JumpLoop) -> None:
    async def main() -> None:
        task = jump.spawn(jump.sleep(10))
        with pytest.raises(TimedOutError):
            await jump.wait_for(task, 3)
        assert not task.done
        await task
        await jump.wait_for(task, 0)

    jump.run_until(main())


@pytest.mark.parametrize(("inner", "outer"), [(1, 5), (5, 1), (2, 2)])
def test_nested_limits_each_end_their_own(jump: JumpLoop, inner: float, outer: float) -> None:
    async def inside() -> None:
        for _ in range(2):
            try:
                await jump.wait_for(jump.sleep(1000), inner)
            except TimedOutError:
                continue
        await jump.sleep(1000)

    async def main() -> None:
        start = jump.time()
        with pytest.raises(TimedOutError, match=f"within {outer} s"):
            await jump.wait_for(inside(), outer)
        assert jump.time() == start + outer
        await jump.sleep(50)

    jump.run_until(main())


def test_cancel_passes_through_wait_for(jump: JumpLoop) -> None:
    async def main() -> None:
        async def waits() -> None:
            await jump.wait_for(jump.sleep(10), 5)

        task = jump.spawn(waits())
        await jump.sleep(1)
        task.cancel()
        with pytest.raises(Cancelled):
            await task

    jump.run_until(main())


def test_readable_and_writable_wait_and_leave_nothing_registered(
    loop: Loop, pair: tuple[socket.socket, socket.socket]
) -> None:
    a, b = pair

    async def main() -> bytes:
        loop.call_later(0.005, lambda: b.send(b"hello"))
        await loop.writable(a.fileno())
        await loop.readable(a.fileno())
        data = a.recv(10)
        with pytest.raises(TimedOutError):
            await loop.wait_for(loop.readable(a.fileno()), 0.005)
        return data

    assert loop.run_until(main()) == b"hello"
    assert not loop._fds


def test_an_event_once_set_stays_set(loop: Loop) -> None:
    async def main() -> None:
        event = Event(loop)
        assert not event.is_set
        loop.call_later(0.001, event.set)
        await event.wait()
        await event.wait()
        assert event.is_set

    loop.run_until(main())


def test_a_signal_wakes_all_who_wait_now_and_nobody_later(loop: Loop) -> None:
    woken: list[int] = []

    async def follow(signal: Signal, i: int) -> None:
        await signal.wait()
        woken.append(i)

    async def main() -> None:
        news = Signal(loop)
        news.notify()
        tasks = [loop.spawn(follow(news, i)) for i in range(100)]
        await loop.sleep(0)
        tasks[50].cancel()
        news.notify()
        late = loop.spawn(follow(news, 1000))
        await loop.sleep(0.005)
        assert sorted(woken) == [i for i in range(100) if i != 50]
        assert not late.done
        news.notify()
        await late

    loop.run_until(main())
    assert woken[-1] == 1000
