# SPDX-License-Identifier: Apache-2.0
"""From what a process may see and do, as declared, to the steps that make it so."""

from __future__ import annotations

import binascii
import os
from collections.abc import Sequence

from maestro_py.errors import MaestroError, Unsupported
from maestro_py.process import kernel, seccomp
from maestro_py.process.accounts import Credentials
from maestro_py.process.mounts import QUIET, Bind, Mounted, Secrets, Tmpfs
from maestro_py.process.root import MakeRoot, OwnMounts
from maestro_py.process.steps import NoNewPrivs, Step
from maestro_py.spec.isolation import SECRET_LIMIT
from maestro_py.spec.model import Mount, Secret
from maestro_py.spec.names import safe_name
from maestro_py.spec.places import IMAGES_INSIDE
from maestro_py.spec.resolved import ResolvedProcess

_OPTIONS = {"ro": kernel.MS_RDONLY, "noexec": kernel.MS_NOEXEC}


def view(process: ResolvedProcess, who: Credentials, shown: Sequence[tuple[str, str]] = ()) -> list[Step]:
    """Return the step that changes what the process sees of the file system; none when it asks for nothing.

    shown: (file of the device, where it is to be seen), for a process with a root of its own.
    Raises Unsupported without the right to do it, MaestroError for a secret that cannot be read.
    """
    rooted = bool(process.root.strip("/"))
    wishes = _wishes(process)
    if not rooted and not wishes:
        return []
    _check_rights(process, rooted, wishes)
    mounted: list[Mounted] = [
        *_own(process, rooted),
        *(Bind(source, target, QUIET | kernel.MS_RDONLY) for source, target in shown),
        *(_mount(each) for each in process.mounts),
        *(_tmpfs(each, who) for each in process.tmpfs),
    ]
    if process.secrets:
        if not process.secrets_dir:
            raise MaestroError(f"cannot run {process.name} with secrets: there is no directory for them")
        contents = tuple((each.name, _content(each, process.name)) for each in process.secrets)
        mounted.append(Secrets(process.secrets_dir, contents, who.uid, who.gid))
    # user 0 without capabilities may still write what belongs to it
    masked = who.uid == 0 and process.capabilities is not None
    private = process.pids == "private"
    if not rooted:
        return [OwnMounts(tuple(mounted), process.read_only_root, private, masked)]
    root = process.root
    return [
        MakeRoot(
            root, tuple(mounted), process.devices, who.uid, who.gid, process.read_only_root, masked=masked
        )
    ]


def last_steps(process: ResolvedProcess, who: Credentials) -> list[Step]:
    """Return what comes last before exec: no new rights, and the filter, which needs that."""
    wanted = process.no_new_privs if process.no_new_privs is not None else who.uid != 0
    if process.seccomp == "none":
        return [NoNewPrivs()] if wanted else []
    if process.no_new_privs is False:
        raise MaestroError(f"cannot run {process.name} with seccomp: its no_new_privs is false")
    return [NoNewPrivs(), seccomp.default_filter(f"run {process.name}")]


def prepare_dirs(process: ResolvedProcess, uid: int, gid: int) -> None:
    """Make the process's own directories on the device, for its user alone. Raises MaestroError.

    An existing one goes to the user; what is in it keeps its owner.
    """
    for path in (process.data_dir, process.run_dir):
        if path:
            _make_dir(path, uid, gid)
    if process.secrets_dir and not process.root:
        _make_dir(process.secrets_dir, os.geteuid(), os.getegid())


def _make_dir(path: str, uid: int, gid: int) -> None:
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        try:
            fd = os.open(path, flags)
        except FileNotFoundError:
            parent = os.path.dirname(path)
            if not os.path.isdir(parent):
                os.makedirs(os.path.dirname(parent), exist_ok=True)
                os.mkdir(parent, 0o711)
            os.mkdir(path, 0o700)
            fd = os.open(path, flags)
        try:
            entry = os.fstat(fd)
            if (entry.st_uid, entry.st_gid) != (uid, gid):
                os.fchown(fd, uid, gid)
        finally:
            os.close(fd)
    except OSError as error:
        raise MaestroError(f"cannot make {path}: {error.strerror}") from error


def _wishes(process: ResolvedProcess) -> list[str]:
    """Return the fields that need a mount namespace."""
    said = {
        "mounts": process.mounts,
        "tmpfs": process.tmpfs,
        "secrets": process.secrets,
        "read_only_root": process.read_only_root,
        "pids: private": process.pids == "private",
    }
    return [name for name, value in said.items() if value]


def _check_rights(process: ResolvedProcess, rooted: bool, wishes: list[str]) -> None:
    if os.geteuid() == 0:
        return
    user = f"maestrod runs as user {os.geteuid()}"
    if rooted:
        why = f"{user}, and only root may change the root directory"
        hint = "run maestrod as root, or leave chroot_path and ChrootImage out"
        raise Unsupported(f"cannot run {process.name} in {process.root}: {why}", hint=hint)
    why = f"{user}, and only root may make namespaces and mounts"
    hint = "run maestrod as root, or leave this out"
    raise Unsupported(f"cannot run {process.name} with {', '.join(wishes)}: {why}", hint=hint)


def _own(process: ResolvedProcess, rooted: bool) -> list[Bind]:
    """Return what comes from the daemon: config, own directories, images that are not inside the root."""
    binds = []
    flags = QUIET | kernel.MS_RDONLY
    read_only = kernel.MS_RDONLY if process.read_only_root else 0
    if rooted and process.config_dir and process.config_dir_inside != process.config_dir:
        binds.append(Bind(process.config_dir, process.config_dir_inside, flags))
    if rooted or process.read_only_root:
        for source, target in (
            (process.data_dir, process.data_dir_inside),
            (process.run_dir, process.run_dir_inside),
        ):
            if source:
                binds.append(Bind(source, target, QUIET, optional=True))
    if rooted:
        inside = process.root.rstrip("/") + "/"
        for image in process.images:
            if not (image.path.rstrip("/") + "/").startswith(inside):
                binds.append(Bind(image.path, f"{IMAGES_INSIDE}/{safe_name(image.job)}", read_only))
    return binds


def _mount(mount: Mount) -> Bind:
    flags = QUIET | (0 if "rw" in mount.options else kernel.MS_RDONLY)
    for option in mount.options:
        flags |= _OPTIONS.get(option, 0)
    return Bind(mount.source, mount.target, flags, below=True)


def _tmpfs(text: str, who: Credentials) -> Tmpfs:
    target, _, size = text.partition(":size=")
    if target in ("/tmp", "/var/tmp", "/dev/shm"):
        return Tmpfs(target, int(size or 0))
    return Tmpfs(target, int(size or 0), 0o755, who.uid, who.gid)


def _content(secret: Secret, process: str) -> bytes:
    """Return the bytes of a secret."""
    if not secret.file:
        text = secret.data.encode()
        return binascii.a2b_base64(text) if secret.encoding == "base64" else text
    what = f"cannot read the secret {secret.name} of {process} from {secret.file}"
    try:
        # a FIFO or a device must not hold the daemon up
        fd = os.open(secret.file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(fd, "rb") as file:
            data = file.read(SECRET_LIMIT + 1)
    except OSError as error:
        raise MaestroError(f"{what}: {error.strerror}") from error
    if len(data) > SECRET_LIMIT:
        raise MaestroError(f"{what}: it is larger than {SECRET_LIMIT} bytes")
    return data
