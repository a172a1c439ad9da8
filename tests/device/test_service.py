# SPDX-License-Identifier: Apache-2.0
"""The package's service on a booted device: cgroup v2, systemd, a real boot."""

from __future__ import annotations

import base64
import json

import pytest
from device.lab.machine import Machine
from support.documents import checksum, job, python, tarball

pytestmark = pytest.mark.device

JOBS = "/sys/fs/cgroup/system.slice/maestro-jobs.service"
MIB = 1 << 20

SCRIPT = """
import os, sys, time
print("runs from", os.path.dirname(sys.argv[0]), flush=True)
print("!!OK!!", flush=True)
time.sleep(100000)
"""

EATS = """
print("!!OK!!", flush=True)
kept = []
while True:
    kept.append(bytearray(b"x" * (1 << 20)))
"""


def group(name: str) -> str:
    return f"{JOBS}/maestro/{name}.job"


def alive(machine: Machine, pid: int) -> bool:
    return machine.attempt(f"kill -0 {pid}")[0] == 0


def test_service_is_up_after_boot_and_said_so_itself(machine: Machine) -> None:
    assert machine.attempt("systemctl is-system-running --wait")[1].strip() == "running"
    assert machine.show("ActiveState") == "active"
    assert machine.show("Type") == "notify"
    assert machine.show("NRestarts") == "0"
    assert machine.run("systemctl is-enabled maestrod").strip() == "enabled"
    assert machine.maestro("status") == {"jobs": []}
    assert machine.run("getent group maestro").startswith("maestro:")


def test_nothing_shipped_makes_systemd_or_the_daemon_complain(machine: Machine) -> None:
    machine.run("systemd-analyze --man=no verify maestrod.service maestro-jobs.service")
    complaints = machine.run("journalctl -b -p warning -o cat -u maestrod -u maestro-jobs")
    assert complaints == ""
    assert "good" in machine.run("maestrod --check")


def test_doctor_finds_all_controllers_in_the_delegated_group(machine: Machine) -> None:
    said = machine.run("maestro doctor")
    assert f"v2: memory, pids, cpu, io; groups in {JOBS}/maestro" in said


def test_limits_are_in_the_delegated_tree_and_nowhere_else(device: Machine) -> None:
    limits = {"mem_limit": "64M", "pids_max": 20, "cpu_weight": 50, "cpu_max": 0.5}
    device.apply(job("limited", cgroup=limits), job("free"))
    found = {
        file: device.run(f"cat {group('limited')}/{file}").strip()
        for file in ("memory.max", "pids.max", "cpu.weight", "cpu.max")
    }
    assert found == {
        "memory.max": str(64 * MIB),
        "pids.max": "20",
        "cpu.weight": "50",
        "cpu.max": "50000 100000",
    }
    assert device.run(f"cat {group('free')}/memory.max").strip() == "max"
    assert device.job("limited")["pid"] == int(device.run(f"cat {group('limited')}/cgroup.procs"))
    outside = device.run("find /sys/fs/cgroup -name '*.job'; find /sys/fs/cgroup -name 'maestro*'").split()
    assert [path for path in outside if not path.startswith(JOBS)] == [
        "/sys/fs/cgroup/system.slice/maestrod.service"
    ]


def test_job_killed_for_memory_is_named_and_nobody_else_is_touched(device: Machine) -> None:
    daemon = device.show("MainPID")
    hungry = python("hungry", EATS, cgroup={"mem_limit": "32M", "swap_limit": 0}, wait_for_ok=True)
    device.write("/run/applied.json", json.dumps({"jobs": [hungry, job("calm")]}))
    device.attempt("maestro apply /run/applied.json")
    device.until("maestro why hungry | grep 'killed for memory, limit 32.0M, peak '")
    assert device.job("hungry")["state"] == "FAILED"
    assert device.job("calm")["state"] == "RUNNING"
    assert device.show("MainPID") == daemon
    assert device.show("ActiveState", "maestro-jobs.service") == "active"


def test_script_of_an_image_runs_with_its_limit(device: Machine) -> None:
    archive = tarball({"script.py": SCRIPT})
    device.run(f"echo {base64.b64encode(archive).decode()} | base64 -d > /root/script.tar.gz")
    device.apply(
        {
            "job": "script",
            "container_template": "limited-python",
            "exec_cmd": "{{IMAGE}}/script.py",
        },
        templates=[
            {
                "name": "limited-python",
                "exec_cmd": "/usr/bin/python3",
                "uses_ok_string": True,
                "timeout_for_ok": 60000,
                "cgroup": {"mem_limit": 32 * MIB},
            }
        ],
        images=[
            {
                "job": "script",
                "version": "1.2",
                "url": "file:///root/script.tar.gz",
                "size": len(archive),
                "checksum": checksum(archive),
                "image_type": "tarball",
            }
        ],
    )
    row = device.job("script")
    assert (row["state"], row["image_version"]) == ("RUNNING", "1.2")
    assert "runs from /var/lib/maestro/images/" in device.run("maestro logs script")
    assert device.run(f"cat {group('script')}/memory.max").strip() == str(32 * MIB)


def test_stop_ends_the_jobs_in_order_and_start_brings_them_back(device: Machine) -> None:
    says = "trap 'echo stopped >> /run/order; exit' TERM; while :; do sleep 0.1; done"
    first = job("first", says.replace("stopped", "first"))
    second = job("second", says.replace("stopped", "second"), depends_on=["first"])
    device.run("rm -f /run/order")
    device.apply(first, second)
    device.run("systemctl stop maestrod")
    assert device.show("Result") == "success"
    assert device.run("cat /run/order").split() == ["second", "first"]
    assert device.run(f"find {JOBS} -mindepth 1 -type d").split() == [
        f"{JOBS}/.control",
        f"{JOBS}/supervisor",
    ]
    assert device.attempt("pgrep -f maestro[_d]")[0] == 1
    device.run("systemctl start maestrod")
    device.until("maestro status second | grep RUNNING")


def test_daemon_told_to_keep_its_jobs_leaves_them_until_their_unit_stops(device: Machine) -> None:
    device.apply(job("kept", cgroup={"mem_limit": "32M"}))
    pid = device.job("kept")["pid"]
    device.run("maestro shutdown --keep-jobs; systemctl stop maestrod")
    assert alive(device, pid)
    assert device.run(f"cat {group('kept')}/memory.max").strip() == str(32 * MIB)
    device.run("systemctl stop maestro-jobs")
    assert not alive(device, pid)
    assert device.attempt(f"test -e {JOBS}")[0] == 1


def test_jobs_and_their_limits_outlive_a_crash_and_the_next_daemon_has_its_controllers(
    device: Machine,
) -> None:
    device.set(RestartSec="5s")
    device.apply(job("steady", cgroup={"mem_limit": "32M"}))
    pid, daemon = device.job("steady")["pid"], device.show("MainPID")
    device.run("systemctl kill --kill-who=main --signal=KILL maestrod")
    device.until("systemctl show --value -p SubState maestrod | grep auto-restart")
    assert alive(device, pid)
    assert device.run(f"cat {group('steady')}/memory.max").strip() == str(32 * MIB)
    device.until("systemctl is-active maestrod")
    assert device.show("MainPID") != daemon
    device.until("maestro status steady | grep RUNNING")
    device.apply(job("steady", cgroup={"mem_limit": "48M"}), job("another", cgroup={"pids_max": 9}))
    assert device.run(f"cat {group('steady')}/memory.max").strip() == str(48 * MIB)
    assert device.run(f"cat {group('another')}/pids.max").strip() == "9"


def test_daemon_that_hangs_is_restarted_by_the_watchdog(device: Machine) -> None:
    device.set(WatchdogSec="6s", RestartSec="100ms")
    device.run("systemctl restart maestrod")
    device.run("sleep 8")
    daemon = device.show("MainPID")
    assert device.show("NRestarts") == "0"  # it says often enough that it is alive
    device.run(f"kill -STOP {daemon}")
    device.until("test $(systemctl show --value -p NRestarts maestrod) = 1")
    device.until("systemctl is-active maestrod && maestro status")
    assert device.show("MainPID") != daemon


def test_reload_takes_over_a_changed_config_file_without_a_restart(device: Machine) -> None:
    daemon = device.show("MainPID")
    device.run("cp /etc/maestro/maestro.yaml /root/kept.yaml")
    try:
        device.run(
            "printf 'jobs:\\n  - job: local\\n    exec_cmd: /bin/sleep\\n    exec_args: [\"1000\"]\\n'"
            " >> /etc/maestro/maestro.yaml; systemctl reload maestrod"
        )
        device.until("maestro status local | grep RUNNING")
        assert device.show("MainPID") == daemon
    finally:
        device.run("mv /root/kept.yaml /etc/maestro/maestro.yaml; systemctl reload maestrod")
    device.until("! maestro status local")


def test_everything_is_back_after_a_reboot(device: Machine) -> None:
    device.apply(job("lasting", cgroup={"mem_limit": "32M"}))
    device.reboot()
    device.until("systemctl is-active maestrod && maestro status lasting | grep RUNNING")
    assert device.run(f"cat {group('lasting')}/memory.max").strip() == str(32 * MIB)


def test_isolation_is_measured_beside_tools_that_do_the_same(device: Machine) -> None:
    """The table is printed; under emulation the figures are worth comparing with each other only."""
    table = device.run("cd /opt/tests && python3 -B -m tests.bench.isolation 10 2>&1", 300)
    print(table)
    for row in ("bare", "full", "full, seccomp", "bwrap", "crun run", "systemd-run"):
        assert f"\n{row}" in table
