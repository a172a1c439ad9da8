# SPDX-License-Identifier: Apache-2.0
"""Upstream maestro's routes beside /v1: same paths, bodies and status codes, with the stubs made real.

Source of the shapes: PelionIoT/maestro v3 and maestroSpecs. Restarts, pid and errno of `/jobs` are
strings there, `details:` carries a stray colon on `/ops`, and a missing config answers 204.
"""

from __future__ import annotations

from maestro_py.daemon.api import Api
from maestro_py.daemon.change import Changer
from maestro_py.daemon.messages import Request, Response, json_response
from maestro_py.daemon.router import Role, Route, bound
from maestro_py.daemon.upstream.configs import Configs
from maestro_py.daemon.upstream.jobs import Jobs
from maestro_py.daemon.upstream.network import Network
from maestro_py.daemon.upstream.operations import Operations
from maestro_py.daemon.upstream.processes import Processes

JOB, READ, OPERATE, ADMIN = Role.JOB, Role.READ, Role.OPERATE, Role.ADMIN

ROUTES = (
    Route("GET", "/", "welcome", Role.NONE, "Greeting; the dashboard for a browser"),
    Route("GET", "/hello/{name}", "hello", READ, "Greeting by name"),
    Route("GET", "/alive", "alive", READ, "Whether the daemon lives"),
    Route("POST", "/process", "processes.start", ADMIN, "Run a program that is no job"),
    Route("GET", "/runningProcesses", "processes.running", READ, "Processes of jobs and programs"),
    Route("GET", "/events", "processes.events", READ, "Wait for events of processes and take them"),
    Route("GET", "/processStarted", "processes.ignored", READ, "Nothing, as upstream"),
    Route("POST", "/processFailed", "processes.ignored", OPERATE, "Nothing, as upstream"),
    Route("POST", "/image", "operations.post_image", ADMIN, "Install an image"),
    Route("POST", "/ops", "operations.post_ops", ADMIN, "Several operations in order"),
    Route("POST", "/job", "operations.post_job", ADMIN, "Add, update or remove jobs"),
    Route("DELETE", "/job", "jobs.delete_jobs", ADMIN, "Stop and remove jobs"),
    Route("GET", "/jobs", "jobs.get_jobs", READ, "All jobs"),
    Route("GET", "/job/{job}", "jobs.get_job", READ, "One job"),
    Route("PUT", "/job/{job}", "jobs.put_job", OPERATE, "Start, stop, restart or kill a job"),
    Route("DELETE", "/job/{job}", "jobs.delete_job", ADMIN, "Stop and remove a job"),
    Route("GET", "/containerTemplate", "operations.get_templates", READ, "All container templates"),
    Route("POST", "/containerTemplate", "operations.post_template", ADMIN, "Add a container template"),
    Route("GET", "/containerTemplate/{name}", "operations.get_template", READ, "One container template"),
    Route("PUT", "/containerTemplate/{name}", "operations.post_template", ADMIN, "Replace a template"),
    Route("DELETE", "/containerTemplate/{name}", "operations.delete_template", ADMIN, "Remove a template"),
    Route("GET", "/statsConfig", "processes.get_stats", READ, "How often statistics are made"),
    Route("POST", "/statsConfig", "processes.post_stats", ADMIN, "Say how often statistics are made"),
    Route("GET", "/jobConfig", "configs.get_configs", OPERATE, "All configs"),
    Route("GET", "/jobConfig/{job}", "configs.get_configs", JOB, "Configs of a job"),
    Route("GET", "/jobConfig/{job}/{name}", "configs.get_config", JOB, "One config of a job"),
    Route("POST", "/jobConfig/{job}/{name}", "configs.post_config", OPERATE, "Store a config"),
    Route("DELETE", "/jobConfig/{job}/{name}", "configs.delete_config", OPERATE, "Remove a stored config"),
    Route("GET", "/status/{task}", "jobs.get_status", READ, "Status of a task"),
    Route("GET", "/net/interfaces", "network.interfaces", READ, "Network interfaces of the device"),
    Route("PUT", "/net/interfaces", "network.refused", ADMIN, "Refused: the network is the system's"),
    Route("GET", "/net/events", "network.subscribe", READ, "Subscribe to changes of interfaces"),
    Route("GET", "/net/events/{id}", "network.events", READ, "Wait for changes of interfaces"),
    Route("GET", "/net/dns", "network.nameservers", READ, "Name servers of the device"),
    Route("POST", "/net/dns", "network.refused", ADMIN, "Refused: the network is the system's"),
    Route("DELETE", "/net/dns", "network.refused", ADMIN, "Refused: the network is the system's"),
    Route("POST", "/reboot", "reboot", ADMIN, "Refused: the system reboots the device"),
    Route("POST", "/shutdown", "api.device.shutdown", ADMIN, "Stop the daemon"),
)  # fmt: skip
"""The table of upstream's routes; handlers are attributes of Upstream."""


class Upstream:
    """Handlers of upstream's routes."""

    def __init__(self, changer: Changer, api: Api) -> None:
        self.api = api
        self.loop = changer.supervisor.loop
        self.operations = Operations(changer)
        self.jobs = Jobs(changer, api)
        self.configs = Configs(changer, api)
        self.processes = Processes(changer)
        self.network = Network(self.loop)
        self._started = self.loop.time()

    def routes(self) -> list[Route]:
        """Return the table with this object's handlers in it."""
        return bound(ROUTES, self)

    async def welcome(self, request: Request) -> Response:
        if "text/html" in request.header("accept"):
            from maestro_py.daemon import dashboard  # few devices open a port for it

            return dashboard.page()
        return Response(body=b"Welcome!\n", content_type="text/plain", headers=[("vary", "accept")])

    async def hello(self, request: Request) -> Response:
        return Response(body=f"hello, {request.params['name']}!\n".encode(), content_type="text/plain")

    async def alive(self, request: Request) -> Response:
        return json_response({"ok": True, "uptime": round((self.loop.time() - self._started) * 1e9)})

    async def reboot(self, request: Request) -> Response:
        return json_response({"error": "maestro does not reboot the device: ask its init system"}, 403)
