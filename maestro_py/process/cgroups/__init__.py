# SPDX-License-Identifier: Apache-2.0
"""Control groups behind one port: v1, v2, both, or none."""

from maestro_py.process.cgroups.detect import detect
from maestro_py.process.cgroups.port import Cgroup, Cgroups, Memory

__all__ = ["Cgroup", "Cgroups", "Memory", "detect"]
