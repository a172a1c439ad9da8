# SPDX-License-Identifier: Apache-2.0
"""What the man pages show is what happens."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from support import examples
from support.daemon import PROJECT, Daemon

from maestro_py.spec.documents import read_daemon_config, read_running_config, read_templates
from maestro_py.spec.text import load

PAGES = sorted((PROJECT / "docs/pages").glob("*.md"))

READERS: dict[str, Callable[[object], object]] = {
    "maestro-template.5": lambda data: read_templates(data, "example"),
    "maestro.yaml.5": lambda data: read_daemon_config(data, environ={}, builtins={}, source="example"),
    "maestrod.8": lambda data: read_daemon_config(data, environ={}, builtins={}, source="example"),
}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_examples_of_a_page_work(page: Path, daemon: Daemon, tmp_path: Path) -> None:
    text = page.read_text().replace("/tmp/try", str(tmp_path / "try"))
    printed = examples.run(text, tmp_path / "here", MAESTRO_SOCKET=str(daemon.socket))
    assert "Traceback" not in printed


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_page_has_examples_and_all_of_them_are_run(page: Path) -> None:
    text = page.read_text()
    assert examples.unfenced(text) == []
    shown = examples.blocks(text)
    assert not [line for block in shown for line in block.body.splitlines() if len(line) > 70]
    assert [block for block in shown if block.kind == "sh"]
    commands = "".join(block.body for block in shown if block.kind == "sh")
    for block in shown:
        assert block.kind in ("sh", "text") or block.name, "a file that is shown has a name"
        if block.name and block.name not in commands:  # at least it is a good document
            READERS.get(page.stem, read_running_config)(load(block.body, block.name))
