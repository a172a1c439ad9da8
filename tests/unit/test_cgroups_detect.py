# SPDX-License-Identifier: Apache-2.0
"""What is chosen from what is mounted."""

from __future__ import annotations

from pathlib import Path

import pytest

from maestro_py.process.cgroups import Cgroups, detect
from maestro_py.spec.model import Limits


def v2_line(where: Path, root: str = "/") -> str:
    return f"35 24 0:30 {root} {where} rw,nosuid,nodev - cgroup2 cgroup2 rw,nsdelegate\n"


def v1_line(where: Path, options: str) -> str:
    escaped = str(where).replace(" ", r"\040")
    return f"36 24 0:31 / {escaped} rw shared:4 master:1 - cgroup cgroup rw,{options}\n"


def run(tmp_path: Path, mountinfo: str, own: str = "0::/\n") -> Cgroups:
    (tmp_path / "mountinfo").write_text(mountinfo)
    (tmp_path / "own").write_text(own)
    return detect("m", mounts=str(tmp_path / "mountinfo"), own=str(tmp_path / "own"))


def v2_tree(tmp_path: Path, controllers: str) -> Path:
    tree = tmp_path / "unified"
    tree.mkdir()
    (tree / "cgroup.controllers").write_text(controllers)
    (tree / "cgroup.procs").write_text("")
    return tree


def test_nothing_mounted_is_none(tmp_path: Path) -> None:
    groups = run(tmp_path, "22 1 8:1 / / rw - ext4 /dev/sda1 rw\n")
    assert groups.kind == "none"
    assert groups.unsupported(Limits(mem_limit=1, pids_max=2)) == [
        "mem_limit: no control groups are mounted on this device",
        "pids_max: no control groups are mounted on this device",
    ]


def test_v1_alone(tmp_path: Path) -> None:
    for name in ("memory", "cpu,cpuacct", "with blank"):
        (tmp_path / name).mkdir()
    lines = v1_line(tmp_path / "cpu,cpuacct", "cpu,cpuacct") + v1_line(tmp_path / "memory", "memory")
    groups = run(
        tmp_path, lines + v1_line(tmp_path / "with blank", "blkio") + v1_line(tmp_path, "name=systemd")
    )
    assert groups.kind == "v1"
    assert groups.controllers == ("memory", "cpu", "io")
    assert groups.unsupported(Limits(mem_limit=1, pids_max=1, mem_high=1, swap_limit=1)) == [
        "mem_high: cgroup v1 has nothing that slows a process down before its memory limit",
        "swap_limit: this kernel has no swap accounting",
        "pids_max: the pids controller is not mounted",
    ]


def test_swap_alone_cannot_be_limited_on_v1(tmp_path: Path) -> None:
    (tmp_path / "memory").mkdir()
    (tmp_path / "memory/memory.memsw.limit_in_bytes").write_text("")
    groups = run(tmp_path, v1_line(tmp_path / "memory", "memory"))
    assert groups.unsupported(Limits(swap_limit=1, mem_limit=1)) == []
    assert groups.unsupported(Limits(swap_limit=1)) == [
        "swap_limit: cgroup v1 limits swap only together with mem_limit"
    ]


def test_v1_controllers_beside_a_bare_v2_tree_are_hybrid(tmp_path: Path) -> None:
    (tmp_path / "memory").mkdir()
    lines = v1_line(tmp_path / "memory", "memory") + v2_line(v2_tree(tmp_path, "hugetlb\n"))
    groups = run(tmp_path, lines)
    assert groups.kind == "hybrid"
    assert groups.controllers == ("memory", "freezer")


def test_a_v2_tree_with_controllers_wins(tmp_path: Path) -> None:
    (tmp_path / "systemd").mkdir()
    groups = run(
        tmp_path, v1_line(tmp_path / "systemd", "blkio") + v2_line(v2_tree(tmp_path, "memory pids\n"))
    )
    assert groups.kind == "v2"
    assert groups.controllers == ("memory", "pids", "freezer")


@pytest.mark.parametrize(
    ("root", "own", "below"),
    [
        ("/", "0::/a.slice/b.service\n", "a.slice/b.service"),
        ("/docker/123", "3:cpu:/x\n0::/docker/123/b\n", "b"),
        ("/docker/123", "0::/docker/1234\n", "."),  # not below the mount: another's name begins alike
        ("/", "0::/../../host\n", "."),
    ],
)
def test_the_own_group_is_found_below_the_mount(tmp_path: Path, root: str, own: str, below: str) -> None:
    tree = v2_tree(tmp_path, "memory pids\n")
    directory = tree / below
    directory.mkdir(parents=True, exist_ok=True)
    for file in ("cgroup.controllers", "cgroup.procs"):
        (directory / file).write_text("")
    groups = run(tmp_path, v2_line(tree, root), own)
    assert groups.kind == "v2"
    groups.prepare()
    assert (directory / "m").is_dir()


def test_a_directory_that_is_not_a_group_is_not_used(tmp_path: Path) -> None:
    (tmp_path / "unified").mkdir()
    assert run(tmp_path, v2_line(tmp_path / "unified")).kind == "none"


def test_what_a_v1_kernel_was_built_without_is_said(tmp_path: Path) -> None:
    for name in ("cpu", "blkio"):
        (tmp_path / name).mkdir()
    groups = run(tmp_path, v1_line(tmp_path / "cpu", "cpu") + v1_line(tmp_path / "blkio", "blkio"))
    assert groups.unsupported(Limits(io_weight=50)) == []  # nobody knows before there is a group
    groups.prepare()
    assert groups.unsupported(Limits(io_weight=50, cpu_max=1, cpu_weight=50)) == [
        "cpu_max: this kernel has no limit on CPU time",
        "io_weight: this kernel weighs no I/O on cgroup v1",
    ]
    (tmp_path / "cpu/cpu.cfs_quota_us").write_text("")
    (tmp_path / "blkio/m/blkio.bfq.weight").write_text("")
    assert groups.unsupported(Limits(io_weight=50, cpu_max=1)) == []
