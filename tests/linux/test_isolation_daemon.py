# SPDX-License-Identifier: Apache-2.0
"""Isolation asked for in a document, carried out by a real daemon."""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.daemon import Daemon
from support.jail import PYTHON, make_jail

pytestmark = pytest.mark.root

HIDDEN = "not-for-everybody"


@pytest.fixture
def place() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="maestro-e2e-") as path:
        os.chmod(path, 0o755)
        yield Path(path)


@pytest.fixture
def daemon(place: Path) -> Iterator[Daemon]:
    made = Daemon(place / "d").start()
    yield made
    made.close()


def job(place: Path, code: str, **fields: Any) -> dict[str, Any]:
    jail = make_jail(place / "jail")
    return {
        "job": "j",
        "exec_cmd": PYTHON,
        "exec_args": ["-c", code],
        "wait_for_ok": True,
        "user": "nobody",
        "chroot_path": str(jail),
        "read_only_root": True,
        "mounts": [{"source": "/usr", "target": "/usr"}],
        "tmpfs": ["/cache:size=1M"],
        "capabilities": [],
        "pids": "private",
        "secrets": [{"name": "key", "data": HIDDEN}],
        **fields,
    }


def test_everything_together(daemon: Daemon, place: Path) -> None:
    code = (
        "import os, signal, sys\n"
        "signal.signal(signal.SIGTERM, lambda *a: sys.exit(3))\n"
        "print(os.getpid(), os.getuid(), sorted(os.listdir('/')))\n"
        "print(len(open(os.environ['MAESTRO_SECRETS_DIR'] + '/key').read()))\n"
        "print('!!OK!!', flush=True)\n"
        "while True: signal.pause()"
    )
    before = Path("/proc/self/mountinfo").read_text()
    daemon.run({"jobs": [job(place, code, cgroup={"mem_limit": "64M", "pids_max": 20})]})
    pid = daemon.job("j")["pid"]
    assert Path(f"/proc/{pid}/status").read_text().split("NSpid:")[1].split("\n")[0].split()[1:] == ["1"]
    said = daemon.log_of("j").splitlines()
    assert said[0].startswith("1 65534 ['bin', 'cache', ")
    assert said[1] == str(len(HIDDEN))
    assert Path("/proc/self/mountinfo").read_text() == before
    daemon.do("j", "stop")
    assert not os.path.exists(f"/proc/{pid}")
    assert daemon.job("j")["state"] == "STOPPED"


def test_its_exit_code_and_its_memory_death_are_known(daemon: Daemon, place: Path) -> None:
    daemon.apply({"jobs": [job(place, "raise SystemExit(37)", wait_for_ok=False)]})
    assert "37" in daemon.wait_state("j", "FAILED")["cause"]
    hungry = "data = []\nwhile True: data.append(bytearray(1 << 20))"
    spec = job(place / "d", hungry, cgroup={"mem_limit": "32M", "swap_limit": 0})
    daemon.apply({"jobs": [spec]})
    assert "killed for memory, limit 32.0M" in daemon.wait_state("j", "FAILED")["cause"]


def test_a_secret_is_in_nothing_that_others_can_read(daemon: Daemon, place: Path) -> None:
    code = "import time\nprint('!!OK!!', flush=True)\ntime.sleep(1000)"
    daemon.run({"jobs": [job(place, code, pids="host")]})
    pid = daemon.job("j")["pid"]
    for name in ("environ", "cmdline"):
        assert HIDDEN.encode() not in Path(f"/proc/{pid}/{name}").read_bytes()
    for path in (place / "d").rglob("*"):
        if path.is_file() and not path.is_symlink() and HIDDEN.encode() in path.read_bytes():
            assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
    assert HIDDEN not in daemon.output()
    for command in (["status", "j"], ["why", "j"], ["events"], ["tasks"]):
        for form in ([], ["--json"]):
            assert HIDDEN not in daemon.cli(*form, *command).stdout
