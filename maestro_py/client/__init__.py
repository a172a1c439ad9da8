# SPDX-License-Identifier: Apache-2.0
"""The socket API of maestrod as a Python class. The command and the adapters talk through this alone.

    client = Client()
    task = client.apply(document)["task_id"]
    for state in client.follow_task(task): ...

Small on purpose: a command that asks one thing shall not spend its time importing. Each call is one
connection, so a client has no state, may be shared, and needs no closing; streams do.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from maestro_py.client.stream import Stream, open_stream, quote

TYPE_CHECKING = False  # what typing's constant is, without importing typing
if TYPE_CHECKING:
    from typing import Any

    from maestro_py.client.lines import Lines

DEFAULT_SOCKET = "/run/maestro/maestro.sock"
TIMEOUT = 60.0
"""Seconds for an answer to begin and between its pieces. Streams that follow have no limit between pieces."""


class Client:
    """Calls of the API. Answers are the decoded JSON; see `GET /v1/openapi.json` for what is in them.

    socket_path: None takes $MAESTRO_SOCKET, else /run/maestro/maestro.sock. timeout: seconds, None for none.

    All calls raise MaestroError: what the daemon answered, Unavailable when there is none to be reached,
    TimedOut when it does not answer in time.
    """

    def __init__(self, socket_path: str | None = None, timeout: float | None = TIMEOUT) -> None:
        self.socket_path = socket_path or os.environ.get("MAESTRO_SOCKET") or DEFAULT_SOCKET
        self.timeout = timeout

    # The daemon

    def version(self) -> Any:
        """Return version, pid, uptime in seconds and root directory of the daemon."""
        return self.request("GET", "/v1/version")

    def doctor(self) -> Any:
        """Return what the device offers."""
        return self.request("GET", "/v1/doctor")

    def metrics(self, *, openmetrics: bool = True) -> str:
        """Return the metrics as OpenMetrics, or in the Prometheus text format that came before it."""
        page: bytes = self.request("GET", "/v1/metrics", {"format": "openmetrics" if openmetrics else "text"})
        return page.decode()

    def upgrade(self) -> Any:
        """Have the daemon replaced in place by what is installed now; return versions, pid and generation.

        It takes over soon after; `version` then tells that generation. Raises MaestroError when the new
        one could not go on, and then nothing has changed.
        """
        return self.request("POST", "/v1/upgrade", extra=60)

    def shutdown(self, jobs: str | None = None) -> Any:
        """Stop the daemon. jobs: `stop`, `keep`, or None for what its config says."""
        return self.request("POST", "/v1/shutdown", body={"jobs": jobs})

    # The running config

    def apply(self, document: object, *, dry_run: bool = False, force: bool = False) -> Any:
        """Apply a running config; return task_id, plan and warnings. Raises InvalidDocument, Conflict."""
        return self.request("POST", "/v1/apply", {"dry_run": dry_run, "force": force}, document)

    def check(self, document: object) -> Any:
        """Have a running config validated. Raises InvalidDocument."""
        return self.request("POST", "/v1/check", body=document)

    def diff(self, document: object) -> Any:
        """Return the plan that applying would carry out. Raises InvalidDocument."""
        return self.request("POST", "/v1/diff", body=document)

    def last_plan(self) -> Any:
        """Return the plan that was carried out last: what for, when, how many steps, the first of them."""
        return self.request("GET", "/v1/plan")

    def running_config(self) -> Any:
        """Return the document in force."""
        return self.request("GET", "/v1/running-config")

    # Jobs

    def status(self, jobs: list[str] | tuple[str, ...] = (), *, memory: bool = False) -> Any:
        """Return the state of these jobs, of all when none is named. Raises NotFound.

        memory: what they use of it too, which costs the daemon a look at each group.
        """
        return self.request("GET", "/v1/status", {"job": list(jobs), "memory": memory})

    def action(self, job: str, verb: str) -> Any:
        """Have something done to a job; return the task's id.

        verb: start, stop, restart, reload, pause, resume, enable or disable.
        """
        return self.request("POST", f"/v1/jobs/{quote(job)}/{quote(verb)}")

    def kill(self, job: str, signal: str = "SIGTERM") -> Any:
        """Send a signal to a job's process."""
        return self.request("POST", f"/v1/jobs/{quote(job)}/kill", body={"signal": signal})

    def why(self, job: str) -> Any:
        """Return sentences that say why a job is in its state."""
        return self.request("GET", f"/v1/jobs/{quote(job)}/why")

    def process(self, job: str) -> Any:
        """Return what leads to a job's process: pid, start ticks, boot id. Raises Conflict."""
        return self.request("GET", f"/v1/jobs/{quote(job)}/process")

    def logs(
        self,
        job: str,
        n: int | None = None,
        *,
        follow: bool = False,
        previous: bool = False,
        since: float | None = None,
        until: float | None = None,
        offset: int | None = None,
    ) -> Stream:
        """Return the job's output in pieces, the last `n` lines; `follow` goes on with what comes.

        since, until: unix seconds. offset: a place in the log; `offset` of the stream says where it is.
        """
        query = {
            "n": n, "follow": follow, "previous": previous, "since": since, "until": until, "offset": offset
        }  # fmt: skip
        return self.stream("GET", f"/v1/jobs/{quote(job)}/logs", query)

    # What happens

    def events(self, since: int | None = None, *, follow: bool = False, n: int | None = None) -> Lines:
        """Return events after number `since`, at most the last `n`; `follow` goes on with what comes.

        Followed ones go on after an upgrade or a quick restart of the daemon, none lost and none twice.
        """

        from maestro_py.client.lines import Lines

        def ask(last: Any) -> Stream:
            query = {"since": since, "n": n} if last is None else {"since": last["id"]}
            return self.stream("GET", "/v1/events", {**query, "follow": follow})

        return Lines(ask(None), ask if follow else None)

    def tasks(self) -> Any:
        """Return what is being done and was done lately."""
        return self.request("GET", "/v1/tasks")

    def task(self, task_id: str, wait: float | None = None) -> Any:
        """Return a task, at its end or after `wait` seconds, whichever is first."""
        return self.request("GET", f"/v1/tasks/{quote(task_id)}", {"wait": wait}, extra=wait or 0)

    def cancel_task(self, task_id: str) -> Any:
        """End a task that has not changed anything yet; return it. Raises Conflict when it is too late."""
        return self.request("POST", f"/v1/tasks/{quote(task_id)}/cancel")

    def follow_task(self, task_id: str) -> Lines:
        """Return the task again and again, once for each change, until it has ended.

        Goes on after an upgrade of the daemon.
        """

        from maestro_py.client.lines import Lines

        def ask(last: Any) -> Stream:
            return self.stream("GET", f"/v1/tasks/{quote(task_id)}", {"follow": True})

        return Lines(ask(None), ask)

    # What is stored

    def images(self) -> Any:
        """Return the images on the device."""
        return self.request("GET", "/v1/images")

    def image_install(self, job: str, image: object) -> Any:
        """Make an image a job's, as an entry of `images` without its `job`; return the task's id.

        Raises NotFound, InvalidDocument.
        """
        return self.request("PUT", f"/v1/images/{quote(job)}", body=image)

    def image_rollback(self, job: str) -> Any:
        """Bring the version before a job's current image back; return the task's id. Raises NotFound."""
        return self.request("POST", f"/v1/images/{quote(job)}/rollback")

    def image_verify(self, job: str = "", *, repair: bool = False) -> Any:
        """Look for damaged images, of one job or all; return the task's id. repair: fetch them anew."""
        return self.request("POST", "/v1/image-verify", {"job": job or None, "repair": repair})

    def image_pin(self, job: str, version: str = "", *, on: bool = True) -> Any:
        """Keep a version, by default the current one, from every removal, or not any more; return its row."""
        verb = "pin" if on else "unpin"
        return self.request("POST", f"/v1/images/{quote(job)}/{verb}", {"version": version or None})

    def image_remove(self, job: str, version: str = "") -> Any:
        """Remove a version, or all of a job that nobody uses; return them as `removed`. Raises Conflict."""
        return self.request("DELETE", f"/v1/images/{quote(job)}", {"version": version or None})

    def image_gc(self) -> Any:
        """Remove every version that nobody needs; return their names as `removed`."""
        return self.request("POST", "/v1/image-gc")

    def lock(self, job: str, reason: str = "") -> Any:
        """Keep updates from taking a job down until `unlock`; return who holds the lock and since when."""
        return self.request("PUT", f"/v1/jobs/{quote(job)}/lock", body={"reason": reason})

    def unlock(self, job: str) -> Any:
        """Give a job's update lock back; what waited for it is carried out. Raises NotFound."""
        return self.request("DELETE", f"/v1/jobs/{quote(job)}/lock")

    def configs(self) -> Any:
        """Return all configs."""
        return self.request("GET", "/v1/configs")

    def config_get(self, job: str, name: str) -> Any:
        """Return one config. Raises NotFound."""
        return self.request("GET", f"/v1/configs/{quote(job)}/{quote(name)}")

    def config_put(self, job: str, name: str, config: object) -> Any:
        """Store a config. Raises InvalidDocument."""
        return self.request("PUT", f"/v1/configs/{quote(job)}/{quote(name)}", body=config)

    def config_delete(self, job: str, name: str) -> Any:
        """Remove a config. Raises NotFound."""
        return self.request("DELETE", f"/v1/configs/{quote(job)}/{quote(name)}")

    def templates(self) -> Any:
        """Return all container templates."""
        return self.request("GET", "/v1/templates")

    def template(self, name: str) -> Any:
        """Return one container template. Raises NotFound."""
        return self.request("GET", f"/v1/templates/{quote(name)}")

    # Anything

    def request(
        self,
        method: str,
        path: str,
        query: Mapping[str, object] | None = None,
        body: object = None,
        *,
        extra: float = 0,
    ) -> Any:
        """Return the answer: decoded when it is JSON, None when it is empty, else bytes.

        path: percent-encoded. query: a list gives its name several times; None and False leave it out.
        body: bytes are sent as they are, anything but None as JSON. extra: seconds beyond the timeout.
        """
        timeout = None if self.timeout is None else self.timeout + extra
        with open_stream(self.socket_path, timeout, method, path, query, body) as stream:
            data = b"".join(stream)
            if not data:
                return None
            return stream.decode(data) if stream.content_type == "application/json" else data

    def stream(self, method: str, path: str, query: Mapping[str, object] | None = None) -> Stream:
        """Return an answer in pieces as they come, without a limit in time between them."""
        stream = open_stream(self.socket_path, self.timeout, method, path, query)
        stream.wait_for_ever()
        return stream
