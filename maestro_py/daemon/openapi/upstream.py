# SPDX-License-Identifier: Apache-2.0
"""What requests and answers of upstream's routes look like, for the OpenAPI document.

Source: PelionIoT/maestro v3 and maestroSpecs.
"""

from __future__ import annotations

from maestro_py.daemon.openapi.shapes import (
    COUNT,
    FLAG,
    GIVEN,
    SIGNAL,
    TASK_ID,
    TEXT,
    TEXTS,
    Content,
    Json,
    Shape,
    answer,
    array,
    or_null,
    record,
    ref,
)

ERROR: Content = {"application/json": record({"error": TEXT}), "application/problem+json": ref("Problem")}
EMPTY: Content = {}
_PLAIN: Content = {"text/plain": TEXT}
_ANY: Json = {"type": "object"}

_JOB = record(
    {"status": TEXT, "def": _ANY, "restarts": TEXT, "pid": TEXT, "errno": TEXT, "execPath": TEXT},
    {"compositeId": TEXT, "compositeContainerTemplate": TEXT},
)
_CONFIGS = record(
    {"configs": array(record({"name": TEXT, "job": TEXT, "data": TEXT, "encoding": TEXT, "mod_time": TEXT}))}
)
_REPLACED = record({}, {"replaced_configs": array(_ANY)})
_TEMPLATE = record({"name": TEXT})
_STARTED = answer(TASK_ID)
_REFUSED = Shape({400: ERROR}, about="The network belongs to the system; it is shown, not managed.")


def _operation(type: str, required: Json, optional: Json | None = None) -> Json:
    """Return the schema of an operation of a type; what is not said is read as nothing."""
    shared = {"type": {"const": type}, "op": {"enum": ["add", "update", "rm"]}}
    return record({**shared, **required}, {"task_id": TEXT, **(optional or {})})


_IMAGE_OP = _operation("image", {"image": ref("image")})
_PACE: Json = {"type": "integer", "minimum": 1 - 2**53, "maximum": 2**53 - 1}
_JOB_OP = _operation("job", {}, {"job": {"type": "object"}, "params": or_null(TEXTS)})


_BATCH = record({"ops": {**array({"anyOf": [_IMAGE_OP, _JOB_OP]}), "minItems": 1}}, {"task_id": TEXT})
_ACT = {
    "anyOf": [
        record({"op": {"enum": ["start", "stop", "restart"]}}),
        record({"op": {"const": "kill"}}, {"signal": SIGNAL}),
    ]
}

UPSTREAM_SHAPES: dict[str, Shape] = {
    "GET /": Shape({200: _PLAIN}),
    "GET /hello/{name}": Shape({200: _PLAIN}),
    "GET /alive": Shape(answer(record({"ok": FLAG, "uptime": COUNT}))),
    "POST /process": Shape(
        {**answer(record({"pid": COUNT})), 400: ERROR, 406: ERROR, 422: ERROR},
        {
            "type": "object",
            "properties": {
                "path": {"type": "string", "pattern": r"^[^\x00]+$"},
                "arguments": or_null(array({"type": "string", "pattern": r"^[^\x00]*$"})),
                "environment": or_null(array({"type": "string", "pattern": r"^[^\x00=]+=[^\x00]*$"})),
                "inheritEnv": FLAG,
                "ContainerId": TEXT,
                "pgid": {"type": "integer", "maximum": (1 << 31) - 1},
                "daemonize": FLAG,
            },
            "required": ["path"],
        },
        about="The program runs as the daemon's user and is no job: it is neither watched nor restarted.",
    ),
    "GET /runningProcesses": Shape(
        answer(record({"processes": array(record({"pid": COUNT, "job": TEXT, "path": TEXT}))}))
    ),
    "GET /events": Shape(
        answer(
            record(
                {
                    "events": array(
                        record(
                            {"name": TEXT, "when": COUNT, "type": TEXT, "pid": COUNT, "job": TEXT,
                             "exitVal": COUNT}
                        )
                    )
                }
            )
        ),
        about="Waits for an event as long as it takes. What was read is gone; 100 are kept.",
    ),
    "GET /processStarted": Shape({200: EMPTY}),
    "POST /processFailed": Shape({200: EMPTY}),
    "POST /image": Shape({**_STARTED, 400: ERROR, 406: ERROR}, _IMAGE_OP),
    "POST /ops": Shape({200: EMPTY, 400: ERROR, 406: ERROR}, _BATCH),
    "POST /job": Shape({**_STARTED, 400: ERROR, 406: ERROR}, _JOB_OP),
    "DELETE /job": Shape({**_STARTED, 406: ERROR}, record({"params": {**TEXTS, "minItems": 1}})),
    "GET /jobs": Shape(answer({"type": "object", "additionalProperties": _JOB})),
    "GET /job/{job}": Shape(answer(_JOB)),
    "PUT /job/{job}": Shape({200: {"application/json": _ANY}, 400: ERROR, 406: ERROR}, _ACT),
    "DELETE /job/{job}": Shape(_STARTED),
    "GET /containerTemplate": Shape(answer(array(_TEMPLATE))),
    "POST /containerTemplate": Shape({**_STARTED, 400: ERROR}, _TEMPLATE),
    "GET /containerTemplate/{name}": Shape(answer(_TEMPLATE)),
    "PUT /containerTemplate/{name}": Shape({**_STARTED, 400: ERROR}, _ANY),
    "DELETE /containerTemplate/{name}": Shape(_STARTED),
    "GET /statsConfig": Shape(
        answer(record({"interval": COUNT, "check_mem": FLAG, "check_mem_pace": COUNT})),
        about="Kept and shown; metrics are made when they are asked for, so no interval has an effect.",
    ),
    "POST /statsConfig": Shape(
        {200: EMPTY, 400: ERROR},
        record({}, {"interval": GIVEN, "check_mem": FLAG, "check_mem_pace": _PACE}),
    ),
    "GET /jobConfig": Shape({**answer(_CONFIGS), 204: EMPTY}),
    "GET /jobConfig/{job}": Shape({**answer(_CONFIGS), 204: EMPTY}),
    "GET /jobConfig/{job}/{name}": Shape({**answer(_CONFIGS), 204: EMPTY}),
    "POST /jobConfig/{job}/{name}": Shape(
        {**answer(_REPLACED, 201), **answer(_REPLACED, 202), 400: ERROR},
        ref("config-by-path"),
    ),
    "DELETE /jobConfig/{job}/{name}": Shape(answer(_REPLACED)),
    "GET /status/{task}": Shape(answer(record({"task_id": TEXT, "status": TEXT, "data": TEXT}))),
    "GET /net/interfaces": Shape(
        answer(array(record({"name": TEXT, "CurrentIPv4Addr": TEXT, "CurrentIPv6Addr": TEXT})))
    ),
    "PUT /net/interfaces": _REFUSED,
    "GET /net/events": Shape({**answer(record({"id": TEXT})), 503: ERROR}),
    "GET /net/events/{id}": Shape(
        {**answer(array(record({"data": _ANY}))), 204: EMPTY, 404: ERROR},
        about="Waits up to 20 seconds; a subscription nobody asks for in 45 seconds is dropped.",
    ),
    "GET /net/dns": Shape(answer(TEXTS)),
    "POST /net/dns": _REFUSED,
    "DELETE /net/dns": _REFUSED,
    "POST /reboot": Shape({403: ERROR}),
    "POST /shutdown": Shape(
        answer(_ANY, 202), record({}, {"jobs": {"enum": ["stop", "keep", None]}}), body_required=False
    ),
}  # fmt: skip
"""The shape of each of upstream's routes."""
