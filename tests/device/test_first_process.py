# SPDX-License-Identifier: Apache-2.0
"""maestrod as the first process of a device that has nothing else: it starts, lives and ends the device."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from device.lab import image, initramfs
from device.lab.initramfs import Console
from support.documents import job

pytestmark = pytest.mark.device

SHELL = 'exec </dev/console >/dev/console 2>&1; while read -r line; do (eval "$line"); done'
FIND = "grep -ls 'steady say[s] bye' /proc/[0-9]*/cmdline || true"
STEADY = "trap 'echo steady says bye >/dev/console; exit' TERM; while :; do sleep 0.2; done"

CONFIG = {
    "jobs": [
        job("console", SHELL, restart=True, stop_timeout=1, inherit_env=True),
        job("steady", STEADY, restart=True, cgroup={"pids_max": 20}),
    ]
}


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    path = tmp_path / "state"
    image.do("mke2fs", "-q", "-t", "ext4", str(path), "64M")
    return path


@pytest.fixture
def console(tmp_path: Path, disk: Path) -> Iterator[Console]:
    built = image.build()
    initrd = initramfs.build(CONFIG, tmp_path / "initramfs.gz")
    found = Console(built.kernel, initrd, disk)
    yield found
    print(found.output[-3000:])
    found.close()


def up(console: Console) -> None:
    console.expect("maestrod .* serves /run/maestro/maestro.sock")
    console.expect("console: RUNNING")


def test_first_process_runs_jobs_buries_strangers_and_ends_the_device(console: Console, disk: Path) -> None:
    up(console)
    assert "maestrod" in console.run("tr '\\0' ' ' </proc/1/cmdline")
    assert "RUNNING" in console.run("maestro status steady")
    assert console.run("cat /sys/fs/cgroup/maestro/steady.job/pids.max").strip() == "20"
    console.run("for n in 1 2 3 4 5 6 7 8 9; do (setsid sh -c 'exit 3' &); done; sleep 1")
    assert console.run("grep -ls '^State:.Z' /proc/[0-9]*/status || true").strip() == ""
    console.run("kill -KILL 1")  # the kernel lets nobody
    before = console.run(FIND)
    assert before
    console.run("maestro upgrade")
    assert console.run(FIND) == before

    console.say("reboot")
    console.expect("steady says bye")
    console.expect("the device ends")
    up(console)
    console.run("echo one >/var/lib/maestro/one")
    console.say("poweroff")
    console.expect("steady says bye")
    console.expect("the device ends")
    assert console.wait_off() == 0
    assert "panic" not in console.output
    told = subprocess.run(["/usr/sbin/dumpe2fs", "-h", str(disk)], capture_output=True, text=True, check=True)
    assert "needs_recovery" not in told.stdout, "it was unmounted"
