# SPDX-License-Identifier: Apache-2.0
"""Reading and writing the small files of a control group tree, and the names of its directories."""

from __future__ import annotations

import errno
import os
import re

from maestro_py.spec.names import safe_name

_SUFFIX = ".job"  # no file of the kernel ends so: a job called `tasks` or `memory.max` gets its group too
_ESCAPED = re.compile(rb"%([0-9A-F]{2})")
_GONE = (errno.ENOENT, errno.ENODEV)  # ENODEV: opened before, removed since


def directory_name(name: str) -> str:
    """Return the directory for a process of that name."""
    return safe_name(name) + _SUFFIX


def group_names(base: str) -> list[str]:
    """Return the names of the processes that have a directory below `base`."""
    names = []
    for path in subdirectories(base):
        directory = os.path.basename(path)
        if directory.endswith(_SUFFIX):
            text = directory.removesuffix(_SUFFIX).encode()
            names.append(_ESCAPED.sub(lambda m: bytes([int(m[1], 16)]), text).decode(errors="replace"))
    return sorted(names)


def read(path: str, dir_fd: int | None = None) -> str:
    """Return a file's text. Raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC, dir_fd=dir_fd)
    try:
        text = b""
        while chunk := os.read(fd, 65536):
            text += chunk
        return text.decode()
    finally:
        os.close(fd)


def write(path: str, text: str, dir_fd: int | None = None) -> None:
    """Write a value in one go, as the kernel wants it; the file is never created. Raises OSError."""
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC, dir_fd=dir_fd)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)


def write_if_there(path: str, text: str, dir_fd: int | None = None) -> bool:
    """Write a value; False when this kernel has no such file. Raises OSError for anything else."""
    try:
        write(path, text, dir_fd)
    except FileNotFoundError:
        return False
    return True


def number(path: str, dir_fd: int | None = None) -> int | None:
    """Return the number in a file; None for `max` and for a file that is not there."""
    try:
        text = read(path, dir_fd).strip()
    except OSError as error:
        if error.errno in _GONE or error.errno == errno.EOPNOTSUPP:
            return None
        raise
    return int(text) if text.isdigit() else None


def keyed(path: str, key: str, dir_fd: int | None = None) -> int | None:
    """Return the number after `key` in a file of `key number` lines; None when either is not there."""
    try:
        lines = read(path, dir_fd).splitlines()
    except OSError as error:
        if error.errno in _GONE:
            return None
        raise
    return next((int(line.split()[1]) for line in lines if line.startswith(key + " ")), None)


def subdirectories(path: str) -> list[str]:
    """Return the paths of the directories in a directory; none when it is gone."""
    try:
        with os.scandir(path) as entries:
            return [entry.path for entry in entries if entry.is_dir(follow_symlinks=False)]
    except FileNotFoundError:
        return []


def processes(path: str) -> list[int]:
    """Return the processes of a group and of the groups below it. Raises OSError."""
    try:
        # 0 stands for a process outside our pid namespace: not ours, and deadly as an argument of kill
        pids = [pid for pid in map(int, read(f"{path}/cgroup.procs").split()) if pid]
        nested = os.stat(path).st_nlink > 2  # kernfs counts sub-directories as links
    except OSError as error:
        if error.errno in _GONE:
            return []
        raise
    if nested:
        for below in subdirectories(path):
            pids += processes(below)
    return pids


def make(path: str) -> bool:
    """Make a directory; False when it was there. Raises OSError."""
    try:
        os.mkdir(path, 0o755)
    except FileExistsError:
        return False
    return True


def remove(path: str) -> bool:
    """Remove a group and the empty groups below it; False when something is left. Raises OSError."""
    for attempt in (0, 1):
        try:
            os.rmdir(path)
        except OSError as error:
            if error.errno in _GONE:
                return True
            if error.errno not in (errno.EBUSY, errno.ENOTEMPTY):
                raise
            if attempt:
                return False
            for below in subdirectories(path):
                remove(below)
        else:
            return True
    return False
