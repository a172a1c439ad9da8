# SPDX-License-Identifier: Apache-2.0
"""The JSON object a composite gets on its standard input, byte for byte as upstream's encoder writes it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping

from maestro_py.spec.model import JobSpec, TemplateSpec, job_payload

_ESCAPES = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"}


def go_json(value: object) -> str:
    """Return minified JSON with the escapes of Go's encoding/json: HTML's characters, raw UTF-8 else."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    for char, escape in _ESCAPES.items():  # they occur inside JSON strings only
        text = text.replace(char, escape)
    return text


def composite_stdin(members: Iterable[JobSpec], template: TemplateSpec, socket: str) -> str:
    """Return the object: members by name, then `process_config`, then the socket; empty ones left out.

    Source: maestro's composite hand-over; a Go map encodes in the order of its keys.
    """
    jobs: Mapping[str, object] = {job.job: job_payload(job) for job in sorted(members, key=lambda j: j.job)}
    parts: dict[str, object] = {
        "moduleconfigs": jobs,
        "process_config": template.composite_config,
        "maestro_user_socket_path": socket,
    }
    return go_json({key: part for key, part in parts.items() if part})
