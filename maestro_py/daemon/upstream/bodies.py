# SPDX-License-Identifier: Apache-2.0
"""What upstream's handlers have in common: how bodies are read, and edits of the wanted state."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from maestro_py.daemon.messages import Request, Response, json_response
from maestro_py.daemon.wanted import Sources
from maestro_py.errors import MaestroError, NotFound
from maestro_py.spec.layers import Layer
from maestro_py.spec.model import ImageSpec, JobSpec, TemplateSpec

Edit = Callable[[Sources], Sources]


def body_of(request: Request) -> dict[str, Any] | None:
    """Return the body, its keys in lower case, when it is a JSON object, else None.

    Upstream answers 400 to all others alike.
    """
    try:
        body = request.json()
    except MaestroError:
        return None
    return {str(k).lower(): v for k, v in body.items()} if isinstance(body, dict) else None


def error(status: int, text: str) -> Response:
    """Return an error in upstream's form."""
    return json_response({"error": text}, status)


def with_(
    sources: Sources,
    *,
    job: JobSpec | None = None,
    image: ImageSpec | None = None,
    template: TemplateSpec | None = None,
) -> Sources:
    """Return the sources with one definition more, or another one."""
    old = sources.document
    new = Layer(
        {**old.jobs, job.job: job} if job else old.jobs,
        {**old.templates, template.name: template} if template else old.templates,
        {**old.images, image.job: image} if image else old.images,
        old.configs,
    )
    held = dict(sources.held)
    for process in {job.process if job else "", _process_of(sources, image.job if image else "")}:
        held.pop(process, None)
    return replace(sources, document=new, held=held)


def _process_of(sources: Sources, job: str) -> str:
    spec = sources.in_force().jobs.get(job)
    return spec.process if spec else ""


def without(sources: Sources, *, job: str = "", image: str = "", template: str = "") -> Sources:
    """Return the sources without one definition. Raises NotFound."""
    old = sources.document
    for name, known, what in (
        (job, old.jobs, "job"),
        (image, old.images, "image"),
        (template, old.templates, "template"),
    ):
        if name and name not in known:
            raise NotFound(f"no {what} {name}")
    return replace(
        sources,
        document=Layer(
            {k: v for k, v in old.jobs.items() if k != job},
            {k: v for k, v in old.templates.items() if k != template},
            {k: v for k, v in old.images.items() if k != image and k != job},
            {k: v for k, v in old.configs.items() if k[0] != job},
        ),
    )
