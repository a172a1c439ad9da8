# SPDX-License-Identifier: Apache-2.0
"""`status`, `why`, `kill`, and what else is done to jobs: see DONE."""

from __future__ import annotations

import time

from maestro_py.cli.screen import clean

TYPE_CHECKING = False  # typing's constant, without the import of typing
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from maestro_py.cli.screen import Screen
    from maestro_py.cli.session import Session
    from maestro_py.errors import MaestroError

DONE = {
    "start": "started",
    "stop": "stopped",
    "restart": "restarted",
    "reload": "reloaded",
    "pause": "paused",
    "resume": "resumed",
    "enable": "enabled",
    "disable": "disabled",
}
"""What each verb has done once its task is complete."""

_ONCE = ("restart", "reload", "pause", "resume")
"""Verbs that are said once to a process, whatever jobs are in it."""

HEAD = ("JOB", "STATE", "RDY", "UP", "RST", "MEMORY", "VER", "CAUSE")
SHRINK = ((7, 20), (6, 8), (0, 16), (7, 12), (0, 10), (7, 5))
"""Short heads and this order of giving way leave the cause, which is what people look for, some room."""
DROP = (6, 5, 2, 3, 4)
"""What a screen too narrow for all goes without, first to last."""


def status(session: Session) -> int:
    """`maestro status [JOB...] [--state S] [--composite ID] [--watch]`."""
    call = session.call
    states, composite = call.many("state"), call.text("composite")

    def look() -> dict[str, Any]:
        answer = ask(session, session.job_names(call.many("job")))
        jobs = [job for job in answer["jobs"] if not states or job["state"] in states]
        return {**answer, "jobs": [job for job in jobs if composite in ("", job["composite_id"])]}

    if call.flag("watch"):
        from maestro_py.cli.watch import watch

        return watch(session, look, call.seconds("interval"))
    answer = look()
    if session.json:
        session.screen.json(answer)
        return 0
    for warning in answer.get("warnings", ()):
        session.screen.note(f"warning: {warning}")
    if answer["jobs"]:
        job_table(session.screen, answer["jobs"], wide=call.flag("wide"))
    elif states or composite:
        session.screen.line("no such jobs; `maestro status` shows all")
    else:
        session.screen.line("no jobs; apply a running config with `maestro apply FILE`")
    return 0


def ask(session: Session, names: Sequence[str] = ()) -> dict[str, Any]:
    """Return the state of jobs, with what memory they use; that costs the daemon a look at each group."""
    answer: dict[str, Any] = session.client.status(list(names), memory=True)
    return answer


def job_table(screen: Screen, jobs: Sequence[Mapping[str, Any]], *, wide: bool = False) -> None:
    """Write jobs as a table, by name. Causes are cut first when the screen is narrow."""
    screen.lines(job_lines(screen, jobs, wide=wide))


def job_lines(screen: Screen, jobs: Sequence[Mapping[str, Any]], *, wide: bool = False) -> list[str]:
    """Return that table."""
    now = time.time()
    rows = [_row(job, now) for job in sorted(jobs, key=lambda job: str(job["job"]))]
    return screen.table(HEAD, rows, shrink=SHRINK, right=(4,), drop=DROP, wide=wide)


def _row(job: Mapping[str, Any], now: float) -> tuple[str, ...]:
    from maestro_py.units import format_duration

    state, since = str(job["state"]), job["since"]
    ready = "yes" if job["ready"] else "no" if state in ("STARTING", "RUNNING") else "-"
    # a wrong clock at boot may put the start into the future: no negative uptimes
    uptime = format_duration(max(0, int(now - since))) if since and state == "RUNNING" else "-"
    cause = str(job["cause"] or "")
    if not job["enabled"] and not cause:
        cause = "disabled"
    return (
        str(job["job"]),
        state,
        ready,
        uptime,
        str(job["restarts"]),
        _memory(job["memory"]),
        str(job["image_version"] or "-"),
        cause,
    )


def _memory(memory: Mapping[str, Any] | None) -> str:
    if not memory or memory["current"] is None:
        return "-"
    from maestro_py.units import format_size

    current = format_size(memory["current"])
    return f"{current}/{format_size(memory['limit'])}" if memory["limit"] else current


def act(session: Session) -> int:
    """`maestro VERB JOB...` of a verb in DONE: all jobs are tried, then all followed."""
    from maestro_py.cli.tasks import Deadline, Overdue, follow, say_error
    from maestro_py.errors import MaestroError

    assert session.call.command is not None
    verb = session.call.command.name
    names = session.job_names(session.call.many("job"))
    failed = False
    begun: list[tuple[str, str]] = []
    errors: list[dict[str, Any]] = []
    for name in session.one_per_process(names) if verb in _ONCE else names:
        try:
            begun.append((name, str(session.client.action(name, verb)["task_id"])))
        except MaestroError as error:
            failed = True
            errors.append(_refused(session, name, error))
    ended: list[dict[str, Any]] = []
    if session.call.flag("no_wait"):
        if session.json:
            session.screen.json({"tasks": [{"job": n, "task_id": t} for n, t in begun], "errors": errors})
        else:
            for name, task_id in begun:
                session.screen.line(f"{clean(name)}: task {task_id}")
        return int(failed)
    pending = [name for name, _ in begun]
    try:
        with Deadline(session.call.seconds("timeout")):
            for name, task_id in begun:
                task = follow(session, task_id)
                pending.remove(name)
                ended.append(task)
                if task["status"] == "failed":
                    failed = True
                    if not session.json:
                        say_error(session, task)
                        session.screen.note(look_closer(name))
                elif not session.json:
                    session.screen.line(f"{DONE[verb]} {clean(name)}")
    except Overdue:
        failed = True
        for name in pending:
            session.screen.note(f"cannot wait longer to {verb} {name}: it goes on")
    if session.json:
        session.screen.json({"tasks": ended, "errors": errors})
    return int(failed)


def look_closer(job: str) -> str:
    """Return where to look when a job failed."""
    return f"see `maestro why {job}`, `maestro logs {job}`"


def _refused(session: Session, name: str, error: MaestroError) -> dict[str, Any]:
    """Say that one job's request was refused (JSON documents list it); no daemon ends the whole run."""
    if error.code == "unavailable":
        raise error
    if not session.json:
        session.fail(error)
    return {"job": name, "code": error.code, "message": error.message, "hint": error.hint}


def kill(session: Session) -> int:
    """`maestro kill [-s SIG] JOB...`."""
    from maestro_py.errors import MaestroError

    signal = session.call.text("signal") or "SIGTERM"
    errors, sent = [], []
    for name in session.job_names(session.call.many("job")):
        try:
            session.client.kill(name, signal)
            sent.append(name)
            if not session.json:
                session.screen.line(f"sent {signal} to {clean(name)}")
        except MaestroError as error:
            errors.append(_refused(session, name, error))
    if session.json:
        session.screen.json({"signal": signal, "jobs": sent, "errors": errors})
    return int(bool(errors))


def why(session: Session) -> int:
    """`maestro why JOB`."""
    answer = session.client.why(session.call.text("job"))
    if session.json:
        session.screen.json(answer)
        return 0
    session.screen.line(f"{clean(answer['job'])} is {session.screen.paint(str(answer['state']))}")
    for sentence in answer["lines"]:
        session.screen.prose(clean(sentence))
    return 0
