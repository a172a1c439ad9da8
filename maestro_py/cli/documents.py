# SPDX-License-Identifier: Apache-2.0
"""`apply`, `check` and `diff`: what a whole document does to the device."""

from __future__ import annotations

import os

from maestro_py.cli import planview
from maestro_py.cli.inputs import Document, read_input
from maestro_py.cli.screen import clean

TYPE_CHECKING = False  # typing's constant, without the import of typing
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

    from maestro_py.cli.session import Session
    from maestro_py.errors import Problem
    from maestro_py.spec.daemonconfig import DaemonConfig
    from maestro_py.spec.model import ConfigSpec, ImageSpec, RunningConfig, TemplateSpec

SEE_MAX = 5
"""For so many failed jobs the commands that tell more are spelled out."""

TABLE_MAX = 20
"""So many jobs are shown one by one after an apply; more are only counted."""


def _load(session: Session) -> Document:
    """Return the running config named on the command line. Raises MaestroError."""
    document = Document(session.call.text("file"))
    if document.data is None:
        from maestro_py.errors import MaestroError

        raise MaestroError(f"cannot read {document.source}: it is empty")
    return document


def _sent(document: Document, send: Callable[..., dict[str, Any]], **options: bool) -> dict[str, Any]:
    """Return the daemon's answer to a document; a refusal is told with the lines of the mistakes."""
    from maestro_py.errors import InvalidDocument

    try:
        return send(document.data, **options)
    except InvalidDocument as error:
        error.hint = _other_kind(document)
        raise document.refused(error) from None


def _other_kind(document: Document, *, daemon: bool = False) -> str:
    """Return a hint when one kind of document looks like the other. daemon: the daemon's file is wanted."""
    from maestro_py.spec.daemonfile import DAEMON
    from maestro_py.spec.documents import RUNNING

    here, there = (DAEMON, RUNNING) if daemon else (RUNNING, DAEMON)
    keys = [str(key).lower() for key in document.data] if isinstance(document.data, dict) else []
    if not any(key in there.keys and key not in here.keys for key in keys):
        return ""
    if daemon:
        return "a running config is checked without --daemon"
    return "a daemon's config file is checked with `maestro check --daemon`"


def diff(session: Session) -> int:
    """`maestro diff FILE`: exit 0 nothing would change, 1 something would."""
    document = _load(session)
    answer = _sent(document, session.client.diff)
    _show_plan(session, answer)
    return 0 if answer["plan"]["empty"] else 1


def _show_plan(session: Session, answer: dict[str, Any]) -> None:
    if session.json:
        session.screen.json(answer)
        return
    session.warn(answer["warnings"])
    planview.show(session.screen, answer["plan"])


def apply(session: Session) -> int:
    """`maestro apply FILE|-`: exit 1 when a job failed, or time ran out."""
    document = _load(session)
    dry_run = session.call.flag("dry_run")
    answer = _sent(document, session.client.apply, dry_run=dry_run, force=session.call.flag("force"))
    if dry_run:
        _show_plan(session, answer)
        return 0
    task_id = str(answer["task_id"])
    session.warn(answer["warnings"])
    if session.call.flag("no_wait"):
        if session.json:
            session.screen.json(answer)
        else:
            session.screen.line(f"task {task_id}")
        return 0
    from maestro_py.cli.jobs import ask
    from maestro_py.cli.tasks import Deadline, Overdue, follow

    task: dict[str, Any] | None = None
    try:
        with Deadline(session.call.seconds("timeout")):
            task = follow(session, task_id)
    except Overdue:
        pass
    jobs = ask(session)["jobs"]
    if session.json:
        session.screen.json({**answer, "task": task, "jobs": jobs})
    elif task is None:
        _say_overdue(session, task_id, jobs)
    else:
        _say_outcome(session, answer["plan"], task, jobs)
    return int(task is None or task["status"] == "failed" or any(_failed(job) for job in jobs))


def _failed(job: dict[str, Any]) -> bool:
    return bool(job["enabled"]) and job["state"] == "FAILED"


def _say_overdue(session: Session, task_id: str, jobs: list[dict[str, Any]]) -> None:
    note = session.screen.note
    note(f"cannot wait longer for task {task_id}: it goes on (`maestro task {task_id} --wait`)")
    for job in sorted(jobs, key=lambda job: str(job["job"])):
        if job["enabled"] and job["state"] not in ("RUNNING", "STOPPED", "NEVER_RAN"):
            note(_sentence(job))


def _say_outcome(
    session: Session, plan: dict[str, Any], task: dict[str, Any], jobs: list[dict[str, Any]]
) -> None:
    from maestro_py.cli.jobs import job_table, look_closer
    from maestro_py.cli.tasks import say_error

    screen = session.screen
    good = task["status"] == "complete"
    if good:
        screen.prose(f"applied: {planview.summary(plan, done=True)}", margin=2)
    concerned = {step[key] for step in plan["steps"] for key in ("subject", "process")}
    touched = [job for job in jobs if job["job"] in concerned or job["process"] in concerned]
    if 0 < len(touched) <= TABLE_MAX:
        job_table(screen, touched)
    elif touched:
        states = [str(job["state"]) for job in touched]
        screen.line(", ".join(f"{states.count(state)} {state}" for state in sorted(set(states))))
    troubled = sorted(
        (job for job in jobs if _failed(job) or (job["state"] == "RESTARTING" and not good)),
        key=lambda job: str(job["job"]),
    )
    said = ""
    if not good:
        message = str((task["error"] or {}).get("message"))
        named = [job for job in touched if str(job["job"]) in message]
        said = say_error(session, task, hint=not (troubled or named) or "failFast" in str(task["error"]))
        troubled = troubled or named
    for job in troubled:
        if str(job["job"]) not in said:
            screen.note(_sentence(job))
    for job in troubled[:SEE_MAX]:
        screen.note(look_closer(str(job["job"])))


def _sentence(job: dict[str, Any]) -> str:
    cause = f": {clean(job['cause'])}" if job["cause"] else ""
    return f"{clean(job['job'])} is {job['state']}{cause}"


def check(session: Session) -> int:
    """`maestro check FILE`: exit 0 the document is good, 1 it has problems. Needs no daemon."""
    from maestro_py.errors import InvalidDocument

    daemon = session.call.flag("daemon")
    refused: InvalidDocument | None = None
    warnings: list[Problem] = []
    source = ""
    try:
        document = Document(session.call.text("file")) if daemon else _load(session)
        source = document.source
        try:
            checked = _check_daemon_config if daemon else _check_running_config
            warnings = document.located(checked(document.data, source))
        except InvalidDocument as error:
            error.hint = _other_kind(document, daemon=daemon)
            refused = document.refused(error)
    except InvalidDocument as error:  # neither JSON nor YAML
        refused = error
    if session.json:
        problems = refused.problems if refused else ()
        session.screen.json(
            {
                "ok": not refused,
                "problems": [problem.to_json() for problem in problems],
                "warnings": [warning.to_json() for warning in warnings],
            }
        )
        return int(bool(refused))
    session.warn(warnings)
    if refused:
        session.fail(refused)
        return 1
    session.screen.line(f"{source} is good")
    return 0


def _check_running_config(document: object, source: str) -> list[Problem]:
    from maestro_py.errors import InvalidDocument
    from maestro_py.spec.documents import read_running_config

    def references(config: RunningConfig) -> list[Problem]:
        try:
            _check_whole(source, config, config.images, config.configs, {})
        except InvalidDocument as error:
            return list(error.problems)
        return []

    config, warnings = read_running_config(document, source=source, references=references)
    return warnings + _check_whole(source, config, config.images, config.configs, {})


def _check_daemon_config(document: object, source: str) -> list[Problem]:
    from maestro_py import shipped
    from maestro_py.spec.documents import read_daemon_config

    builtins = {
        "thisdir": os.path.dirname(os.path.abspath(source)),
        "cwd": os.getcwd(),
        "templates": shipped.templates(),
    }
    config, warnings = read_daemon_config(document, environ=os.environ, builtins=builtins, source=source)
    return warnings + _check_whole(source, config, (), (), config.variables)


def _check_whole(
    source: str,
    config: RunningConfig | DaemonConfig,
    images: Sequence[ImageSpec],
    configs: Sequence[ConfigSpec],
    variables: Mapping[str, str],
) -> list[Problem]:
    """Check what only shows once all is seen together; return warnings, raise InvalidDocument.

    Paths are the built-in ones: no path of this device decides whether a document is good.
    """
    from maestro_py import shipped
    from maestro_py.errors import InvalidDocument
    from maestro_py.spec.documents import check_references
    from maestro_py.spec.expand import resolve
    from maestro_py.spec.places import Places

    known = {t.name: t for t in (*shipped_templates(), *config.templates)}.values()
    errors, warnings = check_references(config.jobs, known, images, configs)
    if errors:
        raise InvalidDocument(source, errors)
    places = Places(
        images="/var/lib/maestro/images",
        configs="/var/lib/maestro/configs",
        socket="/run/maestro/maestro.sock",
        thisdir=os.path.dirname(os.path.abspath(source)),
        cwd=os.getcwd(),
        variables={**variables, "templates": shipped.templates()},
    )
    resolve(config.jobs, known, images, configs, places)
    return warnings


def shipped_templates() -> list[TemplateSpec]:
    """Return the templates that come with the program."""
    from maestro_py import shipped
    from maestro_py.spec.documents import read_templates
    from maestro_py.spec.text import load_json

    directory = shipped.templates()
    found: list[TemplateSpec] = []
    for name in sorted(os.listdir(directory)) if os.path.isdir(directory) else ():
        if name.endswith(".json"):
            path = os.path.join(directory, name)
            templates, _ = read_templates(load_json(read_input(path), path), source=path)
            found += templates
    return found
