# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from maestro_py.spec.layers import Layer, layer, merge
from maestro_py.spec.model import ConfigSpec, ImageSpec, JobSpec, TemplateSpec


def test_a_layer_is_indexed_by_name() -> None:
    made = layer(
        [JobSpec("web")],
        [TemplateSpec("host")],
        [ImageSpec("web", "1", "http://x")],
        [ConfigSpec("default", "web"), ConfigSpec("default", "db")],
    )
    assert set(made.jobs) == {"web"}
    assert set(made.templates) == {"host"}
    assert set(made.images) == {"web"}
    assert set(made.configs) == {("web", "default"), ("db", "default")}


def test_an_upper_layer_replaces_a_definition_whole() -> None:
    lower = layer([JobSpec("web", exec_cmd="/bin/old", env=("A=1",)), JobSpec("db")])
    upper = layer([JobSpec("web", exec_cmd="/bin/new")])
    assert merge((lower, upper), {}).jobs == {
        "web": JobSpec("web", exec_cmd="/bin/new"),
        "db": JobSpec("db"),
    }


def test_every_kind_of_definition_is_merged() -> None:
    lower = layer(
        [JobSpec("a")], [TemplateSpec("t", "/old")], [ImageSpec("a", "1", "u")], [ConfigSpec("c", "a")]
    )
    upper = layer([], [TemplateSpec("t", "/new")], [ImageSpec("a", "2", "u")], [ConfigSpec("c", "a", "data")])
    merged = merge((lower, upper), {})
    assert merged.templates["t"].exec_cmd == "/new"
    assert merged.images["a"].version == "2"
    assert merged.configs["a", "c"].data == "data"


def test_what_a_person_enabled_or_disabled_wins_over_every_layer() -> None:
    lower = layer([JobSpec("on", disabled=True), JobSpec("off"), JobSpec("same", disabled=True)])
    jobs = merge((lower,), {"on": False, "off": True}).jobs
    assert {name: job.disabled for name, job in jobs.items()} == {"on": False, "off": True, "same": True}


def test_an_override_for_a_job_that_is_gone_defines_nothing() -> None:
    assert merge((), {"gone": True}) == Layer()


def test_merging_leaves_the_layers_as_they_were() -> None:
    lower, upper = layer([JobSpec("web")]), layer([JobSpec("web", exec_cmd="/x")])
    merge((lower, upper), {"web": True})
    assert lower == layer([JobSpec("web")])
    assert upper == layer([JobSpec("web", exec_cmd="/x")])
