# SPDX-License-Identifier: Apache-2.0
"""The daemon's own configuration, as a frozen value. Times are seconds, sizes are bytes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from types import MappingProxyType

from maestro_py.spec.model import Id, JobSpec, TemplateSpec
from maestro_py.valueclass import valueclass


@valueclass(frozen=True)
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


@valueclass(frozen=True)
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


@valueclass(frozen=True)
class Unpacking:
    """What one image may become. max_size 0: what fits; max_ratio: times the size of the archive."""

    max_size: int = 0
    max_entries: int = 200_000
    max_ratio: int = 100


@valueclass(frozen=True)
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
