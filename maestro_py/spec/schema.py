# SPDX-License-Identifier: Apache-2.0
"""The field tables as JSON Schema (draft 7, which every editor reads).

A schema helps while a document is written; what counts is what the reader says. It knows the spellings
of the table and canonical words, the reader takes them in any case.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any

from maestro_py.spec import daemonfile, documents, fields
from maestro_py.spec.reader import Field, Kind, Table

Schema = dict[str, Any]

DIALECT = "http://json-schema.org/draft-07/schema#"

_VARIABLE = {"type": "string", "pattern": "{{"}


def running_config() -> Schema:
    """Return the schema of a running config, in either of its two forms."""
    return _document(
        "maestro running config", {"anyOf": [documents.RUNNING, documents.RUNNING_OP]}, lenient=False
    )


def template_file() -> Schema:
    """Return the schema of a template file: one template, a list, or an object with the list."""
    listed = {"type": "object", "properties": {"templates": documents.TEMPLATES}, "required": ["templates"]}
    wanted = {"anyOf": [fields.TEMPLATE, documents.TEMPLATES, listed]}
    return _document("maestro template file", wanted, lenient=False)


def daemon_config() -> Schema:
    """Return the schema of the daemon's file, whose unknown keys are only warned about."""
    wanted = {"anyOf": [daemonfile.DAEMON, {"type": "null"}]}  # an empty file is the defaults
    schema = _document("maestro.yaml", wanted, lenient=True)
    own = schema["definitions"]["daemon-configuration"]["properties"]
    for name in daemonfile.OTHER_SECTIONS:
        own.setdefault(name, {"description": "A section of another subsystem; ignored."})
    return schema


FILES = {
    "maestro-running-config.schema.json": running_config,
    "maestro-template.schema.json": template_file,
    "maestro.yaml.schema.json": daemon_config,
}
"""The schemas that are shipped for editors, by file name."""


def tables(start: Table, without: Collection[Table] = ()) -> list[Table]:
    """Return a table and all that its fields lead to, in the order they are met.

    without: tables that are left out, with what only they lead to.
    """
    found: list[Table] = []

    def walk(part: object) -> None:
        if isinstance(part, Table):
            if not any(part is other for other in (*found, *without)):
                found.append(part)
                for row in part.fields:
                    walk(row.kind.schema)
        elif isinstance(part, Kind):
            walk(part.schema)
        elif isinstance(part, (dict, list)):
            for item in part.values() if isinstance(part, dict) else part:
                walk(item)

    walk(start)
    return found


def _document(title: str, wanted: object, *, lenient: bool) -> Schema:
    writer = _Writer(lenient)
    schema = writer.write(wanted)
    return {"$schema": DIALECT, "title": title, **schema, "definitions": writer.definitions}


class _Writer:
    """Writes out kinds and tables; `definitions` collects the tables.

    lenient: as the daemon's file is read, unknown keys allowed, numbers taken for text, variables anywhere.
    """

    def __init__(self, lenient: bool) -> None:
        self.lenient = lenient
        self.definitions: dict[str, Schema] = {}

    def write(self, part: Any) -> Any:
        """Return a part of a schema with everything in it written out."""
        if isinstance(part, Table):
            return self._reference(part)
        if isinstance(part, Kind):
            return {} if part.schema is None else self.write(part.schema)
        if isinstance(part, list):
            return [self.write(item) for item in part]
        if not isinstance(part, dict):
            return part
        written = {key: self.write(value) for key, value in part.items()}
        return self._loosened(written) if self.lenient else written

    def _loosened(self, schema: Schema) -> Schema:
        if "enum" in schema:
            return {"anyOf": [schema, _VARIABLE]}
        if schema.get("type") == "string":
            schema["type"] = ["string", "number"]
            schema.pop("pattern", None)
            schema.pop("minLength", None)
        return schema

    def _reference(self, table: Table) -> Schema:
        name = re.sub(r"^(a|an) ", "", table.noun).replace(" ", "-")
        if name not in self.definitions:
            definition = self.definitions[name] = {"type": "object"}  # in place first: it may lead to itself
            definition.update(self._object(table))
        return {"$ref": f"#/definitions/{name}"}

    def _object(self, table: Table) -> Schema:
        schema: Schema = {"properties": {}}
        for row in table.fields:
            for key in (row.key, *row.aliases):
                schema["properties"][key] = self._property(row, key)
        required = [row.key for row in table.fields if row.required]
        if required:
            schema["required"] = required
        if not self.lenient:
            schema["additionalProperties"] = False
        return schema

    def _property(self, row: Field, key: str) -> Schema:
        value = self.write(row.kind)
        if not row.required:
            value = {"anyOf": [value, {"type": "null"}]} if value else {}
        text = row.doc if key == row.key else f"The same as `{row.key}`."
        if row.default and key == row.key:
            text += f" Default: {row.default}."
        return (
            {"description": text, **value} if "$ref" not in value else {"description": text, "allOf": [value]}
        )
