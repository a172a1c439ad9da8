# SPDX-License-Identifier: Apache-2.0
"""What the daemon can measure of its jobs and itself, in the words of OpenMetrics.

https://github.com/prometheus/OpenMetrics/blob/main/specification/OpenMetrics.md. node_exporter's
textfile collector reads the text format before it (0.0.4), which knows neither info nor units.

Loaded when somebody asks for metrics, or a file is to be kept. What has no value has no sample: a job
that does not run uses no memory, a device without a memory controller knows no limit.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping

import maestro_py
from maestro_py.daemon import log
from maestro_py.daemon.change import Changer
from maestro_py.daemon.unit import Unit
from maestro_py.process import kernel
from maestro_py.process.cgroups.accounting import use
from maestro_py.spec.resolved import State
from maestro_py.timing import Timing

CONTENT_TYPE = "application/openmetrics-text; version=1.0.0; charset=utf-8"
TEXT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

FAMILIES = (
    ("maestro_build", "info", "The daemon's version."),
    ("maestro_job", "info", "What a job is: its process, template and image."),
    ("maestro_job_state", "gauge", "1 for the state a job is in, 0 for the others."),
    ("maestro_process_restarts", "counter", "Restarts nobody asked for, by kind of cause."),
    ("maestro_process_ready_seconds", "gauge", "Time from its last launch until it was ready."),
    ("maestro_process_cpu_seconds", "counter", "CPU time used by all its processes."),
    ("maestro_process_memory_bytes", "gauge", "Memory in use, as its group is charged; else resident."),
    ("maestro_process_memory_peak_bytes", "gauge", "Most memory in use so far."),
    ("maestro_process_memory_limit_bytes", "gauge", "Memory it may use."),
    ("maestro_process_oom_kills", "counter", "Kills by the kernel for lack of memory."),
    ("maestro_process_tasks", "gauge", "Processes and threads."),
    ("maestro_process_tasks_limit", "gauge", "Processes and threads it may have."),
    ("maestro_process_io_read_bytes", "counter", "Bytes read from devices."),
    ("maestro_process_io_written_bytes", "counter", "Bytes written to devices."),
    ("maestro_process_log_bytes", "counter", "Bytes of output logged, over all its launches."),
    ("maestro_process_log_dropped_bytes", "counter", "Bytes of output that could not be written."),
    ("maestro_daemon_uptime_seconds", "gauge", "Time since the daemon began."),
    ("maestro_daemon_cpu_seconds", "counter", "CPU time the daemon has used."),
    ("maestro_daemon_memory_bytes", "gauge", "Resident memory of the daemon."),
    ("maestro_daemon_log_bytes", "counter", "Bytes of output logged for all jobs since the daemon began."),
    ("maestro_daemon_loop_round_seconds", "histogram",
     "Duration of the event loop's rounds: an event waits for its turn at most that long."),
    ("maestro_daemon_state_write_seconds", "histogram", "Duration of transactions, by database."),
)  # fmt: skip
"""Name, type and help of every family, in the order in which they are shown."""

_SUFFIX = {"info": "_info", "counter": "_total"}


class Page:
    """Samples as they are written, by family."""

    def __init__(self) -> None:
        self._lines: dict[str, list[str]] = {name: [] for name, _, _ in FAMILIES}
        self._names = {name: name + _SUFFIX.get(type, "") for name, type, _ in FAMILIES}

    def add(self, family: str, value: float | None, **labels: str) -> None:
        """Add a sample of an info, gauge or counter; None adds none."""
        if value is not None:
            self._lines[family].append(f"{self._names[family]}{_labels(labels)} {value!r}")

    def add_timing(self, family: str, timing: Timing, **labels: str) -> None:
        """Add the samples of a histogram."""
        lines, total = self._lines[family], 0
        for bound, count in zip((*map(str, timing.BOUNDS), "+Inf"), timing.counts, strict=True):
            total += count
            lines.append(f"{family}_bucket{_labels({**labels, 'le': bound})} {total}")
        lines.append(f"{family}_count{_labels(labels)} {total}")
        lines.append(f"{family}_sum{_labels(labels)} {timing.sum!r}")

    def render(self, *, openmetrics: bool = True) -> str:
        """Return the page; openmetrics False: in the text format before."""
        lines: list[str] = []
        for name, type, help in FAMILIES:
            if not self._lines[name]:
                continue
            family = name
            if not openmetrics:
                family, type = self._names[name], "gauge" if type == "info" else type
            lines.append(f"# TYPE {family} {type}")
            unit = name.rpartition("_")[2]
            if openmetrics and unit in ("seconds", "bytes"):
                lines.append(f"# UNIT {family} {unit}")
            lines.append(f"# HELP {family} {help}")
            lines += self._lines[name]
        if openmetrics:
            lines.append("# EOF")
        return "\n".join(lines) + "\n"


def _labels(labels: Mapping[str, str]) -> str:
    if not labels:
        return ""
    return "{" + ",".join(f'{name}="{_escape(value)}"' for name, value in labels.items()) + "}"


def _escape(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')


async def collect(changer: Changer) -> Page:
    """Return a page of what is now; others have their turn between two processes."""
    supervisor, page = changer.supervisor, Page()
    for job in sorted(changer.jobs.values(), key=lambda job: job.job):
        image = changer.current.get(job.job)
        page.add(
            "maestro_job",
            1,
            job=job.job,
            process=job.process,
            template=job.container_template,
            image_version=image.version if image else "",
        )
        unit = supervisor.units.get(job.process)
        now = unit.life.state if unit else State.NEVER_RAN
        if job.disabled and unit and unit.process.enabled:
            now = State.STOPPED  # the others of its composite run, it does not
        for state in State:
            page.add("maestro_job_state", int(state is now), job=job.job, state=state.value)
    for name in sorted(supervisor.units):
        unit = supervisor.units.get(name)
        if unit is not None:
            _process(page, unit)
        await supervisor.loop.sleep(0)
    _daemon(page, changer)
    return page


def _process(page: Page, unit: Unit) -> None:
    name = unit.name
    for cause, count in sorted(unit.restarts.items()):
        page.add("maestro_process_restarts", count, process=name, cause=cause)
    page.add("maestro_process_ready_seconds", unit.ready_after, process=name)
    if unit.output:
        page.add("maestro_process_log_bytes", unit.output.position, process=name)
        page.add("maestro_process_log_dropped_bytes", unit.output.dropped, process=name)
    if unit.cgroup is None or unit.pid is None:
        return
    used, memory = use(unit.cgroup), unit.cgroup.memory()
    for family, value in (
        ("cpu_seconds", used.cpu),
        ("memory_bytes", used.memory),
        ("memory_peak_bytes", memory.peak),
        ("memory_limit_bytes", memory.limit),
        ("oom_kills", memory.oom_kills),
        ("tasks", used.tasks),
        ("tasks_limit", unit.process.limits.pids_max),
        ("io_read_bytes", used.read),
        ("io_written_bytes", used.written),
    ):
        page.add(f"maestro_process_{family}", value, process=name)


def _daemon(page: Page, changer: Changer) -> None:
    supervisor = changer.supervisor
    page.add("maestro_build", 1, version=maestro_py.__version__)
    page.add("maestro_daemon_uptime_seconds", supervisor.loop.time() - supervisor.began)
    page.add("maestro_daemon_cpu_seconds", time.process_time())
    with open("/proc/self/statm", "rb") as file:
        page.add("maestro_daemon_memory_bytes", int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE"))
    page.add("maestro_daemon_log_bytes", supervisor.runner.capture.logged)
    page.add_timing("maestro_daemon_loop_round_seconds", supervisor.loop.rounds)
    for database, store in (("run", supervisor.run_store), ("state", supervisor.store)):
        page.add_timing("maestro_daemon_state_write_seconds", store.writes, database=database)


async def page(changer: Changer, *, openmetrics: bool) -> bytes:
    """Return the metrics of this moment, as OpenMetrics or in the text format before."""
    text = (await collect(changer)).render(openmetrics=openmetrics)
    kernel.trim()  # what it took to write them is a multiple of them
    return text.encode("utf-8", "replace")


async def keep_file(changer: Changer, path: str, interval: float) -> None:
    """Write the metrics to a file again and again, each time as a whole; trouble is logged once."""
    trouble = ""
    while True:
        text = await page(changer, openmetrics=False)
        try:
            write_file(path, text)
            trouble = ""
        except OSError as error:
            if str(error.strerror) != trouble:
                trouble = str(error.strerror)
                log.error(f"cannot write the metrics file {path}: {trouble}")
        await changer.supervisor.loop.sleep(interval)


def write_file(path: str, text: bytes) -> None:
    """Put a text in the place of a file; a reader sees the old one or the new. Raises OSError.

    It is not synchronised to disk: after a power cut nobody wants old metrics.
    """
    temporary = f"{path}.new"  # the collector reads names that end in .prom
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
    with open(fd, "wb") as file:
        file.write(text)
    os.rename(temporary, path)
