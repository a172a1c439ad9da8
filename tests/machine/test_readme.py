# SPDX-License-Identifier: Apache-2.0
"""What the README shows is what happens."""

from __future__ import annotations

import re

from support.daemon import PROJECT, Daemon

README = (PROJECT / "README.md").read_text()


def test_the_first_running_config_works_as_the_readme_says(daemon: Daemon) -> None:
    [block] = re.findall(r"```json\n(.*?)```", README, re.DOTALL)
    file = daemon.root / "first.json"
    file.write_text(block)
    applied = daemon.cli("apply", str(file))
    assert applied.returncode == 0, applied.stderr
    assert daemon.job("hello")["state"] == daemon.job("after-hello")["state"] == "RUNNING"
    starts = [event["process"] for event in daemon.events() if event["type"] == "process-running"]
    assert starts == ["hello", "after-hello"]
    assert "hello from maestro" in daemon.wait_log("hello", "hello from maestro")
    assert daemon.cli("diff", str(file)).returncode == 0
    assert daemon.cli("why", "after-hello").stdout.startswith("after-hello")


def test_the_shipped_templates_are_those_the_readme_lists(daemon: Daemon) -> None:
    listed = set(re.findall(r"^\| \[?`([a-z-]+)`", README, re.MULTILINE))
    shipped = {row["name"] for row in daemon.client().templates()["templates"]}
    assert listed == shipped - {"deviceJS_process", "deviceJS_process_node8"}
