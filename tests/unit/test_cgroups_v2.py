# SPDX-License-Identifier: Apache-2.0
"""cgroup v2 on a directory of plain files: what is written where. The kernel's part is in tests/linux."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from maestro_py.errors import Conflict, MaestroError
from maestro_py.process.cgroups import Cgroups, detect
from maestro_py.spec.model import Limits

ALL = "cpuset cpu io memory hugetlb pids"
GROUP_FILES = (
    "memory.max",
    "memory.high",
    "memory.swap.max",
    "memory.oom.group",
    "pids.max",
    "cpu.weight",
    "cpu.max",
    "io.weight",
)


class Tree:
    """A v2 tree as files; directories the kernel would fill are filled beforehand."""

    def __init__(self, root: Path, own: str = "/", controllers: str = ALL) -> None:
        self.root = root / "cgroup"
        self.own = self.root / own.strip("/")
        self.own.mkdir(parents=True)
        (self.root / "cgroup.controllers").write_text(controllers + "\n")
        for directory in {self.root, self.own}:
            self.fill(directory, controllers)
            if directory != self.root:
                (directory / "cgroup.events").write_text("populated 1\nfrozen 0\n")
        self.mountinfo = root / "mountinfo"
        self.mountinfo.write_text(f"35 24 0:30 / {self.root} rw,nosuid shared:9 - cgroup2 cgroup2 rw\n")
        self.own_file = root / "own"
        self.own_file.write_text(f"0::{own}\n")

    def fill(self, directory: Path, controllers: str = ALL) -> None:
        directory.mkdir(exist_ok=True)
        (directory / "cgroup.controllers").write_text(controllers + "\n")
        (directory / "cgroup.subtree_control").write_text("")
        (directory / "cgroup.procs").write_text("")

    def group(self, base: Path, name: str) -> Path:
        self.fill(base)
        for file in GROUP_FILES:
            (base / file).write_text("")
        directory = base / f"{name}.job"
        self.fill(directory)
        for file in GROUP_FILES:
            (directory / file).write_text("")
        return directory

    def detect(self) -> Cgroups:
        return detect("m", mounts=str(self.mountinfo), own=str(self.own_file))


def test_limits_are_written_byte_for_byte(tmp_path: Path) -> None:
    tree = Tree(tmp_path)
    directory = tree.group(tree.root / "m", "web")
    group = tree.detect().create("web", Limits(mem_limit=10485100, pids_max=9, cpu_max=1.5, io_weight=200))
    assert {file: (directory / file).read_text() for file in GROUP_FILES} == {
        "memory.max": "10485100",
        "memory.high": "max",
        "memory.swap.max": "max",
        "memory.oom.group": "1",
        "pids.max": "9",
        "cpu.weight": "100",
        "cpu.max": "150000 100000",
        "io.weight": "default 200",
    }
    group.close()


def test_a_limit_below_what_is_in_use_is_refused_not_enforced_by_killing(tmp_path: Path) -> None:
    tree = Tree(tmp_path)
    directory = tree.group(tree.root / "m", "web")
    group = tree.detect().create("web", Limits(mem_limit=64 << 20))
    (directory / "memory.current").write_text(f"{40 << 20}\n")
    (directory / "memory.reclaim").write_text("")
    with pytest.raises(Conflict, match=r"cannot limit web: mem_limit 16\.0M: 40\.0M are in use"):
        group.set_limits(Limits(mem_limit=16 << 20))
    assert (directory / "memory.reclaim").read_text() == str(24 << 20)
    assert (directory / "memory.max").read_text() == str(64 << 20)
    group.close()


def test_memory_is_read_from_the_group(tmp_path: Path) -> None:
    tree = Tree(tmp_path)
    directory = tree.group(tree.root / "m", "web")
    group = tree.detect().create("web", Limits(mem_limit=1 << 20))
    assert group.memory().current is None
    (directory / "memory.current").write_text("4096\n")
    (directory / "memory.events").write_text("oom 1\noom_kill 1\noom_group_kill 0\n")
    memory = group.memory()
    assert (memory.current, memory.peak, memory.limit, memory.oom_kills) == (4096, None, 1 << 20, 1)
    assert group.oom_kills() == 1
    group.close()


def test_at_the_root_of_the_tree_the_daemon_stays_where_it_is(tmp_path: Path) -> None:
    tree = Tree(tmp_path)
    (tree.root / "cgroup.procs").write_text(f"1\n{os.getpid()}\n")
    tree.fill(tree.root / "m")
    groups = tree.detect()
    groups.prepare()
    assert groups.kind == "v2"
    assert groups.notes == ()
    assert not (tree.root / "supervisor").exists()


def test_a_controller_that_cannot_be_enabled_is_noted(tmp_path: Path) -> None:
    tree = Tree(tmp_path, controllers="memory")
    groups = tree.detect()
    groups.prepare()  # the base is new and, with no kernel behind it, has no subtree_control
    assert groups.controllers == ("freezer",)
    assert groups.notes == (f"the memory controller stays off in {tree.root}/m: No such file or directory",)


def test_controllers_are_enabled_when_first_needed(tmp_path: Path) -> None:
    tree = Tree(tmp_path)
    tree.group(tree.root / "m", "web")
    groups = tree.detect()
    groups.prepare()
    control = tree.root / "cgroup.subtree_control"
    assert control.read_text().startswith("+pids")  # the last one; a plain file keeps no list
    groups.create("web", Limits(cpu_weight=5)).close()
    assert control.read_text().startswith("+cpu")


def test_a_delegated_daemon_alone_in_its_group_moves_aside(tmp_path: Path) -> None:
    tree = Tree(tmp_path, "/system.slice/maestro.service")
    (tree.own / "cgroup.procs").write_text(f"{os.getpid()}\n")
    tree.fill(tree.own / "supervisor")
    groups = tree.detect()
    assert (tree.own / "supervisor/cgroup.procs").read_text() == ""  # detecting changes nothing
    groups.prepare()
    assert (tree.own / "supervisor/cgroup.procs").read_text() == "0"
    assert (tree.own / "m").is_dir()


def test_a_daemon_already_aside_uses_the_group_above(tmp_path: Path) -> None:
    tree = Tree(tmp_path, "/system.slice/maestro.service/supervisor")
    tree.fill(tree.own.parent)
    (tree.own.parent / "cgroup.events").write_text("populated 1\n")
    (tree.own / "cgroup.procs").write_text(f"{os.getpid()}\n")
    groups = tree.detect()
    groups.prepare()
    assert (tree.own.parent / "m").is_dir()
    assert (tree.own / "cgroup.procs").read_text() == f"{os.getpid()}\n"


def test_company_in_the_group_keeps_controllers_off_and_is_said(tmp_path: Path) -> None:
    tree = Tree(tmp_path, "/session-1.scope")
    (tree.own / "cgroup.procs").write_text(f"77\n{os.getpid()}\n")
    groups = tree.detect()
    groups.prepare()
    assert groups.controllers == ("freezer",)
    assert "Delegate=yes" in groups.notes[0]
    assert groups.unsupported(Limits(mem_limit=1)) == [
        "mem_limit: other processes share the daemon's cgroup, so the memory controller stays off"
    ]
    assert not (tree.own / "supervisor").exists()
    assert (tree.own / "cgroup.subtree_control").read_text() == ""


def test_a_missing_controller_and_a_missing_file_are_named(tmp_path: Path) -> None:
    tree = Tree(tmp_path, controllers="memory pids")
    directory = tree.group(tree.root / "m", "web")
    for place in (directory, directory.parent):
        (place / "memory.swap.max").unlink()
    groups = tree.detect()
    groups.prepare()
    assert groups.unsupported(Limits(mem_limit=1, swap_limit=1, cpu_max=1.0)) == [
        "swap_limit: this kernel has no swap accounting",
        "cpu_max: this kernel or service manager offers no cpu controller here",
    ]
    groups.create("web", Limits(mem_limit=1, swap_limit=1)).close()  # said once, then passed over


def test_a_left_over_with_processes_is_not_taken(tmp_path: Path) -> None:
    tree = Tree(tmp_path)
    directory = tree.group(tree.root / "m", "web")
    (directory / "cgroup.procs").write_text("41\n42\n")
    with pytest.raises(Conflict, match="cannot create cgroup web: processes are still in it: 41, 42"):
        tree.detect().create("web", Limits())


def test_a_name_too_long_is_an_error_with_its_reason(tmp_path: Path) -> None:
    tree = Tree(tmp_path)
    with pytest.raises(MaestroError, match=r"cannot create cgroup x+: File name too long"):
        tree.detect().create("x" * 300, Limits())


def test_a_group_made_anew_keeps_its_limits_and_its_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = Tree(tmp_path)
    directory = tree.group(tree.root / "m", "web")
    group = tree.detect().create("web", Limits(mem_limit=4096, cpu_max=0.5))
    (directory / "memory.events").write_text("oom_kill 2\n")
    (directory / "cgroup.kill").write_text("")
    group.kill()

    def replace(path: str) -> bool:  # the kernel takes a group's files away with it and makes new ones
        Path(path).rename(tmp_path / "old")
        tree.group(tree.root / "m", "web")
        return True

    monkeypatch.setattr("maestro_py.process.cgroups.files.remove", replace)
    old = group.clone_fd()
    assert (directory / "memory.max").read_text() == "4096"
    assert (directory / "cpu.max").read_text() == "50000 100000"
    assert (directory / "memory.oom.group").read_text() == "1"
    assert group.oom_kills() == 2
    assert group.clone_fd() == old  # once is enough
    group.close()
