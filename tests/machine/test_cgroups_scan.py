# SPDX-License-Identifier: Apache-2.0
"""Tracking without control groups, as for a user who is not root."""

from __future__ import annotations

import itertools
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.groups import Started, clear, groups_of_kind, wait_until

from maestro_py.process.cgroups import Cgroup, Cgroups
from maestro_py.process.cgroups.signals import signal_all
from maestro_py.spec.model import Limits

WAIT = "import signal; print('up', flush=True); signal.pause()"
UNMARKED_CHILD = """
import os, sys, signal
if os.fork() == 0:
    code = "import os, signal; print(os.getpid(), flush=True); signal.pause()"
    os.execve(sys.executable, [sys.executable, "-c", code], {})
signal.pause()
"""
FAMILY = """
import os, signal
for _ in range(4):
    os.fork()
os.write(1, b'up\\n')
signal.pause()
"""

_count = itertools.count()


@pytest.fixture
def groups(tmp_path: Path) -> Iterator[Cgroups]:
    groups = groups_of_kind("none", f"maestro-test-{os.getpid()}-scan-{next(_count)}", tmp_path)
    yield groups
    clear(groups)


@pytest.fixture
def start() -> Iterator[Callable[..., Started]]:
    started: list[Started] = []

    def start(group: Cgroup, code: str) -> Started:
        started.append(Started(group, code))
        return started[-1]

    yield start
    for process in started:
        process.end()


def test_a_child_without_the_mark_is_found_by_descent(groups: Cgroups, start: Callable[..., Started]) -> None:
    group = groups.create("web", Limits())
    main = start(group, UNMARKED_CHILD)
    child = int(main.line())
    assert group.pids() == sorted([main.pid, child])
    group.kill()
    main.process.wait(5)
    wait_until(lambda: not Path(f"/proc/{child}").exists())


def test_a_whole_family_is_killed_in_one_call(groups: Cgroups, start: Callable[..., Started]) -> None:
    group = groups.create("web", Limits())
    main = start(group, FAMILY)
    for _ in range(16):
        assert main.line() == "up"
    assert len(group.pids()) == 16
    group.kill()
    assert not group.populated()
    assert group.drained()
    assert main.process.wait(5) == -signal.SIGKILL


def test_a_zombie_is_not_alive(groups: Cgroups, start: Callable[..., Started]) -> None:
    group = groups.create("web", Limits())
    main = start(group, WAIT)
    assert main.line() == "up"
    main.process.send_signal(signal.SIGKILL)
    wait_until(lambda: group.pids() == [])  # not waited for yet
    assert main.process.wait(5) == -signal.SIGKILL


def test_another_daemons_process_of_the_same_name_is_not_ours(
    groups: Cgroups, start: Callable[..., Started], tmp_path: Path
) -> None:
    other = groups_of_kind("none", groups.base + "-other", tmp_path)
    theirs = start(other.create("web", Limits()), WAIT)
    assert theirs.line() == "up"
    assert groups.create("web", Limits()).pids() == []
    assert groups.existing() == []
    assert other.existing() == ["web"]
    clear(other)


def test_a_recycled_number_is_not_the_attached_process(
    groups: Cgroups, start: Callable[..., Started]
) -> None:
    mine, other = groups.create("mine", Limits()), groups.create("other", Limits())
    stranger = start(other, WAIT)
    assert stranger.line() == "up"
    mine.attach(stranger.pid)
    assert mine.pids() == [stranger.pid]
    mine._root = (stranger.pid, 1)  # type: ignore[attr-defined]  # the number, started at another time
    assert mine.pids() == []


def test_nobody_is_signalled_who_is_no_member_any_more(
    groups: Cgroups, start: Callable[..., Started]
) -> None:
    stranger = start(groups.create("other", Limits()), WAIT)
    assert stranger.line() == "up"
    listings = iter([[stranger.pid], []])  # listed, then gone, and the number somebody else's
    signal_all(lambda: next(listings, []), signal.SIGKILL)
    assert stranger.process.poll() is None


def test_every_limit_is_said_to_be_missing(groups: Cgroups) -> None:
    assert len(groups.unsupported(Limits(mem_limit=1, cpu_max=1.0))) == 2
    group = groups.create("web", Limits(mem_limit=1))
    assert group.memory().current is None
    assert group.oom_kills() == 0
    assert (group.clone_fd(), group.join_fds(), group.watch_fd()) == (None, (), None)
