# SPDX-License-Identifier: Apache-2.0
"""Completions of shells: made from the table of commands, and doing what a person expects."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from support.daemon import PROJECT, Daemon
from support.documents import document, job

PLACE = PROJECT / "packaging" / "completions"


def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("completions", PLACE / "generate.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", ["maestro.bash", "_maestro", "maestro.fish"])
def test_the_files_are_what_the_table_makes(name: str) -> None:
    made = generator().FILES[name]()
    assert (PLACE / name).read_text() == made, "run `python packaging/completions/generate.py`"


@pytest.fixture
def path(tmp_path: Path) -> str:
    """A PATH on which `maestro` is this checkout's."""
    program = tmp_path / "bin" / "maestro"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nPYTHONPATH={PROJECT} exec {sys.executable} -m maestro_py.cli "$@"\n')
    program.chmod(0o755)
    return f"{program.parent}:{os.environ['PATH']}"


def in_bash(path: str, socket: str, *words: str) -> list[str]:
    """What bash offers for the last of these words."""
    script = (
        f'source {PLACE}/maestro.bash; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _maestro 2>/dev/null; '
        'printf "%s\\n" "${COMPREPLY[@]}"'
    )
    return ask(path, socket, ["bash", "--norc", "-c", script, "bash", "maestro", *words])


def in_fish(path: str, socket: str, *words: str) -> list[str]:
    script = f"source {PLACE}/maestro.fish; complete -C 'maestro {' '.join(words)}'"
    return [line.split("\t")[0] for line in ask(path, socket, ["fish", "--no-config", "-c", script])]


def ask(path: str, socket: str, command: list[str]) -> list[str]:
    env = {**os.environ, "PATH": path, "MAESTRO_SOCKET": socket, "HOME": "/nonexistent"}
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60)
    return sorted(line for line in done.stdout.splitlines() if line)


CASES = [
    (["st"], {"start", "status", "stop"}),
    (["config", ""], {"get", "list", "remove", "set"}),
    (["stop", ""], {"web", "web-cache"}),
    (["stop", "web", "web-"], {"web-cache"}),
    (["config", "get", "web-"], {"web-cache"}),
    (["logs", "--prev"], {"--previous"}),
    (["logs", "-n", "5", "web-"], {"web-cache"}),
    (["--json", "status", "--sta"], {"--state"}),
    (["status", "--state", "fa"], {"failed"}),
    (["kill", "-s", "SIGK"], {"SIGKILL"}),
    (["template", "show", "bin"], {"binary"}),
]


@pytest.mark.parametrize("shell", ["bash", "fish"])
def test_words_are_completed(shell: str, daemon: Daemon, path: str) -> None:
    if not shutil.which(shell):
        pytest.skip(f"{shell} is not installed")
    daemon.run(document(job("web"), job("web-cache")))
    complete = in_bash if shell == "bash" else in_fish
    offered = {" ".join(words): set(complete(path, str(daemon.socket), *words)) for words, _ in CASES}
    assert offered == {" ".join(words): wanted for words, wanted in CASES}


def test_files_are_completed_where_a_file_is_meant(daemon: Daemon, path: str, tmp_path: Path) -> None:
    (tmp_path / "my-document.json").touch()
    assert in_bash(path, str(daemon.socket), "apply", f"{tmp_path}/my-") == [f"{tmp_path}/my-document.json"]


def test_a_daemon_that_is_away_is_no_noise(path: str, tmp_path: Path) -> None:
    assert in_bash(path, str(tmp_path / "none"), "stop", "") == []


@pytest.mark.parametrize(
    ("shell", "file"), [("bash", "maestro.bash"), ("zsh", "_maestro"), ("fish", "maestro.fish")]
)
def test_the_shell_can_read_its_file(shell: str, file: str) -> None:
    if not shutil.which(shell):
        pytest.skip(f"{shell} is not installed")
    done = subprocess.run([shell, "-n", str(PLACE / file)], capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stderr) == (0, "")
