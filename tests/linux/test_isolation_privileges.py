# SPDX-License-Identifier: Apache-2.0
"""Capabilities, no_new_privs, the system call filter, and a pid namespace of one's own."""

from __future__ import annotations

import errno
import os
import signal
import struct
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.jail import PYTHON, attack, make_jail
from support.launching import launched, process, python, readable, run

from maestro_py.errors import MaestroError, Unsupported
from maestro_py.exits import Exit
from maestro_py.process import kernel, launcher, pidns, reaper, seccomp, seccomp_profile
from maestro_py.spec.isolation import CAPABILITIES

pytestmark = pytest.mark.root

STATUS = "print(open('/proc/self/status').read())"
BIND = 1 << CAPABILITIES.index("net_bind_service")
CHOWN = 1 << CAPABILITIES.index("chown")

needs_seccomp = pytest.mark.skipif(
    seccomp_profile.library() is None, reason="libseccomp or its Python module is missing"
)


def sets(**fields: Any) -> dict[str, int]:
    """Capability sets and flags of a process that was launched with these fields."""
    lines = (line.split(":\t") for line in attack(STATUS, **fields).splitlines() if ":\t" in line)
    return {
        name: int(value, 16)
        for name, value in lines
        if name.startswith("Cap") or name in ("NoNewPrivs", "Seccomp")
    }


# capabilities


@pytest.mark.parametrize("user", [None, 0, "nobody"])
def test_a_process_has_exactly_the_capabilities_it_asked_for(user: str | int | None) -> None:
    for names, mask in (((), 0), (("chown", "net_bind_service"), CHOWN | BIND)):
        found = sets(user=user, capabilities=names)
        for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
            assert found[name] == mask, name


def test_without_a_word_root_has_all_and_others_none() -> None:
    own = kernel.capabilities()
    assert sets()["CapEff"] == own["CapEff"]
    found = sets(user="nobody")
    assert (found["CapPrm"], found["CapEff"], found["CapAmb"], found["CapInh"]) == (0, 0, 0, 0)
    assert found["NoNewPrivs"] == 1


def test_a_user_can_listen_below_1024_with_that_capability_alone() -> None:
    code = (
        "import socket\n"
        "s = socket.socket()\n"
        "s.bind(('127.0.0.1', 0))\n"
        "s = socket.socket()\n"
        "s.bind(('127.0.0.1', 1009))\n"
        "print('listens')"
    )
    start = "open('/proc/sys/net/ipv4/ip_unprivileged_port_start').read()"
    if int(attack(f"print({start})")) < 1010:
        pytest.skip("everybody may listen below 1024 here")
    assert attack(code, user="nobody") == "Permission denied"
    assert attack(code, user="nobody", capabilities=("net_bind_service",)) == "listens"


def test_a_root_of_its_own_and_capabilities_together(tmp_path: Path) -> None:
    jail = make_jail(tmp_path / "jail")
    tmp_path.chmod(0o755)
    assert sets(jail=jail, capabilities=("chown",))["CapEff"] == CHOWN


def test_a_capability_the_daemon_lacks_is_refused() -> None:
    lacking = [name for n, name in enumerate(CAPABILITIES) if not kernel.capabilities()["CapPrm"] >> n & 1]
    if not lacking:
        pytest.skip("nothing is missing here")
    with pytest.raises(Unsupported, match=f"maestrod itself has not the capability {lacking[0]}"):
        run(process("/bin/true", capabilities=(lacking[0],)))


def test_a_daemon_that_is_not_root_gives_what_it_has_and_keeps_what_is_its_own() -> None:
    """A daemon with ambient capabilities, as a service manager makes one."""
    code = (
        "import sys\n"
        f"sys.path[:0] = {[*sys.path]!r}\n"
        "from support.launching import process, run\n"
        "from maestro_py.errors import Unsupported\n"
        "def effective(**fields):\n"
        "    text = run(process('/bin/cat', '/proc/self/status', **fields)).out.decode()\n"
        "    return int(text.partition('CapEff:')[2].split()[0], 16)\n"
        "print(effective(), effective(capabilities=()), effective(capabilities=('chown',)))\n"
        "try:\n"
        "    effective(capabilities=('sys_admin',))\n"
        "except Unsupported as error:\n"
        "    print(error.message)\n"
    )
    result = run(process(PYTHON, "-c", code, user="nobody", capabilities=("chown", "net_bind_service")))
    assert result.out.decode().splitlines() == [
        f"0 0 {CHOWN}",
        "cannot run probe with its capabilities: maestrod itself has not the capability sys_admin",
    ], result.out.decode()


# system calls


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """No filter is compiled yet."""
    monkeypatch.setattr(seccomp, "_program", b"")


# asm/unistd.h, for 64 and 32 bits; the kernel of another processor has others
NUMBERS = {
    "x86_64": {8: (56, 321), 4: (120, 357)},
    "aarch64": {8: (220, 280), 4: (120, 386)},
    "armv7l": {4: (120, 386)},
    "i686": {4: (120, 357)},
}
CLONE, BPF = NUMBERS.get(os.uname().machine, {}).get(struct.calcsize("P"), (0, 0))
CALLS = {
    "mount": "check(libc.mount(b'none', b'/', None, ctypes.c_ulong(1 << 18), None))",
    "unshare": "check(libc.unshare(0x20000))",
    "ptrace": "check(libc.ptrace(0, 0, None, None))",
    "a user namespace by clone": (
        f"check(libc.syscall({CLONE}, ctypes.c_ulong(0x10000000 | 17), 0, 0, 0, 0)) or os._exit(0)"
    ),
    "sethostname": "check(libc.sethostname(os.uname().nodename.encode(), len(os.uname().nodename)))",
    "an AF_ALG socket": "import socket; socket.socket(socket.AF_ALG, socket.SOCK_SEQPACKET)",
    "typing into a terminal": "import fcntl; fcntl.ioctl(os.openpty()[1], 0x5412, b'x')",
    "bpf": f"check(libc.syscall({BPF}, 0, 0, 0))",
}


@needs_seccomp
@pytest.mark.parametrize("what", CALLS)
def test_the_default_filter_refuses(what: str) -> None:
    """Whether it would succeed without: only the terminal's may be off for everybody."""
    if what in ("a user namespace by clone", "bpf") and not CLONE:
        pytest.skip("the numbers of this processor's system calls are not known here")
    code = f"{CALLS[what]}\nprint('got it')"
    if what not in ("bpf", "typing into a terminal", "an AF_ALG socket"):
        assert attack(code).endswith("got it")
    assert attack(code, seccomp="default") == "Operation not permitted"
    assert attack(code, seccomp="default", user="nobody") == "Operation not permitted"


@needs_seccomp
def test_ordinary_programs_run_under_the_filter() -> None:
    code = (
        "import subprocess, threading, socket, select, mmap, tempfile, json, asyncio, sqlite3\n"
        "t = threading.Thread(target=print, args=('thread',)); t.start(); t.join()\n"
        "print(subprocess.run(['/bin/sh', '-c', 'ls / | wc -l'], capture_output=True).returncode)\n"
        "a, b = socket.socketpair(); a.send(b'x'); print(b.recv(1))\n"
        "asyncio.run(asyncio.sleep(0)); print(sqlite3.connect(':memory:').execute('select 1').fetchone())\n"
        "with tempfile.TemporaryFile() as f: f.write(b'x'); os.fsync(f.fileno())\n"
        "os.kill(os.getpid(), 0); os.setpriority(os.PRIO_PROCESS, 0, 19); print('end')"
    )
    result = run(process(PYTHON, "-c", "import os\n" + code, user="nobody", seccomp="default"))
    assert result.out.decode().splitlines() == ["thread", "0", "b'x'", "(1,)", "end"], result.out.decode()


@needs_seccomp
@pytest.mark.usefixtures("fresh")
def test_the_filter_is_compiled_once_and_stays_over_exec() -> None:
    found = sets(seccomp="default")
    assert (found["Seccomp"], found["NoNewPrivs"]) == (2, 1)
    program = seccomp._program
    begun = time.monotonic()
    assert sets(seccomp="default", user="nobody", capabilities=("chown",))["Seccomp"] == 2
    assert seccomp._program is program
    assert time.monotonic() - begun < 1
    assert "Seccomp:\t0" in Path("/proc/self/status").read_text()
    assert reaper.children(os.getpid()) == []


@pytest.mark.usefixtures("fresh")
def test_without_the_library_a_job_that_asks_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(seccomp, "_HELPER", "maestro_py.process.no_such_helper")
    with pytest.raises(MaestroError, match="the program that compiles the filter ended with 1"):
        run(process("/bin/true", seccomp="default"))
    monkeypatch.setattr(seccomp, "_HELPER", "seccomp_lacking")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    (tmp_path / "seccomp_lacking.py").write_text("import sys\nsys.exit(3)\n")
    with pytest.raises(Unsupported, match="cannot run probe with seccomp: libseccomp is not installed"):
        run(process("/bin/true", seccomp="default"))
    assert reaper.children(os.getpid()) == []


def test_a_filter_needs_no_new_privs() -> None:
    with pytest.raises(MaestroError, match="with seccomp: its no_new_privs is false"):
        run(process("/bin/true", seccomp="default", no_new_privs=False))


# pids: private

PRIVATE: dict[str, Any] = {"pids": "private"}


@pytest.fixture(params=["clone3", "unshare and fork"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Both ways into a pid namespace."""
    if request.param != "clone3":
        monkeypatch.setattr(launcher, "_clone_refused", True)
    own = os.readlink("/proc/self/ns/pid_for_children")
    yield request.param
    assert os.readlink("/proc/self/ns/pid_for_children") == own


@pytest.mark.usefixtures("way")
def test_it_is_process_one_and_its_end_is_known() -> None:
    result = python("import os, sys; print(os.getpid(), os.getppid()); sys.exit(37)", **PRIVATE)
    assert (result.out, result.exit) == (b"1 0\n", Exit(code=37))
    result = python("import os; os.abort()", **PRIVATE)
    assert result.exit is not None
    # process 1 is not ended by SIGABRT: abort(3) goes on to an instruction that is none, another one on each
    assert result.exit.signal in (signal.SIGABRT, signal.SIGSEGV, signal.SIGILL, signal.SIGTRAP)


@pytest.mark.usefixtures("way")
def test_its_descendants_end_with_it() -> None:
    reading, writing = os.pipe()
    code = "import os, time\nif os.fork() == 0:\n    os.setsid()\n    time.sleep(1000)\nprint('done')"
    try:
        assert python(code, **PRIVATE).out == b"done\n"
    finally:
        os.close(reading)
        os.close(writing)
    assert reaper.children(os.getpid()) == []


def test_signals_it_handles_reach_it_and_sigkill_always_does() -> None:
    code = (
        "import os, signal, sys\n"
        "signal.signal(signal.SIGTERM, lambda *a: os._exit(5))\n"
        "os.write(1, b'up\\n')\n"
        "while True: signal.pause()"
    )
    for number, expected in ((signal.SIGTERM, Exit(code=5)), (signal.SIGKILL, Exit(signal=9))):
        reading, writing = os.pipe()
        null = os.open("/dev/null", os.O_RDWR)
        spec = launcher.prepare(
            process(PYTHON, "-I", "-S", "-c", code, **PRIVATE),
            daemon_env={},
            stdin_fd=null,
            stdout_fd=writing,
            stderr_fd=null,
        )
        try:
            with launched(spec) as launch:
                assert os.read(reading, 3) == b"up\n"
                reaper.send_signal(launch.pidfd, number)
                readable(launch.pidfd)
                assert reaper.wait(launch.pid, launch.pidfd) == expected
        finally:
            for fd in (reading, writing, null):
                os.close(fd)


@pytest.mark.parametrize(
    ("how", "number", "expected"),
    [
        ("SIG_DFL", signal.SIGTERM, Exit(signal=9)),
        ("SIG_DFL", signal.SIGUSR1, Exit(signal=9)),
        ("SIG_DFL", signal.SIGKILL, Exit(signal=9)),
        ("SIG_DFL", signal.SIGCHLD, None),
        ("SIG_IGN", signal.SIGTERM, None),
    ],
)
def test_a_signal_without_a_handler_ends_it_as_it_ends_others(
    how: str, number: int, expected: Exit | None
) -> None:
    """First seen: the kernel withholds it."""
    code = (
        "import os, signal\n"
        f"if {number} != 9: signal.signal({number}, signal.{how})\n"
        "os.write(1, b'up\\n')\n"
        "while True: signal.sigtimedwait([], 1000)"
    )
    reading, writing = os.pipe()
    null = os.open("/dev/null", os.O_RDWR)
    spec = launcher.prepare(
        process(PYTHON, "-I", "-S", "-c", code, **PRIVATE),
        daemon_env={},
        stdin_fd=null,
        stdout_fd=writing,
        stderr_fd=null,
    )
    try:
        with launched(spec) as launch:
            assert os.read(reading, 3) == b"up\n"
            if number != signal.SIGKILL:
                reaper.send_signal(launch.pidfd, number)
                assert reaper.wait(launch.pid, launch.pidfd) is None
            reaper.send_signal(launch.pidfd, pidns.signal_for(launch.pid, number))
            if expected is not None:
                readable(launch.pidfd)
            assert reaper.wait(launch.pid, launch.pidfd) == expected
            assert pidns.signal_for(launch.pid, signal.SIGCONT) == signal.SIGCONT
    finally:
        for fd in (reading, writing, null):
            os.close(fd)


def test_a_launch_that_fails_in_it_says_why() -> None:
    result = run(process("/no/such", **PRIVATE))
    assert result.failure is not None
    assert (result.failure.step, result.failure.errno) == ("exec", errno.ENOENT)


def test_it_can_be_ended_with_the_daemon() -> None:
    code = (
        "import ctypes\n"
        "number = ctypes.c_int()\n"
        "ctypes.CDLL(None).prctl(2, ctypes.byref(number))\n"
        "print(number.value)"
    )
    assert python(code, die_on_parent_death=True, **PRIVATE).out == b"9\n"


def test_all_of_it_together(tmp_path: Path) -> None:
    jail = make_jail(tmp_path / "jail")
    tmp_path.chmod(0o755)
    fields: dict[str, Any] = {"jail": jail, "user": "nobody", "read_only_root": True, **PRIVATE}
    if seccomp_profile.library() is not None:
        fields["seccomp"] = "default"
    found = sets(capabilities=("chown",), **fields)
    assert (found["CapEff"], found["NoNewPrivs"]) == (CHOWN, 1)
    assert attack("print(os.getpid(), os.getuid(), sorted(os.listdir('/proc'))[0])", **fields) == "1 65534 1"
