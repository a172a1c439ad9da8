# SPDX-License-Identifier: Apache-2.0
"""The Debian package's life on a running device. Last, for it ends what others use."""

from __future__ import annotations

import re

import pytest
from device.lab.machine import Machine
from support.documents import job, python

pytestmark = pytest.mark.device

DPKG = "DEBIAN_FRONTEND=noninteractive dpkg"

COUNTS = """
import itertools, time
for n in itertools.count(1):
    print("line", n, flush=True)
    time.sleep(0.05)
"""


def make_newer(device: Machine) -> str:
    """Put /root/newer.deb there: the same package as the next version has it. Return that version."""
    version = device.run("dpkg-deb --field /opt/maestro.deb Version").strip()
    device.run("rm -rf /root/newer && dpkg-deb --raw-extract /opt/maestro.deb /root/newer", 300)
    files = "DEBIAN/control usr/lib/python3/dist-packages/maestro_py/__init__.py"
    device.run(f"cd /root/newer && sed -i 's/{re.escape(version)}/{version}.1/' {files}")
    device.run("dpkg-deb --build --root-owner-group /root/newer /root/newer.deb", 300)
    return f"{version}.1"


def test_an_upgrade_of_the_package_is_not_noticed_by_any_job(device: Machine) -> None:
    newer = make_newer(device)
    device.apply(
        job("limited", cgroup={"mem_limit": "32M"}),
        job("after", depends_on=["limited"]),
        python("numbers", COUNTS),
    )
    before = {row["job"]: row["pid"] for row in device.maestro("status")["jobs"]}
    daemon, restarts = device.show("MainPID"), device.show("NRestarts")
    said = device.run(f"{DPKG} --install /root/newer.deb", 300)
    assert "goes on until" not in said, said
    assert device.maestro("version")["maestrod"]["version"] == newer
    assert (device.show("MainPID"), device.show("NRestarts")) == (daemon, restarts)
    assert device.show("ActiveState") == "active"
    assert {row["job"]: row["pid"] for row in device.maestro("status")["jobs"]} == before
    assert {(row["state"], row["restarts"]) for row in device.maestro("status")["jobs"]} == {("RUNNING", 0)}
    lines = re.findall(r"line (\d+)\n", device.run("maestro logs -n 1000000 numbers"))
    assert [int(n) for n in lines] == list(range(1, len(lines) + 1)), "no line is lost or doubled"
    # and back, as somebody does who does not like it
    device.run(f"{DPKG} --install /opt/maestro.deb", 300)
    assert device.maestro("version")["maestrod"]["version"] == newer.removesuffix(".1")
    assert {row["job"]: row["pid"] for row in device.maestro("status")["jobs"]} == before


def test_package_is_removed_purged_and_installed_again(device: Machine) -> None:
    device.apply(job("victim", cgroup={"mem_limit": "32M"}))
    pid = device.job("victim")["pid"]
    device.run(f"{DPKG} --remove maestro", 300)
    assert device.attempt(f"kill -0 {pid}")[0] == 1
    assert device.attempt("find /sys/fs/cgroup -name 'maestro*' | grep .")[0] == 1
    assert device.run("ls /var/lib/maestro /etc/maestro")
    device.run(f"{DPKG} --purge maestro", 300)
    for path in ("/var/lib/maestro", "/var/log/maestro", "/etc/maestro", "/run/maestro"):
        assert device.attempt(f"test -e {path}")[0] == 1, path
    device.run(f"{DPKG} --install /opt/maestro.deb", 300)
    assert device.show("ActiveState") == "active"
    assert device.maestro("status") == {"jobs": []}
