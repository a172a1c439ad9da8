# SPDX-License-Identifier: Apache-2.0
"""What becomes of tasks when the daemon is replaced in place.

A task that has ended stays askable. One that has not is taken up by asking the same again, under the same
id: every request that makes a task says what shall be, and asking for it twice changes nothing more.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from maestro_py.daemon.messages import Handler, Peer, Request, Response
from maestro_py.daemon.router import Role, Route, Router
from maestro_py.daemon.tasks import Task, Tasks
from maestro_py.errors import MaestroError, TimedOut


def remembering(routes: Iterable[Route], tasks: Tasks) -> list[Route]:
    """Return the routes, those that make tasks with a handler that notes what was asked."""

    def noting(inner: Handler) -> Handler:
        async def handler(request: Request) -> Any:
            answer = await inner(request)
            if isinstance(answer, Response) and answer.status == 202:
                task_id = json.loads(answer.body or b"{}").get("task_id", "")
                if task_id:
                    tasks.get(task_id).request = _request(request)
            return answer

        return handler

    return [
        route if route.method == "GET" else replace(route, handler=noting(route.handler)) for route in routes
    ]


def _request(request: Request) -> dict[str, Any]:
    # to restart is done at once; what is left of the task is to see it up
    path = request.path
    if path.endswith("/restart"):
        path = path.removesuffix("restart") + "start"
    return {
        "method": request.method,
        "path": path,
        "query": request.query,
        "peer": [request.peer.pid, request.peer.uid, request.peer.gid],
        "body": request.body.decode("utf-8", "surrogateescape"),
        "role": request.role.value,
    }


def dump(tasks: Tasks) -> str:
    """Return all tasks as JSON."""
    return json.dumps([{"task": task.to_json(), "request": task.request} for task in tasks.all()])


async def take_up(text: str, tasks: Tasks, router: Router) -> None:
    """Go on with the tasks that `dump` gave."""
    for entry in json.loads(text):
        old, asked = entry["task"], entry["request"]
        if old["ended"] is not None:
            tasks.restore(old)
            continue
        try:
            if asked is None:
                raise TimedOut(
                    f"cannot finish {old['kind']} {old['subject']}: the daemon was upgraded meanwhile"
                )
            await _ask_again(asked, old["task_id"], tasks, router)
        except MaestroError as error:
            tasks.restore(old).finish(error)


async def _ask_again(asked: dict[str, Any], task_id: str, tasks: Tasks, router: Router) -> None:
    route, params = router.match(asked["method"], asked["path"])
    request = Request(
        asked["method"],
        asked["path"],
        Peer(*asked["peer"]),
        query=asked["query"],
        body=asked["body"].encode("utf-8", "surrogateescape"),
        params=params,
        role=Role(asked["role"]),
    )
    tasks.next_id = task_id
    try:
        await route.handler(request)
    finally:
        tasks.next_id = ""


__all__ = ["Task", "dump", "remembering", "take_up"]
