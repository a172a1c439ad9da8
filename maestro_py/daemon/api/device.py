# SPDX-License-Identifier: Apache-2.0
"""The daemon and the device it runs on."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable

import maestro_py
from maestro_py.daemon.change import Changer
from maestro_py.daemon.messages import Request, Response, json_response
from maestro_py.errors import MaestroError

_OPENAPI = os.path.join(os.path.dirname(maestro_py.__file__), "daemon", "openapi", "openapi.json")


class Device:
    """Handlers of the daemon itself."""

    def __init__(
        self,
        changer: Changer,
        shut_down: Callable[[str | None], None],
        upgrade: Callable[[], Awaitable[dict[str, object]]],
    ) -> None:
        self.changer = changer
        self.supervisor = changer.supervisor
        self._shut_down = shut_down
        self._upgrade = upgrade

    async def version(self, request: Request) -> Response:
        uptime = self.supervisor.loop.time() - self.supervisor.began
        root = self.supervisor.paths.root
        return json_response(
            {
                "version": maestro_py.__version__,
                "pid": os.getpid(),
                "uptime": uptime,
                "root": root,
                "generation": self.supervisor.generation,
            }
        )

    async def openapi(self, request: Request) -> Response:
        with open(_OPENAPI, "rb") as file:
            return Response(body=file.read())

    async def doctor(self, request: Request) -> Response:
        from maestro_py.daemon.doctor import facts  # rarely asked for

        return json_response({"facts": facts(self.supervisor.cgroups, self.supervisor.paths.state)})

    async def metrics(self, request: Request) -> Response:
        from maestro_py.daemon import metrics  # only where somebody collects them

        format = request.first("format", "openmetrics")
        if format not in ("openmetrics", "text"):
            raise MaestroError("cannot show metrics: format is `openmetrics` or `text`", code="bad-request")
        page = await metrics.page(self.changer, openmetrics=format == "openmetrics")
        kind = metrics.CONTENT_TYPE if format == "openmetrics" else metrics.TEXT_TYPE
        return Response(body=page, content_type=kind)

    async def upgrade(self, request: Request) -> Response:
        return json_response(await self._upgrade(), 202)

    async def shutdown(self, request: Request) -> Response:
        jobs = request.object(optional=True).get("jobs")
        if jobs not in (None, "stop", "keep"):
            raise MaestroError("cannot shut down: jobs is `stop` or `keep`", code="bad-request")
        self._shut_down(jobs)
        return json_response({}, 202)
