# SPDX-License-Identifier: Apache-2.0
"""The schemas that editors get say what the reader says, as far as a schema can."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from jsonschema import Draft7Validator
from test_spec_roundtrip import RUNNING, TEMPLATES

from maestro_py.errors import InvalidDocument
from maestro_py.spec import daemonfile, documents, fields, schema
from maestro_py.spec.daemonconfig import DaemonConfig
from maestro_py.spec.documents import read_daemon_config, read_running_config, read_templates, to_json
from maestro_py.spec.model import RunningConfig, TemplateSpec
from maestro_py.spec.reader import Kind
from maestro_py.spec.text import load

PROJECT = Path(__file__).parents[3]
SAMPLES = PROJECT.parent / "shared/samples"
VALIDATORS = {name: Draft7Validator(make()) for name, make in schema.FILES.items()}
RUNNING_CONFIG, TEMPLATE, DAEMON = VALIDATORS.values()


def complaints(validator: Draft7Validator, document: object) -> list[str]:
    return [f"{error.json_path}: {error.message}" for error in validator.iter_errors(document)]


@pytest.mark.parametrize("make", list(schema.FILES.values()), ids=list(schema.FILES))
def test_each_is_a_schema(make: Callable[[], dict[str, Any]]) -> None:
    Draft7Validator.check_schema(make())


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(RUNNING)
def test_whatever_we_write_is_accepted(spec: RunningConfig) -> None:
    written = json.loads(json.dumps(to_json(spec)))
    assert complaints(RUNNING_CONFIG, written) == []
    assert complaints(RUNNING_CONFIG, {"op": "update", "conf": written}) == []


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(TEMPLATES)
def test_template_files_in_all_their_forms_are_accepted(spec: TemplateSpec) -> None:
    written = json.loads(json.dumps(to_json(spec)))
    for form in (written, [written], {"templates": [written]}):
        assert complaints(TEMPLATE, form) == []


SHIPPED = sorted((PROJECT / "templates").glob("*.json"))


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.name)
def test_the_shipped_templates_are_accepted(path: Path) -> None:
    assert complaints(TEMPLATE, load(path.read_bytes(), path.name)) == []


READERS: tuple[tuple[Draft7Validator, Callable[[object], object]], ...] = (
    (RUNNING_CONFIG, read_running_config),
    (TEMPLATE, lambda data: read_templates(data, "sample")),
    (DAEMON, lambda data: read_daemon_config(data, environ={}, builtins={}, source="sample")),
)


@pytest.mark.skipif(not SAMPLES.exists(), reason="upstream's sample files are not here")
def test_every_sample_the_reader_accepts_the_schema_accepts() -> None:
    seen = 0
    for path in sorted(path for path in SAMPLES.rglob("*") if path.is_file()):
        try:
            data = load(path.read_bytes(), path.name)
        except InvalidDocument:
            continue
        for validator, read in READERS:
            try:
                read(data)
            except InvalidDocument:
                continue
            assert complaints(validator, data) == [], path
            seen += 1
    assert seen >= 20


def test_a_document_may_name_its_schema() -> None:
    name = {"$schema": "./maestro-running-config.schema.json"}
    assert complaints(RUNNING_CONFIG, name) == complaints(DAEMON, name) == []
    assert read_running_config(name) == (RunningConfig(), [])
    assert read_daemon_config(name, environ={}, builtins={}, source="x") == (DaemonConfig(), [])


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ({"jobs": [{"jub": "a"}]}, "jub"),
        ({"jobs": [{"job": "a", "exec_args": "x"}]}, "is not of type 'array'"),
        ({"jobs": [{"job": "a", "restart_policy": "often"}]}, "is not one of"),
        ({"jobs": [{"job": "a", "nice": 30}]}, "maximum"),
        ({"jobs": [{"job": "a", "env": ["NAME"]}]}, "does not match"),
    ],
)
def test_common_mistakes_are_seen(document: object, said: str) -> None:
    def deep(error: Any) -> Iterator[str]:
        yield error.message
        for inner in error.context:
            yield from deep(inner)

    assert any(said in text for error in RUNNING_CONFIG.iter_errors(document) for text in deep(error))


def test_a_field_without_a_schema_is_one_that_takes_anything() -> None:
    starts = (documents.RUNNING_OP, fields.TEMPLATE, daemonfile.DAEMON)
    loose = {
        f"{table.noun}: {row.key}"
        for start in starts
        for table in schema.tables(start)
        for row in table.fields
        if isinstance(row.kind, Kind) and row.kind.schema is None
    }
    anything = {"a daemon configuration: tags", "a platform reader: opts", "a platform reader: params"}
    assert loose == anything
