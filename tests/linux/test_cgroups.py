# SPDX-License-Identifier: Apache-2.0
"""Real processes in real groups, on every backend this machine can show."""

from __future__ import annotations

import itertools
import os
import select
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.groups import Started, clear, groups_of_kind, left_overs, wait_until

from maestro_py.errors import Conflict
from maestro_py.process import kernel
from maestro_py.process.cgroups import Cgroup, Cgroups
from maestro_py.process.cgroups.v2 import V2Cgroup
from maestro_py.spec.model import Limits

pytestmark = pytest.mark.root

WAIT = "import signal; print('up', flush=True); signal.pause()"
ECHO = "import sys; print('up', flush=True)\nfor line in sys.stdin: print(line.strip(), flush=True)"
DAEMONIZE = """
import os, signal
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        print(os.getpid(), flush=True)
        signal.pause()
    os._exit(0)
signal.pause()
"""
BOMB = """
import os
print('up', flush=True)
while True:
    try:
        os.fork()
    except OSError:
        pass
"""
HOLD = """
import signal, sys
block = bytearray(b'x' * int(sys.argv[1]))
print('up', flush=True)
signal.pause()
"""

_count = itertools.count()


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[[str], Cgroups]]:
    base = f"maestro-test-{os.getpid()}-{next(_count)}"
    made: list[Cgroups] = []

    def make(kind: str) -> Cgroups:
        groups = groups_of_kind(kind, base, tmp_path)
        if groups.kind != kind:
            pytest.skip(f"this machine has {groups.kind}, not {kind}")
        made.append(groups)
        return groups

    yield make
    for groups in made:
        clear(groups)
    assert list(left_overs(base)) == []


@pytest.fixture
def start() -> Iterator[Callable[..., Started]]:
    started: list[Started] = []

    def start(group: Cgroup, code: str, *arguments: str) -> Started:
        started.append(Started(group, code, *arguments))
        return started[-1]

    yield start
    for process in started:
        process.end()


every_kind = pytest.mark.parametrize("kind", ["v2", "hybrid", "v1", "none"])
grouped = pytest.mark.parametrize("kind", ["v2", "hybrid", "v1"])
limiting = pytest.mark.parametrize("kind", ["hybrid", "v1"])


def limits_for(kind: str) -> Limits:
    """Return what puts a process into a group of its own, where the kind needs a reason for that."""
    return Limits(pids_max=100) if kind == "v1" else Limits()


@every_kind
def test_a_process_is_seen_killed_and_gone(
    kind: str, make: Callable[[str], Cgroups], start: Callable[..., Started]
) -> None:
    group = make(kind).create("web", limits_for(kind))
    assert not group.populated()
    process = start(group, WAIT)
    assert process.line() == "up"
    assert group.pids() == [process.pid]
    assert not group.remove()
    group.kill()
    process.process.wait(5)
    assert process.process.returncode == -signal.SIGKILL
    wait_until(group.drained)
    assert group.remove()
    assert group.remove()  # what is gone stays gone
    group.close()


@every_kind
def test_a_daemonised_descendant_is_killed(
    kind: str, make: Callable[[str], Cgroups], start: Callable[..., Started]
) -> None:
    group = make(kind).create("web", limits_for(kind))
    main = start(group, DAEMONIZE)
    descendant = int(main.line())
    pidfd = os.pidfd_open(descendant)
    main.process.kill()  # first the main process, so that nothing but the group leads to the other one
    main.process.wait(5)
    assert group.pids() == [descendant]
    group.kill()
    assert select.select([pidfd], [], [], 5)[0]
    os.close(pidfd)
    wait_until(lambda: not group.populated())
    group.close()


@limiting
def test_a_fork_bomb_stays_below_its_limit_and_is_gone_within_a_second(
    kind: str, make: Callable[[str], Cgroups], start: Callable[..., Started]
) -> None:
    group = make(kind).create("bomb", Limits(pids_max=40))
    process = start(group, BOMB)
    assert process.line() == "up"
    wait_until(lambda: len(group.pids()) == 40)
    group.kill()
    process.process.wait(5)
    assert wait_until(lambda: not group.populated()) < 1
    assert group.remove()
    group.close()


def test_without_cgroup_kill_a_fork_bomb_is_killed_frozen(
    make: Callable[[str], Cgroups], start: Callable[..., Started]
) -> None:
    group = make("hybrid").create("bomb", Limits(pids_max=40))
    assert isinstance(group, V2Cgroup)
    process = start(group, BOMB)
    assert process.line() == "up"
    wait_until(lambda: len(group.pids()) == 40)
    group.kill_frozen()
    process.process.wait(5)
    assert wait_until(lambda: not group.populated()) < 1
    group.close()


@every_kind
def test_a_frozen_process_does_nothing_until_thawed(
    kind: str, make: Callable[[str], Cgroups], start: Callable[..., Started]
) -> None:
    group = make(kind).create("web", limits_for(kind))
    process = start(group, ECHO)
    assert process.line() == "up"
    group.freeze(True)
    process.say("hello")
    assert process.line(0.1) == ""
    group.freeze(False)
    assert process.line() == "hello"
    group.close()


@every_kind
def test_a_frozen_process_is_killed_and_its_group_used_again(
    kind: str, make: Callable[[str], Cgroups], start: Callable[..., Started]
) -> None:
    groups = make(kind)
    group = groups.create("web", limits_for(kind))
    process = start(group, WAIT)
    assert process.line() == "up"
    group.freeze(True)
    group.kill()
    assert process.process.wait(5) == -signal.SIGKILL
    wait_until(lambda: not group.populated())
    group.close()
    again = groups.create("web", limits_for(kind))
    assert start(again, WAIT).line() == "up"
    again.close()


@limiting
def test_a_kill_for_memory_is_counted(
    kind: str, make: Callable[[str], Cgroups], start: Callable[..., Started]
) -> None:
    group = make(kind).create("big", Limits(mem_limit=32 << 20, swap_limit=0))
    assert group.oom_kills() == 0
    process = start(group, HOLD, str(100 << 20))
    assert process.process.wait(20) == -signal.SIGKILL
    assert group.oom_kills() == 1
    memory = group.memory()
    assert memory.limit == 32 << 20
    assert memory.peak is not None
    assert 16 << 20 < memory.peak <= 32 << 20
    group.close()


@limiting
def test_a_limit_below_what_is_in_use_is_refused(
    kind: str, make: Callable[[str], Cgroups], start: Callable[..., Started]
) -> None:
    group = make(kind).create("big", Limits(mem_limit=128 << 20, swap_limit=0))
    process = start(group, HOLD, str(48 << 20))
    assert process.line() == "up"
    with pytest.raises(Conflict, match=r"cannot limit big: mem_limit 16\.0M: \d\d\.\dM are in use"):
        group.set_limits(Limits(mem_limit=16 << 20, swap_limit=0))
    assert process.process.poll() is None
    assert group.memory().limit == 128 << 20
    group.set_limits(Limits())
    assert group.memory().limit is None
    group.close()


@limiting
def test_a_limit_set_later_moves_the_running_process(
    kind: str, make: Callable[[str], Cgroups], start: Callable[..., Started]
) -> None:
    group = make(kind).create("web", Limits())
    assert group.join_fds() == ()  # nothing to pay for
    process = start(group, WAIT)
    assert process.line() == "up"
    assert group.memory().current is None
    group.set_limits(Limits(mem_limit=64 << 20, pids_max=10))
    assert group.memory().limit == 64 << 20
    groups = Path(f"/proc/{process.pid}/cgroup").read_text()
    assert groups.count("/web.job") == 3  # memory, pids and the one that tracks
    assert group.pids() == [process.pid]
    group.close()


@limiting
def test_memory_and_swap_limits_go_up_and_down_together(kind: str, make: Callable[[str], Cgroups]) -> None:
    groups = make(kind)
    if groups.unsupported(Limits(mem_limit=1, swap_limit=1)):
        pytest.skip("no swap accounting")
    group = groups.create("web", Limits(mem_limit=32 << 20, swap_limit=8 << 20))
    for memory, swap in ((64, 0), (16, 64), (128, 128), (8, 0), (None, None), (32, 32)):
        as_bytes = [None if size is None else size << 20 for size in (memory, swap)]
        group.set_limits(Limits(mem_limit=as_bytes[0], swap_limit=as_bytes[1]))
        assert group.memory().limit == as_bytes[0]
    directory = Path(f"/sys/fs/cgroup/memory/{groups.base}/web.job")
    assert int((directory / "memory.memsw.limit_in_bytes").read_text()) == 64 << 20
    group.close()


@limiting
def test_every_limit_is_in_its_v1_file(kind: str, make: Callable[[str], Cgroups]) -> None:
    limits = Limits(mem_limit=10485100, pids_max=7, cpu_weight=50, cpu_max=0.5, io_weight=200)
    groups = make(kind)
    group = groups.create("web", limits)
    expected = {
        "memory/memory.limit_in_bytes": str(10485100 // 4096 * 4096),
        "pids/pids.max": "7",
        "cpu/cpu.shares": "512",
        "cpu/cpu.cfs_quota_us": "50000",
    }
    for path, text in expected.items():
        controller, file = path.split("/")
        found = Path(f"/sys/fs/cgroup/{controller}/{groups.base}/web.job/{file}")
        assert found.read_text().strip() == text
    bfq = Path(f"/sys/fs/cgroup/blkio/{groups.base}/web.job/blkio.bfq.weight")
    assert not bfq.exists() or bfq.read_text().strip() == "109"
    assert len(group.join_fds()) == (4 if kind == "hybrid" else 5)
    group.close()
    again = groups.create("web", Limits(pids_max=8))  # what is no longer limited is no longer joined
    assert len(again.join_fds()) == (1 if kind == "hybrid" else 2)
    again.close()


@grouped
def test_two_hundred_groups_leave_nothing_behind(kind: str, make: Callable[[str], Cgroups]) -> None:
    groups = make(kind)
    limits = Limits() if kind == "v2" else Limits(mem_limit=64 << 20, pids_max=10)
    groups.create("first", limits).close()
    fds = len(os.listdir("/proc/self/fd"))
    for number in range(200):
        group = groups.create(f"job {number}", limits)
        group.join_fds()
        group.watch_fd()
        assert group.remove()
        group.close()
    assert groups.existing() == ["first"]
    assert len(os.listdir("/proc/self/fd")) == fds


@every_kind
def test_what_an_earlier_daemon_left_is_found_and_adopted(
    kind: str, make: Callable[[str], Cgroups], start: Callable[..., Started]
) -> None:
    before = make(kind).create("ünder way/1", limits_for(kind))
    process = start(before, WAIT)
    assert process.line() == "up"
    before.close()
    after = make(kind)
    assert after.existing() == ["ünder way/1"]
    assert after.open("other") is None
    adopted = after.open("ünder way/1")
    assert adopted
    assert adopted.pids() == [process.pid]
    if kind != "none":
        with pytest.raises(Conflict, match=f"processes are still in it: {process.pid}"):
            after.create("ünder way/1", limits_for(kind))
    adopted.kill()
    process.process.wait(5)
    wait_until(adopted.remove)
    adopted.close()
    assert after.existing() == []


@grouped
def test_names_of_the_kernels_own_files_are_names_like_any_other(
    kind: str, make: Callable[[str], Cgroups]
) -> None:
    groups = make(kind)
    names = sorted(["tasks", "cgroup.procs", "memory.max", "pids.max"])
    for name in names:
        groups.create(name, limits_for(kind)).close()
    assert groups.existing() == names


@pytest.mark.parametrize("kind", ["v2", "hybrid"])
@pytest.mark.parametrize("reopened", [False, True])
def test_a_process_cloned_into_a_group_that_was_killed_lives(
    kind: str, reopened: bool, make: Callable[[str], Cgroups]
) -> None:
    groups = make(kind)
    limits = Limits(pids_max=9) if kind == "hybrid" else Limits()
    group = groups.create("web", limits)
    kernel.load()
    for _ in range(3):
        if reopened:
            group.close()
            found = groups.open("web")
            assert found
            group = found
        joining = group.join_fds()
        directory = group.clone_fd()
        assert directory is not None
        mine, its = os.pipe()
        pid, pidfd = kernel.clone_into_cgroup(directory)
        if pid == 0:
            try:
                for fd in joining:
                    os.write(fd, b"0")
                os.write(its, b"x")
                signal.pause()
            finally:
                os._exit(1)
        os.close(its)
        assert os.read(mine, 1) == b"x"  # nothing at all when it was killed at birth
        assert group.pids() == [pid]
        group.kill()
        assert os.waitpid(pid, 0) == (pid, signal.SIGKILL)
        wait_until(group.drained)
        os.close(mine)
        os.close(pidfd)
    group.close()


@pytest.mark.parametrize("kind", ["v2", "hybrid"])
def test_the_watched_fd_tells_of_the_last_processs_end(
    kind: str, make: Callable[[str], Cgroups], start: Callable[..., Started]
) -> None:
    group = make(kind).create("web", Limits())
    fd = group.watch_fd()
    assert fd is not None
    poll = select.poll()
    poll.register(fd, select.POLLPRI)
    assert poll.poll(0) == []
    process = start(group, WAIT)
    assert process.line() == "up"
    assert poll.poll(5000)
    assert not group.drained()
    assert poll.poll(0) == []  # looking has armed it again
    group.kill()
    process.process.wait(5)
    while not group.drained():
        assert poll.poll(5000)
    group.close()


def test_a_groups_own_groups_count_and_go_with_it(
    make: Callable[[str], Cgroups], start: Callable[..., Started]
) -> None:
    groups = make("v2")
    group = groups.create("web", Limits())
    (directory,) = left_overs(f"{groups.base}/web.job")
    (directory / "inner").mkdir()
    process = start(group, WAIT)
    assert process.line() == "up"
    (directory / "inner/cgroup.procs").write_text(str(process.pid))
    assert group.pids() == [process.pid]
    assert group.populated()
    group.kill()
    process.process.wait(5)
    wait_until(group.remove)
    group.close()
    assert groups.existing() == []


def test_a_half_made_group_can_be_opened_and_removed(make: Callable[[str], Cgroups]) -> None:
    groups = make("hybrid")
    group = groups.create("web", Limits(pids_max=5))
    next(Path("/sys/fs/cgroup/unified").glob(f"{groups.base}/web.job")).rmdir()
    group.close()
    half = groups.open("web")
    assert half
    assert half.remove()
    half.close()
    assert groups.existing() == []


def test_a_stranger_with_the_same_program_is_left_alone(
    make: Callable[[str], Cgroups], start: Callable[..., Started]
) -> None:
    groups = make("none")
    mine, other = groups.create("mine", Limits()), groups.create("mine too", Limits())
    stranger, victim = start(other, WAIT), start(mine, WAIT)
    assert (stranger.line(), victim.line()) == ("up", "up")
    mine.kill()
    victim.process.wait(5)
    assert other.pids() == [stranger.pid]
    assert stranger.process.poll() is None
