# SPDX-License-Identifier: Apache-2.0
"""Where things live: the system's places, or everything below one private directory."""

from __future__ import annotations

import errno
import os

from maestro_py.errors import MaestroError
from maestro_py.spec.daemonconfig import DaemonConfig
from maestro_py.valueclass import valueclass


@valueclass(frozen=True)
class Paths:
    """Directories and files of one daemon. `root` is empty for the system's own places."""

    root: str
    config: str
    state: str
    run: str
    log: str
    images: str
    scratch: str
    socket: str
    database: str
    pid_file: str

    @property
    def configs(self) -> str:
        """Directory of the placed configs."""
        return os.path.join(self.state, "configs")

    @property
    def local_templates(self) -> str:
        """Directory of the device's own template files."""
        return os.path.join(os.path.dirname(self.config), "templates")

    @property
    def keys(self) -> str:
        """Directory of the public keys that signatures of images are checked by."""
        return os.path.join(os.path.dirname(self.config), "keys")


def base_paths(root: str = "", config: str = "") -> Paths:
    """Return the built-in places; `root` puts all of them below one directory."""
    if root:
        root = os.path.abspath(root)
        state, run, log = (os.path.join(root, name) for name in ("state", "run", "log"))
        config = config or os.path.join(root, "maestro.yaml")
    else:
        state, run, log = "/var/lib/maestro", "/run/maestro", "/var/log/maestro"
        config = config or "/etc/maestro/maestro.yaml"
    return Paths(
        root=root,
        config=os.path.abspath(config),
        state=state,
        run=run,
        log=log,
        images=os.path.join(state, "images"),
        scratch=os.path.join(state, "scratch"),
        socket=os.path.join(run, "maestro.sock"),
        database=os.path.join(state, "maestro.db"),
        pid_file="",
    )


def with_config(paths: Paths, config: DaemonConfig, socket: str = "") -> Paths:
    """Return the places after the config file and the command line had their say.

    Under a private root the file's own paths do not count: nothing outside the root is touched.
    The state database is ours, not upstream's format, so only its directory is taken from configDBPath.
    """
    if paths.root:
        return _replace(paths, socket=socket or paths.socket)
    database = paths.database
    if config.state_db:
        database = os.path.join(os.path.dirname(config.state_db), "maestro.db")
    return _replace(
        paths,
        images=config.image_path or paths.images,
        scratch=config.scratch_path or paths.scratch,
        socket=socket or config.socket or paths.socket,
        database=database,
        pid_file=config.pid_file,
    )


def _replace(paths: Paths, **changes: str) -> Paths:
    return Paths(**{**paths.__dict__, **changes})


def make_dirs(paths: Paths) -> None:
    """Create the directories. State and logs are for the daemon's user; the run directory is passable."""
    for path, mode in (
        (paths.state, 0o711),
        (paths.run, 0o755),
        (paths.log, 0o750),
        (paths.images, 0o755),
        (paths.scratch, 0o700),
        (paths.configs, 0o711),
        (os.path.dirname(paths.socket), 0o755),
        (os.path.dirname(paths.database), 0o711),
    ):
        try:
            os.makedirs(path, mode, exist_ok=True)
        except OSError as error:
            hint = "run it as root, or with --root DIR for a private place"
            rights = error.errno in (errno.EPERM, errno.EACCES, errno.EROFS)
            raise MaestroError(
                f"cannot create {path}: {error.strerror}", hint=hint if rights else ""
            ) from error
