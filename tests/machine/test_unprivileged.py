# SPDX-License-Identifier: Apache-2.0
"""A daemon of an ordinary user: what can work works, what cannot is refused before anything is changed."""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.daemon import Daemon
from support.documents import document, job

from maestro_py.daemon.privileges import Own, missing, needs, refused
from maestro_py.errors import InvalidDocument
from maestro_py.spec.isolation import CAPABILITIES
from maestro_py.spec.model import Limits, Mount, Network, Secret
from maestro_py.spec.resolved import ImageRef, ResolvedProcess

NOBODY = 65534
UID = os.geteuid() or NOBODY
NICE = min(19, os.nice(0) + 5)
"""What a user may ask for, however nice the tests are themselves."""
AS_USER = (
    ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--inh-caps=-all", "--")
    if os.geteuid() == 0
    else ()
)


# What is decided, without a daemon


ORDINARY = Own(
    uid=1000,
    gid=1000,
    groups=frozenset({1000, 27}),
    user_names=frozenset({"ann"}),
    group_names={"ann": 1000, "more": 27},
    capabilities=frozenset(),
    rlimits={"nofile": 4096},
    controllers=frozenset({"pids"}),
)


def process(**fields: Any) -> ResolvedProcess:
    return ResolvedProcess(name="app", members=("app",), argv=("/bin/true",), **fields)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"user": "root"}, [("user", "setuid")]),
        ({"user": 0}, [("user", "setuid")]),
        ({"user": "0"}, [("user", "setuid")]),
        ({"group": "other"}, [("group", "setgid")]),
        ({"group": 27}, [("group", "setgid")]),
        ({"supplementary_groups": ("disk",)}, [("supplementary_groups", "setgid")]),
        ({"supplementary_groups": ()}, [("supplementary_groups", "setgid")]),
        ({"root": "/srv/jail"}, [("chroot_path", "sys_chroot")]),
        (
            {"root": "/i/app", "images": (ImageRef("app", "1", "", "/i/app"),)},
            [("ChrootImage", "sys_chroot")],
        ),
        ({"mounts": (Mount("/a", "/b"),)}, [("mounts", "sys_admin")]),
        ({"tmpfs": ("/tmp",)}, [("tmpfs", "sys_admin")]),
        ({"secrets": (Secret("key", data="x"),)}, [("secrets", "sys_admin")]),
        ({"read_only_root": True}, [("read_only_root", "sys_admin")]),
        ({"pids": "private"}, [("pids", "sys_admin")]),
        ({"network": Network("none")}, [("network", "sys_admin")]),
        ({"network": Network("private")}, [("network", "sys_admin"), ("network", "net_admin")]),
        ({"devices": ("/dev/ttyS0",)}, [("devices", "mknod")]),
        ({"capabilities": ("net_raw", "kill")}, [("capabilities", "net_raw"), ("capabilities", "kill")]),
        ({"nice": -1}, [("nice", "sys_nice")]),
        ({"oom_score_adj": -1}, [("oom_score_adj", "sys_resource")]),
        ({"rlimits": (("nofile", 10, 4097),)}, [("rlimits", "sys_resource")]),
        ({"rlimits": (("nofile", 10, -1),)}, [("rlimits", "sys_resource")]),
        ({"limits": Limits(mem_limit=1, pids_max=1)}, [("cgroup.mem_limit", "cgroup memory")]),
    ],
)
def test_what_an_ordinary_user_may_not_give_is_named(
    fields: dict[str, Any], expected: list[tuple[str, str]]
) -> None:
    assert needs(process(**fields), ORDINARY) == expected
    assert missing(process(**fields), ORDINARY) == expected


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"user": "ann"},
        {"user": 1000, "group": "ann"},
        {"user": "1000", "group": "1000", "supplementary_groups": ("more", 1000)},
        {"supplementary_groups": (27,)},
        {"nice": 0, "oom_score_adj": 0, "rlimits": (("nofile", 10, 4096), ("core", 0, -1))},
        {"limits": Limits(pids_max=1), "no_new_privs": True, "seccomp": "default", "capabilities": ()},
    ],
)
def test_what_it_may_give_is_not(fields: dict[str, Any]) -> None:
    assert needs(process(**fields), ORDINARY) == []


def test_root_may_give_all_of_it_and_is_never_refused_a_limit() -> None:
    everything = process(
        user="nobody", group="nogroup", root="/jail", nice=-5, devices=("/dev/x",), limits=Limits(mem_limit=1)
    )
    assert needs(everything, Own()) != []
    assert missing(everything, Own()) == []
    assert refused(Own()) == []


def test_root_without_a_capability_is_told_which() -> None:
    contained = Own(capabilities=frozenset(CAPABILITIES) - {"sys_resource", "sys_admin"})
    assert missing(process(root="/jail", oom_score_adj=-5, tmpfs=("/tmp",)), contained) == [
        ("tmpfs", "sys_admin"),
        ("oom_score_adj", "sys_resource"),
    ]
    assert "network" in refused(contained)
    assert "chroot_path" not in refused(contained)


# The daemon of a user


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory of the user's; what pytest makes is for its own user alone."""
    path = Path(tempfile.mkdtemp(prefix="maestro-user-"))
    os.chown(path, UID, -1)
    yield path
    shutil.rmtree(path)


@pytest.fixture
def start(place: Path) -> Iterator[Callable[..., Daemon]]:
    started: list[Daemon] = []

    def start(*before: str) -> Daemon:
        daemon = Daemon(place)
        daemon.program = (*before, *AS_USER, sys.executable, "-m", "maestro_py.daemon")
        started.append(daemon)
        return daemon.start()

    yield start
    for daemon in started:
        daemon.close()


@pytest.fixture
def daemon(start: Callable[..., Daemon]) -> Daemon:
    return start()


def uids(pid: int) -> set[str]:
    line = next(s for s in Path(f"/proc/{pid}/status").read_text().splitlines() if s.startswith("Uid:"))
    return set(line.split()[1:])


def test_its_jobs_run_as_the_user_and_end(daemon: Daemon) -> None:
    config = [{"name": "default", "job": "app", "data": "its config"}]
    script = "cat $MAESTRO_CONFIG; echo; (sleep 1000 & sleep 1000) & exec sleep 1000"
    own = {"user": UID, "group": os.getegid() or NOBODY, "nice": NICE, "oom_score_adj": 500}
    daemon.run(document(job("app", script, **own), job("next", depends_on=["app"]), configs=config))
    pid = daemon.job("app")["pid"]
    assert uids(pid) == {str(UID)}
    daemon.wait_log("app", "its config")
    daemon.do("next", "pause")
    assert daemon.job("next")["paused"]
    daemon.do("next", "resume")
    daemon.client().kill("next", "SIGKILL")
    assert daemon.wait_state("next", "FAILED")["cause"].startswith("killed by SIGKILL, sent by ")
    assert daemon.do("app", "stop")["status"] == "complete"
    assert not os.path.exists(f"/proc/{pid}")
    assert daemon.stop() == 0
    assert "Traceback" not in daemon.output()


@pytest.mark.parametrize(
    ("fields", "field", "right"),
    [
        ({"user": "root"}, "user", "CAP_SETUID"),
        ({"group": 0}, "group", "CAP_SETGID"),
        ({"supplementary_groups": ["root"]}, "supplementary_groups", "CAP_SETGID"),
        ({"chroot_path": "/tmp"}, "chroot_path", "CAP_SYS_CHROOT"),
        ({"nice": -5}, "nice", "CAP_SYS_NICE"),
        ({"oom_score_adj": -500}, "oom_score_adj", "CAP_SYS_RESOURCE"),
        ({"tmpfs": ["/tmp"]}, "tmpfs", "CAP_SYS_ADMIN"),
        ({"network": "none"}, "network", "CAP_SYS_ADMIN"),
        ({"capabilities": ["net_bind_service"]}, "capabilities", "CAP_NET_BIND_SERVICE"),
    ],
)
def test_what_needs_more_is_refused_when_it_is_applied(
    daemon: Daemon, fields: dict[str, Any], field: str, right: str
) -> None:
    daemon.run(document(job("good")))
    pid = daemon.job("good")["pid"]
    wanted = document(job("good", "exec sleep 999"), job("app", **fields))
    for ask in (daemon.client().apply, daemon.client().check, daemon.client().diff):
        with pytest.raises(InvalidDocument) as caught:
            ask(wanted)
        sentences = [str(problem) for problem in caught.value.problems]
        assert len(sentences) == 1
        assert sentences[0].startswith(f'jobs["app"].{field}: maestrod runs as uid {UID} and has no {right}')
        assert "maestro doctor" in sentences[0]
    assert daemon.job("good")["pid"] == pid
    assert [row["job"] for row in daemon.client().status()["jobs"]] == ["good"]


def test_a_template_that_needs_more_is_refused_for_each_of_its_jobs(daemon: Daemon, place: Path) -> None:
    template = {"name": "cell", "exec_cmd": "/bin/sleep", "user": "root", "nice": -1}
    jobs = [{"job": n, "container_template": "cell", "exec_args": ["100"]} for n in ("a", "b")]
    file = place / "document.json"
    file.write_text(json.dumps(document(*jobs, templates=[template])))
    done = daemon.cli("apply", str(file))
    assert done.returncode == 1
    for name in ("a", "b"):
        assert f'jobs["{name}"].user: maestrod runs as uid {UID} and has no CAP_SETUID' in done.stderr
        assert f'jobs["{name}"].nice: maestrod runs as uid {UID} and has no CAP_SYS_NICE' in done.stderr
    jobs[0]["disabled"] = jobs[1]["disabled"] = True  # type: ignore[assignment]
    daemon.run(document(*jobs, templates=[template]))  # who does not run needs nothing


def test_a_memory_limit_without_a_group_to_keep_it_is_refused(daemon: Daemon) -> None:
    facts = {fact["name"]: fact for fact in daemon.client().doctor()["facts"]}
    if "memory" in facts["cgroup controllers"]["value"]:
        pytest.skip("this user was given control groups")
    with pytest.raises(InvalidDocument, match="was given no control group with the memory controller"):
        daemon.client().apply(document(job("app", cgroup={"mem_limit": "64M"})))


def test_the_doctor_lists_what_is_refused(daemon: Daemon) -> None:
    facts = {fact["name"]: fact for fact in daemon.client().doctor()["facts"]}
    row = facts["refused fields"]
    assert not row["ok"]
    assert {"user", "group", "chroot_path", "network", "a lower nice"} <= set(row["value"].split(", "))
    said = daemon.cli("doctor").stdout
    assert "refused fields" in said
    assert f"uid {UID}" in said


def test_what_was_stored_by_root_is_refused_job_by_job_at_the_boot_of_a_users_daemon(
    start: Callable[..., Daemon], place: Path
) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root")
    before = Daemon(place)
    try:
        before.start()
        before.run(document(job("low", user="daemon"), job("good")))
        before.stop()
    finally:
        before.close()
    for path in [place, *place.rglob("*")]:
        os.chown(path, UID, UID, follow_symlinks=False)
    daemon = start()
    assert daemon.wait_state("good", "RUNNING")["pid"]
    row = daemon.wait_state("low", "FAILED")
    assert "cannot run low as user 'daemon'" in row["cause"]


# Control groups that were given away


V1 = Path("/sys/fs/cgroup")


@pytest.fixture
def delegated() -> Iterator[str]:
    """Give the user a group with the memory and the pids controller of v1; return its name."""
    if os.geteuid() != 0 or not (V1 / "memory/memory.limit_in_bytes").exists():
        pytest.skip("needs root and cgroup v1")
    name = f"maestro-test-user-{os.getpid()}"
    places = [V1 / controller / name for controller in ("memory", "pids")]
    for path in places:
        path.mkdir()
        for file in (path, path / "cgroup.procs", path / "tasks"):
            os.chown(file, UID, UID)
    yield name
    for path in places:
        assert [below.name for below in path.iterdir() if below.is_dir()] == []
        path.rmdir()


def test_limits_work_in_the_groups_a_user_was_given(start: Callable[..., Daemon], delegated: str) -> None:
    enter = f'for c in memory pids; do echo $$ > {V1}/$c/{delegated}/cgroup.procs; done; exec "$@"'
    daemon = start("/bin/sh", "-c", enter, "sh")
    limits = {"mem_limit": "24M", "pids_max": 20, "swap_limit": 0}
    daemon.run(document(job("app", cgroup=limits)))
    pid = daemon.job("app")["pid"]
    lines = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
    paths = dict(line.split(":")[1:] for line in lines)
    assert paths["memory"].startswith(f"/{delegated}/")
    assert (V1 / "memory" / paths["memory"][1:] / "memory.limit_in_bytes").read_text().strip() == "25165824"
    assert (V1 / "pids" / paths["pids"][1:] / "pids.max").read_text().strip() == "20"
    eater = "exec /usr/bin/python3 -I -S -c 'x = bytearray(64 << 20); x[::4096] = b\"x\" * (len(x) // 4096)'"
    daemon.apply(document(job("app", eater, cgroup=limits)))
    assert daemon.wait_state("app", "FAILED")["cause"].startswith("killed for memory, limit 24.0M")
    with pytest.raises(
        InvalidDocument, match=r"cgroup\.cpu_max: .* no control group with the cpu controller"
    ):
        daemon.client().apply(document(job("app", cgroup={"cpu_max": 0.5})))
    facts = {fact["name"]: fact for fact in daemon.client().doctor()["facts"]}
    assert facts["cgroup controllers"]["value"] == "memory, pids"
    assert daemon.stop() == 0
