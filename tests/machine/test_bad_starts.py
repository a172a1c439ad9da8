# SPDX-License-Identifier: Apache-2.0
"""maestrod with something wrong at its start: it says all of it and ends with 1, or mends it and says so."""

from __future__ import annotations

import json
import signal
import sqlite3
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.daemon import Daemon
from support.guarded import GOOD, Guarded, guarded

from maestro_py.state.store import checksum


@pytest.fixture
def device(tmp_path: Path) -> Iterator[Guarded]:
    with guarded(tmp_path) as made:
        yield made


def maestrod(root: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Run a maestrod that is expected to end by itself."""
    daemon = Daemon(root)
    return subprocess.run(
        [*daemon.program, "--root", str(root), *options],
        env=daemon.env,
        capture_output=True,
        text=True,
        timeout=15,
        check=False,
    )


def refused(root: Path, *options: str) -> str:
    """Return what a maestrod says that refuses to start."""
    done = maestrod(root, *options)
    assert done.returncode == 1, done
    assert "Traceback" not in done.stderr
    return done.stderr


def put(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


# ---- the config file

MISTAKES = """
jobs:
  - job: a
    exec_cmd: [/bin/true]
    stop_timeout: soon
  - job: a
    exec_cmd: /bin/true
container_templates:
  - name: t
    restart: maybe
log_max_files: 0
on_daemon_stop: sometimes
"""

MISTAKEN = (
    "jobs[0].exec_cmd",
    'not "soon"',
    'job "a" is given twice',
    'expected true or false, not "maybe"',
    "log_max_files: expected a whole number from 1 to 1000, not 0",
    'on_daemon_stop: expected one of stop, keep, not "sometimes"',
)


@pytest.mark.parametrize("options", [(), ("--check",)], ids=["start", "check"])
def test_a_config_file_with_mistakes_is_refused_and_all_are_listed(
    tmp_path: Path, options: tuple[str, ...]
) -> None:
    file = put(tmp_path / "maestro.yaml", MISTAKES)
    said = refused(tmp_path, *options)
    assert f"cannot accept {file}: {len(MISTAKEN)} problems" in said
    for problem in MISTAKEN:
        assert problem in said


@pytest.mark.parametrize("options", [(), ("--check",)], ids=["start", "check"])
@pytest.mark.parametrize(
    ("text", "why"),
    [
        ('jobs:\n  - job: "x\n', "line 3: not valid YAML"),
        ('{"jobs": [,]}', "line 1: not valid JSON: expecting value, column 11"),
        (b"\xff\xfe", "line 1: not UTF-8 text: byte 0xff"),
        ("- a\n- b\n", "expected a daemon configuration as an object, not a list"),
        ("jobs:\n  - job: y\n    container_template: nope\n", 'no template is called "nope"'),
        ("jobs:\n  - {job: y, exec_cmd: /x, depends_on: [z]}\n", 'no job is called "z"'),
    ],
)
def test_a_config_file_that_cannot_be_used_is_refused(
    tmp_path: Path, options: tuple[str, ...], text: str | bytes, why: str
) -> None:
    file = put(tmp_path / "maestro.yaml", text)
    said = refused(tmp_path, *options)
    assert why in said
    if "called" not in why or options:
        assert str(file) in said


def test_a_config_file_that_was_named_and_is_not_there_is_refused(tmp_path: Path) -> None:
    assert "cannot read /nowhere/m.yaml: No such file or directory" in refused(
        tmp_path, "--config", "/nowhere/m.yaml"
    )


def test_a_config_file_that_is_a_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "maestro.yaml").mkdir()
    assert f"cannot read {tmp_path}/maestro.yaml: Is a directory" in refused(tmp_path)


@pytest.mark.parametrize(
    "text", ["imagPath: /x\nsymphony: {}\nlog_max_files: 2\n", '{"imagPath": "/x", "symphony": {}}']
)
def test_unknown_keys_of_the_config_file_are_warnings(tmp_path: Path, text: str) -> None:
    put(tmp_path / "device" / "maestro.yaml", text)
    with guarded(tmp_path) as device:
        log = device.daemon.output()
        assert "imagPath: unknown key" in log
        assert "did you mean `imagePath`?" in log
        assert "sections of other subsystems are ignored: symphony" in log
    done = maestrod(tmp_path / "device", "--check")
    assert done.returncode == 0
    assert "imagPath" in done.stderr


def test_check_knows_the_shipped_templates_and_those_of_the_device(tmp_path: Path) -> None:
    put(tmp_path / "templates" / "own.yaml", "name: own\n")
    jobs = [{"job": name, "container_template": name, "exec_cmd": "/x"} for name in ("binary", "own")]
    put(tmp_path / "maestro.yaml", json.dumps({"jobs": jobs}))
    done = maestrod(tmp_path, "--check")
    assert (done.returncode, done.stderr) == (0, "")
    put(tmp_path / "templates" / "own.yaml", "name: other\n")
    done = maestrod(tmp_path, "--check")
    assert done.returncode == 1
    assert 'no template is called "own"' in done.stderr


@pytest.mark.parametrize(
    ("name", "text", "why"),
    [
        ("t.json", '[{"name": "t", "exec_cmdd": "/x"}]', "did you mean `exec_cmd`?"),
        ("t.json", '{"name": "t", "restart": "maybe"}', 'not "maybe"'),
        ("t.yaml", "name: t\nexec_cmdd: /x\n", "did you mean `exec_cmd`?"),
        ("t.yaml", "name: t\n  x: [\n", "line 2: not valid YAML"),
    ],
)
def test_a_template_file_with_a_mistake_is_refused(tmp_path: Path, name: str, text: str, why: str) -> None:
    file = put(tmp_path / "templates" / name, text)
    said = refused(tmp_path)
    assert f"cannot accept {file}: 1 problem" in said
    assert why in said


def test_a_template_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "templates" / "t.json").mkdir(parents=True)
    assert f"cannot read {tmp_path}/templates/t.json: Is a directory" in refused(tmp_path)


def test_a_reload_of_a_bad_config_file_changes_nothing(device: Guarded) -> None:
    put(device.daemon.root / "maestro.yaml", '{"log_max_files": 0}')
    assert device.daemon.process
    device.daemon.process.send_signal(signal.SIGHUP)
    said = device.output_with("nothing was reloaded")
    assert "log_max_files: expected a whole number from 1 to 1000, not 0" in said


# ---- places


def test_a_second_daemon_on_the_same_root_is_refused_with_the_first_ones_pid(device: Guarded) -> None:
    said = refused(device.daemon.root)
    assert f"a maestrod runs already below {device.daemon.root}/run (pid {device.daemon_pid})" in said


def test_a_second_daemon_on_the_same_socket_is_refused(device: Guarded, tmp_path: Path) -> None:
    said = refused(tmp_path / "other", "--socket", str(device.daemon.socket))
    assert f"cannot listen on {device.daemon.socket}: another daemon answers there" in said


def test_a_root_that_is_a_file_is_refused(tmp_path: Path) -> None:
    root = tmp_path / "file"
    root.touch()
    done = subprocess.run(
        [*Daemon(tmp_path / "x").program, "--root", str(root)],
        env=Daemon(tmp_path / "x").env,
        capture_output=True,
        text=True,
        timeout=15,
        check=False,
    )
    assert done.returncode == 1
    assert f"cannot create {root}/state: Not a directory" in done.stderr
    assert "run it as root" not in done.stderr


def test_a_socket_path_that_is_too_long_is_refused(tmp_path: Path) -> None:
    said = refused(tmp_path, "--socket", f"/tmp/{'x' * 120}")
    assert "the path of a socket has at most 107 bytes" in said


def test_a_file_in_the_place_of_the_socket_is_not_removed(tmp_path: Path) -> None:
    file = put(tmp_path / "run" / "maestro.sock", "precious")
    assert f"cannot listen on {file}: there is a file that is not a socket" in refused(tmp_path)
    assert file.read_text() == "precious"


# ---- the state database


def stopped(device: Guarded) -> Path:
    """End the daemon; return the path of its state database."""
    assert device.daemon.stop() == 0
    return device.daemon.root / "state" / "maestro.db"


def restarted(device: Guarded) -> None:
    """Start the daemon again and apply the good job, so that the last check has something to look at."""
    device.daemon.start()
    assert device.daemon.apply({"config": "running", "jobs": [GOOD]})["status"] == "complete"
    device.daemon_pid = device.daemon.client().version()["pid"]
    device.pid = device.daemon.job("good")["pid"]


def spoil_head(path: Path) -> None:
    path.write_bytes(b"this is no database" * 100)


def spoil_middle(path: Path) -> None:
    data = bytearray(path.read_bytes())
    for offset in range(4096, len(data), 512):
        data[offset : offset + 256] = b"\xff" * 256
    path.write_bytes(data)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:5000])


@pytest.mark.parametrize("spoil", [spoil_head, spoil_middle, cut])
def test_a_damaged_database_is_moved_aside_and_named(device: Guarded, spoil: object) -> None:
    path = stopped(device)
    assert callable(spoil)
    spoil(path)
    damaged = path.read_bytes()
    restarted(device)
    assert f"{path} is damaged" in device.daemon.output()
    [aside] = path.parent.glob("maestro.db.damaged-*")
    assert str(aside) in device.daemon.output()
    assert aside.read_bytes() == damaged


@pytest.mark.parametrize(
    ("kind", "key", "value"),
    [("job", "good", "{"), ("job", "good", '{"job": "good", "exec_cmd": 5}'), ("held", "good", "5")],
)
def test_a_stored_entry_nobody_can_read_is_named(device: Guarded, kind: str, key: str, value: str) -> None:
    path = stopped(device)
    with sqlite3.connect(path) as db:
        row = (kind, key, value, checksum(kind, key, value))
        db.execute("INSERT OR REPLACE INTO entries VALUES (?,?,?,?)", row)
    db.close()
    path.with_name(path.name + "-copy").unlink()  # it would come back from there
    device.over = True
    device.daemon.start()
    said = device.daemon.output()
    assert "Traceback" not in said
    assert f"a stored {kind}" in said or f"held for {key}" in said
    assert device.daemon.client().version()["pid"]


def test_a_database_of_a_newer_maestro_is_refused_and_left_alone(device: Guarded) -> None:
    path = stopped(device)
    with sqlite3.connect(path) as db:
        known = db.execute("PRAGMA user_version").fetchone()[0]
        db.execute("PRAGMA user_version=99")
    db.close()
    said = refused(device.daemon.root)
    assert f"cannot open {path}: it was written by a newer maestro (schema 99, known: {known})" in said
    with sqlite3.connect(path) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (99,)
        db.execute(f"PRAGMA user_version={known}")
    db.close()
    device.daemon.start()
    device.pid = device.daemon.wait_state("good", "RUNNING")["pid"]
    device.daemon_pid = device.daemon.client().version()["pid"]


def test_a_database_that_cannot_be_opened_is_named(tmp_path: Path) -> None:
    (tmp_path / "state" / "maestro.db").mkdir(parents=True)
    assert f"cannot open {tmp_path}/state/maestro.db: " in refused(tmp_path)


def test_a_stored_job_whose_template_is_gone_does_not_keep_the_daemon_down(tmp_path: Path) -> None:
    template = {"name": "mine", "exec_cmd": "/bin/sleep", "exec_pre_args": ["100000"]}
    file = put(tmp_path / "device" / "templates" / "mine.json", json.dumps(template))
    with guarded(tmp_path) as device:
        done = device.apply(device.document({"job": "b", "container_template": "mine"}))
        assert done.returncode == 0, done.stderr
        assert device.daemon.stop() == 0
        file.unlink()
        device.daemon.start()
        device.pid = device.daemon.wait_state("good", "RUNNING")["pid"]
        device.daemon_pid = device.daemon.client().version()["pid"]
        assert "mine" in device.daemon.output()
