# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import time
from typing import Any

import pytest

from maestro_py.errors import InvalidDocument, Problem
from maestro_py.spec.documents import (
    read_config,
    read_image,
    read_job,
    read_running_config,
    read_template,
    read_templates,
    to_json,
)
from maestro_py.spec.model import Backoff, Checksum, Limits, RestartPolicy, RunningConfig
from maestro_py.spec.reader import MOST_PROBLEMS

SHA = "a" * 64


def problems(data: object) -> list[str]:
    with pytest.raises(InvalidDocument) as caught:
        read_running_config(data)
    return [str(problem) for problem in caught.value.problems]


def job_problem(**fields: Any) -> Problem:
    with pytest.raises(InvalidDocument) as caught:
        read_job({"job": "a", **fields}, "doc")
    assert len(caught.value.problems) == 1
    return caught.value.problems[0]


def settings(**fields: Any) -> Any:
    return read_job({"job": "a", **fields}, "doc").settings


def image(**fields: Any) -> dict[str, Any]:
    return {"job": "a", "version": "1", "url": "http://h/x.tar.gz", **fields}


# Forms of the running config


def test_the_flat_form_and_the_operation_mean_the_same() -> None:
    conf = {"jobs": [{"job": "a", "exec_cmd": "/bin/a", "config": "std"}], "date": 7}
    flat, _ = read_running_config({"config": "running", **conf, "flags": ["removeOldImages", "FAILFAST"]})
    operation, _ = read_running_config(
        {"op": "update", "conf": conf, "flags": {"removeOldImages": True, "failFast": True}}
    )
    assert flat == operation
    assert (flat.date, flat.remove_old_images, flat.fail_fast) == (7, True, True)
    assert (flat.jobs[0].config_name, flat.jobs[0].config) == ("std", "")


def test_an_empty_object_is_an_empty_running_config() -> None:
    assert read_running_config({}) == (RunningConfig(), [])


def test_keys_match_in_any_case_and_null_means_not_said() -> None:
    config, _ = read_running_config({"JOBS": [{"Job": "a", "Exec_Cmd": "/x", "restart": None, "env": None}]})
    assert config.jobs[0].exec_cmd == "/x"
    assert config.jobs[0].settings.restart is None
    assert config.jobs[0].env == ()


@pytest.mark.parametrize("data", [None, 5, "x", [], [{"job": "a"}]])
def test_what_is_no_object_is_refused(data: object) -> None:
    assert "expected a running config as an object" in problems(data)[0]


def test_an_operation_other_than_update_is_refused() -> None:
    assert problems({"op": "add", "conf": {}}) == ['op: expected "update", not "add"']
    assert "`conf` is missing" in problems({"op": "update"})[0]


def test_every_problem_is_listed_with_its_path() -> None:
    found = problems(
        {
            "jobs": [
                {"job": "a", "exce_cmd": "x"},
                {"exec_cmd": "/b", "env": ["A=1", "B"]},
                7,
                {"job": "d", "cgroup": {"mem_limt": 5, "pids_max": "many"}},
            ],
            "flags": ["failfst"],
            "colour": 1,
        }
    )
    assert [line.split(": ")[0] for line in found] == [
        "jobs[0].exce_cmd",
        "jobs[1].env[1]",
        "jobs[1]",
        "jobs[2]",
        "jobs[3].cgroup.mem_limt",
        "jobs[3].cgroup.pids_max",
        "flags",
        "colour",
    ]
    assert "did you mean `exec_cmd`?" in found[0]
    assert 'not "B"' in found[1]
    assert "did you mean `failFast`?" in found[6]


def test_a_problem_names_the_thing_it_is_in() -> None:
    (found,) = problems({"images": [image(checksum={"type": "sha256sum", "value": SHA[:-1]})]})
    assert found == (
        'images[0].checksum.value: image of job "a": sha256sum value has 63 hex digits, expected 64'
    )


def test_a_key_said_twice_in_two_spellings_is_refused() -> None:
    found = problems({"jobs": [{"job": "a", "config": "x", "config_name": "y"}]})
    assert "says the same as `config`" in found[0]


@pytest.mark.parametrize(
    ("data", "path"),
    [
        ({"jobs": [{"job": "a"}, {"job": "a"}]}, "jobs[1].job"),
        ({"templates": [{"name": "a"}, {"name": "b"}, {"name": "a"}]}, "templates[2].name"),
        ({"images": [image(), image(version="2")]}, "images[1].job"),
        ({"configs": [{"name": "n", "job": "a"}, {"name": "n", "job": "a"}]}, "configs[1].name"),
    ],
)
def test_a_name_given_twice_is_refused(data: object, path: str) -> None:
    (found,) = problems(data)
    assert found.startswith(path)
    assert "is given twice" in found


def test_a_composite_cannot_have_the_name_of_another_process() -> None:
    found = problems({"jobs": [{"job": "a"}, {"job": "b", "composite_id": "a"}]})
    assert found == ['jobs[1].composite_id: "a" is also the name of a job outside this composite']
    read_running_config({"jobs": [{"job": "a", "composite_id": "a"}, {"job": "b", "composite_id": "a"}]})


def test_ten_thousand_jobs_are_read_within_a_second() -> None:
    jobs = [
        {"job": f"j{i}", "exec_cmd": "/bin/x", "exec_args": ["a", "b"], "env": ["A=b"], "restart": True}
        for i in range(10_000)
    ]
    start = time.process_time()
    config, _ = read_running_config({"jobs": jobs})
    assert time.process_time() - start < 1
    assert len(config.jobs) == 10_000


def test_what_steers_a_terminal_is_spelled_out() -> None:
    found = problems({"date": "\u2028\x9b31m\u202e", "\ufeffjobs": []})
    assert found == [
        'date: expected a whole number, 0 or more, not "\\u2028\\x9b31m\\u202e"',
        '"\\ufeffjobs": unknown key in a running config (did you mean `jobs`?)',
    ]


def test_a_document_of_unknown_keys_does_not_take_for_ever() -> None:
    start = time.process_time()
    found = problems({f"unknown key number {i}": 1 for i in range(20_000)})
    assert len(found) == MOST_PROBLEMS + 1
    assert "there are more mistakes" in found[-1]
    assert time.process_time() - start < 2


# Single values


@pytest.mark.parametrize(
    ("fields", "attr", "value"),
    [
        ({"restart_pause": 1500}, "restart_pause", 1.5),
        ({"restart_pause": "1500"}, "restart_pause", 1.5),
        ({"restart_pause": "5s"}, "restart_pause", 5.0),
        ({"timeout_for_ok": "1m30s"}, "timeout_for_ok", 90.0),
        ({"defer_running_status": 30000}, "defer_running_status", 30.0),
        ({"stop_timeout": 5}, "stop_timeout", 5.0),
        ({"stop_timeout": "500ms"}, "stop_timeout", 0.5),
        ({"uses_ok_string": True}, "wait_for_ok", True),
        ({"ChrootImage": True}, "chroot_image", True),
        ({"chrootimage": True}, "chroot_image", True),
        ({"chroot_path": ""}, "chroot_path", None),
        ({"chroot_path": "/srv/root"}, "chroot_path", "/srv/root"),
        ({"cgroup": {"MemLimit": "16M"}}, "cgroup", Limits(mem_limit=16 << 20)),
        ({"cgroup": {"cpu_max": "50%"}}, "cgroup", Limits(cpu_max=0.5)),
        ({"cgroup": {"cpu_max": 1.5}}, "cgroup", Limits(cpu_max=1.5)),
        ({"stop_signal": "int"}, "stop_signal", 2),
        ({"reload_signal": 1}, "reload_signal", 1),
        ({"umask": "077"}, "umask", 0o77),
        ({"umask": "0o027"}, "umask", 0o27),
        ({"umask": 18}, "umask", 0o22),
        ({"user": "1000"}, "user", 1000),
        ({"user": "nobody"}, "user", "nobody"),
        ({"supplementary_groups": ["dialout", 5]}, "supplementary_groups", ("dialout", 5)),
        ({"supplementary_groups": []}, "supplementary_groups", ()),
        ({"restart_policy": "On-Failure"}, "restart_policy", RestartPolicy.ON_FAILURE),
        ({"restart_backoff": {"initial": "1s"}}, "restart_backoff", Backoff(initial=1)),
        ({"restart_backoff": {"initial": 90}}, "restart_backoff", Backoff(initial=90, max=90)),
        ({"restart_backoff": {"max": "50ms"}}, "restart_backoff", Backoff(initial=0.05, max=0.05)),
        (
            {"rlimits": {"nofile": 64, "RLIMIT_CORE": "unlimited", "as": {"soft": "1M", "hard": "2M"}}},
            "rlimits",
            (("as", 1 << 20, 2 << 20), ("core", -1, -1), ("nofile", 64, 64)),
        ),
    ],
)
def test_a_value_is_read(fields: dict[str, Any], attr: str, value: object) -> None:
    assert getattr(settings(**fields), attr) == value


@pytest.mark.parametrize(
    ("fields", "path", "why"),
    [
        ({"exec_args": "x"}, "exec_args", 'expected a list of strings, not "x"'),
        ({"exec_args": ["x", 5]}, "exec_args[1]", "expected a string, not 5"),
        ({"exec_cmd": ["x"]}, "exec_cmd", "expected a string, not a list"),
        ({"exec_cmd": "a\0b"}, "exec_cmd", "NUL"),
        ({"env": ["A=a\0b"]}, "env[0]", "NUL"),
        ({"env": ["=x"]}, "env[0]", 'expected a string of the form "NAME=value", not "=x"'),
        ({"env": {"A": "b"}}, "env", "not an object"),
        ({"message": "\ud800"}, "message", "surrogate"),
        ({"restart": "yes"}, "restart", 'expected true or false, not "yes"'),
        ({"restart": 1}, "restart", "expected true or false, not 1"),
        ({"restart_limit": -1}, "restart_limit", "a whole number, 0 or more"),
        ({"restart_limit": True}, "restart_limit", "not true"),
        ({"restart_pause": -5}, "restart_pause", "milliseconds"),
        ({"restart_pause": float("nan")}, "restart_pause", ""),
        ({"stop_timeout": "soon"}, "stop_timeout", "a duration in seconds"),
        ({"stop_timeout": "20000d"}, "stop_timeout", "longer than 30 years"),
        ({"stop_timeout": "9" * 400 + "s"}, "stop_timeout", ""),
        ({"cgroup": {"mem_limit": -1}}, "cgroup.mem_limit", "a size in bytes"),
        ({"cgroup": {"mem_limit": "9" * 400 + "M"}}, "cgroup.mem_limit", "a size in bytes"),
        ({"cgroup": {"mem_limit": 1 << 63}}, "cgroup.mem_limit", "a size in bytes"),
        ({"cgroup": {"cpu_max": 0}}, "cgroup.cpu_max", "a number of CPUs"),
        ({"cgroup": {"cpu_weight": 0}}, "cgroup.cpu_weight", "from 1 to 10000"),
        ({"cgroup": 5}, "cgroup", "expected cgroup limits as an object, not 5"),
        ({"nice": 20}, "nice", "from -20 to 19"),
        ({"oom_score_adj": -1001}, "oom_score_adj", "from -1000 to 1000"),
        ({"pgid": -1}, "pgid", "0 or more"),
        ({"ok_string": ""}, "ok_string", "1 to 1024 characters"),
        ({"chroot_path": "srv"}, "chroot_path", "an absolute path"),
        ({"umask": "8"}, "umask", "octal"),
        ({"umask": 512}, "umask", "octal"),
        ({"user": ""}, "user", "a user or group"),
        ({"user": "a:b"}, "user", "a user or group"),
        ({"user": -1}, "user", "a user or group"),
        ({"stop_signal": "SIGFOO"}, "stop_signal", "a signal"),
        ({"restart_policy": "allways"}, "restart_policy", "one of never, on-failure"),
        ({"rlimits": {"nofiles": 5}}, "rlimits.nofiles", "no such resource limit"),
        ({"rlimits": {"as\ufeff": 5}}, 'rlimits."as\\ufeff"', "no such resource limit"),
        ({"rlimits": {"nofile": {"soft": 5, "hard": 1}}}, "rlimits.nofile", "above the hard one"),
        ({"rlimits": {"nofile": {"softt": 5}}}, "rlimits.nofile", '"unlimited" or'),
        ({"restart_backoff": {"initial": 5, "max": 1}}, "restart_backoff.max", "below the initial one, 5 s"),
        ({"restart_backoff": {"factor": 0.5}}, "restart_backoff.factor", "from 1 to 100"),
    ],
)
def test_a_wrong_value_is_named_with_what_was_expected(fields: dict[str, Any], path: str, why: str) -> None:
    problem = job_problem(**fields)
    assert problem.path == path
    assert why in problem.message


def test_a_mistyped_word_gets_a_suggestion() -> None:
    assert job_problem(restart_policy="allways").hint == "did you mean `always`?"
    assert job_problem(rlimits={"nofiles": 5}).hint == "did you mean `nofile`?"


def test_a_number_where_text_belongs_is_to_be_quoted() -> None:
    assert job_problem(exec_args=[600]).hint == "put it in quotes"
    assert job_problem(exec_args=[True]).hint == "put it in quotes"
    assert job_problem(exec_args=[None]).hint == ""


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("", "cannot be empty"),
        ("a\nb", "control characters"),
        ("a\0", "control characters"),
        ("x" * 129, "129 characters; 128 are the most"),
        ("語" * 23, "as a file name it needs 207 bytes"),
    ],
)
def test_a_name_that_cannot_be_one_is_refused(name: str, why: str) -> None:
    for key in ("job", "composite_id", "container_template", "config_name"):
        if name or key == "job":
            with pytest.raises(InvalidDocument, match=why):
                read_job({"job": "a", key: name}, "doc")


# The API's payloads


def test_inline_config_is_data_in_the_api_and_a_name_in_a_running_config() -> None:
    job = read_job({"job": "a", "config": "{}", "config_name": "std"}, "doc")
    assert (job.config, job.config_name) == ("{}", "std")
    assert to_json(job) == {"job": "a", "config_data": "{}", "config_name": "std"}
    config, _ = read_running_config({"jobs": [to_json(job)]})
    assert config.jobs == (job,)


def test_an_upstream_payload_with_every_key_is_accepted() -> None:
    empty = {
        "composite_id": "", "container_template": "", "config": "", "config_name": "", "message": "",
        "wait_for_ok": False, "defer_running_status": 0, "no_autostart": False, "restart": False,
        "restart_on_dependency_fail": False, "restart_limit": 0, "restart_pause": 0, "depends_on": None,
        "exec_cmd": "/x", "exec_args": None, "pgid": 0, "env": None, "inherit_env": False,
        "die_on_parent_death": False, "daemonize": False, "immutable": False,
    }  # fmt: skip
    assert read_job({"job": "a", **empty}, "doc").exec_cmd == "/x"
    template = {
        "Name": "t",
        "cgroup": {"MemLimit": 0},
        "ChrootImage": False,
        "chroot_path": "",
        "add_env": None,
    }
    assert read_template(template, "doc").settings.chroot_path is None
    empty_checksum = {"type": "", "value": ""}
    assert read_image(image(checksum=empty_checksum, image_type="", size=0), "doc").image_type == "tarball"
    assert read_image(image(checksum=empty_checksum), "doc").checksum is None
    assert read_config({"name": "n", "job": "a", "encoding": "", "files": None}, "doc").encoding == "utf8"


# Images and configs


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"image_type": "docker"}, "docker images cannot run here"),
        ({"image_type": "tarbal"}, "did you mean `tarball`?"),
        ({"url": "ftp://h/x"}, "begins with http://, https:// or file:///"),
        ({"url": "http:///x"}, "begins with http://"),
        ({"url": "http://h/a b"}, "begins with http://"),
        ({"url": "relative"}, "begins with http://"),
        ({"checksum": {"type": "sha1sum", "value": "ab"}}, 'not "sha1sum"'),
        ({"checksum": {"type": "sha256sum", "value": "g" * 64}}, "not hexadecimal"),
        ({"checksum": {"type": "md5sum", "value": SHA}}, "64 hex digits, expected 32"),
        ({"checksum": {"value": SHA}}, "`type` is missing"),
        ({"version": 1.0}, "expected a version, as a string, not 1.0"),
        ({"size": -1}, "a size in bytes"),
    ],
)
def test_a_wrong_image_is_refused(fields: dict[str, Any], why: str) -> None:
    assert any(why in line for line in problems({"images": [image(**fields)]}))


def test_an_image_without_checksum_is_a_warning() -> None:
    config, warnings = read_running_config({"images": [image()]})
    assert config.images[0].checksum is None
    assert "has no checksum" in warnings[0].message


def test_an_image_needs_no_version() -> None:
    read = read_image({"job": "a", "url": "file:///x"}, "doc")
    assert read.version == ""
    assert read.dirname.startswith("0-unchecked-")


def test_a_checksum_is_kept_in_lower_case() -> None:
    read = read_image(image(checksum={"type": "sha256sum", "value": SHA.upper()}), "doc")
    assert read.checksum == Checksum("sha256sum", SHA)


def config_with(*paths: str, **fields: Any) -> dict[str, Any]:
    files = [{"url": "https://h/f", "dest_relative_path": path} for path in paths]
    return {"configs": [{"name": "n", "job": "a", "files": files, **fields}]}


@pytest.mark.parametrize(
    ("path", "kept"),
    [("/config/x.dat", "config/x.dat"), ("a//b/./c", "a/b/c"), ("a/../b", "b"), ("./x", "x"), ("a/", "a")],
)
def test_the_place_of_a_file_is_normalised(path: str, kept: str) -> None:
    config, _ = read_running_config(config_with(path))
    assert config.configs[0].files[0].dest_relative_path == kept


@pytest.mark.parametrize(
    "path", ["..", "../x", "/../x", "a/../../x", "", "/", "a/..", "a\0b", "a\nb", "x" * 256]
)
def test_a_file_outside_its_directory_or_without_a_name_is_refused(path: str) -> None:
    (found,) = problems(config_with(path))
    assert found.startswith("configs[0].files[0].dest_relative_path")


@pytest.mark.parametrize("paths", [("a", "a"), ("a", "a/b"), ("a/b", "a"), ("a/b", "c", "a/b/c")])
def test_two_files_cannot_have_one_place(paths: tuple[str, ...]) -> None:
    (found,) = problems(config_with(*paths))
    assert "is taken by configs[0].files[0]" in found


def test_a_file_cannot_take_the_place_of_the_data() -> None:
    (found,) = problems(config_with("n", data="x"))
    assert "is taken by" in found


def test_base64_data_must_decode() -> None:
    for data in ("aGVsbG8=", "aGVs\nbG8=\n", ""):
        read_running_config(config_with(data=data, encoding="base64"))
    for data in ("aGVsbG8", "====", "a-_=", "ä"):
        assert "not valid base64" in problems(config_with(data=data, encoding="base64"))[0]


# Template files


@pytest.mark.parametrize("wrap", [lambda t: t, lambda t: [t], lambda t: {"container_templates": [t]}])
def test_a_template_file_may_have_three_forms(wrap: Any) -> None:
    templates, warnings = read_templates(wrap({"name": "t", "uses_ok_string": True}), "t.json")
    assert [t.name for t in templates] == ["t"]
    assert templates[0].settings.wait_for_ok is True
    assert not warnings


@pytest.mark.parametrize("data", [5, [5], {"nam": "t"}, [{"name": "t"}, {"name": "t"}], {"templates": 5}])
def test_a_wrong_template_file_is_refused_by_its_name(data: object) -> None:
    with pytest.raises(InvalidDocument, match=r"cannot accept t\.json: \d problem"):
        read_templates(data, "t.json")
