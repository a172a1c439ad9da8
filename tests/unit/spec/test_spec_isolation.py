# SPDX-License-Identifier: Apache-2.0
"""The fields of isolation: read, checked, written back, and resolved for a process."""

from __future__ import annotations

import json
from typing import Any

import pytest

from maestro_py.differences import How, differences
from maestro_py.errors import InvalidDocument
from maestro_py.spec.documents import public_json, read_running_config, read_stored, to_json
from maestro_py.spec.expand import resolve
from maestro_py.spec.isolation import CAPABILITIES
from maestro_py.spec.model import JobSpec, Mount, Network, Port, RunningConfig, Secret, Settings, TemplateSpec
from maestro_py.spec.places import DATA_INSIDE, RUN_INSIDE, SECRETS_INSIDE, Places
from maestro_py.spec.resolved import ResolvedProcess

PLACES = Places("/img", "/conf", "/sock", "/this", "/cwd", {"where": "/opt/x"}, data="/data", run="/run/m")


def job(**fields: Any) -> JobSpec:
    """One job as a document gives it."""
    return read_running_config({"jobs": [{"job": "j", "exec_cmd": "/bin/x", **fields}]})[0].jobs[0]


def refused(**fields: Any) -> list[str]:
    """Problems of a job, without its label."""
    with pytest.raises(InvalidDocument) as error:
        job(**fields)
    said = []
    for problem in error.value.problems:
        said.append(problem.path.removeprefix("jobs[0].") + ": " + problem.message.removeprefix('job "j": '))
    return said


def settled(template: Settings = Settings(), **fields: Any) -> ResolvedProcess:  # noqa: B008
    """The process of one job."""
    spec = JobSpec("j", container_template="t", exec_cmd="/bin/x", settings=Settings(**fields))
    return resolve([spec], [TemplateSpec("t", settings=template)], [], [], PLACES)["j"]


READ = [
    ("capabilities", ["CAP_CHOWN", "bpf", "chown"], ("bpf", "chown")),
    ("capabilities", [], ()),
    ("seccomp", "Default", "default"),
    ("read_only_root", True, True),
    ("mounts", [{"source": "/a//b/", "target": "/c/."}], (Mount("/a/b", "/c"),)),
    ("mounts", [{"source": "{{where}}/b", "target": "/c", "options": ["rw"]}],
     (Mount("{{where}}/b", "/c", ("rw",)),)),
    ("tmpfs", ["/x", "/y:size=16M"], ("/x", "/y:size=16777216")),
    ("devices", ["/dev/ttyS0"], ("/dev/ttyS0",)),
    ("pids", "private", "private"),
    ("network", "none", Network("none")),
    ("network", {"mode": "private", "address": "10.88.0.7",
                 "ports": [{"host": 80, "inside": 8080}, {"host": 80, "inside": 1, "protocol": "udp"}]},
     Network("private", "10.88.0.7", (Port(80, 8080), Port(80, 1, "udp")))),
    ("secrets", [{"name": "k", "data": "x"}, {"name": "f", "file": "/f"}],
     (Secret("k", data="x"), Secret("f", file="/f"))),
]  # fmt: skip


@pytest.mark.parametrize(("key", "raw", "value"), READ)
def test_a_field_is_read_and_written_back(key: str, raw: object, value: object) -> None:
    spec = job(**{key: raw})
    assert getattr(spec.settings, key) == value
    written = json.loads(json.dumps(to_json(spec)))
    assert read_stored("job", written) == spec


WRONG = [
    ("capabilities", ["chwon"], "capabilities[0]: no such capability: \"chwon\""),
    ("seccomp", "strict", "seccomp: expected one of default, none, not \"strict\""),
    ("mounts", [{"source": "a", "target": "/b"}],
     'mounts[0].source: expected an absolute path of the device, as a string, not "a"'),
    ("mounts", [{"source": "/a", "target": "/b/../c"}], "mounts[0].target: a path cannot have a part `..`"),
    ("mounts", [{"source": "/a", "target": "/"}],
     'mounts[0].target: nothing can be mounted on "/" of a process'),
    ("mounts", [{"source": "/a", "target": "/b", "options": ["ro", "rw"]}],
     "mounts[0].options: it is either ro or rw"),
    ("mounts", [{"source": "/a", "target": "/b"}, {"source": "/c", "target": "/b"}],
     'mounts: the target "/b" is given twice'),
    ("tmpfs", ["/x:size=big"],
     'tmpfs[0]: expected an absolute path, as "/tmp" or "/tmp:size=16M", not "/x:size=big"'),
    ("tmpfs", ["/x:size=0"],
     'tmpfs[0]: expected an absolute path, as "/tmp" or "/tmp:size=16M", not "/x:size=0"'),
    ("devices", ["/etc/x"], 'devices[0]: expected a path below /dev, as a string, not "/etc/x"'),
    ("devices", ["/dev/../x"], "devices[0]: a path cannot have a part `..`"),
    ("pids", 1, "pids: expected one of host, private, not 1"),
    ("network", {"mode": "host", "ports": [{"host": 1, "inside": 1}]},
     "network.ports: only a private network has this"),
    ("network", {"mode": "private", "ports": [{"host": 1, "inside": 1}] * 2},
     "network.ports[1]: port 1/tcp is published twice"),
    ("network", {"mode": "private", "address": "1.2.3"},
     'network.address: expected an IPv4 address, as a string, not "1.2.3"'),
    ("network", "bridge",
     'network: expected "host", "none", "private" or an object with `mode`, not "bridge"'),
    ("secrets", [{"name": "../x", "data": ""}],
     'secrets[0].name: expected a file name of letters, digits, `.`, `_` and `-`, as a string, not "../x"'),
    ("secrets", [{"name": "x"}], "secrets[0]: give one of `file` and `data`"),
    ("secrets", [{"name": "x", "data": "", "file": "/x"}], "secrets[0]: give one of `file` and `data`"),
    ("secrets", [{"name": "x", "data": "hidden", "encoding": "base64"}],
     "secrets[0].data: is not valid base64, which `encoding` says it is"),
    ("secrets", [{"name": "x", "data": 4711}], "secrets[0].data: expected a string"),
]  # fmt: skip


@pytest.mark.parametrize(("key", "raw", "message"), WRONG)
def test_a_mistake_is_named(key: str, raw: object, message: str) -> None:
    assert refused(**{key: raw})[0] == message


def test_the_capabilities_have_the_kernels_numbers() -> None:
    numbers = {"chown": 0, "setpcap": 8, "sys_admin": 21, "setfcap": 31, "checkpoint_restore": 40}
    assert {name: CAPABILITIES.index(name) for name in numbers} == numbers


def test_the_job_wins_over_the_template() -> None:
    template = Settings(capabilities=("chown",), seccomp="default", tmpfs=("/a",), pids="private")
    process = settled(template, capabilities=(), tmpfs=())
    assert (process.capabilities, process.seccomp, process.tmpfs) == ((), "default", ())
    assert process.pids == "private"


def test_a_process_that_asks_for_nothing_is_not_isolated() -> None:
    process = settled()
    assert process.capabilities is None
    assert process.network == Network()
    assert (process.seccomp, process.pids, process.secrets_dir) == ("none", "host", "")


def test_own_directories_are_named_in_the_environment() -> None:
    process = settled(secrets=(Secret("k", data="x"),), user="nobody")
    env = dict(process.env)
    assert (process.data_dir, process.run_dir) == ("/data/j", "/run/m/jobs/j")
    assert (env["MAESTRO_DATA_DIR"], env["MAESTRO_RUN_DIR"]) == ("/data/j", "/run/m/jobs/j")
    assert env["MAESTRO_SECRETS_DIR"] == process.secrets_dir == "/run/m/secrets"
    inside = settled(secrets=(Secret("k", data="x"),), chroot_path="/srv/root")
    env = dict(inside.env)
    assert inside.data_dir == "/data/j"
    assert env["MAESTRO_DATA_DIR"] == inside.data_dir_inside == DATA_INSIDE
    assert env["MAESTRO_RUN_DIR"] == inside.run_dir_inside == RUN_INSIDE
    assert env["MAESTRO_SECRETS_DIR"] == inside.secrets_dir == SECRETS_INSIDE
    plain = settled()
    # what runs as the daemon itself needs no place of its own
    assert (plain.data_dir, plain.run_dir) == ("", "")
    assert not {"MAESTRO_DATA_DIR", "MAESTRO_RUN_DIR", "MAESTRO_SECRETS_DIR"} & dict(plain.env).keys()


def test_names_in_paths_are_filled_in() -> None:
    process = settled(mounts=(Mount("{{where}}/m", "/m"),), secrets=(Secret("k", file="{{where}}/key"),))
    assert process.mounts[0].source == "/opt/x/m"
    assert process.secrets[0].file == "/opt/x/key"


def test_a_filter_without_no_new_privs_is_refused_at_once() -> None:
    with pytest.raises(InvalidDocument, match="no_new_privs: false, and seccomp needs it"):
        settled(Settings(no_new_privs=False), seccomp="default")


def test_a_change_of_isolation_restarts_and_shows_no_secret() -> None:
    old = settled(secrets=(Secret("k", data="hidden-old"),))
    new = settled(secrets=(Secret("k", data="hidden-new"),), pids="private", read_only_root=True)
    changes = differences(old, new)
    assert {change.how for change in changes} == {How.RESTART}
    text = "; ".join(change.text for change in changes)
    assert "pids 'host' becomes 'private'" in text
    assert "secrets changed" in text
    assert "hidden" not in text


def test_inline_secrets_are_not_shown() -> None:
    spec = job(secrets=[{"name": "k", "data": "hidden", "encoding": "utf8"}, {"name": "f", "file": "/f"}])
    template = TemplateSpec("t", settings=spec.settings)
    for each in (spec, template, RunningConfig((spec,), (template,))):
        assert "hidden" in json.dumps(to_json(each))
        assert "hidden" not in json.dumps(public_json(each))
        assert "hidden" not in repr(each)
    assert public_json(spec)["secrets"] == [{"name": "k"}, {"name": "f", "file": "/f"}]
    with pytest.raises(InvalidDocument, match="give one of `file` and `data`"):
        read_stored("job", public_json(spec))
