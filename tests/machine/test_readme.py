# SPDX-License-Identifier: Apache-2.0
"""What the README and the tutorial show is what happens."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from support import examples
from support.daemon import PROJECT, Daemon
from support.documents import document, job

README = (PROJECT / "README.md").read_text()
TEXTS = [PROJECT / "README.md", PROJECT / "docs/tutorial.md"]


def test_the_first_running_config_works_as_the_readme_says(daemon: Daemon) -> None:
    [block] = [block for block in examples.blocks(README) if block.name == "first.json"]
    file = daemon.root / block.name
    file.write_text(block.body)
    applied = daemon.cli("apply", str(file))
    assert applied.returncode == 0, applied.stderr
    assert daemon.job("hello")["state"] == daemon.job("after-hello")["state"] == "RUNNING"
    starts = [event["process"] for event in daemon.events() if event["type"] == "process-running"]
    assert starts == ["hello", "after-hello"]
    assert "hello from maestro" in daemon.wait_log("hello", "hello from maestro")
    assert daemon.cli("diff", str(file)).returncode == 0
    assert daemon.cli("why", "after-hello").stdout.startswith("after-hello")


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.name)
def test_every_command_of_a_text_works(path: Path, tmp_path: Path) -> None:
    text = path.read_text().replace("/tmp/try", str(tmp_path / "try"))
    printed = examples.run(text, tmp_path / "here")
    assert "Traceback" not in printed
    if path.name == "tutorial.md":
        check_tutorial(printed.split("\n$ "))


def check_tutorial(steps: list[str]) -> None:
    """What the reader is told to see is there to be seen, command by command."""

    def after(command: str) -> list[str]:
        return [step.partition("\n")[2] for step in steps if step.startswith(command)]

    assert [re.findall(r"says (\S+)", printed)[-1] for printed in after("maestro logs")] == ["1.0", "1.0"]
    first, healed, back, last = after("maestro status")
    rows = [re.sub(r"\s+", " ", status) for status in (first, healed, back, last)]
    assert all("thermostat RUNNING yes" in row for row in rows), rows
    assert [re.findall(r"\b(1\.0|2\.0|2\.1)\b", row)[0] for row in rows] == ["1.0", "1.0", "1.0", "2.1"]
    assert "SIGKILL" in after("maestro why")[0]
    failed = after("maestro apply")[1]
    assert "2.0" in failed
    assert "2.0" in after("maestro why")[1]


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.name)
def test_no_example_of_a_text_is_left_out(path: Path) -> None:
    assert examples.unfenced(path.read_text()) == []
    for block in examples.blocks(path.read_text()):
        assert block.kind in ("sh", "make", "status") or block.name, block


def test_the_make_targets_of_the_readme_are_there() -> None:
    shown = "".join(block.body for block in examples.blocks(README) if block.kind == "make")
    named = set(re.findall(r"\bmake ([a-z-]+)", shown)) | set(re.findall(r"`make ([a-z-]+)", README))
    assert named >= {"demo", "demo-stop", "test"}
    for target in named:
        assert re.search(rf"^{target}:", (PROJECT / "Makefile").read_text(), re.MULTILINE), target


def test_status_looks_as_the_readme_shows_it(daemon: Daemon) -> None:
    daemon.run(document(job("hello")))
    real = daemon.cli("status").stdout.splitlines()[0].split()
    [shown] = [block for block in examples.blocks(README) if block.kind == "status"]
    assert shown.body.splitlines()[0].split() == real


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.name)
def test_links_lead_to_files(path: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", path.read_text()):
        assert (path.parent / target).exists(), target


def test_the_shipped_templates_are_those_the_readme_lists(daemon: Daemon) -> None:
    listed = set(re.findall(r"^\| \[?`([a-z-]+)`", README, re.MULTILINE))
    shipped = {row["name"] for row in daemon.client().templates()["templates"]}
    assert listed == shipped - {"deviceJS_process", "deviceJS_process_node8"}
