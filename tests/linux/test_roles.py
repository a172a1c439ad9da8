# SPDX-License-Identifier: Apache-2.0
"""Who may do what over the socket: root, the daemon's own user, the operators' group, jobs, and others."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.daemon import Daemon
from support.documents import document, job, python
from support.rawhttp import ask, ask_as

from maestro_py.errors import InvalidDocument

pytestmark = pytest.mark.root

STRANGER = 54321
OPERATORS = "mail"  # a group every Debian has; the config file names it

READS = [("GET", "/v1/status"), ("GET", "/v1/jobs/app/why"), ("GET", "/v1/events"), ("GET", "/v1/doctor"),
         ("GET", "/v1/tasks"), ("GET", "/v1/templates"), ("GET", "/v1/images"), ("GET", "/jobs"),
         ("GET", "/v1/jobs/app/logs"), ("GET", "/v1/version")]  # fmt: skip
OPERATIONS = [("POST", "/v1/jobs/app/restart"), ("POST", "/v1/jobs/app/reload"), ("GET", "/v1/configs"),
              ("GET", "/v1/running-config")]  # fmt: skip
ADMINISTRATION = [("POST", "/v1/apply"), ("POST", "/job"), ("POST", "/image"), ("POST", "/ops"),
                  ("POST", "/v1/shutdown"), ("DELETE", "/job/app"), ("POST", "/shutdown")]  # fmt: skip


def gid_of(name: str) -> int:
    import grp

    return grp.getgrnam(name).gr_gid


@pytest.fixture
def device(make_public_daemon: Callable[..., Daemon]) -> Daemon:
    daemon = make_public_daemon(f"operate_group: {OPERATORS}\n")
    daemon.run(
        document(
            job("app"),
            configs=[{"name": "default", "job": "app", "data": "secret"}],
        )
    )
    return daemon


def test_root_may_do_everything(device: Daemon) -> None:
    for method, path in (*READS, *OPERATIONS):
        assert ask(device.socket, method, path).status != 403, path
    assert ask(device.socket, "GET", "/jobConfig/app").json["configs"][0]["data"] == "secret"
    assert ask(device.socket, "POST", "/v1/apply", document(job("app"))).status == 202


@pytest.mark.parametrize("member", ["primary", "supplementary"])
def test_operators_read_and_operate_and_no_more(member: str, device: Daemon) -> None:
    gid = gid_of(OPERATORS)
    keys: dict[str, Any] = {"gid": gid} if member == "primary" else {"groups": (gid,)}
    for method, path in (*READS, *OPERATIONS):
        assert ask_as(STRANGER, device.socket, method, path, **keys).status != 403, path
    assert ask_as(STRANGER, device.socket, "GET", "/jobConfig/app", **keys).status == 200
    pid = device.wait_state("app", "RUNNING")["pid"]
    for method, path in ADMINISTRATION:
        refused = ask_as(STRANGER, device.socket, method, path, document(), **keys)
        assert refused.status == 403, path
        assert f"as uid {STRANGER}" in refused.json["title"]
        assert "it takes the role admin, this user has operate" in refused.json["title"]
    assert device.job("app")["pid"] == pid


def test_others_may_do_nothing(device: Daemon) -> None:
    for method, path in (*READS, *OPERATIONS, *ADMINISTRATION):
        refused = ask_as(STRANGER, device.socket, method, path, None if method == "GET" else document())
        assert refused.status == 403, path
        assert refused.json["code"] == "forbidden"
    for path in ("/jobConfig", "/jobConfig/app", "/jobConfig/app/default", "/jobConfig/nonesuch"):
        assert ask_as(STRANGER, device.socket, "GET", path).status == 403, path
    assert device.job("app")["state"] == "RUNNING"


def test_command_of_another_user_says_what_it_may_not(device: Daemon) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "maestro_py.cli", "--socket", str(device.socket), "stop", "app"],
        capture_output=True, text=True, user=STRANGER, group=STRANGER, extra_groups=[], cwd="/",
        env={"PYTHONPATH": device.env["PYTHONPATH"], "PATH": os.environ["PATH"]},
    )  # fmt: skip
    assert done.returncode == 1
    assert f"as uid {STRANGER}" in done.stderr
    assert "root may do it, and members of the groups" in done.stderr
    assert "Traceback" not in done.stderr


def test_default_group_of_operators_is_maestro_and_none_is_no_harm(
    make_public_daemon: Callable[..., Daemon],
) -> None:
    daemon = make_public_daemon()
    daemon.run(document(job("app")))
    assert ask_as(STRANGER, daemon.socket, "GET", "/v1/status").status == 403
    try:
        gid = gid_of("maestro")
    except KeyError:
        return  # this device has no such group: nobody operates
    assert ask_as(STRANGER, daemon.socket, "GET", "/v1/status", gid=gid).status == 200


ASKS = """
import http.client, os, signal, socket, subprocess, sys
def ask(path):
    connection = http.client.HTTPConnection("127.0.0.1")
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.connect(os.environ["MAESTRO_SOCKET"])
    connection.request("GET", path, headers={"Accept": "application/json"})
    answer = connection.getresponse()
    return answer.status, answer.read().decode()
if len(sys.argv) > 1:
    print("child", *ask(sys.argv[1]), flush=True)
    sys.exit()
for path in ("/jobConfig/own/default", "/jobConfig/own", "/jobConfig/own/absent", "/jobConfig/other/default",
             "/jobConfig/other", "/jobConfig", "/v1/status", "/jobs", "/v1/configs"):
    status, body = ask(path)
    print("asked", path, status, "secret-of-own" in body, "secret-of-other" in body, flush=True)
subprocess.run([sys.executable, os.environ["SELF"], "/jobConfig/own/default"])
print("!!OK!!", flush=True)
signal.pause()
"""


def test_job_of_another_user_reads_its_own_config_only(
    make_public_daemon: Callable[..., Daemon], public_path: Path
) -> None:
    daemon = make_public_daemon()
    script = public_path / "asks.py"
    script.write_text(ASKS)
    own = {"job": "own", "exec_cmd": "/usr/bin/python3", "exec_args": [str(script)], "user": "nobody",
           "wait_for_ok": True, "timeout_for_ok": 10000, "env": [f"SELF={script}"]}  # fmt: skip
    configs = [{"name": "default", "job": name, "data": f"secret-of-{name}"} for name in ("own", "other")]
    daemon.run(document(job("other", user="nobody"), own, configs=configs))
    log = daemon.log_of("own")
    lines = [line.removeprefix("asked ") for line in log.splitlines() if line.startswith("asked ")]
    assert lines == [
        "/jobConfig/own/default 200 True False",
        "/jobConfig/own 200 True False",
        "/jobConfig/own/absent 204 False False",
        "/jobConfig/other/default 403 False False",
        "/jobConfig/other 403 False False",
        "/jobConfig 403 False False",
        "/v1/status 403 False False",
        "/jobs 403 False False",
        "/v1/configs 403 False False",
    ]
    assert "child 200" in log  # what the job starts belongs to it


def test_members_of_a_composite_read_the_configs_of_all_its_members(
    make_public_daemon: Callable[..., Daemon], public_path: Path
) -> None:
    daemon = make_public_daemon()
    script = public_path / "asks.py"
    script.write_text(ASKS.replace("/jobConfig/other", "/jobConfig/member"))
    template = {
        "name": "host",
        "exec_cmd": "/usr/bin/python3",
        "exec_pre_args": [str(script)],
        "user": "nobody",
        "uses_ok_string": True,
        "timeout_for_ok": 10000,
        "add_env": [f"SELF={script}"],
    }
    members = [{"job": n, "composite_id": "c", "container_template": "host"} for n in ("own", "member")]
    configs = [{"name": "default", "job": n, "data": f"secret-of-{n}"} for n in ("own", "member")]
    daemon.run(document(*members, templates=[template], configs=configs))
    log = daemon.log_of("own")
    assert "asked /jobConfig/own/default 200" in log
    assert "asked /jobConfig/member/default 200" in log
    assert "asked /jobConfig 403" in log


def test_daemon_of_another_user_is_administered_by_that_user_and_root(public_path: Path) -> None:
    """A daemon without root: its own user may do everything, another user nothing."""
    root = public_path / "device"
    root.mkdir()
    os.chown(root, STRANGER, STRANGER)
    daemon = Daemon(root)
    log = daemon.log
    log.touch()
    daemon.program = (
        sys.executable, "-c",
        f"import os, sys; os.setgroups([]); os.setresgid(*[{STRANGER}]*3); os.setresuid(*[{STRANGER}]*3);"
        "from maestro_py.daemon.main import main; sys.exit(main(sys.argv[1:]))",
    )  # fmt: skip
    daemon.env["HOME"] = "/"
    daemon.start()
    try:
        assert ask_as(STRANGER, daemon.socket, "POST", "/v1/apply", document(job("app"))).status == 202
        row = daemon.wait_state("app", "RUNNING")
        assert os.stat(f"/proc/{row['pid']}").st_uid == STRANGER
        assert ask_as(STRANGER + 1, daemon.socket, "GET", "/v1/status").status == 403
        daemon.run(document(job("app"), python("two", "import signal; signal.pause()")))
        with pytest.raises(InvalidDocument, match="CAP_SETUID"):
            daemon.apply(document(job("app", user="root")))
    finally:
        daemon.close()


def test_groups_of_the_config_file_give_each_its_role(make_public_daemon: Callable[..., Daemon]) -> None:
    groups = {"read": "games", "operate": "mail", "admin": "news"}
    daemon = make_public_daemon("".join(f"{role}_group: {name}\n" for role, name in groups.items()))
    daemon.run(document(job("app")))

    def allowed(role: str, routes: list[tuple[str, str]]) -> set[bool]:
        gid = gid_of(groups[role])
        statuses = {ask_as(STRANGER, daemon.socket, *route, groups=(gid,)).status for route in routes}
        return {status != 403 for status in statuses}

    writing = [("POST", "/v1/apply"), ("POST", "/v1/check?nonsense")]
    assert allowed("read", READS) == {True}
    assert allowed("read", OPERATIONS) == {False}
    assert allowed("operate", [*READS, *OPERATIONS]) == {True}
    assert allowed("operate", writing[:1]) == {False}
    assert allowed("admin", [*READS, *OPERATIONS, *writing]) == {True}


def test_a_group_that_is_not_there_has_no_members(make_public_daemon: Callable[..., Daemon]) -> None:
    daemon = make_public_daemon("admin_group: nonesuch-group\nread_group: games\n")
    games = gid_of("games")
    assert ask_as(STRANGER, daemon.socket, "GET", "/v1/status", groups=(games,)).status == 200
    assert ask_as(STRANGER, daemon.socket, "POST", "/v1/apply", groups=(games,)).status == 403
    assert ask_as(STRANGER, daemon.socket, "GET", "/v1/status").status == 403
