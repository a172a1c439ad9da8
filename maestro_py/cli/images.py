# SPDX-License-Identifier: Apache-2.0
"""Images made here and brought here by hand: `image pack` and `image install`."""

from __future__ import annotations

import os
import sys

from maestro_py.cli.screen import clean

TYPE_CHECKING = False  # typing's constant, without the import of typing
if TYPE_CHECKING:
    from typing import Any

    from maestro_py.cli.session import Session


def image_install(session: Session) -> int:
    """`maestro image install FILE --sha256 HEX --job JOB`: it becomes the job's image, once it is checked."""
    from maestro_py.cli.parser import UsageError
    from maestro_py.cli.tasks import follow, say_error

    call = session.call
    path, job = os.path.abspath(call.text("file")), call.text("job")
    for option in ("sha256", "job"):
        if not call.text(option):
            raise UsageError(f"cannot run image install: --{option} is missing")
    image: dict[str, Any] = {
        "version": call.text("image_version"),
        "url": file_url(path),
        "size": _size(path),
        "checksum": {"type": "sha256sum", "value": call.text("sha256")},
        "image_type": call.text("type") or ("zip" if path.endswith(".zip") else "tarball"),
    }
    if call.text("signature"):
        image["signature"] = {"type": "minisign", "value": _text(call.text("signature"))}
    answer = session.client.image_install(job, image)
    if call.flag("no_wait"):
        session.screen.json(answer) if session.json else session.screen.line(clean(answer["task_id"]))
        return 0
    task = follow(session, str(answer["task_id"]))
    failed = task["status"] == "failed"
    if session.json:
        session.screen.json(task)
    elif failed:
        say_error(session, task)
    else:
        session.screen.line(f"{clean(job)} has this image now")
    return int(failed)


def image_pack(session: Session) -> int:
    """`maestro image pack DIR -o FILE`: an archive, and on standard output the entry of a document for it."""
    import json

    from maestro_py.cli.parser import UsageError

    call = session.call
    directory, path = call.text("directory"), os.path.abspath(call.text("output"))
    if not call.text("output"):
        raise UsageError("cannot run image pack: -o FILE is missing", "usage: maestro image pack DIR -o FILE")
    done = _run_packer({"directory": os.path.abspath(directory), "file": path})
    kind = call.text("type") or str(done["image_type"])
    family = "zip" if done["image_type"] == "zip" else "tarball"
    if not kind.endswith(family):
        raise UsageError(f"cannot give {path} the type {kind}: it is a {family}")
    entry = {
        "job": call.text("job") or os.path.basename(os.path.abspath(directory)),
        "version": call.text("image_version") or "1",
        "url": file_url(path),
        "size": done["bytes"],
        "checksum": {"type": "sha256sum", "value": done["sha256"]},
        "image_type": kind,
    }
    session.screen.line(json.dumps(entry, indent=None if session.json else 2, ensure_ascii=False))
    return 0


def _run_packer(request: dict[str, str]) -> dict[str, Any]:
    """Run the program that packs; return its last line. Raises MaestroError."""
    import json
    import subprocess

    from maestro_py.errors import MaestroError

    package = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    done = subprocess.run(
        [sys.executable, "-m", "maestro_py.images.pack"],
        check=False,
        input=json.dumps(request) + "\n",
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": package},
    )
    last = json.loads(done.stdout.splitlines()[-1]) if done.stdout else {}
    if "error" in last:
        raise MaestroError(last["error"]["message"], hint=last["error"]["hint"])
    if not last.get("done"):
        raise MaestroError(f"cannot pack {request['directory']}: the program ended with {done.returncode}")
    found: dict[str, Any] = last
    return found


def _size(path: str) -> int:
    from maestro_py.errors import MaestroError

    try:
        return os.stat(path).st_size
    except OSError as error:
        raise MaestroError(f"cannot read {path}: {error.strerror}") from error


def _text(path: str) -> str:
    from maestro_py.cli.inputs import read_input

    return read_input(path).decode(errors="replace")


def file_url(path: str) -> str:
    """Return the file URL of an absolute path."""
    from maestro_py.client.stream import quote

    return "file://" + "/".join(quote(part) for part in path.split("/"))
