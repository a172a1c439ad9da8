# SPDX-License-Identifier: Apache-2.0
"""Configs: placed where the job looks, changed with a restart or a signal, served to the job."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support.daemon import Daemon
from support.documents import WAIT, checksum, document, job, python
from support.httpserver import FileServer

from maestro_py.errors import InvalidDocument, NotFound

SHOW = f'echo "$MAESTRO_CONFIG in $MAESTRO_CONFIG_DIR says $(cat $MAESTRO_CONFIG)."; {WAIT}'

RELOADS = """
import os, signal
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGHUP])
print("!!OK!!", flush=True)
while True:
    with open(os.environ["MAESTRO_CONFIG"]) as file:
        print("read", file.read(), flush=True)
    signal.sigwait([signal.SIGHUP])
"""


def config(name: str = "default", owner: str = "app", **keys: Any) -> dict[str, Any]:
    return {"name": name, "job": owner, **keys}


def test_data_is_placed_and_announced(daemon: Daemon) -> None:
    daemon.run(document(job("app", SHOW), configs=[config(data="first")]))
    directory = daemon.root / "state" / "configs" / "app"
    daemon.wait_log("app", f"{directory}/default in {directory} says first.")
    assert (directory / "default").stat().st_mode & 0o777 == 0o440


def test_job_names_the_config_it_is_told_about(daemon: Daemon) -> None:
    configs = [config("a", data="one"), config("b", data="two")]
    daemon.run(document(job("app", SHOW, config="b"), configs=configs))
    daemon.wait_log("app", "says two.")
    assert sorted(os.listdir(daemon.root / "state" / "configs" / "app")) == ["a", "b"]


def test_base64_data_is_placed_as_bytes(daemon: Daemon) -> None:
    raw = bytes(range(256))
    data = base64.b64encode(raw).decode()
    daemon.run(document(job("app"), configs=[config(data=data, encoding="base64")]))
    assert (daemon.root / "state" / "configs" / "app" / "default").read_bytes() == raw
    assert daemon.client().config_get("app", "default")["data"] == data
    command = [sys.executable, "-m", "maestro_py.cli", "--socket", str(daemon.socket)]
    got = subprocess.run(
        [*command, "config", "get", "app", "default"], env=daemon.env, stdout=subprocess.PIPE
    )
    assert got.stdout == raw


def test_files_are_fetched_checked_and_placed(daemon: Daemon, tmp_path: Path) -> None:
    served = tmp_path / "served"
    served.mkdir()
    (served / "f").write_bytes(b"one")
    with FileServer(served) as url:
        item = {"url": f"{url}/f", "dest_relative_path": "/sub/dir/f.txt", "checksum": checksum(b"one")}
        wanted = document(
            job("app", f"cat $MAESTRO_CONFIG_DIR/sub/dir/f.txt; echo; {WAIT}"),
            configs=[config("files", files=[item])],
        )
        daemon.run(wanted)
        daemon.wait_log("app", "one\n")
        assert daemon.plan(wanted) == []

        (served / "f").write_bytes(b"two")
        task = daemon.apply({**wanted, "configs": [config("files", files=[{**item, "size": 3}])]})
        assert task["status"] == "failed"  # what is served now is not what the checksum says
        assert "f" in task["error"]["message"]
        placed = daemon.root / "state/configs/app/sub/dir/f.txt"
        assert placed.read_bytes() == b"one"

        changed = {**item, "checksum": checksum(b"two")}
        daemon.run({**wanted, "configs": [config("files", files=[changed])]})
        daemon.wait_log("app", "two\n")
        daemon.run({**wanted, "configs": []})
        assert not placed.exists()


def test_changed_config_restarts_the_job_and_no_other(daemon: Daemon) -> None:
    jobs = (job("app", SHOW), job("other"))
    daemon.run(document(*jobs, configs=[config(data="first")]))
    daemon.wait_log("app", "says first.")
    app, other = daemon.job("app")["pid"], daemon.job("other")["pid"]
    changed = document(*jobs, configs=[config(data="second")])
    assert daemon.plan(changed) == [("stop", "app"), ("place-config", "app/default"), ("start", "app")]
    daemon.run(changed)
    daemon.wait_log("app", "says second.")
    assert daemon.job("app")["pid"] != app
    assert daemon.job("other")["pid"] == other


def test_changed_config_is_signalled_to_a_job_that_reloads(daemon: Daemon) -> None:
    app = python("app", RELOADS, wait_for_ok=True, reload_signal="SIGHUP")
    daemon.run(document(app, configs=[config(data="first")]))
    daemon.wait_log("app", "read first")
    pid = daemon.job("app")["pid"]
    changed = document(app, configs=[config(data="second")])
    assert daemon.plan(changed) == [("place-config", "app/default"), ("reload", "app")]
    daemon.run(changed)
    daemon.wait_log("app", "read second")
    assert daemon.job("app")["pid"] == pid
    assert daemon.do("app", "reload")["status"] == "complete"
    daemon.wait_log("app", "read second", count=2)
    assert daemon.job("app")["pid"] == pid


def test_template_may_say_the_reload_signal(daemon: Daemon) -> None:
    template = {"name": "t", "reload_signal": "SIGHUP", "uses_ok_string": True}
    app = python("app", RELOADS, container_template="t")
    daemon.run(document(app, templates=[template], configs=[config(data="first")]))
    pid = daemon.job("app")["pid"]
    daemon.run(document(app, templates=[template], configs=[config(data="second")]))
    daemon.wait_log("app", "read second")
    assert daemon.job("app")["pid"] == pid


def test_reload_without_a_reload_signal_says_what_to_do_instead(daemon: Daemon) -> None:
    daemon.run(document(job("app")))
    said = daemon.cli("reload", "app")
    assert said.returncode == 1
    assert "cannot reload app: it has no reload_signal" in said.stderr
    assert "maestro restart app" in said.stderr


def test_config_set_get_list_and_remove_from_the_command_line(daemon: Daemon, tmp_path: Path) -> None:
    daemon.run(document(job("app", SHOW), job("other")))
    other = daemon.job("other")["pid"]
    file = tmp_path / "data"
    file.write_text("from a file")
    stored = daemon.cli("config", "set", "app", "default", str(file))
    assert (stored.returncode, stored.stderr) == (0, "")
    assert "config default of app is stored" in stored.stdout
    daemon.wait_log("app", "says from a file.")
    assert daemon.cli("config", "get", "app", "default").stdout == "from a file"

    assert daemon.cli("config", "set", "app", "default", "-", input="from stdin").returncode == 0
    daemon.wait_log("app", "says from stdin.")
    listed = daemon.cli("config", "list").stdout
    assert "app" in listed
    assert "default" in listed
    assert "no configs of other" in daemon.cli("config", "list", "other").stdout

    removed = daemon.cli("config", "remove", "app", "default")
    assert removed.returncode == 0, removed.stderr
    assert daemon.cli("config", "get", "app", "default").returncode == 1
    with pytest.raises(NotFound, match="no config default of app"):
        daemon.client().config_get("app", "default")
    assert not (daemon.root / "state/configs/app/default").exists()
    assert daemon.job("other")["pid"] == other
    again = daemon.cli("config", "remove", "app", "default")
    assert again.returncode == 1
    assert "no stored config default of app" in again.stderr


def test_config_of_the_document_cannot_be_removed_by_hand_but_be_overridden(daemon: Daemon) -> None:
    daemon.run(document(job("app", SHOW), configs=[config(data="document")]))
    refused = daemon.cli("config", "remove", "app", "default")
    assert refused.returncode == 1
    assert "the document defines it" in refused.stderr
    assert daemon.cli("config", "set", "app", "default", "-", input="by hand").returncode == 0
    daemon.wait_log("app", "says by hand.")
    assert daemon.cli("config", "remove", "app", "default").returncode == 0
    daemon.wait_log("app", "says document.", count=2)


def test_document_has_the_last_word_on_configs_it_names(daemon: Daemon) -> None:
    wanted = document(job("app", SHOW), configs=[config(data="document")])
    daemon.run(wanted)
    daemon.cli("config", "set", "app", "default", "-", input="by hand")
    daemon.wait_log("app", "says by hand.")
    daemon.run(wanted)
    daemon.wait_log("app", "says document.", count=2)


def test_inline_data_of_a_job_is_its_config_and_applying_it_again_changes_nothing(daemon: Daemon) -> None:
    wanted = document(job("app", SHOW, config_data="inline"))
    daemon.run(wanted)
    daemon.wait_log("app", "says inline.")
    pid = daemon.job("app")["pid"]
    for _ in range(2):
        daemon.run(wanted)
        assert daemon.plan(wanted) == []
    more = document(job("app", SHOW, config_data="inline"), job("other"))
    for _ in range(2):
        daemon.run(more)
        assert daemon.plan(more) == []
    assert daemon.job("app")["pid"] == pid
    assert daemon.client().config_get("app", "default")["data"] == "inline"


def test_unknown_config_name_is_a_warning_and_the_job_starts(daemon: Daemon, tmp_path: Path) -> None:
    file = tmp_path / "doc.json"
    file.write_text(json.dumps(document(job("app", config="std"))))
    applied = daemon.cli("apply", str(file))
    assert applied.returncode == 0
    assert 'no config of this job is called "std"' in applied.stderr
    assert daemon.job("app")["state"] == "RUNNING"


@pytest.mark.parametrize("path", ["../outside", "/../../etc/passwd", "a/../../b"])
def test_file_outside_its_directory_is_refused(path: str, daemon: Daemon) -> None:
    item = {"url": "http://127.0.0.1:1/f", "dest_relative_path": path}
    with pytest.raises(InvalidDocument) as refused:
        daemon.client().apply(document(job("app"), configs=[config("files", files=[item])]))
    assert "dest_relative_path" in str(refused.value)
    assert path in str(refused.value)


def test_composite_has_a_directory_per_member(daemon: Daemon) -> None:
    template = {"name": "host", "exec_cmd": "/bin/sh", "exec_pre_args": ["-c", WAIT]}
    members = ({"job": n, "composite_id": "both", "container_template": "host"} for n in ("a", "b"))
    configs = [config(owner=name, data=name) for name in ("a", "b")]
    daemon.run(document(*members, templates=[template], configs=configs))
    top = daemon.root / "state" / "configs" / "both"
    assert {name: (top / name / "default").read_text() for name in ("a", "b")} == {"a": "a", "b": "b"}
