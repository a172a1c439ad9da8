# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
from typing import Any

import pytest

from maestro_py.errors import InvalidDocument
from maestro_py.spec.expand import resolve
from maestro_py.spec.model import (
    Backoff,
    Checksum,
    ConfigSpec,
    ImageSpec,
    JobSpec,
    Limits,
    RestartPolicy,
    Settings,
    TemplateSpec,
)
from maestro_py.spec.payload import go_json
from maestro_py.spec.places import Places, image_inside
from maestro_py.spec.resolved import ImageRef, Ready, ResolvedProcess, Restart

PLACES = Places("/im", "/co", "/run/m.sock", "/opt/m", "/cwd", {"V": "value"})
HOST = TemplateSpec("host", exec_cmd="node", exec_pre_args=("h.js",), send_composite_jobs_to_stdin=True)


def job(name: str = "a", **fields: Any) -> JobSpec:
    return JobSpec(name, **{"exec_cmd": "/bin/x", **fields})


def member(name: str, **fields: Any) -> JobSpec:
    return job(name, **{"composite_id": "c", "container_template": "host", **fields})


def image(name: str = "a", version: str = "1") -> ImageSpec:
    return ImageSpec(name, version, "http://h/x", checksum=Checksum("md5sum", "0123456789abcdef" * 2))


def path_of(name: str = "a") -> str:
    return f"/im/{name}/1-0123456789ab"


def expand(
    *jobs: JobSpec,
    templates: tuple[TemplateSpec, ...] = (HOST,),
    images: tuple[ImageSpec, ...] = (),
    configs: tuple[ConfigSpec, ...] = (),
) -> dict[str, ResolvedProcess]:
    return resolve(jobs, templates, images, configs, PLACES)


def one(*jobs: JobSpec, **parts: Any) -> ResolvedProcess:
    (process,) = expand(*jobs, **parts).values()
    return process


def of(template: TemplateSpec, **fields: Any) -> ResolvedProcess:
    return one(job(container_template=template.name, **fields), templates=(template,))


def refused(*jobs: JobSpec, **parts: Any) -> list[str]:
    with pytest.raises(InvalidDocument) as caught:
        expand(*jobs, **parts)
    return [str(problem) for problem in caught.value.problems]


# argv


@pytest.mark.parametrize(
    ("template", "fields", "argv"),
    [
        (None, {"exec_args": ("1", "")}, ("/bin/x", "1", "")),
        ({"exec_cmd": "py"}, {"exec_args": ("1",)}, ("py", "pre", "/bin/x", "1", "post")),
        ({"exec_cmd": "py"}, {"exec_args": ("1",), "exec_cmd": ""}, ("py", "pre", "1", "post")),
        ({}, {"exec_args": ("1",)}, ("/bin/x", "pre", "1", "post")),
        ({"exec_cmd": "{{CMD}}"}, {"exec_args": ("1",)}, ("/bin/x", "pre", "1", "post")),
        (
            {"exec_cmd": "sh", "exec_pre_args": ("-c", "exec {{CMD}}")},
            {"exec_args": ("1",)},
            ("sh", "-c", "exec /bin/x", "1", "post"),
        ),
        ({"exec_pre_args": ("nice", "{{CMD}}")}, {"exec_args": ("1",)}, ("nice", "/bin/x", "1", "post")),
    ],
)
def test_the_command_line(
    template: dict[str, Any] | None, fields: dict[str, Any], argv: tuple[str, ...]
) -> None:
    if template is None:
        assert one(job(**fields)).argv == argv
    else:
        spec = TemplateSpec("t", **{"exec_pre_args": ("pre",), "exec_post_args": ("post",), **template})
        assert of(spec, **fields).argv == argv


def test_names_in_braces_are_filled_in_and_unknown_ones_stay() -> None:
    process = one(
        job(
            exec_cmd="{{thisdir}}/x",
            exec_args=("{{cwd}}", "{{V}}", "{{W}}", "${V}", "{{CMD}}"),
            env=("A={{V}}",),
        )
    )
    assert process.argv == ("/opt/m/x", "/cwd", "value", "{{W}}", "${V}", "{{CMD}}")
    assert process.env[0] == ("A", "value")


def test_a_job_without_a_program_or_template_is_refused() -> None:
    assert refused(job(exec_cmd="", exec_args=("x",))) == [
        'jobs["a"].exec_cmd: neither the job nor its template names a program'
    ]
    assert "no template is called" in refused(job(container_template="nowhere"))[0]


# Environment, standard input, dependencies


def test_the_environment_is_the_jobs_then_the_templates_then_ours() -> None:
    template = TemplateSpec("t", add_env=("A=template", "B=b", "MAESTRO_PROCESS=mine"))
    process = of(template, env=("A=job", "A=again", "C==x"))
    assert process.env == (
        ("A", "job"),
        ("C", "=x"),
        ("B", "b"),
        ("MAESTRO_PROCESS", "mine"),
        ("MAESTRO_SOCKET", "/run/m.sock"),
    )
    assert process.inherit_env is False


def test_a_message_is_the_standard_input() -> None:
    assert one(job(message="birds ENDCONFIG")).stdin == "birds ENDCONFIG"


def test_dependencies_become_processes() -> None:
    found = expand(
        job("a", depends_on=("m1", "b")),
        job("b"),
        member("m1", depends_on=("m2", "b")),
        member("m2"),
        templates=(TemplateSpec("host", exec_cmd="node", depends_on=("b",)),),
    )
    assert list(found) == ["a", "b", "c"]
    assert found["a"].depends_on == ("b", "c")
    assert found["c"].depends_on == ("b",)


def test_template_dependencies_count_for_single_jobs_but_not_on_themselves() -> None:
    template = TemplateSpec("t", depends_on=("b",))
    found = expand(job("a", container_template="t"), job("b", container_template="t"), templates=(template,))
    assert (found["a"].depends_on, found["b"].depends_on) == (("b",), ())


# Settings


def test_the_job_wins_over_its_template() -> None:
    template = TemplateSpec(
        "t", settings=Settings(user="t", group="t", umask=0, nice=5, inherit_env=True, stop_timeout=0.0)
    )
    process = of(template, settings=Settings(user="j", nice=0, inherit_env=False, working_dir="/w/{{V}}"))
    assert (process.user, process.group, process.umask, process.nice) == ("j", "t", 0, 0)
    assert (process.inherit_env, process.stop_timeout, process.working_dir) == (False, 0.0, "/w/value")


def test_defaults_are_filled_in() -> None:
    process = one(job())
    assert (process.umask, process.stop_signal, process.stop_timeout) == (0o022, 15, 10.0)
    assert (process.ready, process.restart, process.limits) == (Ready(), Restart(), Limits())


def test_limits_merge_one_by_one_and_zero_lifts() -> None:
    template = TemplateSpec("t", settings=Settings(cgroup=Limits(mem_limit=1, pids_max=5, cpu_max=0.5)))
    process = of(template, settings=Settings(cgroup=Limits(mem_limit=2, pids_max=0, swap_limit=0)))
    assert process.limits == Limits(mem_limit=2, cpu_max=0.5, swap_limit=0)


@pytest.mark.parametrize(
    ("above", "below", "ready"),
    [
        (Settings(), Settings(), Ready()),
        (Settings(wait_for_ok=True), Settings(), Ready("!!OK!!")),
        (Settings(), Settings(wait_for_ok=True, timeout_for_ok=5.0), Ready("!!OK!!", 5.0)),
        (Settings(wait_for_ok=False), Settings(wait_for_ok=True, timeout_for_ok=5.0), Ready()),
        (Settings(ok_string="up"), Settings(), Ready("up")),
        (Settings(ok_string="up"), Settings(wait_for_ok=False), Ready("up")),
        (Settings(ok_string="up", wait_for_ok=False), Settings(), Ready()),
        (Settings(defer_running_status=3.0), Settings(), Ready(defer=3.0)),
        (Settings(defer_running_status=3.0), Settings(wait_for_ok=True), Ready("!!OK!!")),
    ],
)
def test_readiness(above: Settings, below: Settings, ready: Ready) -> None:
    assert of(TemplateSpec("t", settings=below), settings=above).ready == ready


@pytest.mark.parametrize(
    ("above", "below", "restart"),
    [
        (Settings(restart=True), Settings(), Restart(RestartPolicy.ALWAYS)),
        (
            Settings(restart=True, restart_policy=RestartPolicy.ON_FAILURE),
            Settings(),
            Restart(RestartPolicy.ON_FAILURE),
        ),
        (Settings(restart=True), Settings(restart_policy=RestartPolicy.NEVER), Restart(RestartPolicy.ALWAYS)),
        (Settings(restart=False), Settings(restart=True), Restart(RestartPolicy.NEVER)),
        (
            Settings(restart_limit=3),
            Settings(restart=True, restart_limit=9, restart_pause=1.5),
            Restart(RestartPolicy.ALWAYS, 3, 1.5),
        ),
        (
            Settings(restart_backoff=Backoff(initial=1.0)),
            Settings(restart_on_dependency_fail=True),
            Restart(backoff=Backoff(initial=1.0), on_dependency_fail=True),
        ),
    ],
)
def test_restarts(above: Settings, below: Settings, restart: Restart) -> None:
    assert of(TemplateSpec("t", settings=below), settings=above).restart == restart


def test_disabled_and_not_started_by_itself() -> None:
    process = one(job(disabled=True, no_autostart=True, daemonize=True, pgid=5))
    assert (process.enabled, process.members, process.argv) == (False, (), ("/bin/x",))
    assert (process.autostart, process.new_session, process.pgid) == (False, True, 5)


# Images and roots


def test_the_image_is_seen_where_the_process_sees_it() -> None:
    process = one(job(exec_cmd="{{IMAGE}}/run", exec_args=("{{IMAGE}}",)), images=(image(),))
    assert process.argv == (f"{path_of()}/run", path_of())
    assert process.images == (ImageRef("a", "1", "0123456789abcdef" * 2, path_of()),)


@pytest.mark.parametrize(
    ("settings", "root", "argv"),
    [
        (Settings(chroot_image=True), path_of(), ("/run", "/")),
        (Settings(chroot_path="/im/"), "/im", ("/a/1-0123456789ab/run", "/a/1-0123456789ab")),
        (Settings(chroot_path="/srv"), "/srv", ("/run/maestro/images/a/run", "/run/maestro/images/a")),
        (Settings(chroot_path="/"), "", (f"{path_of()}/run", path_of())),
        (Settings(chroot_path="{{IMAGE}}/rootfs"), f"{path_of()}/rootfs", None),
    ],
)
def test_the_image_in_a_process_with_a_root(
    settings: Settings, root: str, argv: tuple[str, ...] | None
) -> None:
    spec = job(exec_cmd="{{IMAGE}}/run", exec_args=("{{IMAGE}}",), settings=settings)
    process = one(spec, images=(image(),))
    assert process.root == root
    if argv is not None:
        assert process.argv == argv
    assert ("MAESTRO_SOCKET" in dict(process.env)) == (not root)


def test_chroot_path_takes_over_when_there_is_no_image() -> None:
    assert one(job(settings=Settings(chroot_image=True, chroot_path="/r"))).root == "/r"
    assert "it has no image" in refused(job(settings=Settings(chroot_image=True)))[0]


def test_an_image_that_is_used_and_not_there_is_named() -> None:
    assert refused(job(exec_cmd="{{IMAGE}}/x")) == [
        'jobs["a"].exec_cmd: uses {{IMAGE}}, and the job has no image'
    ]


def test_an_image_whose_name_only_begins_like_the_root_is_outside() -> None:
    assert image_inside("/im/a", ImageRef("ab", "1", "", "/im/ab/1")) == "/run/maestro/images/ab"


# Configs


def test_configs_have_a_directory_and_the_selected_data_a_path() -> None:
    configs = (ConfigSpec("std", "a", data="x"), ConfigSpec("more", "a"), ConfigSpec("other", "b"))
    process = one(job(config_name="std"), configs=configs)
    assert process.configs == (configs[1], configs[0])
    assert (process.config_dir, process.config_dir_inside) == ("/co/a", "/co/a")
    env = dict(process.env)
    assert (env["MAESTRO_CONFIG_DIR"], env["MAESTRO_CONFIG"]) == ("/co/a", "/co/a/std")


def test_a_config_without_data_has_no_path_of_its_own() -> None:
    process = one(job(config_name="std"), configs=(ConfigSpec("std", "a"),))
    assert "MAESTRO_CONFIG" not in dict(process.env)
    assert "MAESTRO_CONFIG_DIR" in dict(process.env)


def test_without_configs_there_is_no_directory() -> None:
    process = one(job(config_name="std"))
    assert process.config_dir == ""
    assert "MAESTRO_CONFIG_DIR" not in dict(process.env)


def test_a_process_with_a_root_finds_its_configs_inside() -> None:
    process = one(job("my job", config="x", settings=Settings(chroot_path="/srv")))
    assert (process.config_dir, process.config_dir_inside) == ("/co/my%20job", "/run/maestro/config")
    assert dict(process.env)["MAESTRO_CONFIG"] == "/run/maestro/config/default"


def test_inline_config_is_a_config_and_a_stored_one_goes_before_it() -> None:
    assert one(job(config="x")).configs == (ConfigSpec("default", "a", data="x"),)
    assert one(job(config="x", config_name="n")).configs == (ConfigSpec("n", "a", data="x"),)
    stored = ConfigSpec("default", "a", data="y")
    assert one(job(config="x"), configs=(stored,)).configs == (stored,)


# Composites


def payload(process: ResolvedProcess) -> dict[str, Any]:
    data = json.loads(process.stdin)
    assert isinstance(data, dict)
    return data


def test_a_composite_gets_its_enabled_members_by_name() -> None:
    template = TemplateSpec(
        "host", exec_cmd="node", composite_config='{"debug":true}', send_composite_jobs_to_stdin=True
    )
    process = one(
        member("z", exec_args=("{{V}}",)), member("B"), member("m", disabled=True), templates=(template,)
    )
    data = payload(process)
    assert list(data) == ["moduleconfigs", "process_config", "maestro_user_socket_path"]
    assert list(data["moduleconfigs"]) == ["B", "z"]
    assert len(data["moduleconfigs"]["z"]) == 22
    assert data["moduleconfigs"]["z"]["exec_args"] == ["value"]
    assert data["process_config"] == '{"debug":true}'
    assert data["maestro_user_socket_path"] == "/run/m.sock"
    assert (process.members, process.composite_id, process.template) == (("B", "z"), "c", "host")


def test_a_composite_has_its_first_enabled_member_on_the_command_line() -> None:
    process = one(member("b", exec_cmd="/b", exec_args=("1",)), member("a", exec_cmd="/a", disabled=True))
    assert process.argv == ("node", "h.js", "/b", "1")


def test_a_member_with_an_image_and_no_program_is_its_images_directory() -> None:
    process = one(member("b", exec_cmd=""), images=(image("b"),))
    assert payload(process)["moduleconfigs"]["b"]["exec_cmd"] == path_of("b")


def test_each_member_sees_its_own_image() -> None:
    process = one(
        member("a", exec_cmd="{{IMAGE}}/x", settings=Settings(chroot_image=True)),
        member("b", exec_cmd="{{IMAGE}}/x"),
        images=(image("a"), image("b")),
    )
    modules = payload(process)["moduleconfigs"]
    assert process.root == path_of("a")
    assert (modules["a"]["exec_cmd"], modules["b"]["exec_cmd"]) == ("/x", "/run/maestro/images/b/x")
    assert [ref.job for ref in process.images] == ["a", "b"]


def test_a_change_of_one_member_changes_the_process() -> None:
    before = one(member("a"), member("b"))
    assert one(member("b"), member("a")) == before
    assert one(member("a"), member("b", exec_args=("x",))) != before
    assert one(member("a"), member("b", disabled=True)) != before


def test_the_environment_of_a_composite_is_its_templates() -> None:
    template = TemplateSpec("host", exec_cmd="node", add_env=("A=t",))
    process = one(member("a", env=("A=j", "B=j")), templates=(template,))
    assert process.env[0] == ("A", "t")
    assert "B" not in dict(process.env)
    assert process.stdin == ""


def test_the_most_eager_member_decides_about_restarts() -> None:
    found = one(
        member("a"),
        member("b", settings=Settings(restart=True, restart_limit=5000, restart_pause=0.09)),
        member("d", settings=Settings(restart_policy=RestartPolicy.ON_FAILURE)),
    )
    assert found.restart == Restart(RestartPolicy.ALWAYS, 5000, 0.09)


def test_a_composite_starts_by_itself_when_one_member_does() -> None:
    assert one(member("a", no_autostart=True), member("b")).autostart
    assert not one(member("a", no_autostart=True), member("b", no_autostart=True)).autostart


def test_a_composite_with_every_member_disabled_is_not_enabled() -> None:
    process = one(member("a", disabled=True))
    assert (process.enabled, process.members) == (False, ())
    assert process.argv == ("node", "h.js", "/bin/x")
    assert list(payload(process)) == ["maestro_user_socket_path"]


def test_configs_of_members_are_in_the_composites_directory() -> None:
    process = one(member("b", config="x"), member("a"), configs=(ConfigSpec("n", "a", data="y"),))
    assert [(c.job, c.name) for c in process.configs] == [("a", "n"), ("b", "default")]
    assert process.config_dir == "/co/c"
    assert "MAESTRO_CONFIG" not in dict(process.env)


def test_json_is_escaped_as_go_does() -> None:
    assert go_json({"a": "<é&\u2028\u2029>\n", "b": [1, None, True]}) == (
        '{"a":"\\u003cé\\u0026\\u2028\\u2029\\u003e\\n","b":[1,null,true]}'
    )
