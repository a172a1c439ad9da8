# SPDX-License-Identifier: Apache-2.0
"""Plans: what is, what is wanted, which steps with which reasons; and that carrying one out is enough."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, field, fields, replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from maestro_py.differences import differences
from maestro_py.plan import IDLE, Action, Actual, Is, Plan, Wanted, make_plan
from maestro_py.spec.expand import resolve
from maestro_py.spec.model import (
    Checksum,
    ConfigFile,
    ConfigSpec,
    ImageSpec,
    JobSpec,
    Limits,
    Settings,
    TemplateSpec,
)
from maestro_py.spec.places import Places
from maestro_py.spec.resolved import ResolvedProcess, State

PLACES = Places("/images", "/configs", "/run/maestro.sock", "/etc/maestro", "/")
HOST = TemplateSpec("host", exec_cmd="/usr/bin/node", send_composite_jobs_to_stdin=True)


def wanted(
    jobs: Iterable[JobSpec],
    images: Iterable[ImageSpec] = (),
    configs: Iterable[ConfigSpec] = (),
    *,
    templates: Iterable[TemplateSpec] = (HOST,),
    **options: Any,
) -> Wanted:
    jobs, images, configs = tuple(jobs), tuple(images), tuple(configs)
    return Wanted(
        processes=resolve(jobs, templates, images, configs, PLACES),
        jobs={job.job: job.process for job in jobs},
        images={image.job: image for image in images},
        configs={(config.job, config.name): config for config in configs},
        **options,
    )


def job(name: str, **settings_or_fields: Any) -> JobSpec:
    """Return a single job; what is no field of a job is one of its settings."""
    own = {f.name for f in fields(JobSpec)}
    mine = {key: value for key, value in settings_or_fields.items() if key in own}
    rest = {key: value for key, value in settings_or_fields.items() if key not in own}
    program = {} if "composite_id" in mine else {"exec_cmd": "/bin/" + name}
    return JobSpec(name, **(program | mine), settings=Settings(**rest))


def member(name: str, **more: Any) -> JobSpec:
    return job(name, composite_id="comp", container_template="host", **more)


def image(name: str, version: str = "1", digit: str = "a") -> ImageSpec:
    return ImageSpec(name, version, f"http://x/{name}-{version}.tgz", 0, Checksum("sha256sum", digit * 64))


@dataclass
class Device:
    """What a plan is carried out on: steps change it as the daemon would, and impossible ones fail."""

    processes: dict[str, Actual] = field(default_factory=dict)
    jobs: dict[str, str] = field(default_factory=dict)
    images: dict[str, ImageSpec] = field(default_factory=dict)
    installed: set[tuple[str, str]] = field(default_factory=set)
    configs: dict[tuple[str, str], ConfigSpec] = field(default_factory=dict)
    where: dict[tuple[str, str], str] = field(default_factory=dict)  # the process a config lies with
    fetched: set[str] = field(default_factory=set)
    previous: dict[str, str] = field(default_factory=dict)

    def facts(self) -> Is:
        return Is(
            dict(self.processes),
            dict(self.jobs),
            dict(self.images),
            frozenset(self.installed),
            self.configs,
            dict(self.previous),
        )

    def plan(self, want: Wanted) -> Plan:
        return make_plan(self.facts(), want)

    def apply(self, want: Wanted) -> Plan:
        plan = self.plan(want)
        self.fetched = set()
        for step in plan.steps:
            getattr(self, "do_" + step.action.value.replace("-", "_"))(step, want)
        for name in [name for name in self.processes if name not in want.processes]:
            assert not self.up(name), f"{name} was left running"
            del self.processes[name]
        touched = {step.process for step in plan.steps}
        for name, process in want.processes.items():
            if name in touched:
                state = self.processes[name].state if name in self.processes else State.NEVER_RAN
                done = name in self.processes and self.processes[name].completed
                self.processes[name] = Actual(process, state, done and state is State.STOPPED)
            assert self.processes[name].process == process, f"{name} differs and no step says so"
            held = {(c.job, c.name): c for c in process.configs}
            assert {k: c for k, c in self.configs.items() if self.jobs_process(k[0], want) == name} == held
            assert {self.where[key] for key in held} <= {name}, "a config lies with another process"
        assert set(self.jobs) <= set(want.jobs)
        self.jobs = dict(want.jobs)
        return plan

    @staticmethod
    def jobs_process(job: str, want: Wanted) -> str:
        return want.jobs.get(job, "")

    def up(self, name: str) -> bool:
        return name in self.processes and self.processes[name].state not in IDLE

    def set_state(self, name: str, state: State, *, completed: bool = False) -> None:
        self.processes[name] = replace(self.processes[name], state=state, completed=completed)

    def do_fetch_image(self, step: Any, want: Wanted) -> None:
        self.installed.add((step.subject, want.images[step.subject].dirname))

    def do_fetch_config(self, step: Any, want: Wanted) -> None:
        self.fetched.add(step.subject)

    def do_stop(self, step: Any, want: Wanted) -> None:
        assert self.up(step.process)
        self.set_state(step.process, State.STOPPED)

    def do_switch_image(self, step: Any, want: Wanted) -> None:
        new = want.images[step.subject]
        assert (step.subject, new.dirname) in self.installed
        for name, actual in self.processes.items():
            uses = step.subject in {ref.job for ref in actual.process.images}
            assert not (uses and self.up(name)), f"{step.subject} was switched under {name}"
        old = self.images.get(step.subject)
        if old and old.dirname != new.dirname:
            self.previous[step.subject] = old.dirname
        self.images[step.subject] = new

    def do_place_config(self, step: Any, want: Wanted) -> None:
        name, _, config_name = step.subject.partition("/")
        held = {(c.job, c.name): c for c in want.processes[step.process].configs}
        config = held.get((name, config_name))
        if config is None:
            del self.configs[name, config_name]
            return
        old = self.configs.get((name, config_name))
        moved = self.jobs.get(name, step.process) != step.process
        if config.files and (moved or old is None or old.files != config.files):
            assert step.subject in self.fetched, "files were not fetched"
        self.configs[name, config_name] = config
        self.where[name, config_name] = step.process

    def do_start(self, step: Any, want: Wanted) -> None:
        process = want.processes[step.process]
        assert not self.up(step.process)
        assert process.enabled
        for ref in process.images:
            assert self.images[ref.job].version == ref.version
        for config in process.configs:
            assert self.configs[config.job, config.name] == config
        self.processes[step.process] = Actual(process, State.RUNNING)

    def do_set_limits(self, step: Any, want: Wanted) -> None:
        assert self.up(step.process)

    def do_update(self, step: Any, want: Wanted) -> None:
        pass

    def do_reload(self, step: Any, want: Wanted) -> None:
        assert self.up(step.process)
        assert want.processes[step.process].reload_signal

    def do_remove_job(self, step: Any, want: Wanted) -> None:
        del self.jobs[step.subject]
        self.configs = {key: c for key, c in self.configs.items() if key[0] != step.subject}

    def do_remove_image(self, step: Any, want: Wanted) -> None:
        job = step.subject
        kept = {want.images[job].dirname, self.previous.get(job, "")} if job in want.images else set()
        self.installed = {(each, name) for each, name in self.installed if each != job or name in kept}
        if job not in want.images:
            self.images.pop(job, None)
            self.previous.pop(job, None)


def device_with(want: Wanted) -> Device:
    device = Device()
    device.apply(want)
    return device


def steps(plan: Plan) -> list[tuple[str, str]]:
    return [(step.action.value, step.subject) for step in plan.steps]


def reason(plan: Plan, action: Action) -> str:
    (found,) = [step.reason for step in plan.steps if step.action is action]
    return found


# Nothing to do


def test_the_second_apply_of_the_same_document_is_empty() -> None:
    want = wanted(
        [job("web"), member("a"), member("b", disabled=True), job("later", no_autostart=True)],
        [image("web"), image("b")],
        [ConfigSpec("default", "web", "x"), ConfigSpec("default", "b", "y")],
    )
    device = device_with(want)
    assert not device.plan(want)
    assert device.plan(want).to_json() == {"empty": True, "steps": []}


@pytest.mark.parametrize("state", [State.RESTARTING, State.WAITING_FOR_DEPS, State.STARTING, State.STOPPING])
def test_a_process_on_its_way_is_left_alone(state: State) -> None:
    want = wanted([job("web")])
    device = device_with(want)
    device.set_state("web", state)
    assert not device.plan(want)


@pytest.mark.parametrize("state", [State.FAILED, State.STOPPED, State.NEVER_RAN])
def test_what_is_down_and_shall_run_is_started_again(state: State) -> None:
    want = wanted([job("web")])
    device = device_with(want)
    device.set_state("web", state)
    plan = device.plan(want)
    assert steps(plan) == [("start", "web")]
    assert plan.steps[0].reason == f"it is {state.value} and shall run"


def test_what_is_down_and_unchanged_stays_down_when_only_changes_count() -> None:
    want = wanted([job("web")])
    device = device_with(want)
    device.set_state("web", State.STOPPED)
    assert not device.plan(replace(want, revive=False))


def test_a_one_shot_that_completed_is_not_run_again() -> None:
    want = wanted([job("setup")])
    device = device_with(want)
    device.set_state("setup", State.STOPPED, completed=True)
    assert not device.plan(want)


def test_a_one_shot_that_completed_is_run_again_when_its_command_changed_but_not_for_a_limit() -> None:
    device = device_with(wanted([job("setup")]))
    device.set_state("setup", State.STOPPED, completed=True)
    assert steps(device.plan(wanted([job("setup", exec_args=("-v",))]))) == [("start", "setup")]
    limited = device.plan(wanted([job("setup", cgroup=Limits(mem_limit=1 << 20))]))
    assert steps(limited) == [("update", "setup")]


def test_what_is_not_started_by_itself_is_not_started_by_a_change_either() -> None:
    device = device_with(wanted([job("tool", no_autostart=True)]))
    plan = device.plan(wanted([job("tool", no_autostart=True, exec_args=("-v",))]))
    assert steps(plan) == [("update", "tool")]


# One change each


def test_a_changed_limit_is_written_live_without_a_restart() -> None:
    device = device_with(wanted([job("web", cgroup=Limits(mem_limit=10 << 20))]))
    plan = device.plan(wanted([job("web", cgroup=Limits(mem_limit=20 << 20, pids_max=9))]))
    assert steps(plan) == [("set-limits", "web")]
    assert plan.steps[0].reason == (
        "mem_limit 10.0M becomes 20.0M; pids_max none becomes 9, no restart needed"
    )


def test_a_limit_that_changes_by_less_than_rounding_shows_is_written_in_full() -> None:
    device = device_with(wanted([job("web", cgroup=Limits(mem_limit=10485100))]))
    plan = device.plan(wanted([job("web", cgroup=Limits(mem_limit=10485760))]))
    assert plan.steps[0].reason == "mem_limit 10485100 becomes 10485760, no restart needed"


@pytest.mark.parametrize(
    "change",
    [
        {"restart_limit": 3},
        {"stop_timeout": 3.0},
        {"stop_signal": 2},
        {"reload_signal": 1},
        {"wait_for_ok": True},
    ],
)
def test_what_only_the_daemon_reads_is_updated_without_a_restart(change: dict[str, Any]) -> None:
    device = device_with(wanted([job("web")]))
    plan = device.apply(wanted([job("web", **change)]))
    assert steps(plan) == [("update", "web")]
    assert plan.steps[0].reason.endswith("changed, no restart needed")


def test_a_changed_image_is_fetch_stop_switch_start_for_that_process_only() -> None:
    jobs = [job("other"), job("web", exec_cmd="{{IMAGE}}/bin/web")]
    device = device_with(wanted(jobs, [image("web", "1"), image("other")]))
    plan = device.apply(wanted(jobs, [image("web", "2"), image("other")]))
    assert steps(plan) == [
        ("fetch-image", "web"),
        ("stop", "web"),
        ("switch-image", "web"),
        ("start", "web"),
    ]
    assert plan.steps[0].reason == "version 1 becomes 2"
    assert reason(plan, Action.STOP) == "image web: 1 becomes 2"


def test_new_content_under_an_old_version_is_a_new_image() -> None:
    device = device_with(wanted([job("web")], [image("web", "1", "a")]))
    plan = device.plan(wanted([job("web")], [image("web", "1", "b")]))
    assert plan.of("web") == {Action.FETCH_IMAGE, Action.STOP, Action.SWITCH_IMAGE, Action.START}
    assert reason(plan, Action.FETCH_IMAGE) == "version 1 has new content"


def test_an_image_that_is_installed_already_is_not_fetched_again() -> None:
    device = device_with(wanted([job("web")], [image("web", "1")]))
    device.apply(wanted([job("web")], [image("web", "2")]))
    plan = device.apply(wanted([job("web")], [image("web", "1")]))
    assert steps(plan) == [("stop", "web"), ("switch-image", "web"), ("start", "web")]


def test_a_changed_config_restarts() -> None:
    device = device_with(wanted([job("web")], configs=[ConfigSpec("default", "web", "a")]))
    plan = device.apply(wanted([job("web")], configs=[ConfigSpec("default", "web", "b")]))
    assert steps(plan) == [("stop", "web"), ("place-config", "web/default"), ("start", "web")]
    assert reason(plan, Action.STOP) == "config default of web changed"


def test_a_changed_config_reloads_where_there_is_a_reload_signal() -> None:
    jobs = [job("web", reload_signal=1)]
    device = device_with(wanted(jobs, configs=[ConfigSpec("default", "web", "a")]))
    plan = device.apply(wanted(jobs, configs=[ConfigSpec("default", "web", "b")]))
    assert steps(plan) == [("place-config", "web/default"), ("reload", "web")]


def test_a_config_with_files_fetches_them_before_anything_stops_and_only_when_they_changed() -> None:
    one = ConfigSpec("default", "web", files=(ConfigFile("http://x/1", "a/b"),))
    device = device_with(wanted([job("web")], configs=[one]))
    two = replace(one, files=(ConfigFile("http://x/2", "a/b"),))
    plan = device.apply(wanted([job("web")], configs=[two]))
    assert steps(plan)[:2] == [("fetch-config", "web/default"), ("stop", "web")]
    plan = device.apply(wanted([job("web")], configs=[replace(two, data="more")]))
    assert Action.FETCH_CONFIG not in plan.of("web")


def test_a_config_that_is_gone_is_taken_away_before_the_restart() -> None:
    both = [ConfigSpec("default", "web", "a"), ConfigSpec("more", "web", "b")]
    device = device_with(wanted([job("web")], configs=both))
    plan = device.apply(wanted([job("web")], configs=both[:1]))
    assert steps(plan) == [("stop", "web"), ("place-config", "web/more"), ("start", "web")]
    assert reason(plan, Action.PLACE_CONFIG) == "the config is gone"
    assert not device.plan(wanted([job("web")], configs=both[:1]))


def test_inline_data_of_a_job_is_placed_like_any_config() -> None:
    device = Device()
    plan = device.apply(wanted([job("web", config="inline")]))
    assert steps(plan) == [("place-config", "web/default"), ("start", "web")]
    assert not device.plan(wanted([job("web", config="inline")]))


def test_a_config_for_a_job_that_nobody_defines_is_no_step() -> None:
    stray = ConfigSpec("default", "nobody", "x")
    assert not device_with(wanted([job("web")])).plan(wanted([job("web")], configs=[stray]))


def test_disabled_is_a_stop_and_enabled_again_a_start() -> None:
    device = device_with(wanted([job("web")]))
    off = device.apply(wanted([job("web", disabled=True)]))
    assert [(s.action, s.reason) for s in off.steps] == [(Action.STOP, "it is disabled now")]
    on = device.apply(wanted([job("web")]))
    assert [(s.action, s.reason) for s in on.steps] == [(Action.START, "it is enabled now")]


def test_a_new_job_that_is_disabled_becomes_known_and_is_not_started() -> None:
    plan = Device().plan(wanted([job("web", disabled=True)]))
    assert [(s.action, s.reason) for s in plan.steps] == [(Action.UPDATE, "it is new, and disabled")]


def test_a_job_absent_from_the_new_document_is_stopped_and_removed() -> None:
    device = device_with(wanted([job("web"), job("old")]))
    plan = device.apply(wanted([job("web")]))
    assert steps(plan) == [("stop", "old"), ("remove-job", "old")]


def test_jobs_that_go_are_stopped_dependents_first() -> None:
    device = device_with(
        wanted([job("a"), job("b", depends_on=("a",)), job("c", depends_on=("b",)), job("z")])
    )
    plan = device.plan(wanted([job("z")]))
    assert steps(plan)[:3] == [("stop", "c"), ("stop", "b"), ("stop", "a")]


def test_a_changed_dependency_alone_needs_no_restart() -> None:
    device = device_with(wanted([job("a"), job("b")]))
    plan = device.plan(wanted([job("a"), job("b", depends_on=("a",))]))
    assert [(s.action, s.reason) for s in plan.steps] == [
        (Action.UPDATE, "what it depends on changed, no restart needed")
    ]


def test_a_process_that_is_down_and_changed_says_what_changed() -> None:
    device = device_with(wanted([job("web")]))
    device.set_state("web", State.FAILED)
    plan = device.plan(wanted([job("web", exec_cmd="/bin/other", umask=0o077)]))
    assert steps(plan) == [("start", "web")]
    assert plan.steps[0].reason == "its command line changed; umask 0022 becomes 0077"


# Composites


def test_enabling_a_member_restarts_the_composite_once() -> None:
    device = device_with(wanted([member("a"), member("b", disabled=True)], [image("a"), image("b")]))
    plan = device.apply(wanted([member("a"), member("b")], [image("a"), image("b")]))
    assert [(s.action, s.process, s.reason) for s in plan.steps] == [
        (Action.STOP, "comp", "b joins"),
        (Action.START, "comp", "b joins"),
    ]


def test_a_member_that_is_disabled_or_removed_restarts_the_composite_once() -> None:
    both = wanted([member("a"), member("b")])
    disabled = device_with(both).plan(wanted([member("a"), member("b", disabled=True)]))
    assert steps(disabled) == [("stop", "comp"), ("start", "comp")]
    removed = device_with(both).apply(wanted([member("a")]))
    assert steps(removed) == [("stop", "comp"), ("start", "comp"), ("remove-job", "b")]
    assert reason(removed, Action.STOP) == "b leaves"


def test_changes_of_two_members_restart_the_composite_once() -> None:
    device = device_with(wanted([member("a"), member("b")], [image("a"), image("b")]))
    plan = device.apply(wanted([member("a"), member("b")], [image("a", "2"), image("b", "2")]))
    assert [action for action, _ in steps(plan)] == [
        "fetch-image",
        "fetch-image",
        "stop",
        "switch-image",
        "switch-image",
        "start",
    ]


def test_the_image_of_a_disabled_member_changes_without_a_restart() -> None:
    jobs = [member("a"), member("b", disabled=True)]
    device = device_with(wanted(jobs, [image("a"), image("b")]))
    plan = device.apply(wanted(jobs, [image("a"), image("b", "2")]))
    assert steps(plan) == [("fetch-image", "b"), ("switch-image", "b")]


def test_configs_of_a_member_come_and_go_with_it() -> None:
    configs = [ConfigSpec("default", "a", "x"), ConfigSpec("default", "b", "y")]
    on = wanted([member("a"), member("b")], configs=configs)
    off = wanted([member("a"), member("b", disabled=True)], configs=configs)
    device = device_with(on)
    assert ("place-config", "b/default") in steps(device.apply(off))
    assert not device.plan(off)
    assert ("place-config", "b/default") in steps(device.apply(on))
    assert not device.plan(on)


def test_a_job_that_moves_into_a_composite_leaves_its_process_and_takes_its_config_along() -> None:
    config = ConfigSpec("default", "a", "x", files=(ConfigFile("http://x/1", "f"),))
    device = device_with(wanted([job("a"), member("b")], configs=[config]))
    plan = device.apply(wanted([member("a"), member("b")], configs=[config]))
    assert steps(plan) == [
        ("fetch-config", "a/default"),
        ("stop", "a"),
        ("stop", "comp"),
        ("place-config", "a/default"),
        ("start", "comp"),
        ("update", "a"),
    ]
    assert plan.steps[-1].reason == "it moves from a to comp"


def test_a_job_that_leaves_a_composite_is_stopped_there_before_it_starts_on_its_own() -> None:
    device = device_with(wanted([member("a"), member("b")], [image("a")]))
    plan = device.apply(wanted([job("a"), member("b")], [image("a", "2")]))
    assert steps(plan) == [
        ("fetch-image", "a"),
        ("stop", "comp"),
        ("switch-image", "a"),
        ("start", "a"),
        ("start", "comp"),
        ("update", "a"),
    ]


def test_members_in_another_order_have_a_reason_too() -> None:
    old = ResolvedProcess("comp", ("a", "b"), composite_id="comp", stdin="ab")
    (change,) = differences(old, replace(old, members=("b", "a"), stdin="ba"))
    assert change.text == "its members come in another order"


# Order and old images


def test_everything_is_fetched_before_anything_stops_and_dependencies_come_first() -> None:
    jobs = [job("web", depends_on=("db",)), job("db"), job("cache", depends_on=("db",))]
    device = device_with(wanted(jobs, [image("web"), image("db"), image("cache")]))
    plan = device.apply(wanted(jobs, [image("web", "2"), image("db", "2"), image("cache", "2")]))
    actions = [step.action for step in plan.steps]
    assert max(i for i, a in enumerate(actions) if a is Action.FETCH_IMAGE) < actions.index(Action.STOP)
    starts = [step.process for step in plan.steps if step.action is Action.START]
    assert starts[0] == "db"
    assert sorted(starts) == ["cache", "db", "web"]


def test_a_chain_of_new_jobs_starts_in_dependency_order_whatever_the_order_of_the_document() -> None:
    names = [f"j{i}" for i in range(50)]
    jobs = [job(n, depends_on=(names[i - 1],) if i else ()) for i, n in enumerate(names)]
    plan = Device().plan(wanted(reversed(jobs)))
    assert [subject for _, subject in steps(plan)] == names


def test_old_images_are_removed_last_and_only_when_asked() -> None:
    device = device_with(wanted([job("web")], [image("web", "1")]))
    new = wanted([job("web")], [image("web", "2")])
    assert Action.REMOVE_IMAGE not in {step.action for step in device.plan(new).steps}
    device.apply(replace(new, remove_old_images=True))
    assert device.installed == {("web", image("web", v).dirname) for v in ("1", "2")}, (
        "it may be gone back to"
    )
    newest = replace(wanted([job("web")], [image("web", "3")]), remove_old_images=True)
    plan = device.apply(newest)
    assert steps(plan)[-1] == ("remove-image", "web")
    assert not device.plan(newest)


def test_what_is_kept_is_never_removed() -> None:
    device = device_with(wanted([job("web")], [image("web", "1")]))
    new = replace(wanted([job("web")], [image("web", "2")]), remove_old_images=True)
    device.installed.add(("web", "0-pinned"))
    facts = replace(device.facts(), kept=frozenset({("web", "0-pinned")}))
    assert Action.REMOVE_IMAGE not in {step.action for step in make_plan(facts, new).steps}


def test_a_version_in_use_that_is_not_whole_comes_anew_and_its_process_is_restarted() -> None:
    want = wanted([job("web"), job("other")], [image("web", "1")])
    device = device_with(want)
    device.installed.clear()
    plan = device.plan(want)
    assert steps(plan) == [
        ("fetch-image", "web"),
        ("stop", "web"),
        ("switch-image", "web"),
        ("start", "web"),
    ]
    assert reason(plan, Action.STOP) == "image web 1 is damaged and comes anew"
    device.apply(want)
    assert not device.plan(want)


def test_ten_thousand_jobs_with_configs_are_planned_in_reasonable_time() -> None:
    names = [f"j{i}" for i in range(10_000)]
    configs = {(n, "default"): ConfigSpec("default", n, "x") for n in names}
    processes = {
        n: ResolvedProcess(n, (n,), depends_on=(names[i - 1],) if i else (), configs=(configs[n, "default"],))
        for i, n in enumerate(names)
    }
    want = Wanted(processes, {n: n for n in names}, {}, configs)
    running = {name: Actual(process, State.RUNNING) for name, process in processes.items()}
    began = time.monotonic()
    assert len(Device().plan(want).steps) == 20_000
    assert not make_plan(Is(running, want.jobs, {}, frozenset(), configs), want)
    assert time.monotonic() - began < 5, "planning grows faster than the document"


# Any document after any other

NAMES = ("a", "b", "c", "d")
VERSIONS = st.sampled_from(["1", "2"])
FILES = st.sampled_from([(), (ConfigFile("http://x/1", "f"),), (ConfigFile("http://x/2", "f"),)])
CONFIGS = st.builds(
    ConfigSpec,
    name=st.sampled_from(["default", "more"]),
    job=st.sampled_from([*NAMES, "nobody"]),
    data=st.sampled_from(["x", "y"]),
    files=FILES,
)


@st.composite
def documents(draw: st.DrawFn) -> Wanted:
    jobs = []
    for name in draw(st.lists(st.sampled_from(NAMES), unique=True)):
        more: dict[str, Any] = {
            "exec_args": draw(st.sampled_from([(), ("-v",)])),
            "config": draw(st.sampled_from(["", "inline"])),
            "disabled": draw(st.booleans()),
            "no_autostart": draw(st.booleans()),
            "depends_on": tuple(n for n in NAMES if n < name and draw(st.booleans())),
            "nice": draw(st.sampled_from([None, 5])),
            "restart": draw(st.booleans()),
            "reload_signal": draw(st.sampled_from([None, 1])),
            "cgroup": draw(st.sampled_from([None, Limits(mem_limit=1 << 24), Limits(pids_max=9)])),
        }
        jobs.append((member if draw(st.booleans()) else job)(name, **more))
    images = [image(name, draw(VERSIONS)) for name in (*NAMES, "nobody") if draw(st.booleans())]
    configs = draw(st.lists(CONFIGS, max_size=4, unique_by=lambda c: (c.job, c.name)))
    return wanted(jobs, images, configs, remove_old_images=draw(st.booleans()))


@settings(max_examples=150, deadline=None, database=None)
@given(
    st.lists(documents(), min_size=1, max_size=4),
    st.lists(st.sampled_from([*NAMES, "comp"])),
    st.sampled_from([State.RUNNING, State.RESTARTING, State.WAITING_FOR_DEPS, State.FAILED]),
)
def test_carrying_out_a_plan_leaves_nothing_to_do(wants: list[Wanted], fallen: list[str], to: State) -> None:
    device = Device()
    for want in wants:
        plan = device.apply(want)
        fetches = [step.action in (Action.FETCH_IMAGE, Action.FETCH_CONFIG) for step in plan.steps]
        assert fetches == sorted(fetches, reverse=True)
        assert all(step.reason and step.subject for step in plan.steps)
        assert plan.to_json()["steps"] == [step.to_json() for step in plan.steps]
        assert steps(device.plan(want)) == []
        for name, process in want.processes.items():
            assert device.up(name) or not (process.enabled and process.autostart)
            assert process.enabled or not device.up(name)
        for name in fallen:
            if device.up(name):
                device.set_state(name, to)
