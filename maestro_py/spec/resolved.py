# SPDX-License-Identifier: Apache-2.0
"""What jobs and templates resolve to: processes, and the states they go through.

A `ResolvedProcess` is the definition of one Linux process with every default filled in; two of them are
equal exactly when nothing has to change. Times are seconds, sizes are bytes.
"""

from __future__ import annotations

from enum import Enum

from maestro_py.spec.model import (
    Backoff,
    ConfigSpec,
    Health,
    Id,
    Limits,
    Mount,
    Network,
    OnFailure,
    Probe,
    RestartPolicy,
    Secret,
)
from maestro_py.valueclass import valueclass


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


@valueclass(frozen=True)
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


@valueclass(frozen=True)
class Restart:
    """What follows a death. limit 0 means unlimited; pause is a fixed delay that replaces the back-off."""

    policy: RestartPolicy = RestartPolicy.NEVER
    limit: int = 0
    pause: float | None = None
    backoff: Backoff = Backoff()
    on_dependency_fail: bool = False


@valueclass(frozen=True)
class Probation:
    """How a new version of an image proves itself; else the one before comes back.

    timeout: seconds from its launch to RUNNING. duration: seconds it is watched after that. deaths: so many
    by then are too many.
    """

    timeout: float = 60.0
    duration: float = 60.0
    deaths: int = 3


@valueclass(frozen=True)
class ImageRef:
    """One installed version as a process uses it. `path` is its directory on the device."""

    job: str
    version: str
    checksum: str
    path: str


@valueclass(frozen=True)
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
