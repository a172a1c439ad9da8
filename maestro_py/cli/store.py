# SPDX-License-Identifier: Apache-2.0
"""What the device keeps of images: `image list`, `verify`, `rollback`, `remove`, `gc`, `pin`; and `lock`."""

from __future__ import annotations

from maestro_py.cli.screen import clean

TYPE_CHECKING = False  # typing's constant, without the import of typing
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from maestro_py.cli.session import Session


def image_list(session: Session) -> int:
    """`maestro image list`."""
    answer = session.client.images()
    if session.json:
        session.screen.json(answer)
    elif not answer["images"]:
        session.screen.line("no images")
    else:
        from maestro_py.units import format_size

        rows = [
            (i["job"], i["version"], _use(i), format_size(i["size"] or 0), _digest(i))
            for i in sorted(answer["images"], key=lambda i: (str(i["job"]), not i["current"]))
        ]
        head = ("JOB", "VERSION", "USE", "SIZE", "CHECKSUM")
        session.screen.lines(session.screen.table(head, rows, shrink=((1, 10), (0, 16)), right=(3,)))
    return 0


def _use(image: Mapping[str, Any]) -> str:
    words = [word for word in ("current", "previous", "refused", "pinned", "damaged") if image.get(word)]
    return ",".join(words) or "-"


def _digest(image: Mapping[str, Any]) -> str:
    checksum = image["checksum"]
    return str(checksum["value"])[:12] if checksum else "-"


def image_rollback(session: Session) -> int:
    """`maestro image rollback JOB`."""
    job = session.call.text("job")
    answer = session.client.image_rollback(job)
    return _followed(session, answer, f"{clean(job)} has the version before again")


def image_verify(session: Session) -> int:
    """`maestro image verify [JOB] [--repair]`: exit 1 when something is damaged."""
    answer = session.client.image_verify(session.call.text("job"), repair=session.call.flag("repair"))
    return _followed(session, answer, "")


def _followed(session: Session, answer: Mapping[str, Any], done: str) -> int:
    from maestro_py.cli.tasks import follow, say_error

    if session.call.flag("no_wait"):
        session.screen.json(answer) if session.json else session.screen.line(clean(answer["task_id"]))
        return 0
    task = follow(session, str(answer["task_id"]))
    failed = task["status"] != "complete"
    if session.json:
        session.screen.json(task)
    elif failed:
        say_error(session, task)
    elif done:
        session.screen.line(done)
    return int(failed)


def image_remove(session: Session) -> int:
    """`maestro image remove JOB [VERSION]`: without a version, all that nobody uses."""
    answer = session.client.image_remove(session.call.text("job"), session.call.text("image_version"))
    return _removed(session, answer, [f"{row['job']} {row['version']}" for row in answer["removed"]])


def image_gc(session: Session) -> int:
    """`maestro image gc`."""
    answer = session.client.image_gc()
    return _removed(session, answer, answer["removed"])


def _removed(session: Session, answer: Mapping[str, Any], names: list[str]) -> int:
    if session.json:
        session.screen.json(answer)
    for name in () if session.json else names:
        session.screen.line(f"removed {clean(name)}")
    if not names and not session.json:
        session.screen.line("nothing to remove: every image is in use, pinned, or a job's last version")
    return 0


def image_pin(session: Session) -> int:
    """`maestro image pin JOB [VERSION]`: without a version, the current one."""
    return _pin(session, on=True)


def image_unpin(session: Session) -> int:
    """`maestro image unpin JOB [VERSION]`."""
    return _pin(session, on=False)


def _pin(session: Session, *, on: bool) -> int:
    row = session.client.image_pin(session.call.text("job"), session.call.text("image_version"), on=on)
    if session.json:
        session.screen.json(row)
    else:
        what = "is pinned" if on else "is not pinned any more"
        session.screen.line(f"{clean(row['job'])} {clean(row['version'])} {what}")
    return 0


def lock(session: Session) -> int:
    """`maestro lock JOB [--reason TEXT]`."""
    job = session.call.text("job")
    answer = session.client.lock(job, session.call.text("reason"))
    if session.json:
        session.screen.json(answer)
    else:
        session.screen.line(f"updates of {clean(job)} wait for `maestro unlock {clean(job)}`")
    return 0


def unlock(session: Session) -> int:
    """`maestro unlock JOB`."""
    job = session.call.text("job")
    answer = session.client.unlock(job)
    if session.json:
        session.screen.json(answer)
    else:
        session.screen.line(f"{clean(job)} may be updated again")
    return 0
