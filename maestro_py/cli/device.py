# SPDX-License-Identifier: Apache-2.0
"""The daemon and the device under it: `doctor`, `shutdown`, `version`."""

from __future__ import annotations

import os
import select
import time

from maestro_py.cli.screen import clean

TYPE_CHECKING = False  # typing's constant, without the import of typing
if TYPE_CHECKING:
    from maestro_py.cli.session import Session


_TAKE_OVER = 30.0
"""Seconds in which a new daemon should answer."""


def doctor(session: Session) -> int:
    """`maestro doctor`: a line per fact; what a missing one switches off stands below it."""
    answer = session.client.doctor()
    if session.json:
        session.screen.json(answer)
        return 0
    facts = answer["facts"]
    width = session.screen.width
    names = max((len(clean(fact["name"])) for fact in facts), default=0)
    values = min(32, max((len(clean(fact["value"])) for fact in facts), default=0))
    for fact in facts:
        word = "ok" if fact["ok"] else "missing"
        head = f"{session.screen.paint(word, f'{word:<7}')}  {clean(fact['name']):<{names}}  "
        value, means = clean(fact["value"]), clean(fact.get("means") or "")
        if means and names + values + len(means) + 13 <= width:
            value, means = f"{value:<{values}}  {means}", ""
        session.screen.line((head + session.screen.fold(value, names + 11)).rstrip())
        if means:
            session.screen.line(f"{'':9}{session.screen.fold(means, 9)}")
    return 0


def shutdown(session: Session) -> int:
    """`maestro shutdown [--keep-jobs|--stop-jobs]`: returns once the daemon is gone."""
    keep, stop = session.call.flag("keep_jobs"), session.call.flag("stop_jobs")
    if keep and stop:
        from maestro_py.cli.parser import UsageError

        raise UsageError("cannot take --keep-jobs and --stop-jobs together")
    pid = int(session.client.version()["pid"])
    watch = -1
    if not session.call.flag("no_wait"):
        try:
            watch = os.pidfd_open(pid)
        except OSError:
            pass  # an old kernel, or a daemon in another pid namespace: nothing to wait on
    session.client.shutdown("keep" if keep else "stop" if stop else None)
    if watch >= 0:
        select.select([watch], [], [])
        os.close(watch)
    text = "the daemon stopped" if watch >= 0 else "the daemon stops"
    if session.json:
        session.screen.json({"pid": pid, "stopped": watch >= 0})
    else:
        session.screen.line(text)
    return 0


def upgrade(session: Session) -> int:
    """`maestro upgrade`: returns once the new daemon has taken over."""
    from maestro_py.errors import MaestroError, Unavailable

    answer = session.client.upgrade()
    deadline = time.monotonic() + _TAKE_OVER
    while True:
        try:
            if session.client.version()["generation"] >= answer["generation"]:
                break
        except Unavailable:
            pass  # between the two
        if time.monotonic() > deadline:
            raise MaestroError(
                "cannot see the new daemon at work", hint="its log says what happened; its jobs run on"
            )
        time.sleep(0.02)
    if session.json:
        session.screen.json(answer)
    else:
        versions = f"maestrod {answer['from']} became {answer['to']}"
        session.screen.line(f"{versions}, the jobs ran on (pid {answer['pid']})")
    return 0


def version(session: Session) -> int:
    """`maestro version`: this command's, and the daemon's if there is one to ask."""
    from maestro_py import __version__
    from maestro_py.errors import Unavailable
    from maestro_py.units import format_duration

    try:
        daemon = session.client.version()
    except Unavailable as error:
        if session.json:
            session.screen.json({"maestro": __version__, "maestrod": None})
        else:
            session.screen.line(f"maestro   {__version__}")
        raise error
    if session.json:
        session.screen.json({"maestro": __version__, "maestrod": daemon})
    else:
        facts = f"pid {daemon['pid']}, up {format_duration(daemon['uptime'])}"
        if daemon["root"]:  # a private place for everything, not the system's
            facts += f", root {clean(daemon['root'])}"
        session.screen.line(f"maestro   {__version__}")
        session.screen.line(f"maestrod  {daemon['version']}  {facts}")
    return 0
