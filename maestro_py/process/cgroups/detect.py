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
    usable = {name: path for name, path in v1.items() if os.access(path, os.W_OK)}
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


def _mounted(mounts: str) -> tuple[dict[str, str], tuple[str, str] | None]:
    """Return v1 directories by controller, and (directory, root within the tree) of v2.

    Source: proc_pid_mountinfo(5).
    """
    v1: dict[str, str] = {}
    v2: tuple[str, str] | None = None
    for line in files.read(mounts).splitlines():
        left, _, right = line.partition(" - ")
        fields, (kind, _, options) = left.split(), right.split(" ", 2)
        root, where = (_ESCAPE.sub(lambda m: chr(int(m[1], 8)), text) for text in fields[3:5])
        if kind == "cgroup2":
            v2 = v2 or (where, root)
        elif kind == "cgroup":
            for option in options.split(","):
                if option in _V1_NAMES:
                    v1.setdefault(_V1_NAMES[option], where)
    return {name: v1[name] for name in _V1_NAMES.values() if name in v1}, v2


def _anchor(where: str, root: str, own: str) -> str:
    """Return the directory of the daemon's own v2 group."""
    lines = files.read(own).splitlines()
    path = next((line[3:] for line in lines if line.startswith("0::")), "/")
    if root != "/":
        path = path.removeprefix(root) if f"{path}/".startswith(f"{root}/") else "/"
    if path.startswith("/.."):  # outside our cgroup namespace
        path = "/"
    return where + path.rstrip("/")


def _writable(anchor: str) -> bool:
    if os.path.basename(anchor) == SUPERVISOR:
        anchor = os.path.dirname(anchor)
    return os.access(anchor, os.W_OK) and os.access(f"{anchor}/cgroup.procs", os.W_OK)
