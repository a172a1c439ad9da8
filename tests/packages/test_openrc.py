# SPDX-License-Identifier: Apache-2.0
"""The OpenRC script under OpenRC: started, killed, reloaded, stopped."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import roots
from support.daemon import PROJECT
from support.namespace import Shell

pytestmark = [
    pytest.mark.root,
    pytest.mark.packages,
    pytest.mark.timeout(600),
    pytest.mark.skipif(bool(roots.missing()), reason=roots.missing() or "-"),
]

CONFIG = """\
jobs:
  - job: steady
    exec_cmd: /bin/sleep
    exec_args: ["100000"]
    stop_timeout: 5
"""

STATES = ("daemons", "exclusive", "failed", "inactive", "options", "started", "starting", "stopping", "tmp")


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    """Return a system that OpenRC believes to be booted, with the script and this project in it."""
    root = roots.unpack(["openrc", "procps", "python3", "python3-h11", "python3-yaml"], tmp_path / "root")
    shutil.copy(PROJECT / "packaging" / "openrc" / "maestrod", root / "etc/init.d/maestrod")
    (root / "etc/maestro").mkdir()
    (root / "etc/maestro/maestro.yaml").write_text(CONFIG)
    for name, module in (("maestrod", "daemon"), ("maestro", "cli")):
        program = root / "usr/bin" / name
        program.write_text(f'#!/bin/sh\nPYTHONPATH={PROJECT} exec python3 -m maestro_py.{module} "$@"\n')
        program.chmod(0o755)
    shown = dict.fromkeys((str(PROJECT), "/sys", "/dev"))
    for path in shown:
        Path(f"{root}{path}").mkdir(parents=True, exist_ok=True)
    with Shell() as outer:
        for path in shown:
            outer.check(f"mount --rbind {path} {root}{path}")
        outer.check(f"mount -t tmpfs tmpfs {root}/run; mkdir {root}/run/openrc")
        outer.check(f"cd {root}/run/openrc; mkdir {' '.join(STATES)}; touch softlevel")  # as its sysinit does
        outer.check(f"mount -t proc proc {root}/proc")
        outer.enter(str(root))
        yield outer


def test_daemon_is_started_again_when_it_dies_and_stops_with_its_jobs(shell: Shell) -> None:
    said = shell.check("rc-service --nodeps maestrod start")
    shell.until("maestro status steady | grep RUNNING")
    first = shell.check("pgrep -f 'maestro_py[.]daemon'").split()
    assert len(first) == 1, said
    shell.check("rc-service --nodeps maestrod status | grep started")

    shell.check(f"kill -9 {first[0]}")
    shell.until(f"test $(pgrep -f 'maestro_py[.]daemon') != {first[0]}")
    shell.until("maestro status steady | grep RUNNING")
    assert shell.check("pgrep -fc '^/bin/sleep 100000'") == "1\n"

    shell.check("rc-service --nodeps maestrod reload")
    shell.until("maestro status steady | grep RUNNING")
    shell.check("rc-service --nodeps maestrod stop")
    assert shell.run("pgrep -f 'maestro_py[.]daemon'")[0] == 1
    assert shell.run("pgrep -f '^/bin/sleep 100000'")[0] == 1
    assert shell.run("rc-service --nodeps maestrod status")[0] == 3
