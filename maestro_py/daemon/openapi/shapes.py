# SPDX-License-Identifier: Apache-2.0
"""What requests and answers of /v1 look like."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from maestro_py.valueclass import valueclass

Json = dict[str, Any]
Content = Mapping[str, Any]
"""Media type -> schema, None for bytes nobody describes."""


@valueclass(frozen=True)
class Shape:
    """One route. answers: status -> content. body: schema of the request's, None: it has none.

    about: more for people.
    """

    answers: Mapping[int, Content]
    body: Json | None = None
    body_required: bool = True
    about: str = ""


TEXT: Json = {"type": "string"}
NUMBER: Json = {"type": "number"}
COUNT: Json = {"type": "integer", "minimum": 0}
GIVEN: Json = {**COUNT, "maximum": 2**53 - 1}
GIVEN_FLAG: Json = {"enum": [True, False, ""]}
SECONDS: Json = {"type": "number", "minimum": 0, "maximum": 2**53 - 1}
FLAG: Json = {"type": "boolean"}
TEXTS: Json = {"type": "array", "items": TEXT}


def ref(name: str) -> Json:
    """Return a reference to a schema of this document."""
    return {"$ref": f"#/components/schemas/{name}"}


def or_null(schema: Json) -> Json:
    """Return the schema of a value that may be null."""
    return {"anyOf": [schema, {"type": "null"}]}


def array(items: Json) -> Json:
    """Return the schema of a list."""
    return {"type": "array", "items": items}


def record(required: Json, optional: Json | None = None) -> Json:
    """Return the schema of an object with these properties; others may come."""
    properties = {**required, **(optional or {})}
    return {"type": "object", "properties": properties, "required": list(required)}


def answer(schema: Json, status: int = 200) -> dict[int, Content]:
    """Return the answers of a route with JSON in its good one."""
    return {status: {"application/json": schema}}


def listed(name: str, items: Json) -> Shape:
    """Return the shape of a list that may come in pages."""
    return Shape(answer(record({name: array(items)}, {"next": TEXT})))


_SIGNALS = [f"SIG{name}" for name in ("HUP", "INT", "QUIT", "KILL", "USR1", "USR2", "TERM", "CONT", "STOP")]
SIGNAL: Json = {
    "anyOf": [
        {"type": "integer", "minimum": 1, "maximum": 31},
        {
            "enum": [
                f"SIG{name}"
                for name in ["HUP", "INT", "QUIT", "KILL", "USR1", "USR2", "TERM", "CONT", "STOP", "WINCH"]
            ]
        },
    ]
}
TASK_ID = record({"task_id": TEXT})
PROBLEMS = array(ref("Mistake"))

SCHEMAS: dict[str, Json] = {
    "Mistake": record({"path": TEXT, "message": TEXT, "hint": TEXT, "line": COUNT}),
    "Problem": record(
        {"status": COUNT, "code": TEXT, "title": TEXT, "hint": TEXT, "problems": PROBLEMS},
    ),
    "Job": record(
        {
            "job": TEXT,
            "state": {
                "enum": ["NEVER_RAN", "WAITING_FOR_DEPS", "STARTING", "RUNNING", "STOPPING", "STOPPED",
                         "RESTARTING", "FAILED"],
            },
            "pid": or_null(COUNT),
            "composite_id": TEXT,
            "template": TEXT,
            "restarts": COUNT,
            "image_version": TEXT,
            "since": or_null(NUMBER),
            "cause": TEXT,
            "memory": or_null(
                record({"current": or_null(COUNT), "peak": or_null(COUNT), "limit": or_null(COUNT)})
            ),
            "ready": FLAG,
            "enabled": FLAG,
            "process": TEXT,
            "paused": FLAG,
            "last_death": TEXT,
        }
    ),
    "Step": record({"action": TEXT, "subject": TEXT, "process": TEXT, "reason": TEXT}),
    "Plan": record({"empty": FLAG, "steps": array(ref("Step"))}),
    "Progress": record(
        {"subject": TEXT, "what": TEXT, "done": COUNT, "total": or_null(COUNT), "state": TEXT}
    ),
    "Task": record(
        {
            "task_id": TEXT,
            "kind": TEXT,
            "subject": TEXT,
            "status": {"enum": ["queued", "running", "complete", "failed"]},
            "cancellable": FLAG,
            "created": NUMBER,
            "ended": or_null(NUMBER),
            "error": or_null(record({"code": TEXT, "message": TEXT, "hint": TEXT})),
            "progress": array(ref("Progress")),
            "messages": TEXTS,
            "waits_for": TEXTS,
        }
    ),
    "Event": record(
        {"id": COUNT, "time": NUMBER, "type": TEXT, "job": TEXT, "process": TEXT, "message": TEXT}
    ),
    "Line": record({"offset": COUNT, "line": TEXT}),
    "Image": record({"job": TEXT, "version": TEXT, "path": TEXT, "size": COUNT, "current": FLAG,
                     "previous": FLAG, "pinned": FLAG, "damaged": TEXT}, {"refused": FLAG}),
    "Fact": {"type": "object"},
}  # fmt: skip
"""What answers are made of; the parts of documents come from the field tables."""

QUERY: dict[str, Json] = {
    "after": {"description": "Show what comes behind this one: `next` of the answer before.", "schema": TEXT},
    "dry_run": {"description": "Make the plan, do nothing.", "schema": GIVEN_FLAG},
    "follow": {
        "description": "Go on with what comes; always so for server-sent events.",
        "schema": GIVEN_FLAG,
    },
    "force": {
        "description": "Even an older document, what was rolled back, what is locked.",
        "schema": GIVEN_FLAG,
    },
    "format": {"description": "The form of the metrics.", "schema": {"enum": ["openmetrics", "text"]}},
    "job": {
        "description": "Only these jobs; may be given several times.",
        "schema": array({"type": "string", "minLength": 1}),
    },
    "limit": {"description": "Entries of one page; 0 shows all.", "schema": GIVEN},
    "memory": {"description": "Look at the memory each job uses, too.", "schema": GIVEN_FLAG},
    "n": {"description": "Only the last so many.", "schema": GIVEN},
    "offset": {"description": "Go on at this place of the log.", "schema": GIVEN},
    "previous": {"description": "The run before the current one.", "schema": GIVEN_FLAG},
    "repair": {
        "description": "Fetch damaged images that are in use anew, remove others.",
        "schema": GIVEN_FLAG,
    },
    "since": {
        "description": "Of events: the id behind which to go on. Of logs: unix seconds.",
        "schema": GIVEN,
    },
    "until": {"description": "Unix seconds.", "schema": SECONDS},
    "version": {
        "description": "Version of an image, or the name of its directory.",
        "schema": {"type": "string", "minLength": 1},
    },
    "wait": {
        "description": "Seconds to wait for the end of the task.",
        "schema": SECONDS,
    },
}
"""What each query parameter means; a name means the same wherever it is taken."""

_STARTED = Shape(answer(TASK_ID, 202))
_PLANNED = record({"plan": ref("Plan"), "warnings": PROBLEMS})
_SHUTDOWN_BODY = record({}, {"jobs": {"enum": ["stop", "keep", None]}})

SHAPES: dict[str, Shape] = {
    "GET /v1/openapi.json": Shape(answer({"type": "object"})),
    "GET /v1/version": Shape(answer(record({"version": TEXT, "pid": COUNT, "uptime": NUMBER, "root": TEXT}))),
    "GET /v1/status": listed("jobs", ref("Job")),
    "POST /v1/apply": Shape(
        {
            200: {"application/json": _PLANNED},
            202: {
                "application/json": record({"plan": ref("Plan"), "task_id": TEXT, "warnings": PROBLEMS}),
            },
        },
        ref("document"),
        about="422 lists every mistake; nothing is applied then. With `dry_run` the answer is 200.",
    ),
    "POST /v1/check": Shape(answer(record({"ok": FLAG, "warnings": PROBLEMS})), ref("document")),
    "POST /v1/diff": Shape(answer(_PLANNED), ref("document")),
    "GET /v1/plan": Shape(
        answer(record({"what": TEXT, "time": or_null(NUMBER), "count": COUNT, "steps": array(ref("Step"))}))
    ),
    **{
        f"POST /v1/jobs/{{job}}/{verb}": _STARTED
        for verb in ("start", "stop", "restart", "reload", "pause", "resume", "enable", "disable")
    },
    "POST /v1/jobs/{job}/kill": Shape(
        answer({"type": "object"}),
        record({}, {"signal": SIGNAL}),
        body_required=False,
    ),
    "GET /v1/jobs/{job}/why": Shape(answer(record({"job": TEXT, "state": TEXT, "lines": TEXTS}))),
    "GET /v1/jobs/{job}/process": Shape(
        answer(
            record(
                {
                    "job": TEXT,
                    "process": TEXT,
                    "pid": COUNT,
                    "start_ticks": COUNT,
                    "boot_id": TEXT,
                    "capabilities": or_null(TEXTS),
                    "seccomp": TEXT,
                }
            )
        ),
        about="Of the main process: who it is, and what cannot be read from /proc. 409 when it does not run.",
    ),
    "GET /v1/jobs/{job}/logs": Shape(
        {200: {"text/plain": None, "application/x-ndjson": None, "text/event-stream": None}},
        about="Text, or for those who accept them records: the offset behind a line, and the line.",
    ),
    "GET /v1/events": Shape(
        {200: {"application/x-ndjson": None, "text/event-stream": None}},
        about="A record of type `lost` stands for events that are not kept any more.",
    ),
    "GET /v1/tasks": Shape(answer(record({"tasks": array(ref("Task"))}))),
    "GET /v1/tasks/{task}": Shape(
        {200: {"application/json": ref("Task"), "application/x-ndjson": None, "text/event-stream": None}},
        about="With `follow` a record for each change, until it has ended.",
    ),
    "POST /v1/tasks/{task}/cancel": Shape(
        answer(ref("Task")), about="409 when it has begun to change something, or has ended."
    ),
    "GET /v1/images": listed("images", ref("Image")),
    "PUT /v1/images/{job}": Shape(
        answer(TASK_ID, 202), ref("image-by-path"), about="The archive may be a file:// URL of the device."
    ),
    "DELETE /v1/images/{job}": Shape(
        answer(record({"removed": array(ref("Image"))})), about="Without `version`, all that nobody uses."
    ),
    "POST /v1/image-gc": Shape(answer(record({"removed": array(TEXT)}))),
    "POST /v1/image-verify": _STARTED,
    "POST /v1/images/{job}/rollback": _STARTED,
    "POST /v1/images/{job}/pin": Shape(answer(ref("Image"))),
    "POST /v1/images/{job}/unpin": Shape(answer(ref("Image"))),
    "PUT /v1/jobs/{job}/lock": Shape(
        answer(record({"job": TEXT, "owner": TEXT, "reason": TEXT, "since": NUMBER})),
        record({}, {"reason": TEXT}),
        body_required=False,
    ),
    "DELETE /v1/jobs/{job}/lock": Shape(answer({"type": "object"})),
    "GET /v1/configs": listed("configs", record({"name": TEXT, "job": TEXT})),
    "GET /v1/configs/{job}/{name}": Shape(answer(record({"name": TEXT, "job": TEXT}))),
    "PUT /v1/configs/{job}/{name}": Shape(answer(TASK_ID, 202), ref("config-by-path")),
    "DELETE /v1/configs/{job}/{name}": _STARTED,
    "GET /v1/templates": listed("templates", record({"name": TEXT, "source": TEXT})),
    "GET /v1/templates/{name}": Shape(answer(record({"name": TEXT, "source": TEXT}))),
    "GET /v1/running-config": Shape(
        answer(
            record(
                {
                    "config": {"const": "running"},
                    "date": COUNT,
                    "jobs": array(record({"job": TEXT})),
                    "templates": array(record({"name": TEXT})),
                    "images": array(record({"job": TEXT})),
                    "configs": array(record({"name": TEXT, "job": TEXT})),
                }
            )
        )
    ),
    "GET /v1/doctor": Shape(answer(record({"facts": array(ref("Fact"))}))),
    "GET /v1/metrics": Shape({200: {"application/openmetrics-text": None, "text/plain": None}}),
    "POST /v1/upgrade": Shape(answer({"type": "object"}, 202)),
    "POST /v1/shutdown": Shape(answer({"type": "object"}, 202), _SHUTDOWN_BODY, body_required=False),
}
"""The shape of each route of /v1."""
