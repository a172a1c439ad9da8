# SPDX-License-Identifier: Apache-2.0
"""Places configs where a process finds them: data under the config's name, files at their relative path.

Every file is replaced by one rename, so a reader sees the old or the new one, whole. The directory
itself stays the same, because a running process may have it mounted.
"""

from __future__ import annotations

import base64
import errno
import json
import os
import stat
from binascii import crc32
from collections.abc import Iterable
from dataclasses import replace

from maestro_py.errors import MaestroError
from maestro_py.images.files import write_synced
from maestro_py.spec.model import ConfigSpec
from maestro_py.spec.names import safe_name
from maestro_py.spec.resolved import ResolvedProcess

_DIR_MODE = 0o750
_FILE_MODE = 0o440
_TEMPORARY = ".maestro-new"  # a config's name never begins with a dot on disk


def place(process: ResolvedProcess, files: dict[tuple[str, str, str], str], gid: int) -> None:
    """Make the config directory of a process hold exactly its configs.

    files: (job, config, dest_relative_path) -> downloaded file, moved into place; a file that is not
    in it must be there already. The process reads through its group; only the daemon's user
    may write, so that no job can plant a link where the daemon writes. Raises MaestroError.
    """
    wanted: dict[str, tuple[ConfigSpec, str]] = {}
    for config in process.configs:
        below = _directory(process, config)
        if config.data:
            wanted[os.path.join(below, safe_name(config.name))] = (config, "")
        for item in config.files:
            wanted[os.path.join(below, item.dest_relative_path)] = (config, item.dest_relative_path)
    record, before = _record_of(process), _read_record(process) or {}
    try:
        if record or before:
            # what is about to change is not in place from now on, wherever this is cut off
            same = {key: content for key, content in before.items() if record.get(key) == content}
            write_synced(_record_path(process), json.dumps(same))
        if process.configs:
            _make_dir(process.config_dir, gid)
        for path, (config, relative) in wanted.items():
            _make_parents(process.config_dir, os.path.dirname(path), gid)
            if relative:
                source = files.pop((config.job, config.name, relative), "")
                if source:
                    _move(source, path, gid)
            else:
                data = decode(config)
                if not _holds(path, data, gid):  # an unchanged file costs no write at a boot
                    _write(path, (data,), gid)
        _prune(process.config_dir, set(wanted), keep_top=bool(process.configs))
        if record:
            write_synced(_record_path(process), json.dumps(record))
        elif before:
            os.unlink(_record_path(process))
    except OSError as error:
        raise MaestroError(f"cannot place the config of {process.name}: {error}") from error


def keep(process: ResolvedProcess) -> None:
    """Put the downloaded files of a process aside, by hard links, for when they are to come back.

    What was put aside before and not let go stays. Raises MaestroError.
    """
    aside = _aside(process.config_dir)
    if not process.config_dir or os.path.exists(aside):
        return
    try:
        _let_go(f"{aside}.new")
        for config in process.configs:
            for item in config.files:
                place = os.path.join(_directory(process, config), item.dest_relative_path)
                kept = os.path.join(
                    f"{aside}.new", _kept_name((config.job, config.name, item.dest_relative_path))
                )
                os.makedirs(os.path.dirname(kept), 0o700, exist_ok=True)
                os.link(place, kept, follow_symlinks=False)
        if os.path.exists(f"{aside}.new"):
            os.rename(f"{aside}.new", aside)
    except OSError as error:
        raise MaestroError(f"cannot keep the config files of {process.name}: {error}") from error


def kept(process: ResolvedProcess) -> dict[tuple[str, str, str], str]:
    """Return the files put aside that a process asks for, as `place` takes them."""
    found = {}
    for config in process.configs:
        for item in config.files:
            key = (config.job, config.name, item.dest_relative_path)
            path = os.path.join(_aside(process.config_dir), _kept_name(key))
            if os.path.exists(path):
                found[key] = path
    return found


def let_go(process: ResolvedProcess) -> None:
    """Remove what was put aside for a process."""
    if process.config_dir:
        _let_go(_aside(process.config_dir))


def remove(process: ResolvedProcess) -> None:
    """Remove the config directory of a process that is gone. Raises MaestroError."""
    place(replace(process, configs=()), {}, -1)


def missing(process: ResolvedProcess, config: ConfigSpec) -> list[str]:
    """Return the dest_relative_path of every file of a config that is not in place, or is another one."""
    below, record, wanted = _directory(process, config), _read_record(process), _record_of(process)
    found = []
    for item in config.files:
        key = "/".join((config.job, config.name, item.dest_relative_path))
        there = os.path.exists(os.path.join(below, item.dest_relative_path))
        if not there or (record is not None and record.get(key) != wanted[key]):
            found.append(item.dest_relative_path)
    return found


def decode(config: ConfigSpec) -> bytes:
    """Return a config's data as bytes."""
    return base64.b64decode(config.data) if config.encoding == "base64" else config.data.encode()


def _record_of(process: ResolvedProcess) -> dict[str, str]:
    """Return what tells each file of a process from another of its name: its checksum, or one of its URL."""
    return {
        "/".join((config.job, config.name, item.dest_relative_path)): item.checksum.value
        if item.checksum
        else f"{crc32(item.url.encode()):08x}"
        for config in process.configs
        for item in config.files
    }


def _record_path(process: ResolvedProcess) -> str:
    return os.path.join(os.path.dirname(process.config_dir), f".{os.path.basename(process.config_dir)}.files")


def _read_record(process: ResolvedProcess) -> dict[str, str] | None:
    """Return which files were placed; None when there never was any."""
    try:
        with open(_record_path(process), encoding="utf-8") as file:
            found = json.load(file)
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def _aside(config_dir: str) -> str:
    return os.path.join(os.path.dirname(config_dir), f".{os.path.basename(config_dir)}.before")


def _kept_name(key: tuple[str, str, str]) -> str:
    return "%".join(safe_name(part.replace("%", "%25")) for part in key)


def _let_go(path: str) -> None:
    for name in os.listdir(path) if os.path.isdir(path) else ():
        os.unlink(os.path.join(path, name))
    if os.path.isdir(path):
        os.rmdir(path)


def _directory(process: ResolvedProcess, config: ConfigSpec) -> str:
    """Return where a config's files are: members of a composite have a directory each."""
    if process.composite_id:
        return os.path.join(process.config_dir, safe_name(config.job))
    return process.config_dir


def _holds(path: str, data: bytes, gid: int) -> bool:
    """Whether a file is in place as it would be written."""
    try:
        if not stat.S_ISREG(os.lstat(path).st_mode):
            return False
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return False
    with os.fdopen(fd, "rb") as file:
        found = os.fstat(fd)
        right = stat.S_IMODE(found.st_mode) == _FILE_MODE and (os.geteuid() != 0 or found.st_gid == gid)
        return right and found.st_size == len(data) and file.read() == data


def _make_dir(path: str, gid: int) -> None:
    try:
        os.mkdir(path, _DIR_MODE)
    except FileExistsError:
        if not stat.S_ISDIR(os.lstat(path).st_mode):  # a link is never followed
            os.unlink(path)
            os.mkdir(path, _DIR_MODE)
    os.chmod(path, _DIR_MODE)
    if os.geteuid() == 0:
        os.chown(path, -1, gid)


def _make_parents(top: str, path: str, gid: int) -> None:
    parts = os.path.relpath(path, top).split(os.sep)
    for index in range(len(parts)):
        if parts[0] != os.curdir:
            _make_dir(os.path.join(top, *parts[: index + 1]), gid)


def _write(path: str, data: Iterable[bytes], gid: int) -> None:
    temporary = os.path.join(os.path.dirname(path), _TEMPORARY)
    try:
        os.unlink(temporary)
    except FileNotFoundError:
        pass
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(fd, "wb") as file:
            for chunk in data:
                file.write(chunk)
            file.flush()
            os.fsync(file.fileno())
        _own(temporary, gid)
        os.rename(temporary, path)
    except OSError:
        os.unlink(temporary)
        raise


def _move(source: str, path: str, gid: int) -> None:
    """Move a download into place, also from another file system."""
    _own(source, gid)
    try:
        os.rename(source, path)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        with open(source, "rb") as file:
            _write(path, iter(lambda: file.read(1 << 20), b""), gid)
        os.unlink(source)


def _own(path: str, gid: int) -> None:
    os.chmod(path, _FILE_MODE)
    if os.geteuid() == 0:
        os.chown(path, -1, gid)


def _prune(top: str, wanted: set[str], *, keep_top: bool) -> None:
    """Remove what no config holds any more; a link goes, what it points to stays."""
    if os.path.islink(top):
        os.unlink(top)
    for directory, below, names in os.walk(top, topdown=False):
        links = [name for name in below if os.path.islink(os.path.join(directory, name))]
        for name in names + links:
            path = os.path.join(directory, name)
            if path not in wanted:
                os.unlink(path)
        if not os.listdir(directory) and not (keep_top and directory == top):
            os.rmdir(directory)
