# SPDX-License-Identifier: Apache-2.0
"""What a user declares, and what it resolves to, as frozen values.

`JobSpec`, `TemplateSpec`, `ImageSpec` and `ConfigSpec` mirror a document: a setting that was not
written is None, so that a template and a job can be merged with the job winning. `ResolvedProcess`
is the outcome for one Linux process with every default filled in; two of them are equal exactly
when nothing has to change. Times are seconds, sizes are bytes.
"""

from __future__ import annotations

from binascii import crc32
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from types import MappingProxyType
from typing import Any

OK_STRING = "!!OK!!"
"""What a job prints once it is ready (upstream's JOB_OK_STRING)."""

DEFAULT_CONFIG_NAME = "default"
"""The config a job asks for when it names none."""


class State(str, Enum):
    """States of a process and of its jobs; upstream's names. RUNNING means ready."""

    NEVER_RAN = "NEVER_RAN"
    WAITING_FOR_DEPS = "WAITING_FOR_DEPS"
    STARTING = "STARTING"
    RUNNING = "RUNNING"
    STOPPING = "STOPPING"
    STOPPED = "STOPPED"
    RESTARTING = "RESTARTING"
    FAILED = "FAILED"


class RestartPolicy(str, Enum):
    """When a death is followed by a restart. `unless-stopped` also stays stopped over a daemon restart."""

    NEVER = "never"
    ON_FAILURE = "on-failure"
    ALWAYS = "always"
    UNLESS_STOPPED = "unless-stopped"


@dataclass(frozen=True)
class Backoff:
    """Growing delay between restarts: initial x factor^n, at most max, each +/- jitter (a fraction).

    After `reset_after` seconds of running the next death counts as the first again.
    """

    initial: float = 0.1
    factor: float = 2.0
    max: float = 60.0
    jitter: float = 0.1
    reset_after: float = 10.0


@dataclass(frozen=True)
class Limits:
    """Control group limits; None means not said. Names follow the fields of a document's `cgroup`."""

    mem_limit: int | None = None
    mem_high: int | None = None
    swap_limit: int | None = None
    pids_max: int | None = None
    cpu_weight: int | None = None
    cpu_max: float | None = None  # CPUs: 0.5 is half of one
    io_weight: int | None = None

    def __bool__(self) -> bool:
        return self != Limits()


Id = str | int
"""A user or group, by name or by number."""


@dataclass(frozen=True)
class Mount:
    """A directory or file of the device, `source`, shown to the process at `target`.

    options: ro, rw, noexec, nosuid, nodev. It is read-only unless `rw` is among them, and never has
    set-uid programs or device nodes.
    """

    source: str
    target: str
    options: tuple[str, ...] = ()


@dataclass(frozen=True)
class Port:
    """A port of the device that leads to one inside. address: the device's own; empty: all."""

    host: int
    inside: int
    protocol: str = "tcp"  # or "udp"
    address: str = ""


@dataclass(frozen=True)
class Network:
    """What a process sees of the network: `host`, `none` (only loopback) or `private`.

    address: the process's own in the private network; empty: chosen.
    """

    mode: str = "host"
    address: str = ""
    ports: tuple[Port, ...] = ()


@dataclass(frozen=True)
class Secret:
    """A file only the process can read, from a file of the device or inline. encoding: utf8 or base64."""

    name: str
    file: str = ""
    data: str = field(default="", repr=False)
    encoding: str = "utf8"


@dataclass(frozen=True)
class Probe:
    """How a process says, or is asked, whether it is ready. Which fields count depends on `type`.

    timeout: seconds to become ready in, 0: for ever, None: what timeout_for_ok says.
    """

    type: str  # ok-string, notify, fd, tcp, http or exec
    ok_string: str = ""
    fd: int = 0
    port: int = 0
    path: str = "/"
    command: tuple[str, ...] = ()
    timeout: float | None = None
    interval: float = 1.0


@dataclass(frozen=True)
class Health:
    """A question asked again and again while a process runs; `threshold` failures in a row count."""

    type: str  # tcp, http or exec
    port: int = 0
    path: str = "/"
    command: tuple[str, ...] = ()
    interval: float = 30.0
    timeout: float = 5.0
    threshold: int = 3
    action: str = "restart"  # or "report"


@dataclass(frozen=True)
class OnFailure:
    """What follows when a process has failed for good: a command or the start of another job."""

    command: tuple[str, ...] = ()
    job: str = ""


@dataclass(frozen=True)
class Settings:
    """What both templates and jobs may set; None means not said."""

    restart: bool | None = None
    restart_limit: int | None = None
    restart_pause: float | None = None
    restart_on_dependency_fail: bool | None = None
    restart_policy: RestartPolicy | None = None
    restart_backoff: Backoff | None = None
    die_on_parent_death: bool | None = None
    inherit_env: bool | None = None
    defer_running_status: float | None = None
    wait_for_ok: bool | None = None  # spelled uses_ok_string on a template
    ok_string: str | None = None
    timeout_for_ok: float | None = None
    user: Id | None = None
    group: Id | None = None
    supplementary_groups: tuple[Id, ...] | None = None
    umask: int | None = None
    working_dir: str | None = None
    rlimits: tuple[tuple[str, int, int], ...] | None = None  # (name as "nofile", soft, hard); -1 = unlimited
    nice: int | None = None
    oom_score_adj: int | None = None
    no_new_privs: bool | None = None
    capabilities: tuple[str, ...] | None = None
    seccomp: str | None = None
    chroot_path: str | None = None
    chroot_image: bool | None = None  # spelled ChrootImage in documents
    image_allow: tuple[str, ...] | None = None
    image_owner: str | None = None
    read_only_root: bool | None = None
    mounts: tuple[Mount, ...] | None = None
    tmpfs: tuple[str, ...] | None = None
    devices: tuple[str, ...] | None = None
    pids: str | None = None
    network: Network | None = None
    secrets: tuple[Secret, ...] | None = None
    cgroup: Limits | None = None
    stop_signal: int | None = None
    stop_timeout: float | None = None
    reload_signal: int | None = None
    upgrade_timeout: float | None = None
    probation: float | None = None
    probation_deaths: int | None = None
    ready: Probe | None = None
    health: Health | None = None
    watchdog: float | None = None
    pre_start: tuple[str, ...] | None = None
    post_stop: tuple[str, ...] | None = None
    on_failure: OnFailure | None = None


@dataclass(frozen=True)
class TemplateSpec:
    """How jobs of one kind are started (upstream's container template)."""

    name: str
    exec_cmd: str = ""
    exec_pre_args: tuple[str, ...] = ()
    exec_post_args: tuple[str, ...] = ()
    add_env: tuple[str, ...] = ()
    depends_on: tuple[str, ...] = ()
    send_composite_jobs_to_stdin: bool = False
    composite_config: str = ""
    send_grease_origin_id: bool = False
    immutable: bool = False
    settings: Settings = Settings()


@dataclass(frozen=True)
class JobSpec:
    """One piece of software to keep running.

    `config` holds inline data (a daemon config file's spelling), `config_name` the name of a config
    (a running config's `config`, or `config_name`); empty means DEFAULT_CONFIG_NAME.
    """

    job: str
    composite_id: str = ""
    container_template: str = ""
    config: str = ""
    config_name: str = ""
    message: str = ""
    depends_on: tuple[str, ...] = ()
    exec_cmd: str = ""
    exec_args: tuple[str, ...] = ()
    pgid: int = 0
    env: tuple[str, ...] = ()
    daemonize: bool = False
    immutable: bool = False
    no_autostart: bool = False
    disabled: bool = False
    settings: Settings = Settings()

    @property
    def process(self) -> str:
        """Name of the process this job runs in: its composite's, or its own."""
        return self.composite_id or self.job


@dataclass(frozen=True)
class Checksum:
    """type is `sha256sum`, `sha512sum` or `md5sum`; value is lower-case hex."""

    type: str
    value: str


@dataclass(frozen=True)
class Credentials:
    """Who asks for a file. type: bearer or basic; secret: name of the job's secret with token or password."""

    type: str
    secret: str
    user: str = ""


@dataclass(frozen=True)
class Signature:
    """A minisign signature of an archive: where its file is, or the text of it."""

    type: str = "minisign"
    url: str = ""
    value: str = ""


@dataclass(frozen=True)
class Delta:
    """What makes an image's archive out of that of version `base`. size 0 means not said."""

    base: str
    url: str
    checksum: Checksum
    size: int = 0


@dataclass(frozen=True)
class ImageSpec:
    """A versioned archive a job needs. size 0 means not said."""

    job: str
    version: str
    url: str
    size: int = 0
    checksum: Checksum | None = None
    image_type: str = "tarball"
    credentials: Credentials | None = None
    signature: Signature | None = None
    deltas: tuple[Delta, ...] = ()

    @property
    def dirname(self) -> str:
        """Directory name of this version in the store: version and the first digits of the checksum.

        Without one the URL stands for the content.
        """
        tag = self.checksum.value[:12] if self.checksum else f"unchecked-{crc32(self.url.encode()):08x}"
        return safe_name(f"{self.version or '0'}-{tag}")


@dataclass(frozen=True)
class ConfigFile:
    """A file of a config, fetched and placed below the job's config directory."""

    url: str
    dest_relative_path: str  # already normalised: no leading slash, no `..`
    size: int = 0
    checksum: Checksum | None = None
    credentials: Credentials | None = None


@dataclass(frozen=True)
class ConfigSpec:
    """Named data and files for one job. `data` is as written; `encoding` is `utf8` or `base64`."""

    name: str
    job: str
    data: str = ""
    encoding: str = "utf8"
    files: tuple[ConfigFile, ...] = ()
    mod_time: str = ""


@dataclass(frozen=True)
class RunningConfig:
    """A whole document. `date` is 0 when the document has none."""

    jobs: tuple[JobSpec, ...] = ()
    templates: tuple[TemplateSpec, ...] = ()
    images: tuple[ImageSpec, ...] = ()
    configs: tuple[ConfigSpec, ...] = ()
    date: int = 0
    remove_old_images: bool = False
    fail_fast: bool = False


@dataclass(frozen=True)
class FileGenerator:
    """A static_file_generators entry, its text already substituted except for template_file's content.

    mode, user, group: None leaves what the file has.
    """

    name: str
    output_file: str
    template: str = ""
    template_file: str = ""
    mode: int | None = None
    user: Id | None = None
    group: Id | None = None


@dataclass(frozen=True)
class Downloads:
    """How files are fetched. retries: in a row that bring nothing; user None: the first there is.

    max_size 0: what fits. Empty paths: the system's CA, no client certificate.
    """

    connect_timeout: float = 20.0
    read_timeout: float = 30.0
    deadline: float = 6 * 3600.0
    retries: int = 4
    retry_pause: float = 1.0
    parallel: int = 4
    max_size: int = 0
    user: Id | None = None
    ca_file: str = ""
    client_cert: str = ""
    client_key: str = ""
    keep_archives: bool = False


@dataclass(frozen=True)
class Unpacking:
    """What one image may become. max_size 0: what fits; max_ratio: times the size of the archive."""

    max_size: int = 0
    max_entries: int = 200_000
    max_ratio: int = 100


@dataclass(frozen=True)
class DaemonConfig:
    """The daemon's own configuration file. Empty strings mean: use the built-in place."""

    jobs: tuple[JobSpec, ...] = ()
    templates: tuple[TemplateSpec, ...] = ()
    generators: tuple[FileGenerator, ...] = ()
    variables: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    socket: str = ""  # httpUnixSocket
    image_path: str = ""  # imagePath
    scratch_path: str = ""  # scratchPath
    state_db: str = ""  # configDBPath
    pid_file: str = ""  # debug_opts.pid_file
    on_daemon_stop: str = "stop"  # or "keep"
    log_max_size: int = 10 << 20  # per log file; `log_max_size`
    log_max_files: int = 4  # the current one included
    log_total_size: int = 0  # of all logs; 0: a tenth of the file system, 1 GiB at most
    log_level: str = "info"  # or "warning", "error"
    metrics_file: str | None = None
    metrics_interval: float = 30.0
    read_group: str = ""
    operate_group: str = "maestro"
    disk_reserve: int = 5 << 20  # bytes
    restart_rate: float = 10.0  # restarts a second that the whole device has time for; 0: no limit
    admin_group: str = ""
    http_tcp: str = ""  # host:port on loopback; "" is no TCP listener
    http_token_file: str = ""
    http_anonymous: str = "read"  # or "none"
    downloads: Downloads = Downloads()
    unpacking: Unpacking = Unpacking()
    require_signature: bool = False


@dataclass(frozen=True)
class Ready:
    """How a process says it is ready. ok_string "" means: not by output. timeout 0 means: for ever.

    probe: another way than output.
    """

    ok_string: str = ""
    timeout: float = 0.0
    defer: float = 0.0
    probe: Probe | None = None

    @property
    def awaited(self) -> bool:
        """Whether it counts as running only once it has said so, or answers."""
        return bool(self.ok_string or self.probe)


@dataclass(frozen=True)
class Restart:
    """What follows a death. limit 0 means unlimited; pause is a fixed delay that replaces the back-off."""

    policy: RestartPolicy = RestartPolicy.NEVER
    limit: int = 0
    pause: float | None = None
    backoff: Backoff = Backoff()
    on_dependency_fail: bool = False


@dataclass(frozen=True)
class Probation:
    """How a new version of an image proves itself; else the one before comes back.

    timeout: seconds from its launch to RUNNING. duration: seconds it is watched after that. deaths: so many
    by then are too many.
    """

    timeout: float = 60.0
    duration: float = 60.0
    deaths: int = 3


@dataclass(frozen=True)
class ImageRef:
    """One installed version as a process uses it. `path` is its directory on the device."""

    job: str
    version: str
    checksum: str
    path: str


@dataclass(frozen=True)
class ResolvedProcess:
    """Everything needed to launch, watch and stop one Linux process. Frozen and comparable."""

    name: str
    members: tuple[str, ...]  # enabled jobs in it; the job itself for a single one
    composite_id: str = ""
    template: str = ""
    enabled: bool = True
    autostart: bool = True
    argv: tuple[str, ...] = ()
    env: tuple[tuple[str, str], ...] = ()
    inherit_env: bool = False  # the daemon's environment comes last, at launch
    stdin: str = ""
    root: str = ""  # directory that becomes `/`; empty: the device's own root
    images: tuple[ImageRef, ...] = ()
    image_allow: tuple[str, ...] = ()  # devices, fifos, setuid, capabilities
    image_owner: str = "daemon"  # or "user", "archive": whose the unpacked files are
    configs: tuple[ConfigSpec, ...] = ()
    config_dir: str = ""  # on the device; the process may see it elsewhere
    config_dir_inside: str = ""  # as the process sees it
    depends_on: tuple[str, ...] = ()  # names of processes
    user: Id | None = None
    group: Id | None = None
    supplementary_groups: tuple[Id, ...] | None = None
    umask: int = 0o022
    working_dir: str = ""  # empty: `/`
    rlimits: tuple[tuple[str, int, int], ...] = ()
    nice: int | None = None
    oom_score_adj: int | None = None
    no_new_privs: bool | None = None  # None: on once the uid is not 0
    capabilities: tuple[str, ...] | None = None  # exactly these; None: what the uid has
    seccomp: str = "none"  # or "default"
    read_only_root: bool = False
    mounts: tuple[Mount, ...] = ()
    tmpfs: tuple[str, ...] = ()  # paths, each with ":size=BYTES" when it has a limit
    devices: tuple[str, ...] = ()  # paths under /dev
    pids: str = "host"  # or "private"
    network: Network = Network()
    secrets: tuple[Secret, ...] = ()
    secrets_dir: str = ""  # as the process sees it; empty: it has no secrets
    data_dir: str = ""  # its own writable directory, on the device; kept
    data_dir_inside: str = ""  # as the process sees it
    run_dir: str = ""  # the same, gone at a reboot
    run_dir_inside: str = ""
    new_session: bool = False
    pgid: int = 0  # >0: join that process group; else a new one
    die_on_parent_death: bool = False
    limits: Limits = Limits()
    ready: Ready = Ready()
    restart: Restart = Restart()
    stop_signal: int = 15
    stop_timeout: float = 10.0
    reload_signal: int | None = None
    probation: Probation = Probation()
    health: Health | None = None
    watchdog: float = 0.0  # seconds; 0: none
    pre_start: tuple[str, ...] = ()
    post_stop: tuple[str, ...] = ()
    on_failure: OnFailure = OnFailure()


_SAFE = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-")


def safe_name(name: str) -> str:
    """Return a name that can be one path component on any file system and in a cgroup tree.

    Letters, digits, `.`, `_` and `-` stay; everything else becomes `%XX` per UTF-8 byte, a
    leading dot too.
    Different names stay different.
    """
    text = "".join(c if c in _SAFE else "".join(f"%{b:02X}" for b in c.encode()) for c in name)
    return "%2E" + text[1:] if text.startswith(".") else text or "%"


def job_payload(job: JobSpec) -> dict[str, Any]:
    """Return the upstream JobDefinitionPayload of a job: all 22 keys, in upstream's encode order.

    Source: maestroSpecs `JobDefinitionPayload`; empty lists encode as null there.
    """
    s = job.settings
    return {
        "job": job.job,
        "composite_id": job.composite_id,
        "container_template": job.container_template,
        "config": job.config,
        "config_name": job.config_name or DEFAULT_CONFIG_NAME,
        "message": job.message,
        "wait_for_ok": bool(s.wait_for_ok),
        "defer_running_status": round((s.defer_running_status or 0) * 1000),
        "no_autostart": job.no_autostart,
        "restart": bool(s.restart),
        "restart_on_dependency_fail": bool(s.restart_on_dependency_fail),
        "restart_limit": s.restart_limit or 0,
        "restart_pause": round((s.restart_pause or 0) * 1000),
        "depends_on": list(job.depends_on) or None,
        "exec_cmd": job.exec_cmd,
        "exec_args": list(job.exec_args) or None,
        "pgid": job.pgid,
        "env": list(job.env) or None,
        "inherit_env": bool(s.inherit_env),
        "die_on_parent_death": bool(s.die_on_parent_death),
        "daemonize": job.daemonize,
        "immutable": job.immutable,
    }
