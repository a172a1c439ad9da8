# SPDX-License-Identifier: Apache-2.0
"""Users and groups as a document names them, turned into the numbers the kernel wants.

Names are looked up on the device (/etc/passwd, /etc/group), also for a process with a root of its
own: what is inside an image does not decide who may touch what on the device.
"""

from __future__ import annotations

import grp
import os
import pwd
from collections.abc import Sequence

from maestro_py.errors import MaestroError, Unsupported
from maestro_py.spec.model import Id
from maestro_py.spec.resolved import ResolvedProcess
from maestro_py.valueclass import valueclass

_MAX_ID = (1 << 32) - 2  # 2^32-1 means "leave it" to setresuid(2)


@valueclass(frozen=True)
class Credentials:
    """Who a process runs as. `change` False: the daemon is that already, groups are left alone."""

    uid: int
    gid: int
    groups: tuple[int, ...] = ()
    change: bool = False


def credentials(process: ResolvedProcess) -> Credentials:
    """Return who `process` runs as.

    A user alone brings its primary group and its supplementary groups; a number without an account
    is its own group and has no others. A group alone drops the daemon's supplementary groups.
    Raises MaestroError for an unknown name, Unsupported when the daemon may not change users.
    """
    return resolve(process.user, process.group, process.supplementary_groups, f"run {process.name}")


def resolve(user: Id | None, group: Id | None, supplementary: Sequence[Id] | None, doing: str) -> Credentials:
    """Return the credentials of a user, a group and more groups; None means not said.

    `doing` starts the error message: "cannot <doing> as user 'x': no such user".
    """
    own_uid, own_gid = os.geteuid(), os.getegid()
    if user is None and group is None and supplementary is None:
        return Credentials(own_uid, own_gid)
    uid, gid, name = own_uid, own_gid, ""
    if user is not None:
        uid, gid, name = _user(user, doing)
    if group is not None:
        gid = _group(group, doing)
    if supplementary is not None:
        groups = tuple(dict.fromkeys(_group(entry, doing) for entry in supplementary))
    elif name:
        groups = tuple(os.getgrouplist(name, gid))
    else:
        groups = (gid,)
    if own_uid != 0:
        _without_root(doing, user, group, uid, gid, groups if supplementary is not None else None)
        return Credentials(uid, gid)
    return Credentials(uid, gid, groups, change=True)


def _without_root(
    doing: str, user: Id | None, group: Id | None, uid: int, gid: int, groups: tuple[int, ...] | None
) -> None:
    hint = "run maestrod as root, or leave this out"
    if uid != os.geteuid():
        why = f"maestrod itself runs as user {os.geteuid()}, and only root may change users"
        raise Unsupported(f"cannot {doing} as user {user!r}: {why}", hint=hint)
    if group is not None and gid != os.getegid():
        why = f"maestrod itself runs as group {os.getegid()}, and only root may change groups"
        raise Unsupported(f"cannot {doing} as group {group!r}: {why}", hint=hint)
    if groups is not None and set(groups) | {gid} != set(os.getgroups()) | {gid}:
        why = f"maestrod runs as user {os.geteuid()}, and only root may change them"
        raise Unsupported(f"cannot {doing} with these supplementary groups: {why}", hint=hint)


def _user(user: Id, doing: str) -> tuple[int, int, str]:
    """Return (uid, primary gid, account name or empty)."""
    number = _number(user)
    try:
        entry = pwd.getpwuid(number) if number is not None else pwd.getpwnam(str(user))
    except (KeyError, OverflowError, ValueError):
        if number is None or number > _MAX_ID:
            raise MaestroError(f"cannot {doing} as user {user!r}: no such user") from None
        return number, number, ""
    return entry.pw_uid, entry.pw_gid, entry.pw_name


def _group(group: Id, doing: str) -> int:
    number = _number(group)
    if number is not None and number <= _MAX_ID:
        return number
    try:
        return grp.getgrnam(str(group)).gr_gid
    except (KeyError, ValueError):
        raise MaestroError(f"cannot {doing} as group {group!r}: no such group") from None


def _number(value: Id) -> int | None:
    if isinstance(value, int):
        return value if value >= 0 else None
    return int(value) if value.isascii() and value.isdigit() else None
