# SPDX-License-Identifier: Apache-2.0
"""The Debian package's life on a running device. Last, for it ends what others use."""

from __future__ import annotations

import pytest
from device.lab.machine import Machine
from support.documents import job

pytestmark = pytest.mark.device


def test_package_is_removed_purged_and_installed_again(device: Machine) -> None:
    device.apply(job("victim", cgroup={"mem_limit": "32M"}))
    pid = device.job("victim")["pid"]
    device.run("DEBIAN_FRONTEND=noninteractive dpkg --remove maestro", 120)
    assert device.attempt(f"kill -0 {pid}")[0] == 1
    assert device.attempt("find /sys/fs/cgroup -name 'maestro*' | grep .")[0] == 1
    assert device.run("ls /var/lib/maestro /etc/maestro")
    device.run("DEBIAN_FRONTEND=noninteractive dpkg --purge maestro", 120)
    for path in ("/var/lib/maestro", "/var/log/maestro", "/etc/maestro", "/run/maestro"):
        assert device.attempt(f"test -e {path}")[0] == 1, path
    device.run("dpkg --install /opt/maestro.deb", 120)
    assert device.show("ActiveState") == "active"
    assert device.maestro("status") == {"jobs": []}
