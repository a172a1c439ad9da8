# SPDX-License-Identifier: Apache-2.0
"""Limits as text, and the names of groups."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from maestro_py.process.cgroups import files, values
from maestro_py.spec.model import Limits


def test_every_limit_has_its_v2_file_and_text() -> None:
    limits = Limits(
        mem_limit=16 << 20,
        mem_high=8 << 20,
        swap_limit=0,
        pids_max=32,
        cpu_weight=50,
        cpu_max=0.5,
        io_weight=1000,
    )
    assert {file: text for _, file, text in values.v2_files(limits)} == {
        "memory.max": "16777216",
        "memory.high": "8388608",
        "memory.swap.max": "0",
        "pids.max": "32",
        "cpu.weight": "50",
        "cpu.max": "50000 100000",
        "io.weight": "default 1000",
        "io.bfq.weight": "181",
    }


def test_no_limit_is_the_kernels_default() -> None:
    assert {file: text for _, file, text in values.v2_files(Limits())} == {
        "memory.max": "max",
        "memory.high": "max",
        "memory.swap.max": "max",
        "pids.max": "max",
        "cpu.weight": "100",
        "cpu.max": "max 100000",
        "io.weight": "default 100",
        "io.bfq.weight": "100",
    }


def test_every_field_of_the_model_is_known() -> None:
    assert set(values.CONTROLLER) == set(Limits.__dataclass_fields__)


@pytest.mark.parametrize(("cpus", "quota"), [(None, None), (2.0, 200_000), (0.5, 50_000), (0.001, 1_000)])
def test_cpu_quota(cpus: float | None, quota: int | None) -> None:
    assert values.cpu_quota(cpus) == quota


@given(st.integers(1, 10_000))
def test_weights_stay_in_the_kernels_range(weight: int) -> None:
    assert 1 <= values.bfq_weight(weight) <= 1000
    assert 10 <= values.blkio_weight(weight) <= 1000
    assert 2 <= values.cpu_shares(weight) <= 262_144


@pytest.mark.parametrize(("weight", "shares"), [(None, 1024), (100, 1024), (50, 512), (1, 10)])
def test_cpu_shares_keep_the_proportion(weight: int | None, shares: int) -> None:
    assert values.cpu_shares(weight) == shares


@pytest.mark.parametrize(
    "name", ["web", "tasks", "memory.max", "cgroup.procs", "a/b c", "übung", ".hidden", "..", "%2F"]
)
def test_a_name_comes_back_from_its_directory(name: str, tmp_path: Path) -> None:
    (tmp_path / files.directory_name(name)).mkdir()
    (tmp_path / "not-ours").mkdir()
    assert files.group_names(str(tmp_path)) == [name]


@given(st.text(min_size=1, max_size=40).filter(lambda text: text.isprintable()))
def test_different_names_have_different_directories(name: str) -> None:
    directory = files.directory_name(name)
    assert "/" not in directory
    assert directory != files.directory_name(name + "x")


def test_a_missing_base_has_no_names(tmp_path: Path) -> None:
    assert files.group_names(str(tmp_path / "nowhere")) == []


def test_numbers_are_read_and_max_is_none(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("123\n")
    (tmp_path / "b").write_text("max\n")
    (tmp_path / "c").write_text("low 0\noom 3\noom_kill 2\n")
    assert files.number(str(tmp_path / "a")) == 123
    assert files.number(str(tmp_path / "b")) is None
    assert files.number(str(tmp_path / "none")) is None
    assert files.keyed(str(tmp_path / "c"), "oom_kill") == 2
    assert files.keyed(str(tmp_path / "c"), "group") is None


def test_writing_never_creates_a_file(tmp_path: Path) -> None:
    assert not files.write_if_there(str(tmp_path / "memory.max"), "1")
    assert list(tmp_path.iterdir()) == []
