# SPDX-License-Identifier: Apache-2.0
"""Launching that needs no rights: arguments, standard files, signals, limits, and how it fails."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import resource
import select
import signal
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from support.daemon import PROJECT
from support.launching import PATIENCE, PYTHON, launched, process, python, readable, run, spec_of
from support.processes import wait_gone

from maestro_py.errors import MaestroError, Unsupported
from maestro_py.exits import Exit
from maestro_py.process import launcher, reaper
from maestro_py.process.launcher import Launch, StartError
from maestro_py.process.root import MakeRoot

STATUS = "import sys; sys.stdout.write(open('/proc/self/status').read())"


def status(**fields: object) -> dict[str, str]:
    """/proc/self/status of a process that was launched with these fields."""
    out = python(STATUS, **fields).out.decode()
    return {key: value.strip() for key, _, value in (line.partition(":") for line in out.splitlines())}


def test_argv_and_environment_arrive_byte_for_byte() -> None:
    code = "import os,json,sys; print(json.dumps([sys.argv[1:], dict(os.environ)]))"
    result = run(
        process(*PYTHON, code, "a b", "", "ä\udcff", env=(("K", "first"), ("K", "second"), ("ÜML", "1=2"))),
        env={"NOT": "inherited"},
    )
    argv, env = json.loads(result.out)
    assert argv == ["a b", "", "ä\udcff"]
    env.pop("LC_CTYPE", None)  # Python's own addition
    assert env == {"K": "first", "ÜML": "1=2"}


def test_the_daemons_environment_comes_last_when_asked_for() -> None:
    code = "import os,json; print(json.dumps(dict(os.environ)))"
    result = run(
        process(*PYTHON, code, env=(("A", "own"),), inherit_env=True), env={"A": "daemon", "B": "daemon"}
    )
    env = json.loads(result.out)
    assert (env["A"], env["B"]) == ("own", "daemon")


def test_a_program_without_slash_is_looked_up_in_the_path_of_the_job(tmp_path: Path) -> None:
    for name, mode in (("one", 0o644), ("two", 0o755)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "tool").write_text("#!/bin/sh\necho found in " + name + "\n")
        (tmp_path / name / "tool").chmod(mode)
    path = f"{tmp_path}/none:{tmp_path}/one:{tmp_path}/two"
    assert run(process("tool", env=(("PATH", path),))).out == b"found in two\n"
    assert run(process("tool"), env={"PATH": path}).out == b"found in two\n"


def test_a_large_stdin_is_all_there_and_then_ends() -> None:
    text = "äx\n" * 200_000
    code = "import sys,hashlib; d=sys.stdin.buffer.read(); print(len(d), d[-1:], sys.stdin.buffer.read())"
    assert python(code, stdin=text).out == f"{len(text.encode())} b'\\n' b''\n".encode()


def test_without_a_message_stdin_is_empty() -> None:
    assert python("import sys; print(sys.stdin.buffer.read())").out == b"b''\n"


def test_no_descriptor_leaks_not_even_an_inheritable_one() -> None:
    reading, writing = os.pipe()
    high = fcntl.fcntl(reading, fcntl.F_DUPFD, 700)
    try:
        os.set_inheritable(reading, True)
        result = run(process("/bin/ls", "-l", "/proc/self/fd"))
        # the fourth is the directory that ls itself has open
        names = [line.split()[8:] for line in result.out.decode().splitlines()[1:]]
        assert [name[0] for name in names] == ["0", "1", "2", "3"]
        assert names[3][2].endswith("/fd")
    finally:
        for fd in (reading, writing, high):
            os.close(fd)


def test_signal_dispositions_and_mask_are_clean() -> None:
    previous = signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR2})
    try:
        result = run(process("/bin/cat", "/proc/self/status"))
        assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) >= {signal.SIGUSR2}
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        signal.signal(signal.SIGUSR1, previous)
    lines = dict(line.split(":\t", 1) for line in result.out.decode().splitlines() if ":\t" in line)
    assert int(lines["SigIgn"], 16) & ~(3 << 31) == 0  # 32 and 33 are libc's own, no program can change them
    assert int(lines["SigBlk"], 16) == 0
    assert int(lines["SigCgt"], 16) == 0


def test_a_signal_at_any_time_around_the_start_ends_the_child_and_not_the_caller() -> None:
    seen = []
    previous = signal.signal(signal.SIGTERM, lambda *_: seen.append(1))
    null = os.open("/dev/null", os.O_RDWR)
    try:
        spec = launcher.prepare(
            process("/bin/sleep", "60"), daemon_env={}, stdin_fd=null, stdout_fd=null, stderr_fd=null
        )
        for _ in range(50):
            with launched(spec) as launch:
                assert reaper.send_signal(launch.pidfd, signal.SIGTERM)
                readable(launch.pidfd)
                assert reaper.wait(launch.pid, launch.pidfd) == Exit(signal=signal.SIGTERM)
    finally:
        os.close(null)
        signal.signal(signal.SIGTERM, previous)
    assert not seen


def test_standard_files_may_be_given_in_any_order_even_the_callers_own() -> None:
    """stdout of the child is the caller's 0, and so on: copies must not overwrite what is still needed."""
    code = (
        "import os,sys\n"
        "from maestro_py.process import launcher\n"
        "spec = launcher.helper_spec(['/bin/sh','-c','cat; echo err >&2'], {}, 2, 0, 1)\n"
        "launch = launcher.start(spec)\n"
        "os.waitpid(launch.pid, 0)\n"
        "print(launcher.read_report(launch.report_fd), file=open(sys.argv[1], 'w'))\n"
    )
    files = [os.memfd_create(str(number)) for number in range(3)]
    report = os.memfd_create("report")
    try:
        os.write(files[2], b"given")
        os.lseek(files[2], 0, os.SEEK_SET)
        argv = [sys.executable, "-c", code, f"/proc/self/fd/{report}"]
        subprocess.run(
            argv,
            stdin=files[0],
            stdout=files[1],
            stderr=files[2],
            pass_fds=(report,),
            check=True,
            env={"PYTHONPATH": str(Path(launcher.__file__).parents[2])},
        )
        assert os.pread(report, 100, 0) == b"None\n"
        assert os.pread(files[0], 100, 0) == b"given"
        assert os.pread(files[1], 100, 0) == b"err\n"
    finally:
        for fd in (*files, report):
            os.close(fd)


def test_nothing_is_executed_before_it_was_recorded(tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    seen = []

    def record(launch: Launch) -> None:
        select.select([launch.pidfd, launch.report_fd], [], [], 0.3)
        seen.append((launch.pid, mark.exists()))

    with launched(spec_of("/bin/sh", "-c", f"echo >{mark}"), record=record) as launch:
        readable(launch.pidfd)
        assert mark.exists()
    assert seen == [(launch.pid, False)]


def test_nothing_is_executed_when_the_caller_dies_before_it_was_recorded(tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    code = (
        "import os, signal, sys\n"
        "from support.launching import spec_of\n"
        "from maestro_py.process import launcher\n"
        "def record(launch):\n"
        "    print(launch.pid, flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "launcher.start(spec_of('/bin/sh', '-c', 'echo >' + sys.argv[1]), record=record)\n"
    )
    env = {**os.environ, "PYTHONPATH": os.pathsep.join((str(PROJECT), str(PROJECT / "tests")))}
    done = subprocess.run([sys.executable, "-c", code, str(mark)], env=env, capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    wait_gone(int(done.stdout))
    assert not mark.exists()


def test_a_process_leads_its_own_group_in_the_daemons_session() -> None:
    result = python("import os; print(os.getpid(), os.getpgrp(), os.getsid(0))")
    pid, group, session = map(int, result.out.split())
    assert pid == group == result.pid
    assert session == os.getsid(0)


def test_a_daemonized_process_leads_a_new_session() -> None:
    result = python("import os; print(os.getpid(), os.getpgrp(), os.getsid(0))", new_session=True)
    assert len(set(result.out.split())) == 1


def test_a_process_joins_the_group_it_is_told_to() -> None:
    result = python("import os; print(os.getpgrp())", pgid=os.getpgrp())
    assert int(result.out) == os.getpgrp()


def test_umask_working_directory_nice_and_oom_score_are_set(tmp_path: Path) -> None:
    code = (
        "import os,json\n"
        "oom = int(open('/proc/self/oom_score_adj').read())\n"
        "print(json.dumps([os.umask(0), os.getcwd(), os.getpriority(0,0), oom]))"
    )
    result = python(code, umask=0o027, working_dir=str(tmp_path), nice=7, oom_score_adj=321)
    assert json.loads(result.out) == [0o027, str(tmp_path), 7, 321]
    assert json.loads(python(code).out)[:2] == [0o022, "/"]


def test_rlimits_are_set_soft_and_hard() -> None:
    code = "import resource as r; print(r.getrlimit(r.RLIMIT_NOFILE), r.getrlimit(r.RLIMIT_CORE))"
    result = python(
        code, rlimits=(("nofile", 100, 200), ("core", 0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    )
    assert result.out.startswith(b"(100, 200) (0, ")


def test_no_new_privs_is_set_on_request_and_for_everybody_but_root() -> None:
    assert status(no_new_privs=True)["NoNewPrivs"] == "1"
    assert status(no_new_privs=False)["NoNewPrivs"] == "0"
    assert status()["NoNewPrivs"] == ("1" if os.geteuid() else "0")


@pytest.mark.parametrize("after_start", [True, False], ids=["later", "at once"])
def test_a_process_dies_with_its_parent_when_asked_to(tmp_path: Path, after_start: bool) -> None:
    """A parent of its own launches `sleep` and exits; the sleep is watched from here by a pipe it holds."""
    code = (
        "import os,sys,time\n"
        "from maestro_py.process import launcher\n"
        "from maestro_py.spec.resolved import ResolvedProcess\n"
        "p = ResolvedProcess('p', ('p',), argv=('/bin/sleep','60'), die_on_parent_death=True)\n"
        "out = int(sys.argv[1])\n"
        "null = os.open('/dev/null', 0)\n"
        "spec = launcher.prepare(p, daemon_env={}, stdin_fd=null, stdout_fd=out, stderr_fd=out)\n"
        "launch = launcher.start(spec)\n"
        "if sys.argv[2] == 'True':\n"
        "    import select; select.select([launch.report_fd], [], [])\n"
    )
    reading, writing = os.pipe()
    env = {"PYTHONPATH": str(Path(launcher.__file__).parents[2])}
    argv = [sys.executable, "-c", code, str(writing), str(after_start)]
    with subprocess.Popen(argv, pass_fds=(writing,), env=env) as parent:
        os.close(writing)
        assert parent.wait(PATIENCE) == 0
    readable(reading)
    assert os.read(reading, 1) == b""
    os.close(reading)


# how it fails


def failure(**fields: object) -> launcher.LaunchFailure:
    argv = fields.pop("argv", ("/bin/true",))
    result = run(process(*argv, **fields))  # type: ignore[misc]
    assert result.failure is not None
    assert result.exit == Exit(code=127)
    return result.failure


def test_a_missing_program_is_named() -> None:
    got = failure(argv=("/nowhere/tool",))
    assert (got.step, got.errno, got.path) == ("exec", errno.ENOENT, "/nowhere/tool")
    assert got.message == "cannot execute /nowhere/tool: No such file or directory"


def test_a_program_missing_in_the_path_names_the_path() -> None:
    got = failure(argv=("no-such-tool",), env=(("PATH", "/nowhere:/bin"),))
    assert got.errno == errno.ENOENT
    assert got.message == "cannot execute no-such-tool: No such file or directory in PATH /nowhere:/bin"


def test_a_missing_interpreter_is_named(tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text("#!/usr/bin/foo -x\n")
    script.chmod(0o755)
    want = f"cannot execute {script}: No such file or directory (its interpreter /usr/bin/foo is missing)"
    assert failure(argv=(str(script),)).message == want
    script.write_text("#!/bin/sh\r\n")
    assert "/bin/sh and ends in a carriage return" in failure(argv=(str(script),)).message


def elf(machine: int, interpreter: bytes = b"") -> bytes:
    order, bits = ("<", 1) if sys.byteorder == "little" else (">", 2)
    if struct.calcsize("P") == 4:
        return elf32(machine, order, bits, interpreter)
    ident = b"\x7fELF" + bytes((2, bits, 1)) + bytes(9)
    header = struct.pack(order + "HHIQQQIHHHHHH", 2, machine, 1, 0x400000, 64, 0, 0, 64, 56, 2, 0, 0, 0)
    load = struct.pack(order + "IIQQQQQQ", 1, 5, 0, 0x400000, 0x400000, 256, 256, 4096)
    where = 64 + 2 * 56
    interp = struct.pack(
        order + "IIQQQQQQ",
        3 if interpreter else 4,
        4,
        where,
        0,
        0,
        len(interpreter) + 1,
        len(interpreter) + 1,
        1,
    )
    return ident + header + load + interp + interpreter + bytes(200)


def elf32(machine: int, order: str, bits: int, interpreter: bytes) -> bytes:
    ident = b"\x7fELF" + bytes((1, bits, 1)) + bytes(9)
    header = struct.pack(order + "HHIIIIIHHHHHH", 2, machine, 1, 0x400000, 52, 0, 0, 52, 32, 2, 0, 0, 0)
    load = struct.pack(order + "8I", 1, 0, 0x400000, 0x400000, 256, 256, 5, 4096)
    where, size = 52 + 2 * 32, len(interpreter) + 1
    interp = struct.pack(order + "8I", 3 if interpreter else 4, where, 0, 0, size, size, 4, 1)
    return ident + header + load + interp + interpreter + bytes(200)


def test_a_program_of_another_architecture_says_which(tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.write_bytes(elf(22))
    program.chmod(0o755)
    got = failure(argv=(str(program),))
    assert got.errno == errno.ENOEXEC
    assert got.message.endswith(f"(it is a program for S390, this is {os.uname().machine})")


def test_a_missing_loader_is_named(tmp_path: Path) -> None:
    own = struct.unpack_from("=H", Path(sys.executable).resolve().read_bytes()[:64], 18)[0]
    program = tmp_path / "program"
    program.write_bytes(elf(own, b"/lib/ld-musl-none.so.1"))
    program.chmod(0o755)
    assert failure(argv=(str(program),)).message.endswith("(its loader /lib/ld-musl-none.so.1 is missing)")


def test_what_is_no_program_at_all_says_so(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("echo hello\n")
    got = failure(argv=(str(file),))
    assert (got.errno, "its mode is 0644" in got.message) == (errno.EACCES, True)
    file.chmod(0o755)
    got = failure(argv=(str(file),))
    assert (got.errno, "#!/bin/sh" in got.message) == (errno.ENOEXEC, True)
    file.write_text("")
    assert "it is empty" in failure(argv=(str(file),)).message
    assert "it is a directory" in failure(argv=(str(tmp_path),)).message
    link = tmp_path / "link"
    link.symlink_to("/nowhere/else")
    assert "it is a link to /nowhere/else, which is missing" in failure(argv=(str(link),)).message


def test_a_missing_working_directory_is_named() -> None:
    got = failure(working_dir="/nowhere/at all")
    assert (got.step, got.errno, got.path) == ("working_dir", errno.ENOENT, "/nowhere/at all")
    assert got.message == "cannot change to directory /nowhere/at all: No such file or directory"


def test_a_process_group_that_is_not_there_is_named() -> None:
    got = failure(pgid=0x3FFFFFFE)
    assert got.step == "group"
    assert got.message.startswith(f"cannot join process group {0x3FFFFFFE}: ")


def test_a_soft_limit_above_the_hard_one_is_named() -> None:
    got = failure(rlimits=(("core", 0, 0), ("nofile", 300, 200)))
    assert (got.step, got.errno) == ("rlimits", errno.EPERM)
    assert got.message.startswith("cannot set resource limits: nofile 300:200 ")


def test_a_closed_control_group_file_is_reported() -> None:
    reading, writing = os.pipe()
    os.close(writing)
    try:
        result = run(process("/bin/true"), cgroup_fds=(reading,))
    finally:
        os.close(reading)
    assert result.failure is not None
    assert (result.failure.step, result.failure.errno) == ("cgroup", errno.EBADF)


def test_what_cannot_work_is_refused_before_the_fork() -> None:
    with pytest.raises(MaestroError, match="cannot run probe as user 'no-such-user': no such user"):
        run(process("/bin/true", user="no-such-user"))
    with pytest.raises(MaestroError, match="cannot run probe as group 'no-such-group': no such group"):
        run(process("/bin/true", group="no-such-group"))
    with pytest.raises(MaestroError, match="no program is given"):
        run(process())
    with pytest.raises(Unsupported, match="no resource limit 'nonsense'"):
        run(process("/bin/true", rlimits=(("nonsense", 1, 1),)))


def test_without_root_other_users_and_roots_are_refused_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The real uid cannot be changed in the runner's process, so what it says is replaced."""
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    monkeypatch.setattr(os, "getegid", lambda: 12345)
    with pytest.raises(Unsupported, match="as user 0: maestrod itself runs as user 12345"):
        run(process("/bin/true", user=0))
    with pytest.raises(Unsupported, match="only root may change groups"):
        run(process("/bin/true", group=0))
    with pytest.raises(Unsupported, match="only root may change the root directory"):
        run(process("/bin/true", root=str(tmp_path)))
    assert run(process("/bin/true", user=12345, group=12345)).exit == Exit(code=0)


def test_a_nul_byte_is_reported_not_raised() -> None:
    got = failure(argv=("/bin/true", "a\0b"))
    assert (got.step, got.errno) == ("exec", 0)
    assert "embedded null byte" in got.message


def test_a_launch_that_cannot_fork_names_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> int:
        raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    before = len(os.listdir("/proc/self/fd"))
    monkeypatch.setattr(os, "fork", refuse)
    with pytest.raises(StartError, match="cannot start probe: Resource temporarily unavailable") as caught:
        run(process("/bin/true"))
    assert caught.value.errno == errno.EAGAIN
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_helper_gets_its_pipes_and_ends_with_an_exit_code() -> None:
    reading, writing = os.pipe()
    stdin = launcher.stdin_file("question")
    spec = launcher.helper_spec(
        ["sh", "-c", "cat; ulimit -n; exit 3"], {}, stdin, writing, 2, rlimits=(("nofile", 77, 77),)
    )
    with launched(spec) as launch:
        os.close(writing)
        os.close(stdin)
        readable(launch.pidfd)
        assert reaper.wait(launch.pid, launch.pidfd) == Exit(code=3)
        assert os.read(reading, 100) == b"question77\n"
    os.close(reading)


def test_the_root_step_describes_itself_by_its_directory() -> None:
    assert MakeRoot("/srv/x").describe() == "change the root to /srv/x"
