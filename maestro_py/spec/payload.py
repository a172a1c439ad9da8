# SPDX-License-Identifier: Apache-2.0
"""Jobs as upstream's encoder writes them, byte for byte: what a composite gets on its standard input."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from maestro_py.spec.model import DEFAULT_CONFIG_NAME, JobSpec, TemplateSpec

_ESCAPES = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"}


def go_json(value: object) -> str:
    """Return minified JSON with the escapes of Go's encoding/json: HTML's characters, raw UTF-8 else."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    for char, escape in _ESCAPES.items():  # they occur inside JSON strings only
        text = text.replace(char, escape)
    return text


def job_payload(job: JobSpec) -> dict[str, Any]:
    """Return the upstream JobDefinitionPayload of a job: all 22 keys, in upstream's encode order.

    Source: maestroSpecs `JobDefinitionPayload`; empty lists encode as null there.
    """
    s = job.settings
    return {
        "job": job.job,
        "composite_id": job.composite_id,
        "container_template": job.container_template,
        "config": job.config,
        "config_name": job.config_name or DEFAULT_CONFIG_NAME,
        "message": job.message,
        "wait_for_ok": bool(s.wait_for_ok),
        "defer_running_status": round((s.defer_running_status or 0) * 1000),
        "no_autostart": job.no_autostart,
        "restart": bool(s.restart),
        "restart_on_dependency_fail": bool(s.restart_on_dependency_fail),
        "restart_limit": s.restart_limit or 0,
        "restart_pause": round((s.restart_pause or 0) * 1000),
        "depends_on": list(job.depends_on) or None,
        "exec_cmd": job.exec_cmd,
        "exec_args": list(job.exec_args) or None,
        "pgid": job.pgid,
        "env": list(job.env) or None,
        "inherit_env": bool(s.inherit_env),
        "die_on_parent_death": bool(s.die_on_parent_death),
        "daemonize": job.daemonize,
        "immutable": job.immutable,
    }


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
