# SPDX-License-Identifier: Apache-2.0
"""What the API shows of jobs: rows for `status`, sentences for `why`."""

from __future__ import annotations

from typing import Any

from maestro_py.daemon.change import Changer
from maestro_py.daemon.unit import Unit
from maestro_py.errors import NotFound
from maestro_py.lifecycle import ALIVE
from maestro_py.spec.model import JobSpec
from maestro_py.spec.nearest import nearest
from maestro_py.spec.resolved import State
from maestro_py.why import why


class View:
    """Reads the supervisor and the wanted state; changes nothing."""

    def __init__(self, changer: Changer) -> None:
        self.changer = changer
        self.supervisor = changer.supervisor

    def job(self, name: str) -> JobSpec:
        """Return a job by name; NotFound suggests a near one."""
        jobs = self.changer.jobs
        if name in jobs:
            return jobs[name]
        raise NotFound(f"no job {name}", hint=_near(name, list(jobs)))

    def unit(self, job: str) -> Unit:
        """Return the unit a job runs in."""
        return self.supervisor.unit(self.job(job).process)

    def enabled(self, job: JobSpec) -> bool:
        """Whether a job is meant to run at all."""
        return not job.disabled

    def rows(self, names: list[str], *, memory: bool) -> list[dict[str, Any]]:
        """Return status rows, sorted by job. memory: read the control groups too, some files per job."""
        jobs = [self.job(name) for name in dict.fromkeys(names)] or self.changer.jobs.values()
        return [self._row(job, memory) for job in sorted(jobs, key=lambda job: job.job)]

    def _row(self, job: JobSpec, memory: bool) -> dict[str, Any]:
        unit = self.supervisor.units.get(job.process)
        image = self.changer.current.get(job.job)
        row: dict[str, Any] = {
            "job": job.job,
            "state": State.NEVER_RAN.value,
            "pid": None,
            "composite_id": job.composite_id,
            "template": job.container_template,
            "restarts": 0,
            "image_version": image.version if image else "",
            "since": None,
            "cause": "",
            "memory": None,
            "ready": False,
            "enabled": not job.disabled,
            "process": job.process,
            "paused": False,
            "last_death": "",
        }
        if unit is None:
            return row
        if job.disabled and unit.process.enabled:
            # the others of its composite run, it does not
            row.update(state=State.STOPPED.value, cause="disabled", since=unit.since)
            return row
        life = unit.life
        row.update(
            state=life.state.value,
            pid=unit.pid,
            restarts=life.restarts,
            since=unit.since,
            cause=self._cause(unit),
            ready=life.state is State.RUNNING,
            paused=bool(unit.paused),
            last_death=unit.death.text,
        )
        if unit.paused:
            row["cause"] = f"paused by {unit.paused}"
        if memory and unit.cgroup and life.state in ALIVE:
            use = unit.cgroup.memory()
            row["memory"] = {"current": use.current, "peak": use.peak, "limit": use.limit}
        return row

    def _memory(self, unit: Unit) -> tuple[int | None, int | None, int | None]:
        if unit.cgroup is None or unit.pid is None:
            return None, None, None
        use = unit.cgroup.memory()
        return use.current, use.peak, use.limit

    def _cause(self, unit: Unit) -> str:
        """Return the one line that says why a unit is as it is."""
        held = self.changer.sources.held.get(unit.name)
        if unit.life.state is State.WAITING_FOR_DEPS:
            return self.changer.settling.explain(unit).removeprefix("it ")
        if unit.life.state is not State.RUNNING:
            return unit.life.cause.text
        if held and held.refused:
            return held.reason
        return unit.life.cause.text if unit.life.restarts else ""

    def why(self, name: str) -> list[str]:
        """Return why a job is in its state, in sentences."""
        job = self.job(name)
        unit = self.supervisor.unit(job.process)
        if job.disabled:
            lines = [f"{name} is disabled: `maestro enable {name}` lets it run."]
            if unit.process.enabled:
                lines.append(f"The others of its composite {job.process} are {unit.life.state.value}.")
            return lines
        held = self.changer.sources.held.get(job.process)
        others = {n: u.life for n, u in self.supervisor.units.items()}
        lines = why(
            unit.process,
            unit.life,
            others,
            self.supervisor.loop.time(),
            held.reason if held else "",
            paused=unit.paused,
            death=unit.death.text,
            needs={n: u.process.depends_on for n, u in self.supervisor.units.items()},
            memory=self._memory(unit),
        )
        if job.composite_id:
            lines.insert(
                0, f"{name} runs in the composite {job.process} ({', '.join(unit.process.members)})."
            )
        return lines


def _near(name: str, known: list[str]) -> str:
    near, _ = nearest(name, known)
    return f"did you mean {near}?" if near else "`maestro status` lists the jobs"
