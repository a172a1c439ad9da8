# SPDX-License-Identifier: Apache-2.0
"""Jobs, templates, images and configs to processes. Pure: the places are an argument.

What a job says wins over its template. In a composite the process takes, for each setting, what its
first enabled member by name says, then the template; restarts follow the member that asks for most.
Rules of argv, environment and standard input: maestro's, with an absent program left out instead of
cutting the line, and names in `{{...}}` filled in.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from maestro_py.errors import InvalidDocument, Problem
from maestro_py.spec.merge import implied, limits, merge, probation
from maestro_py.spec.model import (
    DEFAULT_CONFIG_NAME,
    OK_STRING,
    Backoff,
    ConfigSpec,
    Health,
    ImageSpec,
    JobSpec,
    Network,
    OnFailure,
    RestartPolicy,
    Settings,
    TemplateSpec,
)
from maestro_py.spec.names import safe_name
from maestro_py.spec.payload import composite_stdin
from maestro_py.spec.places import CONFIGS_INSIDE, Own, Places, image_inside
from maestro_py.spec.resolved import ImageRef, Ready, ResolvedProcess, Restart
from maestro_py.spec.substitute import TooLong, names, substitute

_EAGERNESS = (
    RestartPolicy.NEVER,
    RestartPolicy.ON_FAILURE,
    RestartPolicy.UNLESS_STOPPED,
    RestartPolicy.ALWAYS,
)


def resolve(
    jobs: Iterable[JobSpec],
    templates: Iterable[TemplateSpec],
    images: Iterable[ImageSpec],
    configs: Iterable[ConfigSpec],
    places: Places,
) -> dict[str, ResolvedProcess]:
    """Return every process by name, in the order of its first job.

    A process without an enabled member is there too, not `enabled`, and shows what it would be.
    An entry of `configs` goes before a job's inline config of the same name.
    Raises InvalidDocument with everything that cannot be resolved.
    """
    parts = _Parts(
        {template.name: template for template in templates},
        {image.job: image for image in images},
        _by_job(configs),
        places,
    )
    groups: dict[str, list[JobSpec]] = {}
    for job in jobs:
        groups.setdefault(job.process, []).append(job)
        parts.process_of[job.job] = job.process
    found = {name: _Process(name, members, parts).resolve() for name, members in groups.items()}
    if parts.problems:
        raise InvalidDocument("running config", parts.problems)
    return found


def _by_job(configs: Iterable[ConfigSpec]) -> dict[str, dict[str, ConfigSpec]]:
    found: dict[str, dict[str, ConfigSpec]] = {}
    for config in configs:
        found.setdefault(config.job, {})[config.name] = config
    return found


@dataclass
class _Parts:
    """What all processes are resolved from, and the problems met."""

    templates: Mapping[str, TemplateSpec]
    images: Mapping[str, ImageSpec]
    configs: Mapping[str, Mapping[str, ConfigSpec]]
    places: Places
    process_of: dict[str, str] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    _bases: dict[str, Settings] = field(default_factory=dict)

    def base(self, template: TemplateSpec) -> Settings:
        """Return what a template says, directly or not; thousands of jobs share a few templates."""
        if template.name not in self._bases:
            self._bases[template.name] = implied(template.settings)
        return self._bases[template.name]


class _Process:
    """The work on one process."""

    def __init__(self, name: str, members: list[JobSpec], parts: _Parts) -> None:
        self.name = name
        self.parts = parts
        self.places = parts.places
        ordered = sorted(members, key=lambda job: job.job)
        enabled = [job for job in ordered if not job.disabled]
        self.enabled = bool(enabled)
        self.jobs = enabled or ordered
        self.first = self.jobs[0]
        self.composite = bool(self.first.composite_id)
        self.template = self._template()
        self.levels = [implied(job.settings) for job in self.jobs]
        self.base = parts.base(self.template)
        self.settings = merge([*self.levels, self.base])
        self.images = {job.job: self._image(job) for job in self.jobs if job.job in parts.images}
        self.root = self._root()

    def resolve(self) -> ResolvedProcess:
        """Return the process."""
        settings = self.settings
        jobs = [self._filled_in(job) for job in self.jobs]
        configs = [config for job in self.jobs for config in self._configs(job)]
        config_dir = f"{self.places.configs}/{safe_name(self.name)}" if configs else ""
        inside = CONFIGS_INSIDE if self.root and config_dir else config_dir
        secrets = tuple(
            replace(each, file=self._text(each.file, "secrets", on_device=True))
            for each in settings.secrets or ()
        )
        rooted = bool(self.root)
        apart = rooted or settings.user is not None
        own = Own.of(self.name, rooted, self.places, apart=apart, secrets=bool(secrets))
        if settings.seccomp == "default" and settings.no_new_privs is False:
            self._problem(self.first.job, "no_new_privs", "false, and seccomp needs it")
        stdin = self.first.message
        if self.composite:
            send = self.template.send_composite_jobs_to_stdin
            members = jobs if self.enabled else []
            stdin = composite_stdin(members, self.template, self.places.socket) if send else ""
        return ResolvedProcess(
            name=self.name,
            members=tuple(job.job for job in self.jobs) if self.enabled else (),
            composite_id=self.first.composite_id,
            template=self.first.container_template,
            enabled=self.enabled,
            autostart=any(not job.no_autostart for job in self.jobs),
            argv=self._argv(jobs[0]),
            env=self._env(jobs[0], configs, inside, own),
            inherit_env=bool(settings.inherit_env),
            stdin=stdin,
            root=self.root,
            images=tuple(self.images.values()),
            image_allow=tuple(sorted(set(settings.image_allow or ()))),
            image_owner=settings.image_owner or "daemon",
            configs=tuple(configs),
            config_dir=config_dir,
            config_dir_inside=inside,
            depends_on=self._depends_on(),
            user=settings.user,
            group=settings.group,
            supplementary_groups=settings.supplementary_groups,
            umask=0o022 if settings.umask is None else settings.umask,
            working_dir=self._text(settings.working_dir or "", "working_dir"),
            rlimits=settings.rlimits or (),
            nice=settings.nice,
            oom_score_adj=settings.oom_score_adj,
            no_new_privs=settings.no_new_privs,
            capabilities=settings.capabilities,
            seccomp=settings.seccomp or "none",
            read_only_root=bool(settings.read_only_root),
            mounts=tuple(
                replace(each, source=self._text(each.source, "mounts", on_device=True))
                for each in settings.mounts or ()
            ),
            tmpfs=settings.tmpfs or (),
            devices=settings.devices or (),
            pids=settings.pids or "host",
            network=settings.network or Network(),
            secrets=secrets,
            secrets_dir=own.secrets,
            data_dir=own.data,
            data_dir_inside=own.data_inside,
            run_dir=own.run,
            run_dir_inside=own.run_inside,
            new_session=any(job.daemonize for job in self.jobs),
            pgid=next((job.pgid for job in self.jobs if job.pgid > 0), 0),
            die_on_parent_death=bool(settings.die_on_parent_death),
            limits=limits([*self.levels, self.base]),
            ready=self._ready(),
            restart=self._restart(),
            stop_signal=ResolvedProcess.stop_signal if settings.stop_signal is None else settings.stop_signal,
            stop_timeout=(
                ResolvedProcess.stop_timeout if settings.stop_timeout is None else settings.stop_timeout
            ),
            reload_signal=settings.reload_signal,
            probation=probation(settings, self._ready()),
            health=self._health(),
            watchdog=settings.watchdog or 0.0,
            pre_start=self._command(settings.pre_start, "pre_start"),
            post_stop=self._command(settings.post_stop, "post_stop"),
            on_failure=self._on_failure(),
        )

    def _problem(self, job: str, where: str, message: str) -> None:
        self.parts.problems.append(Problem(f'jobs["{job}"]' + (f".{where}" if where else ""), message))

    def _template(self) -> TemplateSpec:
        name = self.first.container_template
        template = self.parts.templates.get(name)
        if name and template is None:
            self._problem(self.first.job, "container_template", f'no template is called "{name}"')
        return template or TemplateSpec(name)

    def _image(self, job: JobSpec) -> ImageRef:
        spec = self.parts.images[job.job]
        path = f"{self.places.images}/{safe_name(job.job)}/{spec.dirname}"
        return ImageRef(job.job, spec.version, spec.checksum.value if spec.checksum else "", path)

    def _root(self) -> str:
        """Return the directory that becomes `/`: the first image, else chroot_path, else none."""
        image = next(iter(self.images.values()), None)
        if self.settings.chroot_image and image:
            return image.path
        path = self.settings.chroot_path
        if self.settings.chroot_image and not path:
            self._problem(self.first.job, "chroot_image", "the root shall be its image, and it has no image")
        if not path:
            return ""
        root = self._text(path, "chroot_path", on_device=True)
        return "" if root == "/" else root.rstrip("/")

    # Texts

    def _text(
        self, text: str, where: str, *, job: str = "", cmd: str | None = None, on_device: bool = False
    ) -> str:
        """Return the text with its names filled in; unknown ones stay."""
        if "{{" not in text:
            return text
        image = self.images.get(job) if job else next(iter(self.images.values()), None)
        owner = job or self.first.job

        def lookup(name: str) -> str | None:
            if name == "IMAGE":
                if image is None:
                    self._problem(owner, where, "uses {{IMAGE}}, and the job has no image")
                    return ""
                return image.path if on_device else image_inside(self.root, image)
            if name == "CMD":
                return cmd
            if name in ("thisdir", "cwd"):
                return self.places.thisdir if name == "thisdir" else self.places.cwd
            return self.places.variables.get(name)

        try:
            return substitute(text, lookup)
        except TooLong as error:
            self._problem(owner, where, str(error))
            return ""

    def _filled_in(self, job: JobSpec) -> JobSpec:
        """Return the job with its names filled in; a member without exec_cmd gets its image's directory."""

        def fill(texts: Iterable[str], where: str) -> tuple[str, ...]:
            return tuple(self._text(text, where, job=job.job) for text in texts)

        command = self._text(job.exec_cmd, "exec_cmd", job=job.job)
        if not command and self.composite and job.job in self.images:
            command = image_inside(self.root, self.images[job.job])
        arguments, env = fill(job.exec_args, "exec_args"), fill(job.env, "env")
        if (command, arguments, env) == (job.exec_cmd, job.exec_args, job.env):
            return job
        return replace(job, exec_cmd=command, exec_args=arguments, env=env)

    def _argv(self, job: JobSpec) -> tuple[str, ...]:
        """Return the command line. Of a composite, the first enabled member by name is on it.

        Upstream puts whichever member starts the process there; hosts that read members from standard
        input ignore it. A template with `{{CMD}}` says itself where the program goes.
        """
        template = self.template
        texts = (template.exec_cmd, *template.exec_pre_args, *template.exec_post_args)
        placed = any("CMD" in names(text) for text in texts)
        filled = [self._text(text, "container_template", cmd=job.exec_cmd) for text in texts]
        split = 1 + len(template.exec_pre_args)
        program, before, after = filled[:1] if filled[0] else [], filled[1:split], filled[split:]
        own = [job.exec_cmd] if job.exec_cmd and not placed else []
        argv = [*program, *before, *own, *job.exec_args, *after]
        if not program:
            argv = [*own, *before, *job.exec_args, *after]
        if not program and not job.exec_cmd:
            self._problem(job.job, "exec_cmd", "neither the job nor its template names a program")
        return tuple(argv)

    def _env(
        self, job: JobSpec, configs: list[ConfigSpec], inside: str, own: Own
    ) -> tuple[tuple[str, str], ...]:
        """Return the environment in order, of a name given twice the first: job, template, ours.

        The jobs of a composite do not set their process's environment, they carry it in their payload.
        """
        env: dict[str, str] = {}
        entries = list(() if self.composite else job.env)
        entries += [self._text(entry, "container_template") for entry in self.template.add_env]
        for entry in entries:
            key, _, value = entry.partition("=")
            env.setdefault(key, value)
        env.setdefault("MAESTRO_PROCESS", self.name)
        if not self.root:
            env.setdefault("MAESTRO_SOCKET", self.places.socket)
        for key, value in (
            ("MAESTRO_DATA_DIR", own.data_inside),
            ("MAESTRO_RUN_DIR", own.run_inside),
            ("MAESTRO_SECRETS_DIR", own.secrets),
        ):
            if value:
                env.setdefault(key, value)
        if configs:
            env.setdefault("MAESTRO_CONFIG_DIR", inside)
            wanted = job.config_name or DEFAULT_CONFIG_NAME
            if not self.composite and any(c.name == wanted and c.data for c in configs):
                env.setdefault("MAESTRO_CONFIG", f"{inside}/{safe_name(wanted)}")
        return tuple(env.items())

    def _configs(self, job: JobSpec) -> list[ConfigSpec]:
        found = dict(self.parts.configs.get(job.job, {}))
        if job.config:
            name = job.config_name or DEFAULT_CONFIG_NAME
            found.setdefault(name, ConfigSpec(name, job.job, data=job.config))
        return [found[name] for name in sorted(found)]

    def _depends_on(self) -> tuple[str, ...]:
        wanted = {name for job in self.jobs for name in job.depends_on} | set(self.template.depends_on)
        processes = {self.parts.process_of.get(name, name) for name in wanted}
        return tuple(sorted(processes - {self.name}))

    def _ready(self) -> Ready:
        settings = self.settings
        probe = settings.ready
        if probe is None or probe.type == "none":
            return Ready(defer=settings.defer_running_status or 0.0)
        timeout = probe.timeout if probe.timeout is not None else settings.timeout_for_ok or 0.0
        if probe.type == "ok-string":
            return Ready(probe.ok_string or settings.ok_string or OK_STRING, timeout)
        self._check_reach(probe.type, "ready")
        command = self._command(probe.command, "ready.command")
        return Ready(timeout=timeout, probe=replace(probe, timeout=None, command=command))

    def _health(self) -> Health | None:
        health = self.settings.health
        if health is None:
            return None
        self._check_reach(health.type, "health")
        return replace(health, command=self._command(health.command, "health.command"))

    def _check_reach(self, kind: str, where: str) -> None:
        network = self.settings.network
        if kind in ("tcp", "http") and network and network.mode == "none":
            self._problem(self.first.job, where, f"{kind} cannot reach a process without a network; use exec")

    def _on_failure(self) -> OnFailure:
        wish = self.settings.on_failure or OnFailure()
        if not wish.command:
            return wish
        return replace(wish, command=self._command(wish.command, "on_failure.command"))

    def _command(self, words: Sequence[str] | None, where: str) -> tuple[str, ...]:
        return tuple(self._text(word, where) for word in words or ())

    def _restart(self) -> Restart:
        """Return what follows a death: of a composite, as the member says that asks for most."""
        merged = (
            [merge([level, self.base]) for level in self.levels] if len(self.levels) > 1 else [self.settings]
        )
        chosen = max(merged, key=lambda each: _EAGERNESS.index(each.restart_policy or RestartPolicy.NEVER))
        return Restart(
            policy=chosen.restart_policy or RestartPolicy.NEVER,
            limit=chosen.restart_limit or 0,
            pause=chosen.restart_pause,
            backoff=chosen.restart_backoff or Backoff(),
            on_dependency_fail=bool(self.settings.restart_on_dependency_fail),
        )
