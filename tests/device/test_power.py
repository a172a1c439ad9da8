# SPDX-License-Identifier: Apache-2.0
"""The power is cut while the device applies, upgrades and logs; the next boot finds old or new, whole.

MAESTRO_POWER_CUTS sets how often; `make powercut` does it a hundred times.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import random
import time
from pathlib import Path
from typing import Any

import pytest
from device.lab import image
from device.lab.machine import Machine, own_disk
from support.documents import checksum, job, tarball

pytestmark = [pytest.mark.device, pytest.mark.timeout(0)]

CUTS = int(os.environ.get("MAESTRO_POWER_CUTS", "2"))

SCRIPT = """
import os, sys, time
here = os.path.dirname(sys.argv[0])
print("version", open(here + "/version").read(), flush=True)
print("!!OK!!", flush=True)
n = 0
while True:
    n += 1
    print("line", n, flush=True)
    time.sleep(0.01)
"""


def picture(version: int) -> bytes:
    """Return the archive of a version: a program, its version, and something to write."""
    ballast = base64.b85encode(random.Random(version).randbytes(300_000)).decode()
    return tarball({"run.py": SCRIPT, "version": str(version), "ballast": ballast})


def wanted(version: int, archive: bytes) -> dict[str, Any]:
    return {
        "jobs": [
            {
                "job": "app",
                "container_template": "python",
                "exec_cmd": "{{IMAGE}}/run.py",
                "wait_for_ok": True,
                "restart": True,
            },
            job("other", f"exec sleep {1000 + version}", restart=True),
        ],
        "images": [
            {
                "job": "app",
                "version": str(version),
                "url": f"file:///root/{version}.tar.gz",
                "size": len(archive),
                "checksum": checksum(archive),
                "image_type": "tarball",
            }
        ],
    }


def found(machine: Machine) -> int:
    """Return the version that runs, after looking whether everything is whole."""
    machine.until("systemctl is-active maestrod && maestro status app | grep RUNNING")
    version = int(machine.job("app")["image_version"])
    place = machine.run("readlink -f /var/lib/maestro/images/app/current").strip()
    assert machine.run(f"cat {place}/version") == str(version)
    ballast = base64.b85encode(random.Random(version).randbytes(300_000))
    digest = machine.run(f"sha256sum < {place}/ballast").split()[0]
    assert digest == hashlib.sha256(ballast).hexdigest()
    check = (
        "import sqlite3; db = sqlite3.connect('/var/lib/maestro/maestro.db');"
        " print(db.execute('PRAGMA integrity_check').fetchone()[0])"
    )
    assert machine.run(f'python3 -c "{check}"').strip() == "ok"
    staging = machine.run("ls -A /var/lib/maestro/images/.staging 2>/dev/null || true").split()
    assert staging == []
    command = machine.run(f"tr '\\0' ' ' < /proc/{machine.job('other')['pid']}/cmdline").split()
    assert command == ["sleep", str(1000 + version)], "one document, not parts of two"
    assert "line" in machine.run("maestro logs -n 3 app")
    return version


def test_every_boot_after_a_power_cut_finds_the_old_or_the_new_and_all_of_it(tmp_path: Path) -> None:
    built = image.build()
    disk = own_disk(built, tmp_path / "disk.qcow2")
    chance = random.Random(4711)
    expected = {0}
    outcomes = {"old": 0, "new": 0}
    machine = Machine(built, disk)
    try:
        put(machine, 0)
        machine.until("systemctl is-active maestrod")
        machine.run("maestro apply /root/0.json && sync")
        for cut in range(1, CUTS + 1):
            archive = put(machine, cut)
            assert archive
            machine.run("sync")
            machine.begin(f"maestro apply /root/{cut}.json")
            time.sleep(chance.uniform(0, 4))
            machine.close()
            machine = Machine(built, disk)
            version = found(machine)
            expected = {max(expected), cut}
            assert version in expected
            outcomes["new" if version == cut else "old"] += 1
            expected = {version}
            print(f"power cut {cut}: {outcomes}", flush=True)
    finally:
        machine.close()
    print(
        f"\npower cuts: {CUTS}, the old document {outcomes['old']} times, the new one {outcomes['new']} times"
    )


def put(machine: Machine, version: int) -> bytes:
    """Bring an archive and its document to the device's disk."""
    archive = picture(version)
    text = base64.b64encode(archive).decode()
    machine.run(f"rm -f /root/{version}.b64")
    for at in range(0, len(text), 100_000):
        machine.run(f"printf %s {text[at : at + 100_000]} >> /root/{version}.b64")
    machine.run(f"base64 -d /root/{version}.b64 > /root/{version}.tar.gz; rm /root/{version}.b64")
    machine.write(f"/root/{version}.json", json.dumps(wanted(version, archive)))
    return archive
