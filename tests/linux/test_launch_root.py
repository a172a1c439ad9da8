# SPDX-License-Identifier: Apache-2.0
"""Launching that needs root: other users, other roots, control groups."""

from __future__ import annotations

import errno
import json
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.launching import Result, launched, process, python, readable, run

from maestro_py.errors import MaestroError
from maestro_py.exits import Exit
from maestro_py.process import kernel, launcher, reaper
from maestro_py.spec.resolved import ImageRef

pytestmark = pytest.mark.root

UNIFIED = next(
    (
        line.split()[4]
        for line in Path("/proc/self/mountinfo").read_text().splitlines()
        if " - cgroup2 " in line and line.split()[4].startswith("/sys/fs/cgroup")
    ),
    "",
)
NOBODY = pwd.getpwnam("nobody")


def ids(**fields: object) -> tuple[list[int], list[int], list[int]]:
    """Uids, gids and groups a process finds itself with."""
    out = run(process("/bin/cat", "/proc/self/status", **fields)).out.decode()
    lines = dict(line.split(":", 1) for line in out.splitlines() if ":" in line)
    return (
        [int(number) for number in lines["Uid"].split()],
        [int(number) for number in lines["Gid"].split()],
        sorted(int(number) for number in lines["Groups"].split()),
    )


def test_a_user_by_name_brings_its_group_and_its_groups() -> None:
    uid, gid = NOBODY.pw_uid, NOBODY.pw_gid
    assert ids(user="nobody") == ([uid] * 4, [gid] * 4, sorted(os.getgrouplist("nobody", gid)))


def test_a_user_by_number_without_an_account_is_its_own_group() -> None:
    assert ids(user=54321) == ([54321] * 4, [54321] * 4, [54321])
    assert ids(user="54321") == ([54321] * 4, [54321] * 4, [54321])


def test_group_and_supplementary_groups_by_name_and_number() -> None:
    assert ids(user="nobody", group="daemon", supplementary_groups=(5, "mail", 7777)) == (
        [NOBODY.pw_uid] * 4,
        [1] * 4,
        [5, 8, 7777],
    )
    assert ids(user="nobody", supplementary_groups=())[2] == []


def test_a_group_alone_drops_the_daemons_other_groups() -> None:
    before = os.getgroups()
    os.setgroups([4, 24])
    try:
        assert ids(group=1234) == ([0] * 4, [1234] * 4, [1234])
        assert ids()[2] == [4, 24]
    finally:
        os.setgroups(before)


def test_a_user_who_may_not_enter_the_working_directory_is_told(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    result = run(process("/bin/true", user="nobody", working_dir=str(tmp_path)))
    assert result.failure is not None
    assert (result.failure.step, result.failure.errno) == ("working_dir", errno.EACCES)


def test_a_user_who_may_not_execute_is_told() -> None:
    with tempfile.TemporaryDirectory() as directory:  # pytest's own directories are root's alone
        os.chmod(directory, 0o755)
        tool = shutil.copy("/bin/true", directory)
        os.chmod(tool, 0o700)
        result = run(process(tool, user="nobody"))
    assert result.failure is not None
    assert result.failure.message.endswith(f"(user {NOBODY.pw_uid} may not execute it)")


def test_parent_death_and_no_new_privs_survive_the_change_of_user() -> None:
    code = (
        "import ctypes\n"
        "number = ctypes.c_int()\n"
        "ctypes.CDLL(None).prctl(2, ctypes.byref(number))\n"
        "print(number.value, [l for l in open('/proc/self/status') if 'NoNewPrivs' in l])"
    )
    got = python(code, user="nobody", die_on_parent_death=True).out
    assert got == b"15 ['NoNewPrivs:\\t1\\n']\n"


# a root of its own


@pytest.fixture
def jail(tmp_path: Path) -> Path:
    """A root with busybox-like contents: the device's shell and its libraries, bound by copying."""
    root = tmp_path / "jail"
    tools = [shutil.which(tool) for tool in ("sh", "cat", "ls", "stat", "mount")]
    wanted = {Path(tool).resolve() for tool in tools if tool}
    for tool in list(wanted):
        listing = subprocess.run(["ldd", tool], capture_output=True, text=True).stdout
        wanted |= {Path(word) for word in listing.split() if word.startswith("/")}
    for file in wanted:
        target = root / str(file).lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file.resolve(), target)
    (root / "bin").mkdir(exist_ok=True)
    for tool in tools:
        if tool:
            link = root / "bin" / Path(tool).name
            if not link.exists():
                link.symlink_to(Path(tool).resolve())
    (root / "inside").write_text("from the inside\n")
    return root


def shell(root: Path, script: str, **fields: object) -> Result:
    result = run(process("/bin/sh", "-c", script, root=str(root), env=(("PATH", "/bin"),), **fields))
    assert result.failure is None, result.failure
    return result


def test_nothing_outside_the_root_can_be_read(jail: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    secret = f"{tmp_path}/secret"
    script = f"cat /inside; cat {secret} ../../../../{secret} /proc/self/cwd/../..{secret}; pwd"
    out = shell(jail, script).out
    assert out.startswith(b"from the inside\n")
    assert out.count(b"No such file") == 3
    assert out.endswith(b"\n/\n")


def test_the_old_root_is_not_among_the_mounts(jail: Path) -> None:
    points = [line.split()[4] for line in shell(jail, "cat /proc/self/mountinfo").out.decode().splitlines()]
    assert sorted(points) == ["/", "/dev", "/dev/shm", "/proc", "/tmp"]


def test_a_small_dev_and_a_tmp_are_there(jail: Path) -> None:
    script = (
        "echo gone >/dev/null; test -e /dev/stderr && echo there; echo t >/tmp/t; cat /tmp/t;"
        "stat -c '%n %a %t:%T' /dev/null /dev/urandom /tmp"
    )
    out = shell(jail, script, user="nobody").out.decode().splitlines()
    assert out == ["there", "t", "/dev/null 666 1:3", "/dev/urandom 666 1:9", "/tmp 1777 0:0"]
    assert shell(jail, "ls /tmp").out == b""  # in memory: the next start has a new one


def test_the_tmp_that_the_root_brings_is_left_alone(jail: Path) -> None:
    (jail / "tmp").mkdir(mode=0o755)
    shell(jail, "echo kept > /tmp/file")
    assert (jail / "tmp" / "file").read_text() == "kept\n"


def test_config_is_seen_read_only_and_images_by_their_job(jail: Path, tmp_path: Path) -> None:
    config, image = tmp_path / "configs", tmp_path / "image"
    config.mkdir()
    image.mkdir()
    (config / "default").write_text("setting\n")
    (image / "data").write_text("payload\n")
    out = shell(
        jail,
        "cat /run/maestro/config/default /run/maestro/images/a%2Fb/data; echo x > /run/maestro/config/new",
        config_dir=str(config),
        config_dir_inside="/run/maestro/config",
        images=(ImageRef("a/b", "1", "", str(image)), ImageRef("root", "1", "", str(jail))),
    ).out
    assert out.startswith(b"setting\npayload\n")
    assert b"Read-only file system" in out
    assert os.listdir(config) == ["default"]


@pytest.mark.parametrize("up", ["", "../" * 20])
def test_a_link_in_an_image_leads_to_nothing_outside(jail: Path, tmp_path: Path, up: str) -> None:
    """Mount points are made inside: a hostile /run must not make directories on the device."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (jail / "run").symlink_to(f"{up}{outside}")
    result = run(
        process("/bin/sh", root=str(jail), config_dir=str(outside), config_dir_inside="/run/maestro/config")
    )
    assert result.failure is None
    assert os.listdir(outside) == []


def test_mounts_of_one_process_are_not_seen_by_the_device(jail: Path) -> None:
    before = Path("/proc/self/mountinfo").read_text()
    shell(jail, "cat /inside")
    assert Path("/proc/self/mountinfo").read_text() == before


def test_a_missing_root_is_named(tmp_path: Path) -> None:
    result = run(process("/bin/true", root=str(tmp_path / "none")))
    assert result.failure is not None
    assert (result.failure.step, result.failure.errno) == ("root", errno.ENOENT)
    assert result.failure.path == str(tmp_path / "none")
    assert result.failure.message == f"cannot change the root to {tmp_path}/none: No such file or directory"


def test_a_root_that_is_a_file_is_named(jail: Path) -> None:
    result = run(process("/bin/true", root=str(jail / "inside")))
    assert result.failure is not None
    assert (result.failure.step, result.failure.errno) == ("root", errno.ENOTDIR)


def test_a_program_is_looked_up_inside_the_root(jail: Path) -> None:
    result = run(process("/usr/bin/env", root=str(jail)))
    assert result.failure is not None
    assert (result.failure.step, result.failure.errno) == ("exec", errno.ENOENT)


def test_without_namespaces_chroot_is_used_and_the_log_says_so(
    jail: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No kernel here refuses unshare to root, so the wrapper is made to."""

    def refuse(flags: int) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(kernel, "unshare", refuse)
    out = shell(jail, "cat /inside; ls /").out.decode()
    assert out.startswith(
        "maestro: no mount namespace (Operation not permitted), plain chroot used\nfrom the inside\n"
    )
    assert "proc" not in out.split()
    result = run(
        process("/bin/sh", root=str(jail), config_dir="/etc", config_dir_inside="/run/maestro/config")
    )
    assert result.failure is not None
    assert "so /run/maestro/config cannot be shown inside" in result.failure.message


# control groups


@pytest.fixture
def group() -> Iterator[int]:
    """The directory descriptor of a cgroup v2 of our own."""
    if not UNIFIED:
        pytest.skip("no cgroup v2 tree is mounted")
    path = f"{UNIFIED}/maestro-test-launch-{os.getpid()}"
    os.mkdir(path)
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    yield fd
    os.close(fd)
    os.rmdir(path)


def launch_into(group: int) -> str:
    """The v2 line of /proc/self/cgroup of a process that was launched into the group."""
    null, out = os.open("/dev/null", os.O_RDWR), os.memfd_create("out")
    spec = launcher.helper_spec(["/bin/cat", "/proc/self/cgroup"], {}, null, out, out)
    try:
        with launched(spec, cgroup_fd=group) as launch:
            readable(launch.pidfd)
            assert launcher.read_report(launch.report_fd) is None
            assert reaper.wait(launch.pid, launch.pidfd) == Exit(code=0)
            assert not os.get_inheritable(launch.pidfd)
        lines = os.pread(out, 1 << 16, 0).decode().splitlines()
        return next(line for line in lines if line.startswith("0::"))
    finally:
        os.close(null)
        os.close(out)


def test_a_process_is_born_in_its_group(group: int) -> None:
    assert launch_into(group).endswith(f"/maestro-test-launch-{os.getpid()}")
    assert not launcher._clone_refused


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.EINVAL, errno.EPERM])
def test_where_clone3_is_refused_it_joins_after_a_fork(
    group: int, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    calls = []

    def refuse(fd: int) -> tuple[int, int]:
        calls.append(fd)
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(launcher, "_clone_refused", False)
    monkeypatch.setattr(kernel, "clone_into_cgroup", refuse)
    for _ in range(2):
        assert launch_into(group).endswith(f"/maestro-test-launch-{os.getpid()}")
    assert len(calls) == 1  # remembered


def test_a_group_that_cannot_be_entered_is_no_reason_to_stop_using_clone3(tmp_path: Path) -> None:
    fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    null = os.open("/dev/null", os.O_RDWR)
    try:
        spec = launcher.helper_spec(["/bin/true"], {}, null, null, null)
        with pytest.raises(MaestroError, match="cannot start /bin/true: cannot enter its control group"):
            launcher.start(spec, cgroup_fd=fd)
    finally:
        os.close(fd)
        os.close(null)
    assert not launcher._clone_refused


def test_two_thousand_launches_by_clone3_in_a_row(group: int) -> None:
    null = os.open("/dev/null", os.O_RDWR)
    before = len(os.listdir("/proc/self/fd"))
    spec = launcher.prepare(
        process("/bin/true", user="nobody"), daemon_env={}, stdin_fd=null, stdout_fd=null, stderr_fd=null
    )
    try:
        alive: list[launcher.Launch] = []
        for number in range(2000):
            alive.append(launcher.start(spec, cgroup_fd=group))
            if len(alive) == 20 or number == 1999:
                for launch in alive:
                    readable(launch.pidfd)
                    assert launcher.read_report(launch.report_fd) is None
                    assert reaper.wait(launch.pid, launch.pidfd) == Exit(code=0)
                    os.close(launch.pidfd)
                    os.close(launch.report_fd)
                alive.clear()
        assert len(os.listdir("/proc/self/fd")) == before
    finally:
        os.close(null)
    assert not launcher._clone_refused


def test_the_process_enters_v1_groups_through_open_files() -> None:
    base = Path("/sys/fs/cgroup/pids")
    if not (base / "cgroup.procs").exists():
        pytest.skip("no cgroup v1 pids controller is mounted")
    path = base / f"maestro-test-launch-{os.getpid()}"
    path.mkdir()
    fd = os.open(path / "cgroup.procs", os.O_WRONLY)
    try:
        out = run(process("/bin/cat", "/proc/self/cgroup", user="nobody"), cgroup_fds=(fd,)).out.decode()
        assert f":pids:/{path.name}\n" in out
    finally:
        os.close(fd)
        path.rmdir()


def test_what_was_reported_is_json_safe() -> None:
    result = run(process("/nowhere/\udcff"))
    assert result.failure is not None
    json.dumps(result.failure.message)
