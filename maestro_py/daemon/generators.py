# SPDX-License-Identifier: Apache-2.0
"""Writes the files that `static_file_generators` of the daemon's file describe.

Imported when there are some. A file whose content is right already is not written; a new content takes
the place of the old in one rename, so that a reader sees the one or the other and a power cut tears
neither. What goes wrong is logged and never keeps the daemon from starting.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping

from maestro_py.daemon import log
from maestro_py.errors import MaestroError
from maestro_py.process import accounts
from maestro_py.spec.daemonconfig import DaemonConfig, FileGenerator
from maestro_py.spec.substitute import TooLong
from maestro_py.spec.variables import Renderer, listed

MAX_TEMPLATE = 1 << 20
"""Bytes a template_file may have (upstream's limit)."""


def write_all(config: DaemonConfig, builtins: Mapping[str, str], root: str) -> None:
    """Write every file that is not as it should be.

    root: the daemon's private directory, or "". With one, a file outside it goes below its `files`
    directory instead, at the path it would have had: such a daemon leaves the system alone.
    """
    variables = {**builtins, **config.variables}
    for generator in config.generators:
        path = _place(generator.output_file, root)
        try:
            if _write(generator, path, _content(generator, variables)):
                log.info(f"wrote {path}")
        except MaestroError as error:
            log.warning(f"{error}: the file is left as it is")


def _place(path: str, root: str) -> str:
    path = os.path.abspath(path)
    if not root or path.startswith(root.rstrip("/") + "/"):
        return path
    return os.path.join(root, "files", path.lstrip("/"))


def _content(generator: FileGenerator, variables: Mapping[str, str]) -> bytes:
    if not generator.template_file:
        return generator.template.encode("utf-8", "surrogateescape")
    path = generator.template_file
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(fd, "rb") as file:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise MaestroError(f"cannot read {path}: not a file")
            data = file.read(MAX_TEMPLATE + 1)
    except OSError as error:
        raise MaestroError(f"cannot read {path}: {error.strerror}") from error
    if len(data) > MAX_TEMPLATE:
        raise MaestroError(f"cannot use {path}: a template has {MAX_TEMPLATE >> 20} MiB at most")
    render = Renderer(variables)
    try:
        text = render(data.decode("utf-8", "surrogateescape"))
    except TooLong as error:
        raise MaestroError(f"cannot use {path}: {error}") from error
    if render.unknown:
        log.warning(f"{path}: {listed(render.unknown)}")
    return text.encode("utf-8", "surrogateescape")


def _write(generator: FileGenerator, path: str, content: bytes) -> bool:
    """Make the file what it should be; return whether it was not. Raises MaestroError."""
    doing = f"write {path}"
    who = accounts.resolve(generator.user, generator.group, None, doing)
    uid = who.uid if generator.user is not None else None
    gid = who.gid if generator.user is not None or generator.group is not None else None
    try:
        found, same = _compare(path, content)
        mode = generator.mode
        if mode is None:
            mode = stat.S_IMODE(found.st_mode) if found else 0o644
        uid = uid if uid is not None else found.st_uid if found else os.geteuid()
        gid = gid if gid is not None else found.st_gid if found else os.getegid()
        if same and found and (stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid) == (mode, uid, gid):
            return False
        os.makedirs(os.path.dirname(path), 0o755, exist_ok=True)
        _replace(path, content, mode, uid, gid)
    except OSError as error:
        raise MaestroError(f"cannot {doing}: {error.strerror}") from error
    return True


def _compare(path: str, content: bytes) -> tuple[os.stat_result | None, bool]:
    """Return what the file is, None when it has to be made, and whether its content is right."""
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return None, False
    if stat.S_ISDIR(found.st_mode):
        raise IsADirectoryError(21, "there is a directory of this name")
    if not stat.S_ISREG(found.st_mode):
        return None, False  # a symbolic link is replaced: whoever made it shall not choose the file
    if found.st_size != len(content):
        return found, False
    with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb") as file:
        return found, file.read(len(content) + 1) == content


def _replace(path: str, content: bytes, mode: int, uid: int, gid: int) -> None:
    temporary = os.path.join(os.path.dirname(path), f".{os.path.basename(path)}.{os.getpid()}.new")
    try:
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except FileExistsError:  # left by a power cut
        os.unlink(temporary)
        return _replace(path, content, mode, uid, gid)
    try:
        with open(fd, "wb") as file:
            file.write(content)
            if (uid, gid) != (os.geteuid(), os.getegid()):
                os.fchown(fd, uid, gid)
            os.fchmod(fd, mode)
            file.flush()
            os.fsync(fd)
        os.rename(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
