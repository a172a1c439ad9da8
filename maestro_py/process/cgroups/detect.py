# SPDX-License-Identifier: Apache-2.0
"""Which control groups this device offers to this user."""

from __future__ import annotations

import os
import re

from maestro_py.process.cgroups import files
from maestro_py.process.cgroups.port import Cgroups
from maestro_py.process.cgroups.scan import ScanCgroups
from maestro_py.process.cgroups.v1 import Hierarchies
from maestro_py.process.cgroups.v1_backends import HybridCgroups, V1Cgroups
from maestro_py.process.cgroups.v2 import SUPERVISOR, V2Cgroups

_V1_NAMES = {"memory": "memory", "pids": "pids", "cpu": "cpu", "blkio": "io", "freezer": "freezer"}
_ESCAPE = re.compile(r"\\([0-7]{3})")


def detect(
    base: str = "maestro", *, mounts: str = "/proc/self/mountinfo", own: str = "/proc/self/cgroup"
) -> Cgroups:
    """Return the best of what is mounted and writable. Looks only: nothing is created or moved.

    base: name of this daemon's groups, different for each daemon on the device.
    """
    v1, v2 = _mounted(mounts)
    usable = {name: path for name, places in v1.items() if (path := _usable(name, *places, own))}
    try:
        if v2 and _writable(anchor := _anchor(*v2, own)):
            offered = files.read(f"{v2[0]}/cgroup.controllers").split()
            if usable and not {"memory", "pids", "cpu"}.intersection(offered):
                return HybridCgroups(anchor, Hierarchies(usable, base))
            return V2Cgroups(anchor, base)
    except OSError:
        pass
    if usable:
        return V1Cgroups(Hierarchies(usable, base))
    if not v1 and not v2:
        return ScanCgroups(base, "no control groups are mounted on this device")
    if os.geteuid():
        return ScanCgroups(base, "not root, and no control group is delegated to this user")
    return ScanCgroups(base, "the control groups are mounted read-only")


def member_files(pid: int, *, mounts: str = "/proc/self/mountinfo") -> list[str]:
    """Return the `cgroup.procs` files of the groups a process is in and this one is not.

    Who is written to all of them shares its limits and its end. Raises OSError when it is gone.
    """
    theirs, own = f"/proc/{pid}/cgroup", "/proc/self/cgroup"
    v1, v2 = _mounted(mounts)
    trees = [(where, root, name) for name, (where, root) in v1.items()]
    if v2:
        trees.append((*v2, ""))
    found: dict[str, None] = {}
    for where, root, name in trees:
        below = _below(root, theirs, name)
        if below != _below(root, own, name):
            found[f"{where}{below}/cgroup.procs"] = None
    return list(found)


_Mount = tuple[str, str]
"""(directory, root within the tree) of a mounted tree."""


def _mounted(mounts: str) -> tuple[dict[str, _Mount], _Mount | None]:
    """Return the v1 mounts by controller, and the v2 mount. Source: proc_pid_mountinfo(5)."""
    v1: dict[str, _Mount] = {}
    v2: _Mount | None = None
    for line in files.read(mounts).splitlines():
        left, _, right = line.partition(" - ")
        fields, (kind, _, options) = left.split(), right.split(" ", 2)
        root, where = (_ESCAPE.sub(lambda m: chr(int(m[1], 8)), text) for text in fields[3:5])
        if kind == "cgroup2":
            v2 = v2 or (where, root)
        elif kind == "cgroup":
            for option in options.split(","):
                if option in _V1_NAMES:
                    v1.setdefault(_V1_NAMES[option], (where, root))
    return {name: v1[name] for name in _V1_NAMES.values() if name in v1}, v2


def _anchor(where: str, root: str, own: str) -> str:
    """Return the directory of the daemon's own v2 group."""
    return where + _below(root, own, "")


def _usable(controller: str, where: str, root: str, own: str) -> str:
    """Return where this user may make v1 groups: the top of the tree, or the own group if it was given away.

    Empty: nowhere.
    """
    if os.access(where, os.W_OK):
        return where
    delegated = where + _below(root, own, controller)
    return delegated if os.access(delegated, os.W_OK) else ""


def _below(root: str, own: str, controller: str) -> str:
    """Return the path of the own group in the tree of a controller ("": v2) mounted from `root` on."""
    path = "/"
    for line in files.read(own).splitlines():
        _, names, found = line.split(":", 2)
        if controller in [_V1_NAMES.get(name, name) for name in names.split(",")]:
            path = found
            break
    if root != "/":
        path = path.removeprefix(root) if f"{path}/".startswith(f"{root}/") else "/"
    if path.startswith("/.."):  # outside our cgroup namespace
        path = "/"
    return path.rstrip("/")


def _writable(anchor: str) -> bool:
    if os.path.basename(anchor) == SUPERVISOR:
        anchor = os.path.dirname(anchor)
    return os.access(anchor, os.W_OK) and os.access(f"{anchor}/cgroup.procs", os.W_OK)
