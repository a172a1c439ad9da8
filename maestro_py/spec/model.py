# SPDX-License-Identifier: Apache-2.0
"""What a user declares, as frozen values.

`JobSpec`, `TemplateSpec`, `ImageSpec` and `ConfigSpec` mirror a document: a setting that was not
written is None, so that a template and a job can be merged with the job winning. Times are seconds,
sizes are bytes.
"""

from __future__ import annotations

from binascii import crc32
from dataclasses import field
from enum import Enum

from maestro_py.spec.names import safe_name
from maestro_py.valueclass import valueclass

OK_STRING = "!!OK!!"
"""What a job prints once it is ready (upstream's JOB_OK_STRING)."""

DEFAULT_CONFIG_NAME = "default"
"""The config a job asks for when it names none."""


class RestartPolicy(str, Enum):
    """When a death is followed by a restart. `unless-stopped` also stays stopped over a daemon restart."""

    NEVER = "never"
    ON_FAILURE = "on-failure"
    ALWAYS = "always"
    UNLESS_STOPPED = "unless-stopped"


@valueclass(frozen=True)
class Backoff:
    """Growing delay between restarts: initial x factor^n, at most max, each +/- jitter (a fraction).

    After `reset_after` seconds of running the next death counts as the first again.
    """

    initial: float = 0.1
    factor: float = 2.0
    max: float = 60.0
    jitter: float = 0.1
    reset_after: float = 10.0


@valueclass(frozen=True)
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


@valueclass(frozen=True)
class Mount:
    """A directory or file of the device, `source`, shown to the process at `target`.

    options: ro, rw, noexec, nosuid, nodev. It is read-only unless `rw` is among them, and never has
    set-uid programs or device nodes.
    """

    source: str
    target: str
    options: tuple[str, ...] = ()


@valueclass(frozen=True)
class Port:
    """A port of the device that leads to one inside. address: the device's own; empty: all."""

    host: int
    inside: int
    protocol: str = "tcp"  # or "udp"
    address: str = ""


@valueclass(frozen=True)
class Network:
    """What a process sees of the network: `host`, `none` (only loopback) or `private`.

    address: the process's own in the private network; empty: chosen.
    """

    mode: str = "host"
    address: str = ""
    ports: tuple[Port, ...] = ()


@valueclass(frozen=True)
class Secret:
    """A file only the process can read, from a file of the device or inline. encoding: utf8 or base64."""

    name: str
    file: str = ""
    data: str = field(default="", repr=False)
    encoding: str = "utf8"


@valueclass(frozen=True)
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


@valueclass(frozen=True)
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


@valueclass(frozen=True)
class OnFailure:
    """What follows when a process has failed for good: a command or the start of another job."""

    command: tuple[str, ...] = ()
    job: str = ""


@valueclass(frozen=True)
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


@valueclass(frozen=True)
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


@valueclass(frozen=True)
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


@valueclass(frozen=True)
class Checksum:
    """type is `sha256sum`, `sha512sum` or `md5sum`; value is lower-case hex."""

    type: str
    value: str


@valueclass(frozen=True)
class Credentials:
    """Who asks for a file. type: bearer or basic; secret: name of the job's secret with token or password."""

    type: str
    secret: str
    user: str = ""


@valueclass(frozen=True)
class Signature:
    """A minisign signature of an archive: where its file is, or the text of it."""

    type: str = "minisign"
    url: str = ""
    value: str = ""


@valueclass(frozen=True)
class Delta:
    """What makes an image's archive out of that of version `base`. size 0 means not said."""

    base: str
    url: str
    checksum: Checksum
    size: int = 0


@valueclass(frozen=True)
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


@valueclass(frozen=True)
class ConfigFile:
    """A file of a config, fetched and placed below the job's config directory."""

    url: str
    dest_relative_path: str  # already normalised: no leading slash, no `..`
    size: int = 0
    checksum: Checksum | None = None
    credentials: Credentials | None = None


@valueclass(frozen=True)
class ConfigSpec:
    """Named data and files for one job. `data` is as written; `encoding` is `utf8` or `base64`."""

    name: str
    job: str
    data: str = ""
    encoding: str = "utf8"
    files: tuple[ConfigFile, ...] = ()
    mod_time: str = ""


@valueclass(frozen=True)
class RunningConfig:
    """A whole document. `date` is 0 when the document has none."""

    jobs: tuple[JobSpec, ...] = ()
    templates: tuple[TemplateSpec, ...] = ()
    images: tuple[ImageSpec, ...] = ()
    configs: tuple[ConfigSpec, ...] = ()
    date: int = 0
    remove_old_images: bool = False
    fail_fast: bool = False
