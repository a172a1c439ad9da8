# SPDX-License-Identifier: Apache-2.0
"""The OpenAPI document of the socket API, made from the route tables and the field tables.

`python -m maestro_py.daemon.openapi` writes it to openapi.json. A route without an entry in SHAPES or
UPSTREAM_SHAPES is a KeyError.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from typing import Any

import maestro_py
from maestro_py.daemon import api, upstream
from maestro_py.daemon.openapi.shapes import QUERY, SCHEMAS, SHAPES, Shape
from maestro_py.daemon.openapi.upstream import UPSTREAM_SHAPES
from maestro_py.daemon.router import Role, Route
from maestro_py.spec import schema

FILE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "openapi.json")
"""The document that is served."""

Json = dict[str, Any]

ABOUT = """\
HTTP/1.1 on the Unix socket of maestrod, and on loopback TCP where the config file asks for it (`http_tcp`).

On the socket the peer's uid and groups decide: `x-maestro-role` is the least role of a route, and each of
read, operate and admin includes the one before. Over TCP a bearer token gives admin; without it there is
read, or nothing with `http_anonymous: none`.

Errors are application/problem+json (RFC 9457) with a `code` that is also what the command prints. Answers to
GET have an ETag. Lists take `limit` and `after`; `next` in an answer is the following `after`. Work that
takes time answers 202 with a `task_id`. Streams are NDJSON, or server-sent events for those who accept them.
"""


def document() -> Json:
    """Return the OpenAPI 3.1 document."""
    components = {name: _moved(value) for name, value in _documents().items()} | SCHEMAS
    paths: dict[str, Json] = {}
    for routes, shapes, tag in (
        (api.ROUTES, SHAPES, "maestro"),
        (upstream.ROUTES, UPSTREAM_SHAPES, "upstream"),
    ):
        for route in routes:
            paths.setdefault(route.pattern, {})[route.method.lower()] = _operation(route, shapes, tag)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "maestrod",
            "version": maestro_py.__version__,
            "description": ABOUT,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "http://localhost"}],
        "tags": [
            {"name": "maestro", "description": "The API of this daemon."},
            {"name": "upstream", "description": "The routes of Pelion's maestro, bodies and all."},
        ],
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer", "description": "Asked for over TCP only."}
            },
        },
    }


def text() -> str:
    """Return the document as it is committed."""
    return json.dumps(document(), indent=1, ensure_ascii=False) + "\n"


def _documents() -> Json:
    """Return the schemas of running configs and their parts, by name."""
    whole = schema.running_config()
    parts = whole["definitions"]
    # where the path says whose it is, what the body says of that is passed over
    by_path = {
        "config-by-path": _without(parts["config"], "job", "name"),
        "image-by-path": _without(parts["image"], "job"),
    }
    return {**parts, **by_path, "document": {"anyOf": whole["anyOf"]}}


def _without(part: Json, *keys: str) -> Json:
    """Return the schema of an object in which these keys may be anything."""
    properties = {**part["properties"], **{key: {} for key in keys}}
    required = [key for key in part["required"] if key not in keys]
    return {**part, "properties": properties, "required": required}


def _moved(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _moved(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_moved(item) for item in value]
    return value.replace("#/definitions/", "#/components/schemas/") if isinstance(value, str) else value


def _operation(route: Route, shapes: Mapping[str, Shape], tag: str) -> Json:
    shape = shapes[f"{route.method} {route.pattern}"]
    name = re.sub(r"\W+", "_", f"{route.method.lower()}{route.pattern}").strip("_")
    operation: Json = {
        "operationId": name,
        "tags": [tag],
        "summary": route.summary,
        "x-maestro-role": route.role.name.lower(),
        "parameters": [*_path_parameters(route.pattern), *_query_parameters(route)],
        "responses": {
            **{str(status): _response(content) for status, content in shape.answers.items()},
            "default": _response({"application/problem+json": {"$ref": "#/components/schemas/Problem"}}),
        },
    }
    if route.role > Role.NONE:
        operation["security"] = [{"token": []}]
    if shape.about:
        operation["description"] = shape.about
    if shape.body is not None:
        operation["requestBody"] = {
            "required": shape.body_required,
            "content": {"application/json": {"schema": shape.body}},
        }
    if not operation["parameters"]:
        del operation["parameters"]
    return operation


def _path_parameters(pattern: str) -> list[Json]:
    return [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
        for name in re.findall(r"\{(\w+)\}", pattern)
    ]


def _query_parameters(route: Route) -> list[Json]:
    names = sorted(route.query or ())
    return [{"name": name, "in": "query", **QUERY[name]} for name in names]


def _response(content: Mapping[str, Any]) -> Json:
    if not content:
        return {"description": "Nothing more to say."}
    described = {kind: {"schema": value} if value is not None else {} for kind, value in content.items()}
    return {"description": "The answer.", "content": described}
