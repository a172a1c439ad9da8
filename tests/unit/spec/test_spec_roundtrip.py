# SPDX-License-Identifier: Apache-2.0
"""Properties of reading and writing: what is written reads back; nothing else than problems comes out."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from maestro_py.errors import InvalidDocument
from maestro_py.spec import documents, fields, isolation
from maestro_py.spec.daemonfile import DAEMON, DEBUG, VARIABLE, read_daemon_config
from maestro_py.spec.documents import read_running_config, read_stored, read_templates, to_json
from maestro_py.spec.isolation import CAPABILITIES
from maestro_py.spec.model import (
    Backoff,
    Checksum,
    ConfigFile,
    ConfigSpec,
    ImageSpec,
    JobSpec,
    Limits,
    Mount,
    Network,
    Port,
    RestartPolicy,
    RunningConfig,
    Secret,
    Settings,
    TemplateSpec,
)
from maestro_py.spec.quantities import RLIMITS
from maestro_py.spec.reader import Reading, Table, read_object, suggest
from maestro_py.spec.text import load_json

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
ARGUMENT = TEXT.map(lambda text: text.replace("\0", ""))
NAME = st.text(st.characters(categories=["L", "N", "P", "S"]), min_size=1, max_size=12)
SOME = st.lists(ARGUMENT, max_size=3).map(tuple)
NAMES = st.lists(NAME, max_size=3).map(tuple)
ENV = st.lists(st.tuples(st.text("ABC_", min_size=1), ARGUMENT).map("=".join), max_size=3).map(tuple)
SECONDS = st.integers(0, 10**13).map(lambda micro: micro / 1_000_000)
SIZE = st.integers(0, 2**63 - 1)
UINT32 = st.integers(0, 2**32 - 1)
WEIGHT = st.integers(1, 10_000)
ID = st.integers(0, 2**32 - 2) | NAME.filter(lambda n: not n.isdigit() and ":" not in n)
PATH = ARGUMENT.map(lambda text: "/" + text)
SIGNAL = st.sampled_from([1, 2, 9, 10, 12, 15, 34, 40, 64])
LIMIT = st.tuples(st.sampled_from(RLIMITS), st.integers(0, 1000), st.integers(1000, 2**40) | st.just(-1))


def maybe(strategy: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.none() | strategy


def maybe_none(strategy: st.SearchStrategy[Any], names: str) -> dict[str, st.SearchStrategy[Any]]:
    return {name: maybe(strategy) for name in names.split()}


BACKOFFS = st.builds(
    Backoff,
    initial=st.sampled_from([0.0, 0.1, 1.5]),
    factor=st.floats(1, 100),
    max=st.integers(1500, 10**9).map(lambda n: n / 1000),
    jitter=st.floats(0, 1),
    reset_after=SECONDS,
)
LIMITS = st.builds(
    Limits,
    **maybe_none(SIZE, "mem_limit mem_high swap_limit"),
    **maybe_none(WEIGHT, "cpu_weight io_weight"),
    pids_max=maybe(st.integers(0, 1 << 22)),
    cpu_max=maybe(st.floats(0.01, 1000)),
)
MOUNTS = st.builds(
    Mount,
    source=st.sampled_from(["/", "/a b", "{{x}}/y"]),
    target=st.sampled_from(["/m", "/m/n", "/ü"]),
    options=st.sampled_from([(), ("ro",), ("rw", "noexec")]),
)
PORTS = st.builds(
    Port,
    host=st.integers(1, 65535),
    inside=st.integers(1, 65535),
    protocol=st.sampled_from(["tcp", "udp"]),
    address=st.sampled_from(["", "127.0.0.1"]),
)
NETWORKS = st.sampled_from([Network(), Network("none")]) | st.builds(
    Network,
    mode=st.just("private"),
    address=st.sampled_from(["", "10.88.0.9"]),
    ports=st.lists(PORTS, max_size=2, unique_by=lambda port: port.host).map(tuple),
)
SECRETS = st.builds(Secret, name=st.sampled_from(["a", "b.c"]), file=st.just("/f")) | st.builds(
    Secret, name=st.sampled_from(["a", "b.c"]), data=TEXT.filter(bool)
)
SETTINGS = st.builds(
    Settings,
    **maybe_none(
        st.booleans(),
        "restart restart_on_dependency_fail die_on_parent_death inherit_env wait_for_ok no_new_privs "
        "chroot_image",
    ),
    **maybe_none(SECONDS, "restart_pause defer_running_status timeout_for_ok stop_timeout"),
    **maybe_none(ID, "user group"),
    **maybe_none(PATH, "working_dir chroot_path"),
    **maybe_none(SIGNAL, "stop_signal reload_signal"),
    restart_limit=maybe(UINT32),
    restart_policy=maybe(st.sampled_from(RestartPolicy)),
    restart_backoff=maybe(BACKOFFS),
    ok_string=maybe(ARGUMENT.filter(bool)),
    supplementary_groups=maybe(st.lists(ID, max_size=3).map(tuple)),
    umask=maybe(st.integers(0, 0o777)),
    rlimits=maybe(st.lists(LIMIT, max_size=3, unique_by=lambda entry: entry[0]).map(sorted).map(tuple)),
    nice=maybe(st.integers(-20, 19)),
    oom_score_adj=maybe(st.integers(-1000, 1000)),
    cgroup=maybe(LIMITS),
    capabilities=maybe(
        st.lists(st.sampled_from(CAPABILITIES), max_size=3, unique=True).map(sorted).map(tuple)
    ),
    seccomp=maybe(st.sampled_from(["default", "none"])),
    read_only_root=maybe(st.booleans()),
    mounts=maybe(st.lists(MOUNTS, max_size=2, unique_by=lambda mount: mount.target).map(tuple)),
    tmpfs=maybe(st.lists(st.sampled_from(["/a", "/b c:size=4096"]), max_size=2).map(tuple)),
    devices=maybe(st.lists(st.sampled_from(["/dev/a", "/dev/b/c"]), max_size=2).map(tuple)),
    pids=maybe(st.sampled_from(["host", "private"])),
    network=maybe(NETWORKS),
    secrets=maybe(st.lists(SECRETS, max_size=2, unique_by=lambda secret: secret.name).map(tuple)),
)
JOBS = st.builds(
    JobSpec,
    job=NAME,
    composite_id=st.just("") | NAME,
    container_template=st.just("") | NAME,
    config=TEXT,
    config_name=st.just("") | NAME,
    message=TEXT,
    depends_on=NAMES,
    exec_cmd=ARGUMENT,
    exec_args=SOME,
    pgid=st.integers(0, 2**31 - 1),
    env=ENV,
    daemonize=st.booleans(),
    immutable=st.booleans(),
    no_autostart=st.booleans(),
    disabled=st.booleans(),
    settings=SETTINGS,
)
TEMPLATES = st.builds(
    TemplateSpec,
    name=NAME,
    exec_cmd=ARGUMENT,
    exec_pre_args=SOME,
    exec_post_args=SOME,
    add_env=ENV,
    depends_on=NAMES,
    send_composite_jobs_to_stdin=st.booleans(),
    composite_config=TEXT,
    send_grease_origin_id=st.booleans(),
    immutable=st.booleans(),
    settings=SETTINGS,
)
CHECKSUMS = st.sampled_from([("sha256sum", 64), ("sha512sum", 128), ("md5sum", 32)]).flatmap(
    lambda kind: st.builds(
        Checksum,
        type=st.just(kind[0]),
        value=st.text("0123456789abcdef", min_size=kind[1], max_size=kind[1]),
    )
)
URL = st.sampled_from(["http://h/x.tar", "https://h:8443/a?b=c", "file:///tmp/x.zip"])
IMAGES = st.builds(
    ImageSpec,
    job=NAME,
    version=st.just("") | NAME,
    url=URL,
    size=SIZE,
    checksum=maybe(CHECKSUMS),
    image_type=st.sampled_from(["tarball", "zip", "devicejs_tarball", "devicejs_zip"]),
)
FILES = st.builds(
    ConfigFile,
    url=URL,
    dest_relative_path=st.sampled_from(["a", "b/c", "b/d.conf"]),
    size=SIZE,
    checksum=maybe(CHECKSUMS),
)
CONFIGS = st.builds(
    ConfigSpec,
    name=NAME,
    job=NAME,
    data=TEXT,
    files=st.lists(FILES, max_size=2, unique_by=lambda f: f.dest_relative_path).map(tuple),
    mod_time=TEXT,
)


def unique(strategy: st.SearchStrategy[Any], key: Any) -> st.SearchStrategy[Any]:
    return st.lists(strategy, max_size=2, unique_by=key).map(tuple)


RUNNING = st.builds(
    RunningConfig,
    jobs=unique(JOBS, lambda j: (j.job, j.composite_id)),
    templates=unique(TEMPLATES, lambda t: t.name),
    images=unique(IMAGES, lambda i: i.job),
    configs=unique(CONFIGS, lambda c: c.job),
    date=st.integers(0, 2**63 - 1),
    remove_old_images=st.booleans(),
    fail_fast=st.booleans(),
)


def through_text(spec: Any) -> object:
    return load_json(json.dumps(to_json(spec)), "doc")


@pytest.mark.parametrize(
    ("kind", "specs"), [("job", JOBS), ("template", TEMPLATES), ("image", IMAGES), ("config", CONFIGS)]
)
def test_a_spec_reads_back_equal(kind: Any, specs: st.SearchStrategy[Any]) -> None:
    @settings(max_examples=50)
    @given(specs)
    def check(spec: Any) -> None:
        assert read_stored(kind, through_text(spec)) == spec

    check()


@settings(max_examples=25)
@given(RUNNING)
def test_a_running_config_reads_back_equal(spec: RunningConfig) -> None:
    names = [job.job for job in spec.jobs]
    composites = {job.composite_id for job in spec.jobs}
    if len(set(names)) < len(names) or composites & set(names):
        return
    assert read_running_config(through_text(spec))[0] == spec


WORDS = sorted(
    {key for table in (fields.JOB, fields.TEMPLATE, fields.IMAGE, fields.CONFIG) for key in table.keys}
    | set(documents.RUNNING.keys)
    | set(documents.RUNNING_OP.keys)
    | set(DAEMON.keys)
)
VALUES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["running", "update", "a=b", "/x", "5s", "16M", "9" * 500 + "M", "\ud800", "x\0y", "²"])
)
ARBITRARY = st.recursive(
    VALUES,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(WORDS) | st.text(max_size=6), inner, max_size=5)
    ),
    max_leaves=25,
)
READERS = [
    read_running_config,
    lambda data: read_running_config({"op": "update", "conf": data, "flags": data}),
    lambda data: read_running_config({"jobs": data, "templates": data, "images": data, "configs": data}),
    lambda data: read_templates(data, "doc"),
    lambda data: read_stored("job", data),
    lambda data: read_stored("template", data),
    lambda data: read_stored("image", data),
    lambda data: read_stored("config", data),
    lambda data: read_daemon_config(data, environ={}, builtins={}, source="doc"),
]


@settings(max_examples=100)
@given(ARBITRARY)
def test_any_json_is_read_or_refused(data: object) -> None:
    for reader in READERS:
        try:
            reader(data)
        except InvalidDocument as error:
            str(error).encode()


TABLES = [
    fields.JOB,
    fields.JOB_INLINE,
    fields.TEMPLATE,
    fields.IMAGE,
    fields.CONFIG,
    fields.CONFIG_FILE,
    fields.CHECKSUM,
    fields.CGROUP,
    fields.BACKOFF,
    isolation.MOUNT,
    isolation.NETWORK,
    isolation.PORT,
    isolation.SECRET,
    documents.RUNNING,
    documents.RUNNING_OP,
    DAEMON,
    DEBUG,
    VARIABLE,
]


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.noun)
def test_one_wrong_letter_in_any_field_is_recognised(table: Table) -> None:
    for row in table.fields:
        for i in range(len(row.key)):
            mistyped = row.key[:i] + "q" + row.key[i + 1 :]
            if mistyped.lower() in table.keys:
                continue
            reading = Reading()
            read_object(table, {mistyped: 1}, "", reading)
            unknown = next(problem for problem in reading.problems if problem.path == mistyped)
            assert unknown.hint == f"did you mean `{row.key}`?"


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.noun)
def test_every_field_is_documented(table: Table) -> None:
    for row in table.fields:
        assert row.doc.endswith(".")
        assert row.doc[0].isalnum()


def test_every_setting_of_the_model_has_a_field_and_the_reverse() -> None:
    for table, outer in ((fields.JOB, JobSpec), (fields.TEMPLATE, TemplateSpec)):
        attributes = set(outer.__dataclass_fields__) | set(Settings.__dataclass_fields__)
        assert {row.attr for row in table.fields} == attributes - {"settings"}
    for table in (fields.IMAGE, fields.CONFIG, fields.CONFIG_FILE, fields.CHECKSUM, fields.CGROUP):
        assert {row.attr for row in table.fields} == set(table.cls.__dataclass_fields__)


@pytest.mark.parametrize(
    ("word", "expected"),
    [("mem_limt", "mem_limit"), ("tempaltes", "templates"), ("JOBS", "jobs"), ("completely", "")],
)
def test_suggestions_are_near_or_absent(word: str, expected: str) -> None:
    hint = suggest(word, ["jobs", "templates", "mem_limit", "mem_high"])
    assert hint == (f"did you mean `{expected}`?" if expected else "")
