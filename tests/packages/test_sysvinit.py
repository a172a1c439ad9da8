# SPDX-License-Identifier: Apache-2.0
"""The sysvinit script in a small system of its own: started, killed, reloaded, stopped."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.daemon import PROJECT
from support.namespace import Shell

pytestmark = pytest.mark.root

SCRIPT = PROJECT / "packaging" / "sysvinit" / "maestrod"
JOBS = """\
container_templates: []
jobs:
  - job: steady
    exec_cmd: /bin/sleep
    exec_args: ["100000"]
    stop_timeout: 5
"""


@pytest.fixture(params=["system", "busybox"])
def shell(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Shell]:
    """Return a system with the script and a config file, with the system's own tools or with busybox."""
    root = tmp_path / "device"
    root.mkdir()
    (root / "maestro.yaml").write_text(JOBS)
    tools = tmp_path / "tools"
    tools.mkdir()
    if request.param == "busybox":
        busybox = shutil.which("busybox")
        if busybox is None:
            pytest.skip("needs busybox")
        for name in ("sh", "setsid", "sleep", "wc", "grep", "mount", "mv", "rm"):
            (tools / name).symlink_to(busybox)
    with Shell() as shell:
        for directory in ("/run", "/etc/default", "/var/log"):
            shell.check(f"mount -t tmpfs tmpfs {directory}")
        shell.check(
            f"echo 'PATH={tools}:$PATH; DAEMON={sys.executable}; "
            f'DAEMON_ARGS="-m maestro_py.daemon --root {root}"\' >/etc/default/maestrod'
        )
        script = f"cd {PROJECT}; {tools}/sh {SCRIPT}" if any(tools.iterdir()) else f"cd {PROJECT}; {SCRIPT}"
        shell.check(f"echo '{script} \"$@\"' >/run/maestrod.init")
        shell.check(
            f"echo 'cd {PROJECT}; exec {sys.executable} -m maestro_py.cli "
            f'--socket {root}/run/maestro.sock "$@"\' >/run/maestro'
        )
        yield shell


def init(shell: Shell, command: str) -> tuple[int, str]:
    return shell.run(f"sh /run/maestrod.init {command}")


def test_daemon_is_started_again_when_it_dies_and_stops_with_its_jobs(shell: Shell) -> None:
    assert init(shell, "status") == (3, "maestrod is not running\n")
    assert init(shell, "start")[0] == 0
    shell.until("sh /run/maestro status steady | grep RUNNING")
    first = int(shell.check("cat /run/maestrod.pid"))
    assert init(shell, "status") == (0, f"maestrod is running, pid {first}\n")
    assert init(shell, "start") == (0, "maestrod is running\n")

    shell.check(f"kill -9 {first}")
    shell.until(f"test $(cat /run/maestrod.pid) != {first} && sh /run/maestro status steady | grep RUNNING")
    assert shell.check("pgrep -fc '^/bin/sleep 100000'") == "1\n"

    second = int(shell.check("cat /run/maestrod.pid"))
    assert init(shell, "reload")[0] == 0
    assert init(shell, "stop") == (0, "")
    assert init(shell, "status")[0] == 3
    assert shell.run(f"kill -0 {second}")[0] == 1
    assert shell.run("pgrep -f '^/bin/sleep 100000'")[0] == 1
    assert shell.check("ls /run | grep -c '^maestrod[.]' || true") == "1\n"  # the test's own
    assert init(shell, "stop") == (0, "")
    assert init(shell, "reload") == (7, "cannot reload maestrod: it is not running\n")


def test_daemon_that_was_told_to_end_stays_down_and_wrong_use_is_said(shell: Shell) -> None:
    assert init(shell, "start")[0] == 0
    shell.until("sh /run/maestro status steady | grep RUNNING")
    shell.check("sh /run/maestro shutdown")
    shell.until("! sh /run/maestrod.init status")
    assert init(shell, "")[0] == 2
    shell.check("echo DAEMON=maestrod-of-nowhere >>/etc/default/maestrod")
    assert init(shell, "start") == (5, "cannot start maestrod: no program maestrod-of-nowhere\n")
