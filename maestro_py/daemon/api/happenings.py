# SPDX-License-Identifier: Apache-2.0
"""What goes on: events and tasks, at once or followed."""

from __future__ import annotations

from collections.abc import AsyncIterator

from maestro_py.daemon import streams
from maestro_py.daemon.change import Changer
from maestro_py.daemon.messages import Request, Response, Stream, json_response

_AT_ONCE = 50  # events taken from the history at a time


class Happenings:
    """Handlers of events and tasks."""

    def __init__(self, changer: Changer) -> None:
        self.supervisor = changer.supervisor
        self.tasks = changer.tasks

    async def events(self, request: Request) -> Stream:
        history = self.supervisor.history
        follow = request.flag("follow") or streams.wants_sse(request)
        since, limit = streams.resume_after(request), request.number("n", 0) or None
        kind, encode = streams.encoding(request)

        async def chunks() -> AsyncIterator[bytes]:
            last, end = since, history.last_id  # what comes while it is sent is for followers
            if limit and (newest := history.since(since, limit)):
                last = newest[0].id - 1
            while True:
                if last and (gap := history.lost_after(last)):
                    yield encode(gap.id, gap.type, gap.to_json())
                # a few at a time: a client that stops reading keeps no more than these
                some = [e for e in history.since(last)[:_AT_ONCE] if follow or e.id <= end]
                if some:
                    last = some[-1].id
                    yield b"".join(encode(event.id, event.type, event.to_json()) for event in some)
                    continue
                if not follow:
                    return
                await self.supervisor.happened.wait()

        return Stream(chunks(), content_type=kind)

    async def list_tasks(self, request: Request) -> Response:
        return json_response({"tasks": [task.to_json() for task in self.tasks.all()]})

    async def task(self, request: Request) -> Response | Stream:
        task = self.tasks.get(request.params["task"])
        if request.flag("follow") or streams.wants_sse(request):
            kind, encode = streams.encoding(request)

            async def chunks() -> AsyncIterator[bytes]:
                async for state in self.tasks.follow(task):
                    yield encode(0, "task", state)

            return Stream(chunks(), content_type=kind)
        wait = request.number("wait", 0)
        if wait:
            await self.tasks.wait(task, wait)
        return json_response(task.to_json())

    async def cancel(self, request: Request) -> Response:
        task = self.tasks.get(request.params["task"])
        await self.tasks.cancel(task)
        return json_response(task.to_json())
