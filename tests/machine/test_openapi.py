# SPDX-License-Identifier: Apache-2.0
"""The OpenAPI document: it describes every route, and is the one that is served."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from support.daemon import Daemon
from support.rawhttp import ask

from maestro_py.daemon import api, upstream
from maestro_py.daemon.openapi.document import FILE, document, text
from maestro_py.daemon.openapi.shapes import SHAPES
from maestro_py.daemon.openapi.upstream import UPSTREAM_SHAPES


def test_the_committed_document_is_what_the_tables_say() -> None:
    assert Path(FILE).read_text() == text(), "make docs writes it anew"


def test_every_route_is_described_and_nothing_else() -> None:
    assert set(SHAPES) == {f"{route.method} {route.pattern}" for route in api.ROUTES}
    assert set(UPSTREAM_SHAPES) == {f"{route.method} {route.pattern}" for route in upstream.ROUTES}


def test_every_reference_leads_somewhere() -> None:
    made = document()
    names = {f"#/components/schemas/{name}" for name in made["components"]["schemas"]}

    def references(part: object) -> Iterator[str]:
        if isinstance(part, dict):
            for key, value in part.items():
                if key == "$ref":
                    yield value
                else:
                    yield from references(value)
        elif isinstance(part, list):
            for item in part:
                yield from references(item)

    assert set(references(made)) <= names


def test_the_document_is_served(daemon: Daemon) -> None:
    answer = ask(daemon.socket, "GET", "/v1/openapi.json")
    assert (answer.status, answer.headers["content-type"]) == (200, "application/json")
    assert answer.json == json.loads(Path(FILE).read_text())
    again = ask(daemon.socket, "GET", "/v1/openapi.json", if_none_match=answer.headers["etag"])
    assert again.status == 304
