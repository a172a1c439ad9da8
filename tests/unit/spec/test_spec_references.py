# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from typing import Any

import pytest

from maestro_py.spec.documents import check_references
from maestro_py.spec.model import (
    ConfigSpec,
    Credentials,
    ImageSpec,
    JobSpec,
    Secret,
    Settings,
    TemplateSpec,
)

HOST = TemplateSpec("host", exec_cmd="node", send_composite_jobs_to_stdin=True)


def job(name: str, **fields: Any) -> JobSpec:
    return JobSpec(name, **{"exec_cmd": "/bin/x", **fields})


def member(name: str, composite: str = "c", **fields: Any) -> JobSpec:
    return job(name, **{"composite_id": composite, "container_template": "host", **fields})


def image(name: str) -> ImageSpec:
    return ImageSpec(name, "1", "http://h/x")


def check(
    *jobs: JobSpec,
    templates: tuple[TemplateSpec, ...] = (HOST,),
    images: tuple[ImageSpec, ...] = (),
    configs: tuple[ConfigSpec, ...] = (),
) -> tuple[list[str], list[str]]:
    errors, warnings = check_references(jobs, templates, images, configs)
    return [str(e) for e in errors], [str(w) for w in warnings]


def test_a_good_set_has_nothing_to_tell() -> None:
    found = check(
        job("a"),
        job("b", depends_on=("a", "m1"), config_name="std"),
        member("m1"),
        member("m2", exec_cmd=""),
        images=(image("m2"),),
        configs=(ConfigSpec("std", "b"),),
    )
    assert found == ([], [])


def test_a_missing_template_gets_a_suggestion() -> None:
    errors, _ = check(job("a", container_template="hots"))
    assert errors == ['jobs["a"].container_template: no template is called "hots" (did you mean `host`?)']


def test_an_unknown_dependency_gets_a_suggestion() -> None:
    errors, _ = check(job("database"), job("b", depends_on=("databse",)))
    assert errors == ['jobs["b"].depends_on: no job is called "databse" (did you mean `database`?)']


def test_a_dependency_on_a_composite_says_what_to_do() -> None:
    errors, _ = check(member("m1"), job("b", depends_on=("c",)))
    assert "is a composite; name one of its jobs" in errors[0]


@pytest.mark.parametrize(
    ("jobs", "circle"),
    [
        ((job("a", depends_on=("b",)), job("b", depends_on=("a",))), "a -> b -> a"),
        ((job("a", depends_on=("a",)),), "a -> a"),
        ((member("m1", depends_on=("x",)), member("m2"), job("x", depends_on=("m2",))), "c -> x -> c"),
    ],
)
def test_a_circle_is_spelled_out(jobs: tuple[JobSpec, ...], circle: str) -> None:
    errors, _ = check(*jobs)
    assert errors == [f"jobs depend on each other in a circle: {circle}"]


def test_dependencies_of_templates_count() -> None:
    needy = TemplateSpec("needy", exec_cmd="x", depends_on=("base", "nowhere"))
    errors, warnings = check(
        job("base", container_template="needy", depends_on=("a",)),
        job("a", container_template="needy"),
        job("b", container_template="needy"),
        templates=(needy,),
    )
    assert errors == [
        'templates["needy"].depends_on: no job is called "nowhere"',
        "jobs depend on each other in a circle: base -> a -> base",
    ]
    assert warnings == ['templates["needy"].depends_on: "base" cannot wait for itself; ignored for "base"']


def test_a_dependency_inside_a_composite_is_ignored_with_a_warning() -> None:
    errors, warnings = check(member("m1", depends_on=("m2",)), member("m2"))
    assert errors == []
    assert warnings == ['jobs["m1"].depends_on: "m2" is in the same composite "c"; ignored']


def test_waiting_for_a_disabled_job_is_told() -> None:
    _, warnings = check(job("a", disabled=True), job("b", depends_on=("a",)))
    assert warnings == ['jobs["b"].depends_on: "a" is disabled, so "b" will wait for it']


@pytest.mark.parametrize(
    ("jobs", "why"),
    [
        ((member("m1", container_template=""),), 'is missing; the jobs of composite "c" need one'),
        (
            (member("m1"), member("m2", container_template="plain")),
            '"m1" of the same composite "c" has "host"',
        ),
        ((member("m1", container_template="plain"),), 'template "plain" names no program'),
        ((member("m1", message="x"),), 'cannot be sent: composite "c" shares one standard input'),
        ((job("c"), member("m1")), "also the name of a job outside this composite"),
        ((job("a", exec_cmd=""),), "the job names no program"),
        (
            (job("a", exec_cmd="", container_template="plain"),),
            "neither the job nor its template names a program",
        ),
        ((job("a", settings=Settings(chroot_image=True)),), "it has no image"),
        ((member("m1", settings=Settings(chroot_image=True)),), "it has no image"),
    ],
)
def test_what_cannot_be_started_is_an_error(jobs: tuple[JobSpec, ...], why: str) -> None:
    errors, _ = check(*jobs, templates=(HOST, TemplateSpec("plain")))
    assert len(errors) == 1
    assert why in errors[0]


def test_the_root_may_be_chroot_path_when_there_is_no_image() -> None:
    assert check(job("a", settings=Settings(chroot_image=True, chroot_path="/r"))) == ([], [])


def test_owners_that_do_not_exist_are_warnings() -> None:
    errors, warnings = check(job("abcd"), images=(image("abce"),), configs=(ConfigSpec("n", "zzz"),))
    assert errors == []
    assert warnings == [
        'images["abce"]: belongs to job "abce", which does not exist (did you mean `abcd`?)',
        'configs["zzz/n"]: belongs to job "zzz", which does not exist',
    ]


def test_a_config_that_nothing_defines_is_a_warning() -> None:
    _, warnings = check(
        job("a", config_name="stdd"),
        job("b", config_name="inline", config="x"),
        job("c", config_name="default"),
        configs=(ConfigSpec("std", "a"),),
    )
    assert warnings == [
        'jobs["a"].config_name: no config of this job is called "stdd"; it starts without '
        "(did you mean `std`?)"
    ]


def test_a_member_with_nothing_to_load_is_a_warning() -> None:
    _, warnings = check(member("m1", exec_cmd=""))
    assert warnings == ['jobs["m1"]: has no exec_cmd and no image: composite "c" has nothing to load for it']


def test_credentials_name_a_secret_of_the_job_or_its_template() -> None:
    def asked(secret: str) -> ImageSpec:
        return ImageSpec("a", "1", "http://x/y", credentials=Credentials("bearer", secret))

    settings = Settings(secrets=(Secret("token", data="x"),))
    assert check(job("a", settings=settings), images=(asked("token"),)) == ([], [])
    template = TemplateSpec("t", settings=settings)
    of_template = job("a", container_template="t")
    assert check(of_template, templates=(template,), images=(asked("token"),)) == ([], [])
    errors, _ = check(job("a", settings=settings), images=(asked("tokn"),))
    assert errors == [
        'images["a"].credentials.secret: job "a" has no secret called "tokn" (did you mean `token`?)'
    ]


def test_members_that_disagree_are_told() -> None:
    one, other = Settings(user="a", restart_limit=1), Settings(user="b", restart_limit=2)
    errors, warnings = check(member("m2", settings=other), member("m1", settings=one))
    assert errors == []
    assert warnings == ['jobs["m2"].user: differs from "m1" of the same composite "c", whose value counts']
    assert check(member("m1", settings=one), member("m2", settings=other, disabled=True))[1] == []


def test_a_chain_of_ten_thousand_is_fine() -> None:
    jobs = [job(f"j{i}", depends_on=(f"j{i + 1}",) if i < 9_999 else ()) for i in range(10_000)]
    assert check(*jobs) == ([], [])
