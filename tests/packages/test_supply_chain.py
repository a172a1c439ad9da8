# SPDX-License-Identifier: Apache-2.0
"""Licences of all files, the bill of materials, and the threat model's tests."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support.archives import EPOCH
from support.daemon import PROJECT


def test_every_file_has_a_licence_and_a_holder() -> None:
    if not (PROJECT / ".git").exists() or not shutil.which("git"):
        pytest.skip("needs a clone: what belongs to the project is known by git")
    command = [str(Path(sys.executable).with_name("reuse")), "lint", "--quiet"]
    said = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False)
    assert said.returncode == 0, said.stdout + said.stderr


def test_both_copies_of_the_licence_are_the_same() -> None:
    assert (PROJECT / "LICENSE").read_bytes() == (PROJECT / "LICENSES" / "Apache-2.0.txt").read_bytes()


def bill() -> bytes:
    command = [sys.executable, str(PROJECT / "packaging" / "sbom.py"), "--extra", "seccomp"]
    env = {**os.environ, "SOURCE_DATE_EPOCH": EPOCH}
    return subprocess.run(command, env=env, capture_output=True, check=True).stdout


def test_bill_of_materials_has_every_dependency_with_version_and_licence() -> None:
    text = bill()
    assert text == bill()
    found = json.loads(text)
    assert (found["bomFormat"], found["specVersion"]) == ("CycloneDX", "1.5")
    parts = {part["name"]: part for part in found["components"]}
    project = (PROJECT / "pyproject.toml").read_text()
    required = re.search(r"(?ms)^dependencies = \[(.*?)^\]", project)
    assert required
    assert set(re.findall(r'(?m)^  "([a-z0-9]+)', required[1])) | {"pyseccomp", "urllib3"} <= set(parts)
    assert not {"pytest", "ruff"} & set(parts)
    assert all(part["version"] and part["licenses"] for part in parts.values())
    references = {part["bom-ref"] for part in parts.values()} | {found["metadata"]["component"]["bom-ref"]}
    assert {entry["ref"] for entry in found["dependencies"]} == references
    assert all(set(entry["dependsOn"]) <= references for entry in found["dependencies"])


def test_threat_model_names_tests_that_exist() -> None:
    named = re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", (PROJECT / "SECURITY.md").read_text())
    assert len(named) > 20
    for path, test in named:
        text = (PROJECT / path).read_text()
        assert f"def {test}" in text, f"{path}::{test}"
