# SPDX-License-Identifier: Apache-2.0
"""What each command prints with `--json`: data for the manual and for the test that holds it to be true.

Most commands print what a route of the API answers, whose schema is in its OpenAPI document. The rest
has its keys here. Keys may be added in later versions; none is taken away or changes its type.
"""

from __future__ import annotations

_TASK = "GET /v1/tasks/{task}"
_TASKS = {
    "tasks": "list of the tasks at their end, as `GET /v1/tasks/{task}` has them; "
    "with `--no-wait` of `job` and `task_id`",
    "errors": "list of what was refused: `job`, `code`, `message`, `hint`",
}

ANSWERS: dict[str, str | dict[str, str]] = {
    "apply": {
        "plan": "the steps, as `POST /v1/apply` has them",
        "warnings": "list of problems that do not matter enough to refuse the document",
        "task_id": "id of the task; missing with `--dry-run`",
        "task": "the task at its end, null when time ran out; missing with `--no-wait` and `--dry-run`",
        "jobs": "state of all jobs, as `GET /v1/status` has them; missing as `task`",
    },
    "check": {
        "ok": "whether the document is good",
        "problems": "list of `path`, `message`, `hint`, `line`",
        "warnings": "list of the same",
    },
    "diff": "POST /v1/diff",
    "status": "GET /v1/status",
    "status --watch": "GET /v1/status: a job that changed to a line; `state` null when it is gone",
    "start": _TASKS,
    "stop": _TASKS,
    "restart": _TASKS,
    "reload": _TASKS,
    "pause": _TASKS,
    "resume": _TASKS,
    "enable": _TASKS,
    "disable": _TASKS,
    "kill": {
        "signal": "name of the signal",
        "jobs": "list of the jobs it was sent to",
        "errors": "list of what was refused: `job`, `code`, `message`, `hint`",
    },
    "lock": "PUT /v1/jobs/{job}/lock",
    "unlock": "DELETE /v1/jobs/{job}/lock",
    "logs": {
        "job": "name of the job",
        "lines": "list of its lines",
        "jobs": "instead of both, for several jobs: list of `job` and `lines`",
    },
    "logs -f": {"job": "name of the job", "line": "one line; there is one such document for each"},
    "why": "GET /v1/jobs/{job}/why",
    "top": {
        "jobs": "list of `job`, `process`, `state`, `pid`, `cpu` (percent of one processor), `memory`, "
        "`peak` and `limit` (bytes), `processes`, `restarts`, `uptime` (seconds); null is not known"
    },
    "events": {"events": "list of events, as `GET /v1/events` has them"},
    "events -f": "GET /v1/events",
    "tasks": "GET /v1/tasks",
    "task": _TASK,
    "config list": "GET /v1/configs",
    "config get": "GET /v1/configs/{job}/{name}",
    "config set": _TASK,
    "config remove": _TASK,
    "template list": "GET /v1/templates",
    "template show": "GET /v1/templates/{name}",
    "image list": "GET /v1/images",
    "image install": _TASK,
    "image pack": {
        "job": "as given",
        "version": "as given",
        "url": "of the archive",
        "size": "bytes of the archive",
        "checksum": "`type` and `value`",
        "image_type": "what it is",
    },
    "image rollback": _TASK,
    "image verify": _TASK,
    "image remove": "DELETE /v1/images/{job}",
    "image gc": "POST /v1/image-gc",
    "image pin": "POST /v1/images/{job}/pin",
    "image unpin": "POST /v1/images/{job}/unpin",
    "doctor": "GET /v1/doctor",
    "metrics": {"samples": "list of `name`, `labels`, `value`; with `--textfile` it is `file` instead"},
    "upgrade": "POST /v1/upgrade",
    "shutdown": {"pid": "pid of the daemon", "stopped": "whether it is known to be gone"},
    "version": {"maestro": "version of the command", "maestrod": "GET /v1/version, null without a daemon"},
}
"""Command, with what makes the answer another one -> the route whose answer it is, or its keys."""

FAILURE = {
    "error": "on standard error, when a command fails: `code`, `message`, `hint`, "
    "and `problems` for a document that was refused"
}
"""What stands on standard error instead of sentences."""
