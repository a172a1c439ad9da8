# SPDX-License-Identifier: Apache-2.0
"""Jobs that ask for users, roots and limits that are not there: named, the others untouched."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.guarded import Guarded, guarded

pytestmark = pytest.mark.root

NOBODY_HERE = "no-such-user-here"


@pytest.fixture
def device(tmp_path: Path) -> Iterator[Guarded]:
    with guarded(tmp_path) as made:
        yield made


def job(**keys: Any) -> dict[str, Any]:
    return {"job": "b", "exec_cmd": "/bin/sleep", "exec_args": ["100000"], **keys}


def failed(device: Guarded, spec: dict[str, Any], *sentences: str, **parts: Any) -> None:
    """Assert that a job is FAILED for a reason that apply, status and why give alike."""
    said = device.fails(spec, **parts)
    row = device.daemon.job("b")
    assert (row["state"], row["pid"], row["restarts"]) == ("FAILED", None, 0)
    for text in (said, row["cause"], device.daemon.cli("why", "b").stdout):
        for sentence in sentences:
            assert sentence in text


@pytest.mark.parametrize(
    ("keys", "why"),
    [
        ({"user": NOBODY_HERE}, f"cannot run b as user '{NOBODY_HERE}': no such user"),
        ({"user": 1 << 32}, "jobs[1].user"),
        ({"group": NOBODY_HERE}, f"cannot run b as group '{NOBODY_HERE}': no such group"),
        ({"user": "nobody", "supplementary_groups": [NOBODY_HERE]}, f"group '{NOBODY_HERE}': no such group"),
    ],
)
def test_a_user_or_group_that_does_not_exist_is_named(
    device: Guarded, keys: dict[str, Any], why: str
) -> None:
    if why.startswith("jobs["):
        assert why in device.refused(device.document(job(**keys)))
    else:
        failed(device, job(**keys), why)


def test_an_unknown_user_is_not_tried_again_and_again(device: Guarded) -> None:
    failed(device, job(user=NOBODY_HERE, restart_policy="always"), "no such user")


def test_a_running_job_that_is_given_an_unknown_user_fails_by_name(device: Guarded) -> None:
    assert device.apply(device.document(job())).returncode == 0
    failed(device, job(user=NOBODY_HERE), "no such user")
    assert device.apply(device.document(job())).returncode == 0
    assert device.daemon.job("b")["state"] == "RUNNING"


def test_a_config_for_an_unknown_user_is_no_reason_to_stumble(device: Guarded) -> None:
    config = {"name": "c", "job": "b", "data": "x"}
    failed(device, job(user=NOBODY_HERE), "no such user", configs=[config])


def test_a_user_who_may_not_execute_the_program_is_named(device: Guarded, tmp_path: Path) -> None:
    path = tmp_path / "program"
    path.write_text("#!/bin/sh\n")
    path.chmod(0o700)
    failed(
        device,
        {"job": "b", "exec_cmd": str(path), "user": "nobody"},
        f"cannot execute {path}",
        "Permission denied",
    )


def test_a_user_who_may_not_enter_the_working_directory_is_named(device: Guarded, tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    failed(
        device,
        job(user="nobody", working_dir=str(closed)),
        f"cannot change to directory {closed}: Permission denied",
    )


def test_a_chroot_that_is_not_there_is_named(device: Guarded) -> None:
    failed(
        device,
        job(chroot_path="/nowhere/root"),
        "cannot change the root to /nowhere/root: No such file or directory",
    )


def test_a_chroot_that_is_a_file_is_named(device: Guarded, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    failed(device, job(chroot_path=str(file)), f"cannot change the root to {file}: Not a directory")


def test_a_program_that_is_not_in_the_chroot_is_named(device: Guarded, tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    failed(
        device, job(chroot_path=str(root)), "cannot execute /bin/sleep: No such file or directory", str(root)
    )


def test_a_loader_that_is_not_in_the_chroot_is_named(device: Guarded, tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "bin").mkdir(parents=True)
    (root / "bin" / "sleep").write_bytes(Path("/bin/sleep").read_bytes())
    (root / "bin" / "sleep").chmod(0o755)
    failed(device, job(chroot_path=str(root)), "cannot execute /bin/sleep", "its loader /lib", "is missing")


def test_an_image_as_root_needs_an_image(device: Guarded) -> None:
    said = device.refused(device.document(job(chroot_image=True)))
    assert 'jobs["b"].chroot_image: the root shall be its image, and it has no image' in said


def test_a_job_beyond_its_memory_is_ended_and_the_limit_named(device: Guarded) -> None:
    code = "data = []\nwhile True: data.append(bytearray(1 << 20))"
    hungry = {
        "job": "b",
        "exec_cmd": sys.executable,
        "exec_args": ["-c", code],
        "cgroup": {"mem_limit": "32M", "swap_limit": 0},
        "wait_for_ok": True,
    }
    failed(device, hungry, "killed for memory, limit 32.0M")


def test_a_memory_limit_no_process_can_live_with_is_named(device: Guarded) -> None:
    failed(device, job(cgroup={"mem_limit": 4096}, wait_for_ok=True), "memory", "limit 4.0K")


def test_a_fork_bomb_stays_in_its_limit_and_ends_with_its_job(device: Guarded) -> None:
    code = (
        "import os, time\n"
        "made = 0\n"
        "try:\n"
        "    while True:\n"
        "        if os.fork() == 0:\n"
        "            os.setsid(); time.sleep(99999)\n"
        "        made += 1\n"
        "except OSError as error:\n"
        "    print('made', made, error.strerror, flush=True)\n"
        "print('!!OK!!', flush=True)\n"
        "time.sleep(99999)\n"
    )
    bomb = {
        "job": "b",
        "exec_cmd": sys.executable,
        "exec_args": ["-c", code],
        "cgroup": {"pids_max": 30},
        "wait_for_ok": True,
    }
    done = device.apply(device.document(bomb))
    assert done.returncode == 0, done.stderr
    assert (
        "made 29 Resource temporarily unavailable" in b"".join(device.daemon.client().logs("b", n=5)).decode()
    )
    pids = _children_of_group(device.daemon.job("b")["pid"])
    assert len(pids) == 30
    assert device.daemon.cli("stop", "b").returncode == 0
    assert not [pid for pid in pids if os.path.exists(f"/proc/{pid}")]


def _children_of_group(pid: int) -> list[int]:
    """Return the members of the first control group of a process that is its own."""
    for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        for base in (f"/sys/fs/cgroup/{controllers}", "/sys/fs/cgroup/unified", "/sys/fs/cgroup"):
            file = Path(f"{base}{path}/cgroup.procs")
            if "maestro" in path and file.exists():
                return [int(word) for word in file.read_text().split()]
    raise AssertionError("no group")
