# SPDX-License-Identifier: Apache-2.0
"""Rules that only show once jobs, templates, images and configs of all sources are seen together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from maestro_py.errors import Problem
from maestro_py.spec.checks import composite_clashes
from maestro_py.spec.graph import find_cycle
from maestro_py.spec.model import (
    DEFAULT_CONFIG_NAME,
    ConfigSpec,
    ImageSpec,
    JobSpec,
    Settings,
    TemplateSpec,
)
from maestro_py.spec.reader import Reading

_PER_MEMBER = frozenset(("cgroup", "inherit_env", "wait_for_ok"))
_RESTART = ("restart", "restart_limit", "restart_pause", "restart_policy", "restart_backoff")


def check_references(
    jobs: Iterable[JobSpec],
    templates: Iterable[TemplateSpec],
    images: Iterable[ImageSpec],
    configs: Iterable[ConfigSpec],
) -> tuple[list[Problem], list[Problem]]:
    """Return errors and warnings about what refers to what.

    Paths name the thing instead of its place in a list, since the lists may come from several documents.
    """
    check = _Check(jobs, templates, images, configs)
    check.run()
    return check.reading.problems, check.reading.warnings


class _Check:
    def __init__(
        self,
        jobs: Iterable[JobSpec],
        templates: Iterable[TemplateSpec],
        images: Iterable[ImageSpec],
        configs: Iterable[ConfigSpec],
    ) -> None:
        self.reading = Reading()
        self.jobs = {job.job: job for job in jobs}
        self.templates = {template.name: template for template in templates}
        self.images = {image.job: image for image in images}
        self.configs = {(config.job, config.name): config for config in configs}
        self.composites: dict[str, list[JobSpec]] = {}
        for job in self.jobs.values():
            if job.composite_id:
                self.composites.setdefault(job.composite_id, []).append(job)

    def run(self) -> None:
        """Look at everything once."""
        ordered = list(self.jobs.values())
        for index, name in composite_clashes(ordered):
            self.reading.problem(
                f"{_at(ordered[index])}.composite_id",
                f'"{name}" is also the name of a job outside this composite',
            )
        for job in ordered:
            self._job(job)
        for name, members in self.composites.items():
            self._composite(name, members)
        self._dependencies()
        self._owners()
        self._credentials()

    def _job(self, job: JobSpec) -> None:
        at = _at(job)
        template = self.templates.get(job.container_template)
        if job.container_template and template is None:
            self.reading.problem(
                f"{at}.container_template",
                f'no template is called "{job.container_template}"',
                self.reading.suggest(job.container_template, self.templates),
            )
        elif not job.composite_id and not job.exec_cmd and not (template and template.exec_cmd):
            why = (
                "neither the job nor its template names a program" if template else "the job names no program"
            )
            self.reading.problem(f"{at}.exec_cmd", why)
        for settings in (job.settings, template.settings if template else Settings()):
            if settings.chroot_image is not None:
                if settings.chroot_image and job.job not in self.images and not job.composite_id:
                    self._no_root(job, template)
                break
        if job.config_name not in ("", DEFAULT_CONFIG_NAME) and not job.config:
            known = [name for owner, name in self.configs if owner == job.job]
            if job.config_name not in known:
                self.reading.warn(
                    f"{at}.config_name",
                    f'no config of this job is called "{job.config_name}"; it starts without',
                    self.reading.suggest(job.config_name, known),
                )

    def _no_root(self, job: JobSpec, template: TemplateSpec | None) -> None:
        if job.settings.chroot_path or (template and template.settings.chroot_path):
            return
        self.reading.problem(f"{_at(job)}.chroot_image", "the root shall be its image, and it has no image")

    def _composite(self, name: str, members: Sequence[JobSpec]) -> None:
        first = members[0]
        for job in members:
            at = _at(job)
            if not job.container_template:
                self.reading.problem(
                    f"{at}.container_template", f'is missing; the jobs of composite "{name}" need one'
                )
            elif job.container_template != first.container_template and first.container_template:
                self.reading.problem(
                    f"{at}.container_template",
                    f'is "{job.container_template}", but "{first.job}" of the same composite "{name}" '
                    f'has "{first.container_template}"',
                )
            if job.message:
                self.reading.problem(
                    f"{at}.message", f'cannot be sent: composite "{name}" shares one standard input'
                )
        template = self.templates.get(first.container_template)
        if template is None:
            return
        if not template.exec_cmd:
            self.reading.problem(
                f"{_at(first)}.container_template",
                f'template "{template.name}" names no program (exec_cmd) to run composite "{name}"',
            )
        settings = [job.settings for job in members]
        if any(s.chroot_image for s in (*settings, template.settings)) and not any(
            job.job in self.images for job in members
        ):
            self._no_root(first, template)
        if template.send_composite_jobs_to_stdin:
            for job in members:
                if not job.exec_cmd and job.job not in self.images:
                    self.reading.warn(
                        _at(job),
                        f'has no exec_cmd and no image: composite "{name}" has nothing to load for it',
                    )
        self._disagreements(name, [job for job in members if not job.disabled])

    def _disagreements(self, name: str, members: Sequence[JobSpec]) -> None:
        said: dict[str, tuple[str, object]] = {}
        for job in sorted(members, key=lambda each: each.job):
            for attr, value in vars(job.settings).items():
                if value is None or attr in _PER_MEMBER or attr in _RESTART:
                    continue
                owner, first = said.setdefault(attr, (job.job, value))
                if first != value:
                    self.reading.warn(
                        f"{_at(job)}.{attr}",
                        f'differs from "{owner}" of the same composite "{name}", whose value counts',
                    )

    def _dependencies(self) -> None:
        graph: dict[str, dict[str, None]] = {}
        told: set[tuple[str, str]] = set()
        for job in self.jobs.values():
            edges = graph.setdefault(job.process, {})
            template = self.templates.get(job.container_template)
            for name in job.depends_on:
                self._dependency(job, name, f"{_at(job)}.depends_on", edges)
            for level in (job.settings, *((template.settings,) if template else ())):
                if level.on_failure and level.on_failure.job not in ("", *self.jobs):
                    name = level.on_failure.job
                    hint = self.reading.suggest(name, self.jobs)
                    self.reading.problem(f"{_at(job)}.on_failure.job", f'no job is called "{name}"', hint)
            for name in template.depends_on if template else ():
                at = f'templates["{job.container_template}"].depends_on'
                known = self.jobs.get(name)
                if known is not None and known.process == job.process:
                    if (at, job.process) not in told:
                        told.add((at, job.process))
                        self.reading.warn(at, f'"{name}" cannot wait for itself; ignored for "{job.process}"')
                elif known is not None or (at, name) not in told:
                    told.add((at, name))
                    self._dependency(job, name, at, edges)
        cycle = find_cycle(graph)
        if cycle:
            self.reading.problem("", f"jobs depend on each other in a circle: {' -> '.join(cycle)}")

    def _dependency(self, job: JobSpec, name: str, at: str, edges: dict[str, None]) -> None:
        other = self.jobs.get(name)
        if other is None:
            hint = self.reading.suggest(name, self.jobs)
            if name in self.composites:
                hint = f'"{name}" is a composite; name one of its jobs'
            self.reading.problem(at, f'no job is called "{name}"', hint)
        elif other.process == job.process and job.composite_id:
            self.reading.warn(at, f'"{name}" is in the same composite "{job.composite_id}"; ignored')
        else:
            edges[other.process] = None
            if other.disabled and not job.disabled:
                self.reading.warn(at, f'"{name}" is disabled, so "{job.job}" will wait for it')

    def _owners(self) -> None:
        named: list[tuple[str, str, Mapping[str, object]]] = [
            (image, f'images["{image}"]', self.jobs) for image in self.images
        ]
        named += [(job, f'configs["{job}/{name}"]', self.jobs) for job, name in self.configs]
        for job, at, jobs in named:
            if job not in jobs:
                self.reading.warn(
                    at, f'belongs to job "{job}", which does not exist', self.reading.suggest(job, jobs)
                )

    def _credentials(self) -> None:
        """Check that the secrets of whoever asks for images and files are there."""
        asking = [(image.job, f'images["{image.job}"]', image.credentials) for image in self.images.values()]
        for config in self.configs.values():
            at = f'configs["{config.job}/{config.name}"].files'
            asking += [(config.job, f"{at}[{n}]", file.credentials) for n, file in enumerate(config.files)]
        for name, at, credentials in asking:
            job = self.jobs.get(name)
            if credentials and job:
                known = self._secrets(job)
                if credentials.secret not in known:
                    why = f'job "{name}" has no secret called "{credentials.secret}"'
                    self.reading.problem(
                        f"{at}.credentials.secret", why, self.reading.suggest(credentials.secret, known)
                    )

    def _secrets(self, job: JobSpec) -> set[str]:
        """Return the names of the secrets that the process of a job may have."""
        found: set[str] = set()
        for each in self.composites.get(job.composite_id, [job]):
            template = self.templates.get(each.container_template)
            for settings in (each.settings, template.settings if template else Settings()):
                found |= {secret.name for secret in settings.secrets or ()}
        return found


def _at(job: JobSpec) -> str:
    return f'jobs["{job.job}"]'
