# SPDX-License-Identifier: Apache-2.0
"""`exec` into an isolated job: same root, namespaces, user, groups, rights, limits and control group."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.daemon import PROJECT, Daemon
from support.documents import document, job
from support.jail import make_jail

pytestmark = pytest.mark.root

FACTS = (
    "import json, os, resource\n"
    "status = dict(l.split(':\\t', 1) for l in open('/proc/self/status').read().splitlines())\n"
    "print(json.dumps({'uid': os.getresuid(), 'gid': os.getresgid(), 'groups': os.getgroups(),\n"
    " 'ns': {n: os.readlink('/proc/self/ns/' + n) for n in ('mnt', 'net', 'pid', 'ipc', 'uts')},\n"
    " 'cgroup': open('/proc/self/cgroup').read(), 'files': resource.getrlimit(resource.RLIMIT_NOFILE),\n"
    " **{k: status[k].strip() for k in ('CapPrm', 'CapEff', 'CapBnd', 'NoNewPrivs', 'Seccomp', 'Umask')}}))\n"
)


def facts(text: str) -> dict[str, object]:
    found: dict[str, object] = json.loads(text)
    return found


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"user": "nobody", "rlimits": {"nofile": {"soft": 300, "hard": 400}}},
        {"user": "nobody", "cgroup": {"mem_limit": "64M", "pids_max": 30}},
        {"pids": "private", "network": "none", "read_only_root": True, "tmpfs": ["/tmp"]},
        {"user": "nobody", "capabilities": ["net_bind_service"], "no_new_privs": True, "umask": "077"},
        {"capabilities": [], "user": "daemon", "supplementary_groups": ["audio"]},
    ],
    ids=lambda settings: ",".join(settings) or "plain",
)
def test_it_is_in_every_respect_where_the_job_is(settings: dict[str, object], daemon: Daemon) -> None:
    script = f"{FACTS}import time\ntime.sleep(1000)"
    daemon.run(document(job("app", exec_cmd="/usr/bin/python3", exec_args=["-uc", script], **settings)))
    daemon.wait_log("app", "}")
    of_the_job = facts(daemon.client().request("GET", "/v1/jobs/app/logs").decode())
    said = daemon.cli("exec", "app", "--", "/usr/bin/python3", "-c", FACTS)
    assert said.stderr == ""
    assert facts(said.stdout) == of_the_job


def test_it_sees_the_jobs_root(daemon: Daemon, tmp_path: Path) -> None:
    jail = make_jail(tmp_path / "jail")
    daemon.run(
        document(
            job(
                "app",
                exec_cmd="/bin/sleep",
                exec_args=["1000"],
                chroot_path=str(jail),
                mounts=[{"source": "/usr", "target": "/usr"}],
            )
        )
    )
    said = daemon.cli("exec", "app", "--", "ls", "/")
    assert set(said.stdout.split()) >= {"bin", "proc"}
    assert not {"home", "root"} & set(said.stdout.split())
    with_shell = daemon.cli("shell", "app", input="echo in $(pwd)\n")
    assert with_shell.stdout == "in /\n"


def test_who_may_not_is_told_what_is_needed(daemon: Daemon) -> None:
    daemon.run(document(job("app")))
    target = daemon.client().process("app")
    program = (
        "import os, sys; os.setgroups([]); os.setresgid(*[65534] * 3); os.setresuid(*[65534] * 3);"
        f"sys.path.insert(0, {str(PROJECT)!r}); sys.argv = ['enter', {json.dumps(target)!r}, 'id'];"
        "from maestro_py.process.enter import main; sys.exit(main())"
    )
    os.chmod(daemon.root, 0o755)
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert said.returncode == 126
    assert said.stderr.splitlines() == [
        "maestro: cannot enter app: its process belongs to somebody else",
        "maestro: you are user 65534; do it as root",
    ]


def test_what_entered_counts_against_the_jobs_limits(daemon: Daemon) -> None:
    daemon.run(document(job("app", cgroup={"mem_limit": "48M"})))
    said = daemon.cli("exec", "app", "--", "/usr/bin/python3", "-c", "x = b'x' * (100 << 20)")
    assert said.returncode == 137
