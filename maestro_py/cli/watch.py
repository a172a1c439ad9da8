# SPDX-License-Identifier: Apache-2.0
"""`status --watch`: the table as a page that lives; in a pipe or on a dumb terminal, what changes."""

from __future__ import annotations

import time

from maestro_py.cli.jobs import job_lines
from maestro_py.cli.screen import clean

TYPE_CHECKING = False  # typing's constant, without the import of typing
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from maestro_py.cli.session import Session

INTERVAL = 2.0
"""Seconds between two looks."""

_TOLD = ("state", "ready", "restarts", "image_version", "cause", "pid")
"""What makes a job's change worth a line; what it uses of memory is not."""


def watch(session: Session, look: Callable[[], dict[str, Any]], interval: float | None) -> int:
    """Show what `look` returns, now and every `interval` seconds, until interrupted or a `q`."""
    if session.screen.moves and not session.json:
        return _page(session, look, interval or INTERVAL)
    seen: dict[str, Mapping[str, Any]] = {}
    first = True
    while True:
        jobs = {str(job["job"]): job for job in _patient(session, look)["jobs"]}
        changed = [name for name in sorted({*seen, *jobs}) if _facts(seen, name) != _facts(jobs, name)]
        if session.json:
            for name in changed:
                session.screen.json(jobs.get(name) or {"job": name, "state": None}, lines=True)
        elif first:
            for line in job_lines(session.screen, list(jobs.values())):
                session.screen.line(line)
        else:
            for name in changed:
                session.screen.line(f"{time.strftime('%H:%M:%S')}  {_sentence(name, jobs.get(name))}")
        session.screen.out.flush()
        seen, first = jobs, False
        time.sleep(interval or INTERVAL)


def _facts(jobs: Mapping[str, Mapping[str, Any]], name: str) -> list[Any] | None:
    return [jobs[name][key] for key in _TOLD] if name in jobs else None


def _sentence(name: str, job: Mapping[str, Any] | None) -> str:
    if job is None:
        return f"{clean(name)} is gone"
    cause = f": {clean(job['cause'])}" if job["cause"] else ""
    pid = f" (pid {job['pid']})" if job["pid"] else ""
    return f"{clean(name)} is {job['state']}{pid}{cause}"


def _patient(session: Session, look: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Look; while the daemon is replaced, look again for some seconds."""
    from maestro_py.errors import Unavailable

    for _ in range(100):
        try:
            return look()
        except Unavailable as error:
            last = error
            time.sleep(0.05)
    raise last


def _page(session: Session, look: Callable[[], dict[str, Any]], interval: float) -> int:
    from maestro_py.cli.live import Live
    from maestro_py.errors import Unavailable

    lines: list[str] = []
    with Live(session.screen) as page:
        while True:
            note = "q quits"
            try:
                lines = job_lines(session.screen, look()["jobs"], wide=session.call.flag("wide"))
            except Unavailable as error:
                note = error.message
            width = session.screen.width
            page.draw([session.screen.clip(f"{time.strftime('%H:%M:%S')}  {note}", width), *lines])
            if page.wait(interval) in ("q", "\x1b", "\x03", "\x04"):
                return 0
