# SPDX-License-Identifier: Apache-2.0
"""What one daemon writes down of a process, the next reads as the same."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields

import pytest

from maestro_py.exits import Exit
from maestro_py.lifecycle import Cause, Kind, Life, Next
from maestro_py.spec import codec
from maestro_py.spec.model import (
    Backoff,
    Checksum,
    ConfigFile,
    ConfigSpec,
    Limits,
    Mount,
    Network,
    Port,
    RestartPolicy,
    Secret,
)
from maestro_py.spec.resolved import ImageRef, Ready, ResolvedProcess, Restart, State

FULL = ResolvedProcess(
    name="a",
    members=("a", "b"),
    argv=("/bin/sh", "-c", "ä\udcff"),
    env=(("A", "1"), ("A", "2")),
    images=(ImageRef("a", "1", "x", "/p"),),
    configs=(ConfigSpec("n", "a", "d", files=(ConfigFile("u", "p", 3, Checksum("sha256sum", "00")),)),),
    user=1000,
    group="people",
    supplementary_groups=(1, "two"),
    rlimits=(("nofile", 1, -1),),
    capabilities=(),
    mounts=(Mount("/a", "/b", ("rw",)),),
    network=Network("private", "10.0.0.1", (Port(80, 8080),)),
    secrets=(Secret("s", data="x"),),
    limits=Limits(mem_limit=5, cpu_max=1),
    ready=Ready(ok_string="!!OK!!", timeout=5),
    restart=Restart(policy=RestartPolicy.ON_FAILURE, backoff=Backoff(initial=0.5)),
)


def through_json(value: object) -> object:
    return codec.load(type(value), json.loads(json.dumps(codec.dump(value))))


@pytest.mark.parametrize(
    "value",
    [
        FULL,
        ResolvedProcess(name="small", members=()),
        Life(),
        Life(State.STOPPING, Cause(Kind.OOM, "x"), 3, 2, 1.5, 0.0, Next.DEATH, True),
        Exit(signal=9, core=True),
    ],
)
def test_what_is_written_is_read_as_the_same(value: object) -> None:
    assert through_json(value) == value


def test_every_field_of_a_definition_has_a_type_that_can_be_read() -> None:
    """A field somebody adds must not be the one that a crash forgets."""
    plain = ResolvedProcess(name="x", members=())
    full = {field.name: codec.dump(getattr(plain, field.name)) for field in fields(plain)}
    assert codec.load(ResolvedProcess, full) == plain


def test_what_another_version_wrote_is_read_as_far_as_it_goes() -> None:
    data = codec.dump(FULL)
    data["invented later"] = {"x": 1}
    del data["rlimits"]
    found = codec.load(ResolvedProcess, data)
    assert found.rlimits == ()
    assert found.argv == FULL.argv


@dataclass(frozen=True)
class Small:
    number: int
    both: int | str | None = None


@pytest.mark.parametrize(
    "data",
    [None, [], "x", {}, {"number": "1"}, {"number": True}, {"number": 1, "both": 1.5}, {"number": None}],
)
def test_what_is_something_else_is_refused(data: object) -> None:
    with pytest.raises(ValueError, match="this is no Small: "):
        codec.load(Small, data)
