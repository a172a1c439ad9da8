# SPDX-License-Identifier: Apache-2.0
"""What is stored on the device: configs and templates."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from maestro_py.daemon.change import Changer
from maestro_py.daemon.messages import Request, Response, accepted, json_response, page
from maestro_py.daemon.tasks import Task
from maestro_py.daemon.wanted import Sources
from maestro_py.errors import NotFound
from maestro_py.spec.documents import public_json, read_config, to_json
from maestro_py.spec.model import TemplateSpec
from maestro_py.spec.nearest import nearest


class Stored:
    """Handlers of configs and templates."""

    def __init__(self, changer: Changer) -> None:
        self.changer = changer

    async def configs(self, request: Request) -> Response:
        configs = {"/".join(key): config for key, config in self.changer.wanted.configs.items()}
        shown, following = page(request, configs)
        return json_response({"configs": [to_json(configs[key]) for key in shown], **following})

    async def config(self, request: Request) -> Response:
        key = (request.params["job"], request.params["name"])
        try:
            return json_response(to_json(self.changer.wanted.configs[key]))
        except KeyError:
            raise NotFound(f"no config {key[1]} of {key[0]}", hint="`maestro config list` has them") from None

    async def put_config(self, request: Request) -> Response:
        job, name = request.params["job"], request.params["name"]
        config = read_config({**request.object(), "job": job, "name": name}, "config")
        return await self._soon(
            self.changer.change(
                "config-set",
                f"{job}/{name}",
                lambda s: replace(s, stored_configs={**s.stored_configs, (job, name): config}),
            )
        )

    async def delete_config(self, request: Request) -> Response:
        key = (request.params["job"], request.params["name"])
        if key not in self.changer.sources.stored_configs:
            where = " (the document defines it)" if key in self.changer.wanted.configs else ""
            raise NotFound(
                f"no stored config {key[1]} of {key[0]}{where}", hint="`maestro config list` has them"
            )

        def edit(sources: Sources) -> Sources:
            return replace(
                sources, stored_configs={k: c for k, c in sources.stored_configs.items() if k != key}
            )

        return await self._soon(self.changer.change("config-remove", "/".join(key), edit))

    async def _soon(self, task: Task) -> Response:
        """Answer when the change is made, or takes its time: who asks next is told what it is then."""
        await self.changer.tasks.wait(task, 1.0)
        return accepted(task)

    async def templates(self, request: Request) -> Response:
        shown, following = page(request, self._templates())
        return json_response({"templates": [self._template(name) for name in shown], **following})

    async def template(self, request: Request) -> Response:
        name = request.params["name"]
        if name not in self._templates():
            near, _ = nearest(name, self._templates())
            hint = f"did you mean {near}?" if near else "`maestro template list` has them"
            raise NotFound(f"no template {name}", hint=hint)
        return json_response(self._template(name))

    def _templates(self) -> Mapping[str, TemplateSpec]:
        return self.changer.sources.in_force().templates

    def _template(self, name: str) -> dict[str, Any]:
        sources = self.changer.sources
        source = "shipped"
        if name in sources.document.templates:
            source = "document"
        elif name in sources.file.templates:
            source = "file"
        return {"source": source, **public_json(self._templates()[name])}
