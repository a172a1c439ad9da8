# SPDX-License-Identifier: Apache-2.0
"""What a process asks for that not every daemon may give, and whether this one may.

`needs` is pure: it compares a process with what the daemon is. `check` refuses a document before anything
is changed, so that a person reads which right is missing, and not a job's log.
"""

from __future__ import annotations

import grp
import os
import pwd
import resource
from collections.abc import Collection, Iterable, Mapping
from dataclasses import field

from maestro_py.errors import InvalidDocument, Problem
from maestro_py.process import kernel
from maestro_py.process.cgroups import Cgroups
from maestro_py.process.cgroups.values import CONTROLLER, set_fields
from maestro_py.spec.isolation import CAPABILITIES
from maestro_py.spec.model import Id
from maestro_py.spec.resolved import ResolvedProcess
from maestro_py.valueclass import valueclass

_ROOT_ONLY = frozenset({"setuid", "setgid", "sys_admin", "sys_chroot", "net_admin", "mknod"})
"""Capabilities that are of use to a daemon only if it is user 0: the launcher asks for that."""

FIELDS: Mapping[str, tuple[str, ...]] = {
    "setuid": ("user",),
    "setgid": ("group", "supplementary_groups"),
    "sys_chroot": ("chroot_path", "ChrootImage"),
    "sys_admin": ("mounts", "tmpfs", "secrets", "read_only_root", "pids: private", "network"),
    "net_admin": ("network: private",),
    "mknod": ("devices",),
    "sys_nice": ("a lower nice",),
    "sys_resource": ("rlimits beyond the daemon's own", "a lower oom_score_adj"),
}
"""What a daemon without a capability has to refuse."""


@valueclass(frozen=True)
class Own:
    """What the daemon is and has. controllers: those it may limit with; None: any, root is not refused."""

    uid: int = 0
    gid: int = 0
    groups: frozenset[int] = frozenset()
    user_names: frozenset[str] = frozenset()
    group_names: Mapping[str, int] = field(default_factory=dict)
    capabilities: frozenset[str] = frozenset(CAPABILITIES)
    nice: int = 0  # the lowest it may give
    oom_score_adj: int = 0
    rlimits: Mapping[str, int] = field(default_factory=dict)  # hard limits; -1: none
    controllers: frozenset[str] | None = None


def own(cgroups: Cgroups) -> Own:
    """Return what this daemon is and has."""
    uid, gid, groups = os.geteuid(), os.getegid(), frozenset(os.getgroups())
    effective = kernel.capabilities()["CapEff"]
    has = {name for number, name in enumerate(CAPABILITIES) if effective >> number & 1}
    if uid != 0:
        has -= _ROOT_ONLY
    limits = {
        name[7:].lower(): resource.getrlimit(getattr(resource, name))[1]
        for name in dir(resource)
        if name.startswith("RLIMIT_")
    }
    with open("/proc/self/oom_score_adj", encoding="ascii") as file:
        adjusted = int(file.read())
    nice = os.getpriority(os.PRIO_PROCESS, 0)
    raised = resource.getrlimit(resource.RLIMIT_NICE)[0]  # getrlimit(2): 20 - this is the lowest
    return Own(
        uid,
        gid,
        groups,
        frozenset(_user_name(uid)),
        {name: number for number in {gid, *groups} for name in _group_name(number)},
        frozenset(has),
        min(nice, -20 if raised < 0 else 20 - raised),
        adjusted,
        limits,
        frozenset(cgroups.controllers) if uid else None,
    )


def needs(process: ResolvedProcess, own: Own) -> list[tuple[str, str]]:
    """Return (field, capability) for all that an ordinary daemon which is `own` may not give. Pure.

    A capability is spelled as in capabilities(7), without `CAP_`; `cgroup CONTROLLER` stands for a control
    group with that controller.
    """
    found: list[tuple[str, str]] = []
    if process.user is not None and not _is(process.user, own.uid, own.user_names):
        found.append(("user", "setuid"))
    if process.group is not None and _number(process.group, own.group_names) != own.gid:
        found.append(("group", "setgid"))
    if process.supplementary_groups is not None:
        asked = {_number(each, own.group_names) for each in process.supplementary_groups}
        if asked | {own.gid} != own.groups | {own.gid}:
            found.append(("supplementary_groups", "setgid"))
    if process.root.strip("/"):
        image = any(each.path == process.root for each in process.images)
        found.append(("ChrootImage" if image else "chroot_path", "sys_chroot"))
    asks = {
        "mounts": bool(process.mounts),
        "tmpfs": bool(process.tmpfs),
        "secrets": bool(process.secrets),
        "read_only_root": process.read_only_root,
        "pids": process.pids == "private",
        "network": process.network.mode != "host",
    }
    found += [(name, "sys_admin") for name, said in asks.items() if said]
    if process.network.mode == "private":
        found.append(("network", "net_admin"))
    if process.devices:
        found.append(("devices", "mknod"))
    found += [("capabilities", name) for name in process.capabilities or ()]
    if process.nice is not None and process.nice < own.nice:
        found.append(("nice", "sys_nice"))
    if process.oom_score_adj is not None and process.oom_score_adj < own.oom_score_adj:
        found.append(("oom_score_adj", "sys_resource"))
    if any(_beyond(hard, own.rlimits.get(name, -1)) for name, _, hard in process.rlimits):
        found.append(("rlimits", "sys_resource"))
    if own.controllers is not None:
        lacking = [each for each in set_fields(process.limits) if CONTROLLER[each] not in own.controllers]
        found += [(f"cgroup.{each}", f"cgroup {CONTROLLER[each]}") for each in lacking]
    return found


def missing(process: ResolvedProcess, own: Own) -> list[tuple[str, str]]:
    """Return those of its needs that the daemon cannot meet. Pure."""
    return [(name, right) for name, right in needs(process, own) if not _has(right, own)]


def check(processes: Iterable[ResolvedProcess], jobs: Collection[str], cgroups: Cgroups) -> None:
    """Refuse a document of these jobs that asks for what this daemon may not give.

    Raises InvalidDocument that names every job, field and right.
    """
    mine = own(cgroups)
    problems = []
    for process in processes:
        named = next((job for job in process.members if job in jobs), "")
        if not named or not process.enabled:
            continue
        for name, right in missing(process, mine):
            problems.append(Problem(f'jobs["{named}"].{name}', _sentence(right, mine), hint=_HINT))
    if problems:
        raise InvalidDocument("running config", problems)


def refused(own: Own) -> list[str]:
    """Return the fields this daemon refuses, in words."""
    words = [word for right, fields in FIELDS.items() if not _has(right, own) for word in fields]
    if own.controllers is not None:
        words += [f"cgroup.{each}" for each, of in CONTROLLER.items() if of not in own.controllers]
    return words


_HINT = "`maestro doctor` shows what works here"


def _sentence(right: str, own: Own) -> str:
    who = "root" if own.uid == 0 else f"uid {own.uid}"
    if right.startswith("cgroup "):
        controller = right.partition(" ")[2]
        return f"maestrod runs as {who} and was given no control group with the {controller} controller"
    return f"maestrod runs as {who} and has no CAP_{right.upper()}"


def _has(right: str, own: Own) -> bool:
    if right.startswith("cgroup "):
        return False  # `needs` names only those that are not there
    # a new root is entered by pivot_root(2) or by chroot(2): either right will do
    return right in own.capabilities or (right == "sys_chroot" and "sys_admin" in own.capabilities)


def _is(wanted: Id, number: int, names: Collection[str]) -> bool:
    return str(wanted) == str(number) or wanted in names


def _number(group: Id, names: Mapping[str, int]) -> int | str:
    """Return the number of a group: a name that is not one of the daemon's own stays a name."""
    text = str(group)
    return int(text) if text.isascii() and text.isdigit() else names.get(text, text)


def _beyond(wanted: int, allowed: int) -> bool:
    return allowed >= 0 and (wanted < 0 or wanted > allowed)


def _user_name(uid: int) -> list[str]:
    try:
        return [pwd.getpwuid(uid).pw_name]
    except KeyError:
        return []


def _group_name(gid: int) -> list[str]:
    try:
        return [grp.getgrgid(gid).gr_name]
    except KeyError:
        return []
