# SPDX-License-Identifier: Apache-2.0
"""What the doctor finds here, as root and as somebody else."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from maestro_py.daemon.doctor import facts
from maestro_py.process.cgroups import detect

REPORT = """
import json, os, sys
if sys.argv[1] != "0":
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
from maestro_py.daemon.doctor import facts
from maestro_py.process.cgroups import detect
print(json.dumps(facts(detect("maestro-test-doctor"))))
"""


def by_name(found: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {fact["name"]: fact for fact in found}


def test_every_fact_says_what_it_switches_off_exactly_when_it_does(tmp_path: Path) -> None:
    found = facts(detect("maestro-test-doctor"), str(tmp_path))
    assert json.loads(json.dumps(found)) == found
    for fact in found:
        assert set(fact) == {"name", "value", "ok", "means"}
        assert fact["value"]
        assert bool(fact["means"]) is not fact["ok"]
    assert len({fact["name"] for fact in found}) == len(found)


def test_a_device_without_control_groups_is_told_so(tmp_path: Path) -> None:
    (tmp_path / "mountinfo").write_text("")
    found = by_name(facts(detect("maestro-test-doctor", mounts=str(tmp_path / "mountinfo"))))
    assert not found["cgroups"]["ok"]
    assert found["cgroup controllers"]["value"] == "none"
    assert "mem_limit: no control groups are mounted on this device" in found["cgroup controllers"]["means"]
    assert not found["swap accounting"]["ok"]


def test_a_state_directory_that_is_not_there_is_no_crash(tmp_path: Path) -> None:
    found = by_name(facts(detect("maestro-test-doctor"), str(tmp_path / "nowhere")))
    assert found["free space"]["ok"] is False
    assert "No such file" in found["free space"]["value"]


def test_probing_leaves_no_child_and_no_fd() -> None:
    groups = detect("maestro-test-doctor")
    facts(groups)
    children = Path(f"/proc/self/task/{os.getpid()}/children")
    before = (sorted(os.listdir("/proc/self/fd")), children.read_text())
    facts(groups)
    assert (sorted(os.listdir("/proc/self/fd")), children.read_text()) == before


@pytest.mark.root
def test_without_root_it_says_what_is_lost() -> None:
    result = subprocess.run(
        [sys.executable, "-c", REPORT, "65534"], capture_output=True, text=True, timeout=60, cwd="/"
    )
    assert result.returncode == 0, result.stderr
    found = by_name(json.loads(result.stdout))
    assert found["user"]["value"] == "uid 65534"
    assert not found["user"]["ok"]
    assert "setuid" in found["capabilities"]["value"]
    assert found["cgroups"]["value"] == "none: not root, and no control group is delegated to this user"
