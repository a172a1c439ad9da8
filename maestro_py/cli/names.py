# SPDX-License-Identifier: Apache-2.0
"""`_names`: what a shell may complete a word to. Quiet about everything that goes wrong."""

from __future__ import annotations

TYPE_CHECKING = False  # typing's constant, without the import of typing
if TYPE_CHECKING:
    from maestro_py.cli.session import Session


def names(session: Session) -> int:
    """`maestro _names KIND`."""
    from maestro_py.errors import MaestroError

    client, kind = session.client, session.call.text("kind")
    client.timeout = 2.0  # somebody waits at a prompt
    try:
        if kind == "jobs":
            found = [job["job"] for job in client.status()["jobs"]]
        elif kind == "composites":
            found = [job["composite_id"] for job in client.status()["jobs"]]
        elif kind == "templates":
            found = [template["name"] for template in client.templates()["templates"]]
        elif kind == "images":
            found = [image["job"] for image in client.images()["images"]]
        elif kind == "tasks":
            found = [task["task_id"] for task in client.tasks()["tasks"]]
        else:
            return 1
    except MaestroError:
        return 1
    for name in sorted({str(name) for name in found}):
        if name and name.isprintable() and " " not in name:
            session.screen.line(name)
    return 0
