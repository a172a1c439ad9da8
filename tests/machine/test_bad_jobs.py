# SPDX-License-Identifier: Apache-2.0
"""Jobs that cannot start, will not stop, or want too much: each named, the others untouched."""

from __future__ import annotations

import json
import os
import select
import struct
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.guarded import Guarded, Shared, guarded, patched

LOG_SIZE, LOG_FILES = 1 << 20, 3
FLOOD = 100 << 20


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shared]:
    made = Shared(lambda: tmp_path_factory.mktemp("shared"))
    yield made
    made.close()


@pytest.fixture
def device(shared: Shared) -> Iterator[Guarded]:
    with shared.lend() as lent:
        yield lent


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Guarded]:
    with guarded(tmp_path, {"log_max_size": LOG_SIZE, "log_max_files": LOG_FILES}) as made:
        yield made


def elf(machine: int) -> bytes:
    """Return the header of a 64-bit little-endian executable for another machine (elf(5))."""
    ident = b"\x7fELF" + bytes([2, 1, 1]) + bytes(9)
    return ident + struct.pack("<HHIQQQIHHHHHH", 2, machine, 1, 0x400000, 64, 0, 0, 64, 56, 0, 64, 0, 0)


def program(tmp_path: Path, content: str | bytes, mode: int = 0o755) -> str:
    path = tmp_path / "program"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    path.chmod(mode)
    return str(path)


def python(code: str, **keys: Any) -> dict[str, Any]:
    return {"job": "b", "exec_cmd": sys.executable, "exec_args": ["-u", "-c", code], **keys}


def failed(device: Guarded, job: dict[str, Any], *sentences: str) -> None:
    """Assert that a job is FAILED for a reason that apply, status and why give alike, and start too."""
    said = device.fails(job)
    name = job["job"]
    row = device.daemon.job(name)
    assert (row["state"], row["pid"], row["restarts"]) == ("FAILED", None, 0)
    for text in (said, row["cause"], device.daemon.cli("why", name).stdout):
        for sentence in sentences:
            assert sentence in text
    assert f"{name} is FAILED" in said
    again = device.daemon.cli("start", name)
    assert again.returncode == 1
    assert sentences[0] in again.stderr
    good = device.daemon.cli("status", "good")
    assert good.returncode == 0
    assert "RUNNING" in good.stdout


def gone(pid: int) -> bool:
    """Return whether a process is gone, or only waits to be buried."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return True
    return state in "ZX"


def await_end(pid: int, timeout: float = 10) -> None:
    """Wait until a process that is not our child is gone."""
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        assert select.select([pidfd], [], [], timeout)[0], f"{pid} lives"
    finally:
        os.close(pidfd)


def pid_from_log(device: Guarded, name: str = "b") -> int:
    """Return the number after `pid` that a job logs."""
    with device.daemon.client().logs(name, n=100, follow=True) as stream:
        text = b""
        for piece in stream:
            text += piece
            for line in text.split(b"\n")[:-1]:
                if line.startswith(b"pid "):
                    return int(line[4:])
    raise AssertionError(text)


# ---- programs that cannot be executed


def test_a_missing_program_is_named(device: Guarded) -> None:
    job = {"job": "b", "exec_cmd": "/nowhere/program"}
    failed(device, job, "cannot execute /nowhere/program: No such file or directory")


def test_a_program_that_is_not_in_the_path_is_named(device: Guarded) -> None:
    job = {"job": "b", "exec_cmd": "no-such-program"}
    failed(device, job, "cannot execute no-such-program: No such file or directory in PATH")


def test_a_program_that_is_not_executable_is_named_with_its_mode(device: Guarded, tmp_path: Path) -> None:
    path = program(tmp_path, "#!/bin/sh\n", 0o644)
    failed(
        device,
        {"job": "b", "exec_cmd": path},
        f"cannot execute {path}: Permission denied (it is not executable, its mode is 0644)",
    )


@pytest.mark.parametrize(
    ("machine", "name"), [(40, "ARM (32 bit)"), (8, "MIPS"), (9999, "machine number 9999")]
)
def test_a_program_of_another_architecture_is_named_with_both(
    device: Guarded, tmp_path: Path, machine: int, name: str
) -> None:
    path = program(tmp_path, elf(machine))
    failed(
        device,
        {"job": "b", "exec_cmd": path},
        f"cannot execute {path}: Exec format error"
        f" (it is a program for {name}, this is {os.uname().machine})",
    )


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("#!/nowhere/interpreter -x\n", "its interpreter /nowhere/interpreter is missing"),
        ("#!/bin/sh\r\necho\r\n", "its first line names /bin/sh and ends in a carriage return"),
        ("echo no first line\n", "neither a program nor a script with a first line such as #!/bin/sh"),
        ("", "it is empty"),
        (b"\x7fELF", "Exec format error"),
    ],
)
def test_a_file_the_kernel_cannot_run_is_named_with_what_is_wrong(
    device: Guarded, tmp_path: Path, content: str | bytes, why: str
) -> None:
    path = program(tmp_path, content)
    failed(device, {"job": "b", "exec_cmd": path}, f"cannot execute {path}: ", why)


def test_a_damaged_program_is_not_taken_for_one_of_another_architecture(
    device: Guarded, tmp_path: Path
) -> None:
    with open(sys.executable, "rb") as file:
        path = program(tmp_path, file.read(40))
    said = device.fails({"job": "b", "exec_cmd": path})
    assert f"cannot execute {path}: Exec format error" in said
    assert "it is a program for" not in said


def test_a_directory_is_no_program(device: Guarded) -> None:
    failed(
        device, {"job": "b", "exec_cmd": "/etc"}, "cannot execute /etc: Permission denied (it is a directory)"
    )


def test_a_link_to_nothing_is_named_with_its_target(device: Guarded, tmp_path: Path) -> None:
    path = tmp_path / "link"
    path.symlink_to("/nowhere/else")
    failed(
        device,
        {"job": "b", "exec_cmd": str(path)},
        f"cannot execute {path}: No such file or directory",
        "it is a link to /nowhere/else, which is missing",
    )


def test_arguments_that_are_too_long_are_the_reason(device: Guarded) -> None:
    job = {"job": "b", "exec_cmd": "/bin/true", "exec_args": ["x" * 3_000_000]}
    failed(device, job, "cannot execute /bin/true: Argument list too long")


def test_a_missing_working_directory_is_named(device: Guarded) -> None:
    job = {"job": "b", "exec_cmd": "/bin/true", "working_dir": "/nowhere"}
    failed(device, job, "cannot change to directory /nowhere: No such file or directory")


def test_a_process_group_that_is_not_there_is_named(device: Guarded) -> None:
    job = {"job": "b", "exec_cmd": "/bin/true", "pgid": 2_000_000_000}
    failed(device, job, "cannot join process group 2000000000")


def test_a_launch_that_cannot_work_is_not_tried_again_and_again(device: Guarded) -> None:
    began = time.monotonic()
    policy = {"restart_policy": "always", "restart_backoff": {"initial": 0.05, "max": 0.1}}
    failed(device, {"job": "b", "exec_cmd": "/nowhere/program", **policy}, "cannot execute /nowhere/program")
    assert time.monotonic() - began < 10


def test_a_missing_program_in_one_member_does_not_touch_another_process(device: Guarded) -> None:
    template = {"name": "t", "exec_cmd": "/nowhere/host"}
    members = [{"job": name, "composite_id": "both", "container_template": "t"} for name in ("m1", "m2")]
    said = device.fails(*members, templates=[template])
    assert "both (m1, m2) is FAILED: cannot execute /nowhere/host" in said
    assert {device.daemon.job(name)["state"] for name in ("m1", "m2")} == {"FAILED"}


def test_what_depends_on_a_job_that_cannot_start_says_so(device: Guarded) -> None:
    jobs = [
        {"job": "base", "exec_cmd": "/nowhere/program"},
        {"job": "above", "exec_cmd": "/bin/sleep", "exec_args": ["1000"], "depends_on": ["base"]},
    ]
    said = device.fails(*jobs)
    assert "base is FAILED: cannot execute /nowhere/program" in said
    assert "above is WAITING_FOR_DEPS: it waits for base" in said


def test_without_fail_fast_a_bad_job_does_not_keep_later_ones_down(device: Guarded) -> None:
    jobs = [
        {"job": "a", "exec_cmd": "/nowhere/x"},
        {"job": "z", "exec_cmd": "/bin/sleep", "exec_args": ["9999"]},
    ]
    device.fails(*jobs)
    assert device.daemon.job("z")["state"] == "RUNNING"


def test_with_fail_fast_what_comes_after_a_bad_job_is_left(device: Guarded) -> None:
    jobs = [
        {"job": "a", "exec_cmd": "/nowhere/x"},
        {"job": "z", "exec_cmd": "/bin/sleep", "exec_args": ["9999"]},
    ]
    said = device.fails(*jobs, flags={"failFast": True})
    assert "a: cannot execute /nowhere/x" in said
    assert "failFast" in said
    assert device.daemon.job("z")["state"] != "RUNNING"


FAULT = """
from maestro_py.process import launcher
real = launcher.prepare
def prepare(process, **more):
    if process.name == "b":
        raise RuntimeError("nobody expected this")
    return real(process, **more)
launcher.prepare = prepare
"""


def test_an_error_nobody_expected_in_a_launch_fails_that_job_alone(tmp_path: Path) -> None:
    with guarded(tmp_path, program=patched(FAULT)) as device:
        device.calm = False
        said = device.daemon.cli(
            "apply", str(device.write(device.document({"job": "b", "exec_cmd": "/bin/true"})))
        )
        assert said.returncode == 1
        row = device.daemon.job("b")
        assert (row["state"], row["pid"]) == ("FAILED", None)
        done = device.apply(device.document(), "--timeout", "5")
        assert done.returncode == 0, done.stderr
        began = time.monotonic()
        device.daemon.stop()
        assert time.monotonic() - began < 5
        device.daemon.start()
        device.pid = device.daemon.wait_state("good", "RUNNING")["pid"]
        device.daemon_pid = device.daemon.client().version()["pid"]


# ---- jobs that do not do what they should


def test_a_job_that_never_says_ok_is_ended_and_named(own: Guarded) -> None:
    said = own.fails(python("import time; time.sleep(1000)", wait_for_ok=True, timeout_for_ok=300))
    assert "b is FAILED: did not say !!OK!! within 300ms" in said or "did not say OK within 300ms" in said
    assert own.daemon.job("b")["pid"] is None


def test_a_job_that_ends_at_once_again_and_again_is_named(own: Guarded) -> None:
    job = python("raise SystemExit(7)", restart=True, restart_limit=2, restart_pause=20, wait_for_ok=True)
    said = own.fails(job)
    assert "b is FAILED" in said
    assert "7" in said
    assert own.daemon.job("b")["restarts"] == 2


def test_a_job_that_ignores_its_stop_signal_is_killed_when_its_time_is_over(own: Guarded) -> None:
    code = (
        "import os, signal, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN); print('!!OK!!', flush=True)\n"
        "while True: time.sleep(100)"
    )
    assert own.apply(own.document(python(code, wait_for_ok=True, stop_timeout="500ms"))).returncode == 0
    pid = own.daemon.job("b")["pid"]
    began = time.monotonic()
    done = own.daemon.cli("stop", "b")
    took = time.monotonic() - began
    assert done.returncode == 0, done.stderr
    assert 0.5 <= took < 5
    assert gone(pid)
    assert own.daemon.job("b")["state"] == "STOPPED"
    told = [event["message"] for event in own.daemon.client().events() if event["process"] == "b"]
    assert any("500ms" in message or "SIGKILL" in message or "killed" in message for message in told), told


DAEMONIZES = """
import os, signal, sys, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        os.write(1, b"pid %d\\n!!OK!!\\n" % os.getpid())
        if {close}:
            os.closerange(0, 3)
        while True: time.sleep(100)
    os._exit(0)
os.wait()
{then}
"""


@pytest.mark.parametrize("close", [False, True])
def test_stop_reaches_a_descendant_that_left_its_session(own: Guarded, close: bool) -> None:
    code = DAEMONIZES.format(close=close, then="while True: time.sleep(100)")
    job = python(code, wait_for_ok=True, stop_timeout="500ms")
    done = own.apply(own.document(job))
    assert done.returncode == 0, done.stderr
    grandchild = pid_from_log(own)
    assert not gone(grandchild)
    done = own.daemon.cli("stop", "b")
    assert done.returncode == 0, done.stderr
    assert gone(grandchild)
    assert own.daemon.job("b")["state"] == "STOPPED"


def test_a_descendant_does_not_outlive_a_job_that_ends_by_itself(own: Guarded) -> None:
    job = python(DAEMONIZES.format(close=True, then="sys.stdin.read(); time.sleep(0.1); os._exit(3)"))
    own.apply(own.document(job))
    grandchild = pid_from_log(own)
    row = own.daemon.wait("b", lambda row: row["state"] in ("FAILED", "STOPPED"))
    assert "3" in row["cause"]
    await_end(grandchild)


def test_removing_a_job_ends_its_descendants(own: Guarded) -> None:
    code = DAEMONIZES.format(close=True, then="while True: time.sleep(100)")
    own.apply(own.document(python(code, wait_for_ok=True, stop_timeout="300ms")))
    grandchild = pid_from_log(own)
    assert own.apply(own.document()).returncode == 0
    assert gone(grandchild)


# ---- output without end


def resident(pid: int) -> int:
    """Return the anonymous memory of a process in bytes."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) << 10
    raise AssertionError


def size(path: Path) -> int:
    """Return the size of a file, 0 when it was renamed meanwhile."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


FLOODS = """
import os
data = b"x" * 65536
left = {size}
while left > 0:
    left -= os.write(1, data[:left])
os.write(2, b"\\nend of flood\\n")
import signal
signal.pause()
"""


@pytest.mark.parametrize("ok", [False, True], ids=["plain", "while OK is awaited"])
def test_a_flood_without_a_newline_is_bounded_on_disk_and_in_memory(own: Guarded, ok: bool) -> None:
    client = own.daemon.client()
    own.apply(own.document())
    for _ in range(20):
        client.status()  # what grows once has grown
    before = resident(own.daemon_pid)
    chatty = {
        "job": "chatty",
        "exec_cmd": "/bin/sh",
        "exec_args": ["-c", "while read x; do :; done; exec sleep 9999"],
    }
    job = python(FLOODS.format(size=FLOOD))
    if ok:
        job |= {"wait_for_ok": True, "timeout_for_ok": 60_000}
    answer = client.apply(own.document(job, chatty))

    slowest, peak, largest = 0.0, 0, 0
    logs = own.daemon.root / "log"
    deadline = time.monotonic() + 60
    while b"end of flood" not in b"".join(client.logs("b", n=1))[-100:]:
        assert time.monotonic() < deadline, "the flood does not end"
        began = time.monotonic()
        client.status()
        slowest = max(slowest, time.monotonic() - began)
        peak = max(peak, resident(own.daemon_pid))
        largest = max(largest, sum(size(path) for path in logs.glob("b.log*")))
    if not ok:
        assert client.task(answer["task_id"], wait=10)["status"] == "complete"
    assert own.daemon.job("b")["state"] == ("STARTING" if ok else "RUNNING")
    assert slowest < 0.5, f"status took {slowest:.3f} s"
    assert peak - before < 6 << 20, f"{before} became {peak}"
    assert largest <= LOG_SIZE * (LOG_FILES + 1)  # a file may be seen under two names while it is renamed
    assert sum(size(path) for path in logs.glob("b.log*")) <= LOG_SIZE * LOG_FILES
    files = sorted(path.name for path in logs.glob("b.log*"))
    assert files == ["b.log", "b.log.1", "b.log.2"]
    assert all(path.stat().st_size <= LOG_SIZE for path in logs.glob("b.log*"))
    shown = own.daemon.cli("logs", "b", "-n", "5")
    assert shown.returncode == 0
    assert "end of flood" in shown.stdout
    assert len(shown.stdout) <= LOG_SIZE * LOG_FILES
    assert own.daemon.cli("restart", "chatty").returncode == 0


def test_a_follower_who_does_not_read_costs_nothing(own: Guarded) -> None:
    client = own.daemon.client()
    job = python("import sys\n" + FLOODS.format(size=20 << 20), wait_for_ok=True)
    client.apply(own.document(job))
    before = resident(own.daemon_pid)
    with client.logs("b", n=1, follow=True):
        deadline = time.monotonic() + 30
        while b"end of flood" not in b"".join(client.logs("b", n=1))[-100:]:
            assert time.monotonic() < deadline
        own.quick()
        assert resident(own.daemon_pid) - before < 4 << 20


def test_a_job_that_writes_garbage_is_shown_without_harm(own: Guarded) -> None:
    code = "import os, signal\nos.write(1, bytes(range(256)) + b'\\n!!OK!!\\n')\nsignal.pause()"
    assert own.apply(own.document(python(code, wait_for_ok=True))).returncode == 0
    shown = own.daemon.client().logs("b", n=10)
    assert bytes(range(128, 256)) in b"".join(shown)


def test_a_job_that_forks_without_end_is_ended_whole(own: Guarded) -> None:
    code = (
        "import os, time\n"
        "for i in range(60):\n"
        "    if os.fork() == 0:\n"
        "        os.setsid(); time.sleep(9999)\n"
        "print('!!OK!!', flush=True)\n"
        "time.sleep(9999)"
    )
    assert own.apply(own.document(python(code, wait_for_ok=True))).returncode == 0
    began = time.monotonic()
    assert own.daemon.cli("stop", "b").returncode == 0
    assert time.monotonic() - began < 5
    mine = f"{code}".encode()
    left = [
        entry.name
        for entry in Path("/proc").iterdir()
        if entry.name.isdigit() and not gone(int(entry.name)) and mine in _cmdline(entry)
    ]
    assert not left


def _cmdline(entry: Path) -> bytes:
    try:
        return (entry / "cmdline").read_bytes()
    except OSError:
        return b""


def test_causes_are_the_same_in_json(own: Guarded) -> None:
    own.fails({"job": "b", "exec_cmd": "/nowhere/program"})
    done = own.daemon.cli("--json", "status", "b")
    [row] = json.loads(done.stdout)["jobs"]
    assert row["cause"] == "cannot execute /nowhere/program: No such file or directory"
