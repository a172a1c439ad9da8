# SPDX-License-Identifier: Apache-2.0
"""Launch settings of a document, seen from inside the job that runs with them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.daemon import Daemon
from support.documents import WAIT, document, image, job, python

pytestmark = pytest.mark.root

# tells what the kernel says of the process, as one line of JSON
LOOK = """
import json, os, resource, signal
mask = os.umask(0)
status = dict(line.split(":", 1) for line in open("/proc/self/status").read().splitlines())
print(json.dumps({
    "uids": os.getresuid(), "gids": os.getresgid(), "groups": sorted(os.getgroups()), "umask": mask,
    "cwd": os.getcwd(), "nofile": resource.getrlimit(resource.RLIMIT_NOFILE),
    "core": resource.getrlimit(resource.RLIMIT_CORE), "nice": os.nice(0),
    "oom": int(open("/proc/self/oom_score_adj").read()), "sid": os.getsid(0), "pgid": os.getpgid(0),
    "pid": os.getpid(), "env": dict(os.environ), "no_new_privs": int(status["NoNewPrivs"]),
    "blocked": signal.pthread_sigmask(signal.SIG_BLOCK, []) == set(), "ignored": int(status["SigIgn"], 16),
    "fds": sorted(os.listdir("/proc/self/fd")),
}), flush=True)
print("!!OK!!", flush=True)
signal.pause()
"""


def seen(daemon: Daemon, name: str = "app") -> dict[str, Any]:
    found: dict[str, Any] = json.loads(daemon.log_of(name).splitlines()[0])
    return found


def look(daemon: Daemon, **keys: Any) -> dict[str, Any]:
    daemon.run(document(python("app", LOOK, wait_for_ok=True, **keys)))
    return seen(daemon)


def test_defaults_of_a_job(daemon: Daemon) -> None:
    found = look(daemon)
    assert found["uids"] == [0, 0, 0]
    assert found["umask"] == 0o022
    assert found["cwd"] == "/"
    assert found["nice"] == os.getpriority(os.PRIO_PROCESS, 0)
    assert found["pgid"] == found["pid"]
    assert found["sid"] != found["pid"]
    assert found["blocked"]
    # apart from Python's own SIGPIPE and SIGXFSZ, and 32 and 33, which no program can change: they are libc's
    assert found["ignored"] & ~(1 << 12 | 1 << 24 | 3 << 31) == 0
    assert found["fds"][:3] == ["0", "1", "2"]
    assert len(found["fds"]) == 4  # the listing itself is the fourth
    # nothing of the daemon's environment, what is announced, and what Python adds by itself
    assert set(found["env"]) - {"LC_CTYPE"} <= {"MAESTRO_PROCESS", "MAESTRO_SOCKET"} | set(group_names(found))


def group_names(found: dict[str, Any]) -> list[str]:
    return [name for name in found["env"] if name.startswith("MAESTRO_")]


@pytest.mark.parametrize("numbers", [False, True], ids=["names", "numbers"])
def test_user_group_and_supplementary_groups_by_name_and_number(
    numbers: bool, make_public_daemon: Callable[..., Daemon]
) -> None:
    import grp
    import pwd

    user, group, extra = pwd.getpwnam("nobody"), grp.getgrnam("daemon"), grp.getgrnam("mail")
    keys = {
        "user": user.pw_uid if numbers else "nobody",
        "group": group.gr_gid if numbers else "daemon",
        "supplementary_groups": [extra.gr_gid if numbers else "mail"],
    }
    found = look(make_public_daemon(), **keys)
    assert found["uids"] == [user.pw_uid] * 3
    assert found["gids"] == [group.gr_gid] * 3
    assert [g for g in found["groups"] if g != group.gr_gid] == [extra.gr_gid]
    assert found["no_new_privs"] == 1


def test_job_of_another_user_reads_its_config_and_image_but_may_not_write_them(
    make_public_daemon: Callable[..., Daemon], public_path: Path
) -> None:
    daemon = make_public_daemon()
    script = (
        "cat $MAESTRO_CONFIG {{IMAGE}}/f; echo;"
        "(echo x > $MAESTRO_CONFIG) 2>/dev/null && echo wrote config;"
        "(echo x > $MAESTRO_CONFIG_DIR/new) 2>/dev/null && echo wrote beside;"
        "(echo x > {{IMAGE}}/f) 2>/dev/null && echo wrote image;"
        f"echo done; {WAIT}"
    )
    daemon.run(
        document(
            job("app", script, user="nobody"),
            job("other", f"cat $OTHER 2>&1; echo done; {WAIT}", user="daemon",
                env=[f"OTHER={daemon.root}/state/configs/app/default"]),
            images=[image("app", "1", public_path, {"f": "from image"})],
            configs=[{"name": "default", "job": "app", "data": "from config "}],
        )
    )  # fmt: skip
    log = daemon.wait_log("app", "done")
    assert "from config from image" in log
    assert "wrote" not in log
    assert "Permission denied" in daemon.wait_log("other", "done")


def test_umask_working_dir_rlimits_nice_and_oom_score(daemon: Daemon) -> None:
    found = look(
        daemon,
        umask="077",
        working_dir="/usr/share",
        rlimits={"nofile": {"soft": 64, "hard": 128}, "core": 0},
        nice=7,
        oom_score_adj=333,
    )
    assert found["umask"] == 0o077
    assert found["cwd"] == "/usr/share"
    assert found["nofile"] == [64, 128]
    assert found["core"] == [0, 0]
    assert found["nice"] == 7
    assert found["oom"] == 333


def test_template_settings_count_and_the_job_wins(daemon: Daemon) -> None:
    template = {"name": "t", "nice": 3, "umask": "027", "working_dir": "/usr"}
    app = python("app", LOOK, wait_for_ok=True, container_template="t", nice=5)
    daemon.run(document(app, templates=[template]))
    found = seen(daemon)
    assert (found["nice"], found["umask"], found["cwd"]) == (5, 0o027, "/usr")


def test_daemonize_makes_a_session(daemon: Daemon) -> None:
    found = look(daemon, daemonize=True)
    assert found["sid"] == found["pgid"] == found["pid"]


def test_environment_is_job_then_template_then_inherited(make_daemon: Callable[..., Daemon]) -> None:
    daemon = make_daemon(env={"A": "daemon", "B": "daemon", "C": "daemon"})
    template = {"name": "t", "add_env": ["A=template", "B=template"], "inherit_env": True}
    app = python("app", LOOK, wait_for_ok=True, container_template="t", env=["A=job"])
    daemon.run(document(app, templates=[template]))
    env = seen(daemon)["env"]
    assert (env["A"], env["B"], env["C"]) == ("job", "template", "daemon")


def test_message_comes_on_standard_input_whole(daemon: Daemon) -> None:
    message = "birds\n" * 50000 + "ENDCONFIG"  # far more than a pipe holds
    daemon.run(document(job("app", f"wc -c; {WAIT}", message=message)))
    daemon.wait_log("app", f"{len(message)}\n")


def static_probe(directory: Path) -> Path:
    """Compile a program that needs nothing of the device: it lists `/` and shows its config."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if not compiler:
        pytest.skip("needs a C compiler")
    source = directory / "probe.c"
    source.write_text(
        """
        #include <dirent.h>
        #include <stdio.h>
        #include <stdlib.h>
        #include <unistd.h>
        int main(int argc, char **argv) {
            char line[256]; char *path = getenv("MAESTRO_CONFIG"); struct dirent *entry;
            DIR *top = opendir("/");
            while ((entry = readdir(top))) printf("entry %s\\n", entry->d_name);
            printf("cwd %s\\n", getcwd(line, sizeof line));
            printf("argument %s\\n", argc > 1 ? argv[1] : "");
            FILE *file = path ? fopen(path, "r") : NULL;
            if (file && fgets(line, sizeof line, file)) printf("config %s at %s\\n", line, path);
            printf("device %s\\n", access("/etc/passwd", F_OK) ? "hidden" : "visible");
            puts("!!OK!!"); fflush(stdout); pause(); return 0;
        }
        """
    )
    target = directory / "probe"
    done = subprocess.run([compiler, "-static", "-o", str(target), str(source)], capture_output=True)
    if done.returncode:
        pytest.skip("the compiler cannot link statically")
    return target


def test_chroot_path_becomes_the_root(daemon: Daemon, tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir(mode=0o755)
    shutil.copy(static_probe(tmp_path), root / "probe")
    app = {"job": "app", "exec_cmd": "/probe", "chroot_path": str(root), "wait_for_ok": True}
    configs = [{"name": "default", "job": "app", "data": "in the root"}]
    daemon.run(document(app, configs=configs))
    log = daemon.log_of("app")
    assert "entry probe" in log
    assert "device hidden" in log
    assert "cwd /\n" in log
    assert "config in the root at /run/maestro/config/default" in log
    assert os.readlink(f"/proc/{daemon.job('app')['pid']}/root") in (str(root), "/")


def test_image_becomes_the_root_and_its_path_is_the_one_inside(daemon: Daemon, tmp_path: Path) -> None:
    import io
    import tarfile

    from support.documents import checksum

    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w:gz") as tar:
        tar.add(static_probe(tmp_path), "bin/probe")
    archive = tmp_path / "app.tar.gz"
    archive.write_bytes(data.getvalue())
    wanted = {"job": "app", "version": "1", "url": archive.as_uri(), "checksum": checksum(data.getvalue())}
    app = {
        "job": "app",
        "exec_cmd": "{{IMAGE}}/bin/probe",
        "exec_args": ["at {{IMAGE}}"],
        "ChrootImage": True,
        "wait_for_ok": True,
        "user": "nobody",
    }
    daemon.run(document(app, images=[wanted]))
    log = daemon.log_of("app")
    assert "entry bin" in log
    assert "device hidden" in log
    assert "argument at /\n" in log
    pid = daemon.job("app")["pid"]
    assert os.stat(f"/proc/{pid}").st_uid == 65534


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"user": "nonesuch"}, ["nonesuch"]),
        ({"group": "nonesuch"}, ["nonesuch"]),
        ({"working_dir": "/nonesuch"}, ["/nonesuch", "No such file"]),
        ({"chroot_path": "/nonesuch"}, ["/nonesuch", "No such file"]),
    ],
)
def test_setting_that_cannot_be_had_is_named(keys: dict[str, str], words: list[str], daemon: Daemon) -> None:
    task = daemon.apply(document(job("app", **keys), job("good")))
    assert task["status"] == "failed"
    row = daemon.job("app")
    assert row["state"] == "FAILED"
    for word in words:
        assert word in row["cause"]
        assert word in task["error"]["message"]
    assert daemon.job("good")["state"] == "RUNNING"


def test_changed_user_restarts_the_job(make_public_daemon: Callable[..., Daemon]) -> None:
    daemon = make_public_daemon()
    daemon.run(document(job("app", user="nobody")))
    pid = daemon.job("app")["pid"]
    changed = document(job("app", user="daemon"))
    steps = daemon.client().diff(changed)["plan"]["steps"]
    assert [(s["action"], s["reason"]) for s in steps] == [
        ("stop", "user 'nobody' becomes 'daemon'"),
        ("start", "user 'nobody' becomes 'daemon'"),
    ]
    daemon.run(changed)
    assert daemon.job("app")["pid"] != pid


def test_die_on_parent_death_ends_the_job_with_a_killed_daemon(daemon: Daemon) -> None:
    daemon.run(document(job("dies", die_on_parent_death=True), job("lives")))
    dies, lives = (daemon.job(name)["pid"] for name in ("dies", "lives"))
    pidfd = os.pidfd_open(dies)
    import select

    daemon.crash()
    assert select.select([pidfd], [], [], 5)[0]
    os.close(pidfd)
    os.kill(lives, 0)
    daemon.start()
    daemon.wait_state("lives", "RUNNING")
