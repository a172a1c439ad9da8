# SPDX-License-Identifier: Apache-2.0
"""A job is a stranger's program. Each attack is first seen to succeed without what is to stop it."""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from support.daemon import Daemon
from support.jail import PYTHON, attack, make_jail
from support.launching import launched, process, readable

from maestro_py.process import launcher, reaper
from maestro_py.spec.model import Mount

pytestmark = pytest.mark.root

NONE: dict[str, Any] = {"capabilities": ()}
GOT = "got it"
DENIED = "Operation not permitted"
REFUSED = "Permission denied"
ABSENT = "No such file or directory"
UNSEEN = "No such process"


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory every user may pass; pytest's own are root's alone."""
    with tempfile.TemporaryDirectory(prefix="maestro-hostile-") as path:
        os.chmod(path, 0o755)
        yield Path(path)


@pytest.fixture
def jail(place: Path) -> Path:
    return make_jail(place / "jail")


@pytest.fixture
def secret(place: Path) -> str:
    """A file outside the jail that anybody could read."""
    path = place / "secret"
    path.write_text(GOT)
    return str(path)


@contextmanager
def victim(**fields: Any) -> Iterator[int]:
    """Another job; its pid."""
    null = os.open("/dev/null", os.O_RDWR)
    spec = launcher.prepare(
        process("/bin/sleep", "1000", **fields), daemon_env={}, stdin_fd=null, stdout_fd=null, stderr_fd=null
    )
    try:
        with launched(spec) as launch:
            readable(launch.report_fd)
            assert launcher.read_report(launch.report_fd) is None
            yield launch.pid
    finally:
        os.close(null)


READ = "print(open(sys.argv[1]).read())"


def test_a_file_outside_by_dots(jail: Path, secret: str) -> None:
    dots = "/" + "../" * 20 + secret
    assert attack(READ, dots) == GOT
    assert attack(READ, dots, jail=jail) == ABSENT
    assert attack(READ, f"/proc/self/root{secret}", jail=jail) == ABSENT
    assert attack(READ, f"/proc/self/cwd/..{secret}", jail=jail) == ABSENT


def test_a_file_outside_by_the_root_of_process_one(jail: Path, secret: str) -> None:
    path = f"/proc/1/root{secret}"
    # user 0 with every capability is not held by any root; some machines keep process 1 from everybody
    assert attack(READ, path, jail=jail) == attack(READ, path)
    assert attack(READ, path, jail=jail, **NONE) == REFUSED
    assert attack(READ, path, jail=jail, user="nobody") == REFUSED
    assert attack(READ, path, jail=jail, pids="private") == ABSENT


def test_a_file_outside_by_the_root_of_the_daemon(jail: Path, secret: str) -> None:
    path = f"/proc/{os.getpid()}/root{secret}"
    assert attack(READ, path, jail=jail) == GOT
    for fields in (NONE, {"user": "nobody"}):
        assert attack(READ, path, jail=jail, **fields) == REFUSED
    assert attack(READ, path, jail=jail, pids="private") == ABSENT


def test_a_file_outside_by_a_leaked_descriptor(jail: Path, secret: str) -> None:
    code = "os.fchdir(int(sys.argv[1]))\nprint(open('.' + sys.argv[2]).read())"
    leaked = os.open("/", os.O_RDONLY | os.O_DIRECTORY)
    os.set_inheritable(leaked, True)
    try:
        lax = f"import os, sys\nos.chroot({str(jail)!r})\n{code}"
        plain = subprocess.run(
            [sys.executable, "-c", lax, str(leaked), secret],
            pass_fds=[leaked],
            capture_output=True,
            text=True,
        )
        assert plain.stdout.strip() == GOT
        assert attack(code, str(leaked), secret, jail=jail) == "Bad file descriptor"
    finally:
        os.close(leaked)


def test_a_file_outside_by_a_second_chroot(jail: Path, secret: str) -> None:
    code = (
        "os.makedirs('/hole', exist_ok=True)\n"
        "os.chroot('/hole')\n"
        "for _ in range(20): os.chdir('..')\n"
        "os.chroot('.')\n"
        "print(open(sys.argv[1]).read())"
    )
    lax = f"import os, sys\nos.chroot({str(jail)!r})\nos.chdir('/')\n{code}"
    plain = subprocess.run([sys.executable, "-c", lax, secret], capture_output=True, text=True)
    assert plain.stdout.strip() == GOT
    assert attack(code, secret, jail=jail) == ABSENT
    assert attack(code, secret, jail=jail, **NONE) == DENIED


def test_writing_its_image(jail: Path) -> None:
    write = "open('/inside', 'w').write('changed')\nprint('got it')"
    remount = "check(libc.mount(b'none', b'/', None, ctypes.c_ulong(32 | 4096), None))\n" + write
    assert attack(write, jail=jail) == GOT
    assert attack(write, jail=jail, user="nobody") == REFUSED
    assert attack(write, jail=jail, read_only_root=True) == "Read-only file system"
    assert attack(remount, jail=jail, read_only_root=True) == GOT  # it may with every capability
    assert attack(remount, jail=jail, read_only_root=True, **NONE) == DENIED
    assert attack(write, jail=jail, read_only_root=True, **NONE) == "Read-only file system"


def test_writing_what_was_mounted_read_only(jail: Path, place: Path) -> None:
    shown = place / "shown"
    shown.mkdir(mode=0o777)
    shown.chmod(0o777)
    write = "open('/shown/file', 'w').write('x')\nprint('got it')"
    rw = Mount(str(shown), "/shown", ("rw",))
    assert attack(write, jail=jail, mounts=(rw,)) == GOT
    assert attack(write, jail=jail, mounts=(Mount(str(shown), "/shown"),)) == "Read-only file system"


def test_changing_the_machine_through_proc(jail: Path) -> None:
    """User 0 owns /proc/sys: without any capability it may write there, unless it is read-only."""
    code = "os.close(os.open('/proc/sys/kernel/core_pattern', os.O_WRONLY))\nprint('got it')"
    assert attack(code, **NONE) == GOT
    assert attack(code, jail=jail, **NONE) == "Read-only file system"
    trigger = "os.close(os.open('/proc/sysrq-trigger', os.O_WRONLY))\nprint('got it')"
    if os.path.exists("/proc/sysrq-trigger"):
        assert attack(trigger, **NONE) == GOT
        assert attack(trigger, jail=jail, **NONE) == "Read-only file system"


RAISE = (
    "import struct\n"
    "header = ctypes.create_string_buffer(struct.pack('=Ii', 0x20080522, 0), 8)\n"
    "full = ctypes.create_string_buffer(struct.pack('=6I', 1 << 21, 1 << 21, 0, 0, 0, 0), 24)\n"
    "check(libc.capset(header, full))\n"
    "print('got it')"
)
EXEC = (
    "text = os.popen('cat /proc/self/status').read()\n"
    "mask = int(text.partition('CapEff:')[2].split()[0], 16)\n"
    "print('got it' if mask >> 21 & 1 else hex(mask))"
)


def test_regaining_a_capability(jail: Path) -> None:
    """SYS_ADMIN by capset, and by executing a program as user 0."""
    for code in (RAISE, EXEC):
        assert attack(code) == GOT
        assert attack(code, jail=jail) == GOT
    for fields in (NONE, {"capabilities": ("chown",)}, {"user": "nobody", "capabilities": ("chown",)}):
        assert attack(RAISE, **fields) == DENIED
        assert attack(EXEC, **fields) == ("0x0" if fields is NONE else "0x1")
    assert attack(RAISE, user="nobody") == DENIED


def test_a_set_uid_program(place: Path) -> None:
    tool = place / "cat"
    shutil.copy("/bin/cat", tool)
    tool.chmod(0o4755)
    hidden = place / "hidden"
    hidden.write_text(GOT)
    hidden.chmod(0o600)
    code = f"print(os.popen('{tool} {hidden} 2>&1').read().strip().rpartition(': ')[2])"
    assert attack(code, user="nobody", no_new_privs=False) == GOT
    assert attack(code, user="nobody") == REFUSED
    # user 0 it becomes, but that means nothing without capabilities: a file of somebody else stays closed
    os.chown(hidden, 12345, 12345)
    assert attack(code, user="nobody", no_new_privs=False) == GOT
    assert attack(code, user="nobody", no_new_privs=False, **NONE) == REFUSED


TRACE = "check(libc.ptrace(16, int(sys.argv[1]), None, None))\nprint('got it')"
PEEK = "os.close(os.open(f'/proc/{sys.argv[1]}/mem', os.O_RDONLY))\nprint('got it')"


def test_tracing_another_job(jail: Path) -> None:
    with victim(user="nobody") as pid:
        assert attack(TRACE, str(pid), user="nobody") == GOT
        assert attack(TRACE, str(pid), user=54321) == DENIED
        assert attack(TRACE, str(pid), user="nobody", pids="private") in (UNSEEN, DENIED)
        assert attack(TRACE, str(pid), user="nobody", jail=jail, pids="private") in (UNSEEN, DENIED)


def test_the_daemons_memory(jail: Path) -> None:
    marker = ctypes.create_string_buffer(b"got it, the daemon's secret")
    code = (
        "fd = os.open(f'/proc/{sys.argv[1]}/mem', os.O_RDONLY)\n"
        "print(os.pread(fd, 6, int(sys.argv[2])).decode())"
    )
    args = (str(os.getpid()), str(ctypes.addressof(marker)))
    assert attack(code, *args) == GOT
    assert attack(code, *args, jail=jail) == GOT
    for fields in (NONE, {"user": "nobody"}, {"user": "nobody", "capabilities": ("net_bind_service",)}):
        assert attack(code, *args, jail=jail, **fields) == REFUSED
        assert attack(code, *args, **fields) == REFUSED
    assert attack(code, *args, jail=jail, pids="private") == ABSENT
    assert attack(TRACE, args[0], **NONE) == DENIED


def test_signalling_another_job(jail: Path) -> None:
    code = "os.kill(int(sys.argv[1]), 0)\nprint('got it')"
    with victim(user="nobody") as pid:
        assert attack(code, str(pid), user="nobody") == GOT
        assert attack(code, str(pid), user=54321) == DENIED
        assert attack(code, str(pid), user="nobody", jail=jail) == GOT  # the user is the same
        assert attack(code, str(pid), user="nobody", jail=jail, pids="private") == UNSEEN
        assert attack(code, str(pid), user="nobody", pids="private") == UNSEEN


def test_seeing_the_processes_of_others(jail: Path) -> None:
    code = "print(sorted(int(name) for name in os.listdir('/proc') if name.isdigit()))"
    with victim(user="nobody") as pid:
        assert str(pid) in attack(code)
        assert str(pid) in attack(code, jail=jail)
        for fields in ({"jail": jail}, {}, {"jail": jail, "user": "nobody"}, {"user": "nobody"}):
            assert attack(code, pids="private", **fields) == "[1]"


def test_semaphores_and_names_of_others_are_out_of_reach(jail: Path) -> None:
    """System V objects outlive processes and have no path; the host's name is for all."""
    key = 0x6D610000 | os.getpid() & 0xFFFF
    libc = ctypes.CDLL(None, use_errno=True)
    made = libc.shmget(key, 4096, 0o1666)
    assert made >= 0
    try:
        code = "check(libc.shmget(int(sys.argv[1]), 4096, 0))\nprint('got it')"
        assert attack(code, str(key)) == GOT
        assert attack(code, str(key), jail=jail) == ABSENT
        assert attack(code, str(key), pids="private") == ABSENT
    finally:
        assert libc.shmctl(made, 0, None) == 0
    name = os.uname().nodename
    attack("check(libc.sethostname(b'mine', 4))", jail=jail)
    assert os.uname().nodename == name


LEAVE_ONE = (
    "reading, writing = os.pipe()\n"
    "if os.fork() == 0:\n"
    "    os.setsid()\n"
    "    if os.fork() == 0:\n"
    "        signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
    "        os.execv('/bin/sleep', ['sleep', sys.argv[1]])\n"
    "    os._exit(0)\n"
    "os.wait()\n"
    "os.close(writing)\n"
    "os.read(reading, 1)\n"  # the other end goes with exec
    "print('left')"
)


def _sleeping(seconds: str) -> list[int]:
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                words = Path(f"/proc/{name}/cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if words[:2] == [b"sleep", seconds.encode()]:
                found.append(int(name))
    return found


def test_a_process_that_leaves_its_session_outlives_the_main_one_only_without_its_namespace() -> None:
    mark = f"1{os.getpid()}.25"
    try:
        assert attack(LEAVE_ONE, mark) == "left"
        assert len(_sleeping(mark)) == 1
    finally:
        for pid in _sleeping(mark):
            os.kill(pid, signal.SIGKILL)
    mark = f"2{os.getpid()}.25"
    assert attack(LEAVE_ONE, mark, pids="private") == "left"
    assert _sleeping(mark) == []


def test_nothing_outlives_a_stop(tmp_path: Path) -> None:
    """The same through the daemon: the control group ends what the stop signal does not."""
    mark = f"3{os.getpid()}.25"
    hold = LEAVE_ONE + "\nprint('!!OK!!', flush=True)\nsignal.pause()"
    job = {
        "job": "leaver",
        "exec_cmd": PYTHON,
        "exec_args": ["-c", "import os, signal, sys\n" + hold, mark],
        "wait_for_ok": True,
        "stop_timeout": 0.5,
    }
    daemon = Daemon(tmp_path / "d").start()
    try:
        daemon.run({"jobs": [job]})
        assert len(_sleeping(mark)) == 1
        daemon.do("leaver", "stop")
        assert _sleeping(mark) == []
    finally:
        daemon.close()


BOMB = (
    "import os, signal, sys\n"
    "for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):\n"
    "    signal.signal(number, signal.SIG_IGN)\n"
    "signal.signal(signal.SIGCHLD, signal.SIG_IGN)\n"
    "said = False\n"
    "while True:\n"
    "    try:\n"
    "        if os.fork() == 0:\n"
    "            os.setsid()\n"
    "    except OSError:\n"
    "        if not said: os.write(1, b'full\\n!!OK!!\\n')\n"
    "        said = True\n"
    "        os.sched_yield()\n"
)


@pytest.mark.parametrize("pids", ["host", "private"])
def test_a_fork_bomb_is_gone_within_a_second_of_the_stop(tmp_path: Path, pids: str) -> None:
    job = {
        "job": "bomb",
        "exec_cmd": PYTHON,
        "exec_args": ["-c", BOMB],
        "wait_for_ok": True,
        "stop_timeout": 0.1,
        "cgroup": {"pids_max": 40, "cpu_max": 0.5},
        "pids": pids,
    }
    daemon = Daemon(tmp_path / "d").start()
    try:
        daemon.run({"jobs": [job]})
        group = _group(daemon.job("bomb")["pid"])
        assert len((group / "cgroup.procs").read_text().split()) >= 20
        begun = time.monotonic()
        daemon.do("bomb", "stop")
        took = time.monotonic() - begun
        assert not group.exists() or not (group / "cgroup.procs").read_text()
        assert took < 1.1, took
    finally:
        daemon.close()


def _group(pid: int) -> Path:
    """The directory of the process's own group that holds its pids limit."""
    for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if "maestro" not in path:
            continue
        for base in (f"/sys/fs/cgroup/{controllers}", "/sys/fs/cgroup"):
            if Path(f"{base}{path}/pids.max").exists():
                return Path(f"{base}{path}")
    raise AssertionError("no group of its own")


def test_the_victims_of_these_tests_are_reaped() -> None:
    assert reaper.children(os.getpid()) == []
