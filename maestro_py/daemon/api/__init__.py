# SPDX-License-Identifier: Apache-2.0
"""The /v1 API: one table of routes, and by noun the handlers behind it."""

from __future__ import annotations

from maestro_py.daemon.api.device import Device
from maestro_py.daemon.api.documents import Documents
from maestro_py.daemon.api.happenings import Happenings
from maestro_py.daemon.api.images import Images
from maestro_py.daemon.api.jobs import Jobs
from maestro_py.daemon.api.logs import Logs
from maestro_py.daemon.api.stored import Stored
from maestro_py.daemon.change import Changer
from maestro_py.daemon.router import Role, Route, bound
from maestro_py.daemon.view import View

READ, OPERATE, ADMIN = Role.READ, Role.OPERATE, Role.ADMIN


def _row(method: str, path: str, handler: str, role: Role, summary: str, query: str = "") -> Route:
    """Return a route that takes these query parameters, given as words, and no others."""
    return Route(method, path, handler, role, summary, frozenset(query.split()))


ROUTES = (
    _row("GET", "/v1/openapi.json", "device.openapi", READ, "This API as an OpenAPI document"),
    _row("GET", "/v1/version", "device.version", READ, "Version, pid and uptime of the daemon"),
    _row("GET", "/v1/status", "jobs.status", READ, "State of jobs", "job memory limit after"),
    _row("POST", "/v1/apply", "documents.apply", ADMIN, "Apply a running config", "dry_run force"),
    _row("POST", "/v1/check", "documents.check", READ, "Check a running config, change nothing"),
    _row("POST", "/v1/diff", "documents.diff", READ, "Plan a running config, change nothing", "force"),
    _row("GET", "/v1/plan", "documents.last_plan", READ, "The plan that was carried out last"),
    _row("POST", "/v1/jobs/{job}/start", "jobs.start", OPERATE, "Start a job and what it depends on"),
    _row("POST", "/v1/jobs/{job}/stop", "jobs.stop", OPERATE, "Stop a job"),
    _row("POST", "/v1/jobs/{job}/restart", "jobs.restart", OPERATE, "Restart a job"),
    _row("POST", "/v1/jobs/{job}/reload", "jobs.reload", OPERATE, "Send a job its reload signal"),
    _row("POST", "/v1/jobs/{job}/pause", "jobs.pause", OPERATE, "Freeze a job; it stays RUNNING"),
    _row("POST", "/v1/jobs/{job}/resume", "jobs.resume", OPERATE, "Let a paused job go on"),
    _row("POST", "/v1/jobs/{job}/enable", "jobs.enable", OPERATE, "Let a job run"),
    _row("POST", "/v1/jobs/{job}/disable", "jobs.disable", OPERATE, "Keep a job stopped"),
    _row("POST", "/v1/jobs/{job}/kill", "jobs.kill", OPERATE, "Send a job a signal"),
    _row("GET", "/v1/jobs/{job}/why", "jobs.why", READ, "Why a job is in its state"),
    _row("GET", "/v1/jobs/{job}/process", "jobs.process", OPERATE, "How to get to where a job runs"),
    _row("GET", "/v1/jobs/{job}/logs", "logs.logs", READ, "Output of a job",
         "n since until offset follow previous"),
    _row("GET", "/v1/events", "happenings.events", READ, "What happened", "since n follow"),
    _row("GET", "/v1/tasks", "happenings.list_tasks", READ, "What is being done"),
    _row("GET", "/v1/tasks/{task}", "happenings.task", READ, "One task", "follow wait"),
    _row("POST", "/v1/tasks/{task}/cancel", "happenings.cancel", OPERATE, "End a task that changed nothing"),
    _row("GET", "/v1/images", "images.images", READ, "Installed images", "limit after"),
    _row("POST", "/v1/image-gc", "images.collect", ADMIN, "Remove images that nobody needs"),
    _row("POST", "/v1/image-verify", "images.verify", OPERATE, "Look for damaged images", "job repair"),
    _row("PUT", "/v1/images/{job}", "images.put_image", ADMIN, "Make an archive a job's image"),
    _row("DELETE", "/v1/images/{job}", "images.remove", ADMIN, "Remove images of a job", "version"),
    _row("POST", "/v1/images/{job}/rollback", "images.roll_back", ADMIN, "Bring a job's last version back"),
    _row("POST", "/v1/images/{job}/pin", "images.pin", ADMIN, "Keep an image from removal", "version"),
    _row("POST", "/v1/images/{job}/unpin", "images.unpin", ADMIN, "Let a pinned image go", "version"),
    _row("PUT", "/v1/jobs/{job}/lock", "images.lock", Role.JOB, "Keep updates of a job waiting"),
    _row("DELETE", "/v1/jobs/{job}/lock", "images.unlock", Role.JOB, "Let a job be updated again"),
    _row("GET", "/v1/configs", "stored.configs", OPERATE, "Configs with their data", "limit after"),
    _row("GET", "/v1/configs/{job}/{name}", "stored.config", OPERATE, "One config"),
    _row("PUT", "/v1/configs/{job}/{name}", "stored.put_config", OPERATE, "Store a config"),
    _row("DELETE", "/v1/configs/{job}/{name}", "stored.delete_config", OPERATE, "Remove a config"),
    _row("GET", "/v1/templates", "stored.templates", READ, "Templates in force", "limit after"),
    _row("GET", "/v1/templates/{name}", "stored.template", READ, "One template"),
    _row("GET", "/v1/running-config", "documents.running_config", OPERATE, "The document in force"),
    _row("GET", "/v1/doctor", "device.doctor", READ, "What this device offers"),
    _row("GET", "/v1/metrics", "device.metrics", READ, "Metrics, as OpenMetrics", "format"),
    _row("POST", "/v1/upgrade", "device.upgrade", ADMIN, "Replace the daemon by what is installed now"),
    _row("POST", "/v1/shutdown", "device.shutdown", ADMIN, "Stop the daemon"),
)  # fmt: skip
"""The table of /v1: method, path, handler (an attribute of Api), least role, summary, names in the query."""


class Api:
    """Handlers of /v1. Each takes a request and answers it, or raises MaestroError."""

    def __init__(self, changer: Changer, device: Device) -> None:
        self.device = device
        self.view = View(changer)
        self.documents = Documents(changer)
        self.jobs = Jobs(changer, self.view)
        self.happenings = Happenings(changer)
        self.logs = Logs(self.view)
        self.images = Images(changer, self.view)
        self.stored = Stored(changer)

    def routes(self) -> list[Route]:
        """Return the table with this object's handlers in it."""
        return bound(ROUTES, self)
