# SPDX-License-Identifier: Apache-2.0
"""The daemon is killed again and again under systemd, and the clock jumps by years."""

from __future__ import annotations

import json
import os
import re
from itertools import pairwise

import pytest
from device.lab.machine import Machine
from support.documents import job, python

pytestmark = pytest.mark.device

KILLS = int(os.environ.get("MAESTRO_DEVICE_KILLS", "5"))

COUNTS = """
import itertools, time
for n in itertools.count(1):
    print("line", n, flush=True)
    time.sleep(0.02)
"""

YEAR = 365 * 86400

DIES = "while :; do read up rest < /proc/uptime; echo started $up; exit 1; done"


def test_jobs_do_not_notice_that_the_daemon_is_killed(device: Machine) -> None:
    device.set(RestartSec="100ms")
    names = [f"job{n}" for n in range(10)]
    device.apply(*(job(name, cgroup={"pids_max": 20}) for name in names), python("counts", COUNTS))
    before = {row["job"]: row["pid"] for row in device.maestro("status")["jobs"]}
    for kill in range(1, KILLS + 1):
        device.run("systemctl kill --kill-who=main --signal=KILL maestrod")
        device.until(f"test $(systemctl show --value -p NRestarts maestrod) = {kill}")
        device.until("systemctl is-active maestrod && maestro status")
    rows = device.maestro("status")["jobs"]
    assert {row["job"]: row["pid"] for row in rows} == before
    assert {(row["state"], row["restarts"]) for row in rows} == {("RUNNING", 0)}
    lines = re.findall(r"line (\d+)\n", device.run("maestro logs -n 1000000 counts"))
    assert [int(n) for n in lines] == list(range(1, len(lines) + 1)), "no line is lost or doubled"
    print(f"\nkilled under systemd: {KILLS} times, 11 jobs, {len(lines)} numbered lines, none lost")


@pytest.mark.parametrize("years", [10, -10])
def test_a_clock_that_jumps_by_years_changes_no_delay(device: Machine, years: int) -> None:
    device.apply()
    dying = job("dying", DIES, restart=True, restart_pause=3000)
    slow = job("slow", wait_for_ok=True, timeout_for_ok=15000)
    device.write("/run/applied.json", json.dumps({"jobs": [dying, slow]}))
    device.run("maestro apply --no-wait /run/applied.json")
    device.until("maestro logs dying | grep -c started | grep -q 2")
    device.run(f"date -s @$(($(date +%s) + {years * YEAR})) > /dev/null")
    try:
        device.until("maestro logs dying | grep -c started | grep -q 5")
        started = [float(up) for up in re.findall(r"started ([0-9.]+)", device.run("maestro logs dying"))]
        gaps = [later - earlier for earlier, later in pairwise(started)]
        assert min(gaps) >= 2.9
        assert max(gaps) < 60, "late by the machine's load, not by years"
        device.until("maestro why slow | grep 'did not say OK within 15s'")
    finally:
        device.run(f"date -s @$(($(date +%s) + {-years * YEAR})) > /dev/null")
