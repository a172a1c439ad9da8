# SPDX-License-Identifier: Apache-2.0
"""What is being done: tasks with real ids, progress and an end, that can be asked for and followed."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from typing import Any

from maestro_py.daemon import log
from maestro_py.daemon.loop import Loop
from maestro_py.daemon.waiting import Cancelled, Signal, TimedOutError
from maestro_py.errors import Conflict, InvalidDocument, MaestroError, NotFound

KEEP = 100
"""Ended tasks that stay askable."""

MOST_WAITING = 50
"""Changes that may wait for their turn; each holds the document it was asked with."""


class Task:
    """One piece of work. status: queued, running, complete or failed (upstream's task states).

    cancel: ends work that has not changed anything yet; None: there is nothing to cancel any more.
    """

    def __init__(self, task_id: str, kind: str, subject: str, changed: Callable[[], None]) -> None:
        self.id = task_id
        self.kind = kind
        self.subject = subject
        self.status = "queued"
        self.created = time.time()
        self.ended: float | None = None
        self.error: dict[str, Any] | None = None
        self.progress: dict[str, dict[str, Any]] = {}
        self.messages: list[str] = []
        self.waits_for: list[str] = []
        self.cancel: Callable[[], None] | None = None
        self.request: dict[str, Any] | None = None  # what was asked for, see `intents`
        self._changed = changed

    def commit(self) -> None:
        """Note that from here on something changes on the device: it is too late to cancel."""
        self.cancel = None

    def say(self, message: str) -> None:
        """Add a line for people."""
        self.messages.append(message)
        self._changed()

    def wait_for(self, processes: list[str]) -> None:
        """Note some of the processes whose readiness is waited for; none when it goes on."""
        if processes != self.waits_for:
            self.waits_for = processes
            self._changed()

    def advance(
        self, subject: str, what: str, done: int, total: int | None, state: str, *, rate: int | None = None
    ) -> None:
        """Note how far one part is; bytes for downloads, and bytes a second."""
        self.progress[subject] = {
            "subject": subject,
            "what": what,
            "done": done,
            "total": total,
            "state": state,
            "rate": rate,
            "eta": round((total - done) / rate) if rate and total else None,
        }
        self._changed()

    def start(self) -> None:
        """Mark it running."""
        self.status = "running"
        self._changed()

    def finish(self, error: BaseException | None = None) -> None:
        """End it, well or not."""
        self.status = "failed" if error else "complete"
        self.waits_for = []
        self.ended = time.time()
        self.cancel = None
        if isinstance(error, MaestroError):
            self.error = {"code": error.code, "message": error.message, "hint": error.hint}
            if isinstance(error, InvalidDocument):
                self.error["problems"] = [p.to_json() for p in error.problems]
        elif error:
            self.error = {"code": "failed", "message": f"internal error: {error!r}", "hint": ""}
        self._changed()

    def to_json(self) -> dict[str, Any]:
        """Return the task as the API sends it."""
        return {
            "task_id": self.id,
            "kind": self.kind,
            "subject": self.subject,
            "status": self.status,
            "cancellable": self.cancel is not None,
            "created": self.created,
            "ended": self.ended,
            "error": self.error,
            "progress": list(self.progress.values()),
            "messages": self.messages,
            "waits_for": self.waits_for,
        }


class Tasks:
    """All tasks of this daemon, newest kept."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._tasks: dict[str, Task] = {}
        self.changed = Signal(loop)
        self.next_id = ""  # of the task that is run next, when it goes on with an earlier one

    def run(
        self,
        kind: str,
        subject: str,
        work: Callable[[Task], Coroutine[Any, Any, None]],
        *,
        task_id: str = "",
        cancellable: bool = False,
    ) -> Task:
        """Start work as a task; its outcome ends the task. A known id is refused.

        cancellable: it may be cancelled until it calls `commit`; of those only so many may be at once.
        """
        task_id = task_id or self.next_id or os.urandom(8).hex()
        if task_id in self._tasks:
            raise MaestroError(f"cannot start task {task_id}: a task of this id exists", code="conflict")
        if cancellable and sum(t.cancel is not None for t in self._tasks.values()) >= MOST_WAITING:
            raise MaestroError(
                f"cannot {kind} {subject}: {MOST_WAITING} changes wait already",
                hint="`maestro tasks` shows them; try again when some are done",
                code="conflict",
            )
        task = self._tasks[task_id] = Task(task_id, kind, subject, self.changed.notify)
        for old in [t.id for t in self._tasks.values() if t.ended][: max(0, len(self._tasks) - KEEP)]:
            del self._tasks[old]

        async def body() -> None:
            try:
                await work(task)
            except Cancelled:
                if cancelled:
                    error = MaestroError(f"cannot {kind} {subject}: it was cancelled, nothing was changed")
                    error.code = "cancelled"
                    task.finish(error)
                    return
                task.finish(MaestroError(f"{kind} {subject} was cancelled: the daemon stops"))
                raise
            except MaestroError as error:
                task.finish(error)
                log.warning(f"{kind} {subject} failed: {error.message.splitlines()[0]}", event="task-failed")
            except Exception as error:
                task.finish(error)
                raise
            else:
                task.finish()

        running = self._loop.spawn(body(), name=f"{kind} {subject}")
        cancelled: list[bool] = []

        def cancel() -> None:
            task.cancel = None
            cancelled.append(True)
            running.cancel()

        if cancellable:
            task.cancel = cancel
        return task

    async def cancel(self, task: Task) -> None:
        """End a task before it changes anything, and see it ended. Raises Conflict when it is too late."""
        if task.ended is not None:
            raise Conflict(f"cannot cancel task {task.id}: it has ended")
        if task.cancel is None:
            raise Conflict(f"cannot cancel task {task.id}: it is being carried out")
        task.cancel()
        while task.ended is None:
            await self.changed.wait()

    def restore(self, row: Mapping[str, Any]) -> Task:
        """Make a task askable again that an earlier daemon had; the row is that of `Task.to_json`."""
        task = Task(row["task_id"], row["kind"], row["subject"], self.changed.notify)
        task.status, task.created, task.ended = row["status"], row["created"], row["ended"]
        task.error, task.messages = row["error"], list(row["messages"])
        task.progress = {part["subject"]: part for part in row["progress"]}
        self._tasks[task.id] = task
        return task

    def get(self, task_id: str) -> Task:
        """Return a task; NotFound names the id."""
        try:
            return self._tasks[task_id]
        except KeyError:
            raise NotFound(f"no task {task_id}", hint="`maestro tasks` lists them") from None

    def all(self) -> list[Task]:
        """Return every task known, oldest first."""
        return list(self._tasks.values())

    async def wait(self, task: Task, seconds: float) -> None:
        """Return when the task ended, or after some seconds."""
        until = self._loop.time() + seconds
        while task.ended is None and (rest := until - self._loop.time()) > 0:
            try:
                await self._loop.wait_for(self.changed.wait(), rest)
            except TimedOutError:
                return

    async def follow(self, task: Task) -> AsyncIterator[dict[str, Any]]:
        """Yield the task now and at every change, until it ended."""
        last: dict[str, Any] | None = None
        while True:
            now = task.to_json() | {"messages": list(task.messages)}
            if now != last:
                yield now
                last = now
            if now["ended"] is not None:
                return
            if now != task.to_json():
                continue  # it changed while it was being taken
            await self.changed.wait()
