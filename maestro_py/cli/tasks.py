# SPDX-License-Identifier: Apache-2.0
"""Following a task to its end; `tasks` and `task`."""

from __future__ import annotations

import signal
import time

from maestro_py.cli.screen import clean

TYPE_CHECKING = False  # typing's constant, without the import of typing
if TYPE_CHECKING:
    from types import FrameType
    from typing import Any

    from maestro_py.cli.session import Session


ENDED = frozenset({"complete", "failed"})
"""Status of a task that is over."""


class Overdue(Exception):
    """The time a person allowed is over."""


class Deadline:
    """Raises Overdue in the body once `seconds` have passed; None means never.

    A timer signal, because the wait happens inside a blocking read of the socket. At least one
    millisecond, as 0 would switch the timer off.
    """

    def __init__(self, seconds: float | None) -> None:
        self.seconds = seconds

    def __enter__(self) -> None:
        if self.seconds is not None:
            signal.signal(signal.SIGALRM, self._strike)
            signal.setitimer(signal.ITIMER_REAL, max(self.seconds, 0.001))

    def __exit__(self, *_: object) -> None:
        if self.seconds is not None:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, signal.SIG_DFL)

    def _strike(self, _number: int, _frame: FrameType | None) -> None:
        raise Overdue


def follow(session: Session, task_id: str, *, show: bool = True) -> dict[str, Any]:
    """Wait until a task ended, showing its progress, and return it. An interrupt does not end the task.

    Raises Unavailable when the daemon goes away before.
    """
    from maestro_py.errors import Unavailable

    progress = None
    if show and not session.json:
        from maestro_py.cli.progress import Progress

        progress = Progress(session.screen)
    task: dict[str, Any] = {"status": ""}
    try:
        with session.client.follow_task(task_id) as states:
            for task in states:
                if progress:
                    progress.update(task)
    except KeyboardInterrupt:
        if show and not session.json:
            session.screen.note(f"this goes on without you: `maestro task {task_id} --wait`")
        raise
    if task["status"] not in ENDED:
        # the stream ended before the task did: the daemon restarts, or the last change was not sent
        task = session.client.task(task_id)
    if task["status"] not in ENDED:
        raise Unavailable(
            f"cannot follow task {task_id}: the daemon closed the connection",
            hint="`maestro status` says what is",
        )
    return task


def say_error(session: Session, task: dict[str, Any], *, hint: bool = True) -> str:
    """Say why a task failed, on standard error; return what was said."""
    error = task.get("error") or {}
    message = str(error.get("message") or f"task {task['task_id']} failed")
    session.screen.note(message)
    if hint and error.get("hint"):
        session.screen.note(str(error["hint"]))
    return message


def tasks(session: Session) -> int:
    """`maestro tasks`."""
    answer = session.client.tasks()
    if session.json:
        session.screen.json(answer)
        return 0
    rows = [
        (t["task_id"], t["kind"], t["subject"], t["status"], clock(t["created"]), _result(t))
        for t in answer["tasks"]
    ]
    if not rows:
        session.screen.line("no tasks")
        return 0
    head = ("TASK", "KIND", "SUBJECT", "STATUS", "CREATED", "RESULT")
    session.screen.lines(session.screen.table(head, rows, shrink=((5, 6), (2, 8), (5, 0))))
    return 0


def task(session: Session) -> int:
    """`maestro task ID [--wait]`."""
    task_id = session.call.text("id")
    if session.call.flag("wait"):
        try:
            with Deadline(session.call.seconds("timeout")):
                found = follow(session, task_id)
        except Overdue:
            session.screen.note(f"cannot wait longer for task {task_id}: it goes on")
            return 1
    else:
        found = session.client.task(task_id)
    if session.json:
        session.screen.json(found)
        return _status(session, found)
    line = session.screen.line
    line(f"{found['kind']} {clean(found['subject'])}: {session.screen.paint(found['status'])}")
    line(
        f"created {clock(found['created'])}" + (f", ended {clock(found['ended'])}" if found["ended"] else "")
    )
    if not session.call.flag("wait"):
        from maestro_py.cli.progress import Progress

        Progress(session.screen).update(found)
    if found["status"] == "failed":
        say_error(session, found)
    return _status(session, found)


def _status(session: Session, task: dict[str, Any]) -> int:
    return 1 if session.call.flag("wait") and task["status"] == "failed" else 0


def _result(task: dict[str, Any]) -> str:
    if task.get("error"):
        return str(task["error"].get("message", ""))
    return str(task["messages"][-1]) if task.get("messages") else ""


def clock(seconds: float) -> str:
    """Return local date and time of Unix seconds."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))
