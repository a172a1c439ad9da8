# SPDX-License-Identifier: Apache-2.0
"""What jobs are made of: `config` and `template`."""

from __future__ import annotations

import binascii
import sys

from maestro_py.cli.screen import clean

TYPE_CHECKING = False  # typing's constant, without the import of typing
if TYPE_CHECKING:
    from typing import Any

    from maestro_py.cli.session import Session


def config_list(session: Session) -> int:
    """`maestro config list [JOB]`."""
    only = session.call.text("job")
    configs = [c for c in session.client.configs()["configs"] if not only or c["job"] == only]
    if session.json:
        session.screen.json({"configs": configs})
    elif not configs:
        session.screen.line(f"no configs of {clean(only)}" if only else "no configs")
    else:
        rows = [
            (c["job"], c["name"], _data_size(c), len(c.get("files") or ()), c.get("mod_time") or "-")
            for c in sorted(configs, key=lambda c: (c["job"], c["name"]))
        ]
        head = ("JOB", "NAME", "SIZE", "FILES", "CHANGED")
        session.screen.lines(
            session.screen.table(head, rows, shrink=((0, 16), (1, 16), (4, 10)), right=(2, 3))
        )
    return 0


def config_get(session: Session) -> int:
    """`maestro config get JOB NAME`: the data itself, byte for byte."""
    config = session.client.config_get(session.call.text("job"), session.call.text("name"))
    if session.json:
        session.screen.json(config)
    else:
        sys.stdout.buffer.write(_data(config))
        sys.stdout.buffer.flush()
    return 0


def config_set(session: Session) -> int:
    """`maestro config set JOB NAME FILE|-`: text is sent as it is, anything else as base64."""
    from maestro_py.cli.inputs import read_input

    job, name = session.call.text("job"), session.call.text("name")
    data = read_input(session.call.text("file"))
    try:
        body = {"data": data.decode(), "encoding": "utf8"}
    except UnicodeDecodeError:
        body = {"data": binascii.b2a_base64(data, newline=False).decode(), "encoding": "base64"}
    answer = session.client.config_put(job, name, body)
    return _changed(session, answer, f"config {clean(name)} of {clean(job)} is stored")


def config_remove(session: Session) -> int:
    """`maestro config remove JOB NAME`."""
    job, name = session.call.text("job"), session.call.text("name")
    answer = session.client.config_delete(job, name)
    return _changed(session, answer, f"config {clean(name)} of {clean(job)} is removed")


def _changed(session: Session, answer: dict[str, Any] | None, sentence: str) -> int:
    """Report a change; when it set off a task (a restart of the job), follow that first."""
    task_id = (answer or {}).get("task_id")
    task: dict[str, Any] = {}
    if task_id:
        from maestro_py.cli.tasks import follow, say_error

        task = follow(session, str(task_id))
        if task["status"] == "failed" and not session.json:
            say_error(session, task)
    if session.json:
        session.screen.json(task or answer or {})
    else:
        session.screen.line(sentence)
    return int(task.get("status") == "failed")


def template_list(session: Session) -> int:
    """`maestro template list`."""
    answer = session.client.templates()
    if session.json:
        session.screen.json(answer)
    elif not answer["templates"]:
        session.screen.line("no templates")
    else:
        rows = [
            (t["name"], t.get("source") or "-", t.get("exec_cmd") or "-")
            for t in sorted(answer["templates"], key=lambda t: str(t["name"]))
        ]
        head = ("NAME", "SOURCE", "COMMAND")
        session.screen.lines(session.screen.table(head, rows, shrink=((2, 20), (0, 20))))
    return 0


def template_show(session: Session) -> int:
    """`maestro template show NAME`: JSON, as a running config may hold it."""
    template = session.client.template(session.call.text("name"))
    template.pop("source", None)  # where it comes from is no part of it
    session.screen.json(template)
    return 0


def _data(config: dict[str, Any]) -> bytes:
    text = str(config.get("data") or "")
    return binascii.a2b_base64(text) if config.get("encoding") == "base64" else text.encode()


def _data_size(config: dict[str, Any]) -> str:
    from maestro_py.units import format_size

    return format_size(len(_data(config)))
