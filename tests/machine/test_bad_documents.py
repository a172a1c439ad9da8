# SPDX-License-Identifier: Apache-2.0
"""Documents with mistakes: each is refused by name and reason, and nothing of it is applied."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.guarded import GOOD, Guarded, Shared, guarded

BAD_SUM = "a" * 63


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shared]:
    made = Shared(lambda: tmp_path_factory.mktemp("shared"))
    yield made
    made.close()


@pytest.fixture
def device(shared: Shared) -> Iterator[Guarded]:
    with shared.lend() as lent:
        yield lent


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Guarded]:
    with guarded(tmp_path) as made:
        yield made


def job(**keys: Any) -> dict[str, Any]:
    return {"job": "b", "exec_cmd": "/bin/true", **keys}


def image(**keys: Any) -> dict[str, Any]:
    return {"job": "good", "version": "1", "url": "file:///nowhere.tar.gz", **keys}


def config_file(path: object) -> list[dict[str, Any]]:
    return [{"name": "c", "job": "good", "files": [{"url": "file:///x", "dest_relative_path": path}]}]


# ---- text that is no document


@pytest.mark.parametrize(
    ("name", "text", "why"),
    [
        ("a.json", '{"jobs": [,]}', "line 1: not valid JSON: expecting value, column 11"),
        ("a.json", '{"jobs": [\n{"job": "a"\n', "line 3: not valid JSON"),
        ("a.json", '{"jobs": [], "jobs": []}', 'the key "jobs" is given twice'),
        ("a.json", '{"date": NaN}', "NaN is not a number"),
        ("a.json", "[" * 100_000, "nested too deeply"),
        ("a.json", b'{"jobs": "\xff"}', "line 1: not UTF-8 text: byte 0xff"),
        ("a.yaml", 'jobs:\n  - job: "x\n', "line 3: not valid YAML: found unexpected end of stream"),
        ("a.yaml", "jobs:\n\t- job: x\n", "line 2: not valid YAML"),
        ("a.yaml", "jobs:\n- job: x\n  job: y\n", 'line 3: the key "job" is given twice'),
        ("a.yaml", "jobs: *nothing\n", "line 1: not valid YAML"),
        ("a.yaml", "jobs:\n- exec_cmd: {{IMAGE}}/x\n", "needs quotes around it"),
        ("a.yaml", "x: !!python/object:os.system ls\n", "not valid YAML"),
        ("empty.json", "", "empty"),
    ],
)
def test_malformed_text_is_refused_with_file_and_line(
    device: Guarded, name: str, text: str | bytes, why: str
) -> None:
    said = device.refused(text, name=name)
    assert why in said
    assert name in said


def test_aliases_that_multiply_are_refused(device: Guarded) -> None:
    levels = ["l0: &l0 [x, x]"]
    levels += [f"l{i}: &l{i} [{', '.join([f'*l{i - 1}'] * 10)}]" for i in range(1, 9)]
    assert "its aliases write out to too much" in device.refused("\n".join(levels), name="a.yaml")


def test_a_file_that_is_not_there_is_named(device: Guarded) -> None:
    done = device.daemon.cli("apply", "/nowhere/doc.json")
    assert (done.returncode, done.stdout) == (1, "")
    assert "cannot read /nowhere/doc.json: No such file or directory" in done.stderr


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b'{"jobs": [,]}', "line 1 column 11"),
        (b"", "it is empty"),
        (b'{"config": "\xff"}', "not UTF-8"),
        (b'{"date": Infinity}', "Infinity"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"jobs": [], "jobs": []}', '"jobs" is given twice'),
    ],
)
def test_a_body_that_is_not_json_is_a_bad_request(device: Guarded, body: bytes, why: str) -> None:
    for path in ("/v1/check", "/v1/diff", "/v1/apply"):
        found = device.call("POST", path, body)
        assert (found.status, found.json["code"]) == (400, "bad-request"), found
        assert why in found.json["title"]


@pytest.mark.parametrize("value", [[], "x", 5, None, True])
def test_a_document_that_is_no_object_is_refused(device: Guarded, value: object) -> None:
    found = device.call("POST", "/v1/apply", value)
    assert found.status == 422
    assert "expected a running config as an object" in found.json["title"]


# ---- keys and types


def test_unknown_keys_are_all_named_each_with_a_suggestion(device: Guarded) -> None:
    bad = device.document(
        job(restrat=True, cgroup={"mem_limt": 5}, restart_backoff={"inital": 1}),
        templates=[{"name": "t", "uses_ok_strin": True}],
        images=[image(chekcsum={})],
        configs=[{"name": "c", "job": "good", "dta": "x"}],
        imagse=[],
        flags=["failfats"],
    )
    said = device.refused(bad)
    for where, hint in (
        ("jobs[1].restrat", "restart"),
        ("jobs[1].cgroup.mem_limt", "mem_limit"),
        ("jobs[1].restart_backoff.inital", "initial"),
        ("templates[0].uses_ok_strin", "uses_ok_string"),
        ("images[0].chekcsum", "checksum"),
        ("configs[0].dta", "data"),
        ("imagse", "images"),
        ("failfats", "failFast"),
    ):
        line = next((line for line in said.splitlines() if where in line), "")
        assert f"did you mean `{hint}`?" in line, said
    assert "8 problems" in said


def test_problems_reach_a_program_with_path_message_and_hint(device: Guarded) -> None:
    found = device.call("POST", "/v1/apply", device.document(job(restrat=True)))
    assert found.status == 422
    assert found.headers["content-type"] == "application/problem+json"
    [problem] = found.json["problems"]
    assert problem["path"] == "jobs[1].restrat"
    assert "unknown key" in problem["message"]
    assert problem["hint"] == "did you mean `restart`?"


@pytest.mark.parametrize(
    ("keys", "why"),
    [
        ({"exec_cmd": 7}, 'jobs[1].exec_cmd: job "b": expected a string, not 7'),
        ({"exec_args": "x"}, 'jobs[1].exec_args: job "b": expected a list of strings, not "x"'),
        ({"exec_args": ["a\0b"]}, "jobs[1].exec_args[0]"),
        ({"exec_args": ["\ud800"]}, "half of a surrogate pair"),
        ({"env": ["NOEQUALS"]}, "jobs[1].env[0]"),
        ({"restart": "maybe"}, 'expected true or false, not "maybe"'),
        ({"restart_limit": -1}, "expected a whole number, 0 or more, not -1"),
        ({"restart_policy": "sometimes"}, "jobs[1].restart_policy"),
        ({"stop_timeout": "soon"}, 'not "soon"'),
        ({"stop_timeout": 1e17}, "jobs[1].stop_timeout"),
        ({"stop_signal": "SIGNOPE"}, "SIGNOPE"),
        ({"umask": "999"}, "jobs[1].umask"),
        ({"nice": 40}, "jobs[1].nice"),
        ({"rlimits": {"nofiles": 5}}, "nofiles"),
        ({"cgroup": {"mem_limit": "lots"}}, 'not "lots"'),
        ({"cgroup": {"mem_limit": -5}}, "not -5"),
        ({"cgroup": []}, "jobs[1].cgroup"),
        ({"working_dir": "relative"}, "jobs[1].working_dir"),
        ({"depends_on": "good"}, "jobs[1].depends_on"),
        ({"job": 5}, "jobs[1].job"),
        ({"job": ""}, "jobs[1].job"),
        ({"job": "a\nb"}, "control characters"),
        ({"job": "n" * 300}, "a name of 300 characters"),
    ],
)
def test_wrong_types_and_values_are_refused(device: Guarded, keys: dict[str, Any], why: str) -> None:
    assert why in device.refused(device.document(job(**keys)))


@pytest.mark.parametrize(
    ("document", "why"),
    [
        ({"jobs": {}}, "jobs: expected a list of jobs, not an object"),
        ({"jobs": [1]}, "jobs[0]: expected a job as an object, not 1"),
        ({"jobs": [{}]}, "jobs[0]: `job` is missing"),
        ({"config": "saved"}, 'config: expected "running", not "saved"'),
        ({"date": "tomorrow"}, 'date: expected a whole number, 0 or more, not "tomorrow"'),
        ({"op": "zap", "conf": {}}, 'op: expected "update", not "zap"'),
        ({"op": "update"}, "`conf` is missing"),
    ],
)
def test_a_document_of_another_shape_is_refused(device: Guarded, document: dict[str, Any], why: str) -> None:
    assert why in device.refused(document)


def test_every_problem_is_listed_those_of_references_too(device: Guarded) -> None:
    bad = device.document(job(restrat=True), {"job": "c", "container_template": "python-modulez"})
    said = device.refused(bad)
    assert "restrat" in said
    assert "python-modulez" in said


# ---- what refers to what


def test_a_missing_template_is_named_with_the_nearest_one(device: Guarded) -> None:
    said = device.refused(device.document({"job": "b", "container_template": "python-modulez"}))
    assert 'jobs["b"].container_template: no template is called "python-modulez"' in said
    assert "did you mean `python-modules`?" in said


@pytest.mark.parametrize(
    ("parts", "why"),
    [
        ({"jobs": [GOOD, GOOD]}, 'jobs[1].job: job "good" is given twice; the first is jobs[0].job'),
        ({"templates": [{"name": "t"}] * 2}, 'templates[1].name: template "t" is given twice'),
        ({"images": [image(), image(version="2")]}, 'images[1].job: image of job "good" is given twice'),
        (
            {"configs": [{"name": "c", "job": "good", "data": "x"}] * 2},
            'configs[1].name: config "good/c" is given twice',
        ),
        ({"jobs": [GOOD, job(composite_id="good")]}, '"good" is also the name of a job'),
    ],
)
def test_names_given_twice_are_refused(device: Guarded, parts: dict[str, Any], why: str) -> None:
    assert why in device.refused({**device.document(), **parts})


def test_dependencies_that_cannot_be_met_are_refused(device: Guarded) -> None:
    said = device.refused(device.document(job(depends_on=["god"])))
    assert 'jobs["b"].depends_on: no job is called "god" (did you mean `good`?)' in said
    circle = [job(job=name, depends_on=[other]) for name, other in (("x", "y"), ("y", "z"), ("z", "x"))]
    said = device.refused(device.document(*circle))
    assert "jobs depend on each other in a circle: " in said
    assert " -> y -> z" in said or " -> z -> x" in said or " -> x -> y" in said


def test_a_job_without_a_program_is_refused(device: Guarded) -> None:
    assert 'jobs["b"].exec_cmd: the job names no program' in device.refused(device.document({"job": "b"}))


@pytest.mark.parametrize(
    "path", ["../c", "../../etc/passwd", "/../etc/passwd", "a/../../b", "..", ".", "", "a\0b"]
)
def test_a_config_file_outside_its_directory_is_refused(device: Guarded, path: str) -> None:
    said = device.refused(device.document(configs=config_file(path)))
    assert "configs[0].files[0]" in said
    assert 'config "c" of job "good"' in said
    found = device.call("PUT", "/v1/configs/good/c", {"files": config_file(path)[0]["files"]})
    assert found.status == 422
    assert "files[0]" in found.json["title"]
    assert not list((device.daemon.root / "state" / "configs").glob("**/*"))


def test_two_config_files_in_one_place_are_refused(device: Guarded) -> None:
    files = [{"url": "file:///x", "dest_relative_path": path} for path in ("a", "a/b")]
    said = device.refused(device.document(configs=[{"name": "c", "job": "good", "files": files}]))
    assert "configs[0].files[1]" in said


@pytest.mark.parametrize(
    ("checksum", "why"),
    [
        ({"type": "sha256sum", "value": BAD_SUM}, "sha256sum value has 63 hex digits, expected 64"),
        ({"type": "sha256sum", "value": "z" * 64}, "sha256sum value is not hexadecimal"),
        ({"type": "sha257sum", "value": "a" * 64}, "did you mean `sha256sum`?"),
        ({"type": "sha256sum"}, "`value` is missing"),
    ],
)
def test_a_checksum_of_the_wrong_form_is_refused(device: Guarded, checksum: dict[str, str], why: str) -> None:
    said = device.refused(device.document(images=[image(checksum=checksum)]))
    assert why in said
    assert 'image of job "good"' in said


@pytest.mark.parametrize("url", ["ftp://host/x", "nonsense", "http://", 5])
def test_a_url_nobody_can_fetch_is_refused(device: Guarded, url: object) -> None:
    assert "images[0].url" in device.refused(device.document(images=[image(url=url)]))


def test_docker_images_are_refused_with_the_way_out(device: Guarded) -> None:
    said = device.refused(device.document(images=[image(image_type="docker")]))
    assert "this device has no Docker; export the file system as a tarball" in said


# ---- the order of documents


def test_an_older_date_is_refused_unless_forced(own: Guarded) -> None:
    assert own.apply({**own.document(), "date": 2000}).returncode == 0
    old = {**own.document(job(exec_cmd="/bin/sleep", exec_args=["1000"])), "date": 1999}
    said = own.refused(old)
    assert "cannot apply running config: its date 1999 is older than the applied one's, 2000" in said
    assert "--force" in said
    assert own.call("POST", "/v1/apply", old).status == 409
    diff = own.daemon.cli("diff", str(own.write(old)))
    assert "older" in diff.stderr
    assert own.apply(old, "--force").returncode == 0
    assert own.daemon.job("b")["state"] == "RUNNING"
    assert own.daemon.client().running_config()["date"] == 1999


# ---- sheer size


def many(count: int, **keys: Any) -> dict[str, Any]:
    jobs = [
        {"job": f"j{i:05}", "exec_cmd": "/bin/sleep", "exec_args": ["1000"], **keys} for i in range(count)
    ]
    return {"config": "running", "jobs": [GOOD, *jobs]}


def test_ten_thousand_disabled_jobs_are_accepted(own: Guarded) -> None:
    done = own.apply(many(10_000, disabled=True))
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) < 100  # counted, not told one by one
    shown = own.daemon.cli("--json", "status")
    rows = json.loads(shown.stdout)["jobs"]
    assert len(rows) == 10_001
    assert {row["state"] for row in rows if row["job"] != "good"} == {"STOPPED"}
    assert own.daemon.cli("status", "j09999").returncode == 0
    own.check()
    done = own.apply(own.document())
    assert done.returncode == 0, done.stderr
    assert len(own.daemon.client().status()["jobs"]) == 1


def test_ten_thousand_enabled_jobs_beyond_the_open_files_are_refused(tmp_path: Path) -> None:
    few = ("prlimit", "--nofile=4096:4096", sys.executable, "-m", "maestro_py.daemon")
    with guarded(tmp_path, program=few) as device:
        said = device.refused(many(10_000))
        assert "cannot run 10001 processes" in said
        assert "open files" in said
        assert "may have 4096" in said
        assert "LimitNOFILE" in said
        assert [row["job"] for row in device.daemon.client().status()["jobs"]] == ["good"]


# ---- other doors


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "why"),
    [
        ("POST", "/containerTemplate", {"name": "t", "exec_cmdd": "/x"}, 422, "did you mean `exec_cmd`?"),
        ("POST", "/containerTemplate", [], 400, "Badly formed"),
        ("POST", "/job", {"type": "job", "op": "add", "job": {"job": "q", "exec_cmd": 5}}, 406, "not 5"),
        ("POST", "/job", {"type": "job", "op": "add", "job": {"job": "q", "exec_cm": "x"}}, 406, "exec_cm"),
        ("POST", "/job", {"type": "job", "op": "rm", "params": 5}, 406, "params"),
        ("POST", "/job", {"type": "job", "op": "rm", "params": "good"}, 406, "params"),
        ("POST", "/job", {"type": "job", "op": "rm", "params": ["nope"]}, 406, "no job nope"),
        ("POST", "/ops", {"type": "ops", "ops": [5]}, 406, "Unknown Op Type"),
        ("POST", "/ops", {"type": "ops", "ops": [{"type": "job", "op": "rm", "params": 5}]}, 406, "params"),
        ("POST", "/image", {"type": "image", "op": "add", "image": {"job": "good"}}, 406, "`url` is missing"),
        ("POST", "/jobConfig/good/c", {"data": 5}, 400, "expected a string, not 5"),
        ("PUT", "/v1/configs/good/c", [], 400, "object"),
        ("PUT", "/v1/configs/good/c", {"data": "?", "encoding": "base64"}, 422, "not valid base64"),
        ("POST", "/v1/jobs/good/kill", {"signal": "SIGNOPE"}, 400, "expected a signal"),
        ("POST", "/v1/jobs/good/kill", {"signal": 999}, 400, "expected a signal"),
        ("POST", "/v1/jobs/good/kill", [], 400, "expected a JSON object"),
        ("POST", "/v1/jobs/goood/start", b"", 404, "did you mean good?"),
        ("PUT", "/job/good", {"op": "dance"}, 406, "dance"),
        ("POST", "/v1/shutdown", {"jobs": "maybe"}, 400, "`stop` or `keep`"),
        ("POST", "/v1/shutdown", ["keep"], 400, "expected a JSON object"),
    ],
)
def test_what_other_routes_cannot_use_is_refused_with_the_reason(
    device: Guarded, method: str, path: str, body: object, status: int, why: str
) -> None:
    found = device.call(method, path, body)
    assert found.status == status, found
    assert why in json.dumps(found.json, ensure_ascii=False), found
