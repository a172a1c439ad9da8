# SPDX-License-Identifier: Apache-2.0
"""Places configs where a process finds them: data under the config's name, files at their relative path.

Every file is replaced by one rename, so a reader sees the old or the new one, whole. The directory
itself stays the same, because a running process may have it mounted.
"""

from __future__ import annotations

import base64
import os
from dataclasses import replace

from maestro_py.errors import MaestroError
from maestro_py.spec.model import ConfigSpec, ResolvedProcess, safe_name

_DIR_MODE = 0o750
_FILE_MODE = 0o440


def place(process: ResolvedProcess, files: dict[tuple[str, str, str], str], gid: int) -> None:
    """Make the config directory of a process hold exactly its configs.

    files: (job, config, dest_relative_path) -> downloaded file, moved into place; a file that is not
    in it must be there already. The process reads through its group; only the daemon's user
    may write, so that no job can plant a link where the daemon writes. Raises MaestroError.
    """
    wanted: dict[str, tuple[ConfigSpec, str]] = {}
    for config in process.configs:
        below = (
            os.path.join(process.config_dir, safe_name(config.job))
            if process.composite_id
            else process.config_dir
        )
        if config.data:
            wanted[os.path.join(below, safe_name(config.name))] = (config, "")
        for item in config.files:
            wanted[os.path.join(below, item.dest_relative_path)] = (config, item.dest_relative_path)
    try:
        if wanted:
            _make_dir(process.config_dir, gid)
        for path, (config, relative) in wanted.items():
            _make_parents(process.config_dir, os.path.dirname(path), gid)
            if relative:
                source = files.pop((config.job, config.name, relative), "")
                if source:
                    _own(source, gid)
                    os.rename(source, path)
            else:
                _write(path, decode(config), gid)
        _prune(process.config_dir, set(wanted))
    except OSError as error:
        raise MaestroError(f"cannot place the config of {process.name}: {error}") from error


def remove(process: ResolvedProcess) -> None:
    """Remove the config directory of a process that is gone. Raises MaestroError."""
    place(replace(process, configs=()), {}, -1)


def missing(process: ResolvedProcess, config: ConfigSpec) -> list[str]:
    """Return the dest_relative_path of every file of a config that is not in place."""
    below = (
        os.path.join(process.config_dir, safe_name(config.job))
        if process.composite_id
        else process.config_dir
    )
    return [
        item.dest_relative_path
        for item in config.files
        if not os.path.exists(os.path.join(below, item.dest_relative_path))
    ]


def decode(config: ConfigSpec) -> bytes:
    """Return a config's data as bytes."""
    return base64.b64decode(config.data) if config.encoding == "base64" else config.data.encode()


def _make_dir(path: str, gid: int) -> None:
    try:
        os.mkdir(path, _DIR_MODE)
    except FileExistsError:
        if not os.path.isdir(path):
            os.unlink(path)
            os.mkdir(path, _DIR_MODE)
    if os.geteuid() == 0:
        os.chown(path, -1, gid)


def _make_parents(top: str, path: str, gid: int) -> None:
    parts = os.path.relpath(path, top).split(os.sep)
    for index in range(len(parts)):
        if parts[0] != os.curdir:
            _make_dir(os.path.join(top, *parts[: index + 1]), gid)


def _write(path: str, data: bytes, gid: int) -> None:
    temporary = f"{path}.new"
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        _own(temporary, gid)
        os.rename(temporary, path)
    except OSError:
        os.unlink(temporary)
        raise


def _own(path: str, gid: int) -> None:
    os.chmod(path, _FILE_MODE)
    if os.geteuid() == 0:
        os.chown(path, -1, gid)


def _prune(top: str, wanted: set[str]) -> None:
    """Remove what no config holds any more."""
    for directory, _, names in os.walk(top, topdown=False):
        for name in names:
            path = os.path.join(directory, name)
            if path not in wanted:
                os.unlink(path)
        if not os.listdir(directory):
            os.rmdir(directory)
