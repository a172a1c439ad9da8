# SPDX-License-Identifier: Apache-2.0
"""Something runs out: the daemon stays, what runs runs on, the cause has a name, and it all comes back."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from support.daemon import Daemon
from support.documents import document, image, job

from maestro_py.errors import MaestroError

pytestmark = pytest.mark.root

MIB = 1 << 20
COUNTS = 'n=0; while :; do n=$((n+1)); echo "line $n"; sleep 0.05; done'


@pytest.fixture
def made(tmp_path: Path) -> Iterator[Callable[..., Daemon]]:
    """Make daemons with parts of their root on small file systems of their own."""
    daemons: list[Daemon] = []
    mounted: list[Path] = []

    def make(*, small: tuple[str, ...] = (), size: int = 2 * MIB, config: str = "", **options: Any) -> Daemon:
        daemon = Daemon(tmp_path / "device", config)
        for name in small:
            place = daemon.root / name
            place.mkdir(parents=True)
            subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place)], check=True)
            mounted.append(place)
        if "program" in options:
            daemon.program = options["program"]
        daemons.append(daemon)
        return daemon.start()

    yield make
    for daemon in daemons:
        daemon.close()
    for place in reversed(mounted):
        subprocess.run(["umount", str(place)], check=True)


def fill(place: Path) -> Path:
    """Fill a file system to the last byte."""
    ballast = place / "ballast"
    with ballast.open("wb", buffering=0) as file:
        for size in (65536, 4096, 512, 1):
            try:
                while True:
                    file.write(b"x" * size)
            except OSError:
                pass
    return ballast


def running(daemon: Daemon, pid: int, name: str = "good") -> bool:
    row = daemon.job(name)
    return (row["pid"], row["state"], row["restarts"]) == (pid, "RUNNING", 0)


def eventually(look: Callable[[], bool], timeout: float = 60) -> None:
    deadline = time.monotonic() + timeout
    while not look():
        assert time.monotonic() < deadline, "it did not come back"
        time.sleep(0.05)


# disk


def test_a_full_state_directory(made: Callable[..., Daemon], tmp_path: Path) -> None:
    daemon = made(small=("state",))
    good = job("good")
    daemon.run(document(good))
    pid = daemon.job("good")["pid"]
    ballast = fill(daemon.root / "state")
    big = job("new", env=[f"X={'x' * 20000}"])
    with pytest.raises((MaestroError, AssertionError), match=r"No space left|full"):
        daemon.run(document(good, big))
    pictured = image("good", "2", tmp_path, {"f": "x" * 100000})
    with pytest.raises((MaestroError, AssertionError), match=r"No space left|full|free"):
        daemon.run(document(good, images=[pictured]))
    assert running(daemon, pid)
    daemon.do("good", "restart")
    assert daemon.job("good")["state"] == "RUNNING"
    ballast.unlink()
    daemon.run(document(good, big))
    assert daemon.job("new")["state"] == "RUNNING"


def test_a_full_log_directory_holds_no_job_up(made: Callable[..., Daemon]) -> None:
    daemon = made(small=("log",))
    daemon.run(document(job("good", COUNTS)))
    pid = daemon.job("good")["pid"]
    ballast = fill(daemon.root / "log")
    loud = job("loud", "head -c 3000000 /dev/zero; echo; echo '!!OK!!'; exec sleep 1000", wait_for_ok=True)
    daemon.run(document(job("good", COUNTS), loud))  # it could say OK after more than any pipe holds
    assert running(daemon, pid)
    ballast.unlink()
    before = daemon.log_of("good")
    eventually(lambda: len(daemon.log_of("good")) > len(before))


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """Mount a small disk that goes read-only at the first error, as devices mount theirs."""
    picture, place = tmp_path / "disk", tmp_path / "device"
    place.mkdir()
    picture.touch()
    os.truncate(picture, 32 * MIB)
    subprocess.run(["mkfs.ext4", "-q", str(picture)], check=True)
    options = ["mount", "-o", "loop,errors=remount-ro", str(picture), str(place)]
    subprocess.run(options, check=True)
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


def test_a_disk_that_goes_read_only(made: Callable[..., Daemon], disk: Path) -> None:
    found = subprocess.run(
        ["findmnt", "-no", "SOURCE", str(disk)], capture_output=True, text=True, check=True
    )
    trigger = Path("/sys/fs/ext4", Path(found.stdout.strip()).name, "trigger_fs_error")
    daemon = made()
    daemon.run(document(job("good", COUNTS)))
    pid = daemon.job("good")["pid"]
    trigger.write_text("1")
    with pytest.raises((MaestroError, AssertionError), match=r"(?i)read-?only"):
        daemon.run(document(job("good", COUNTS), job("new")))
    assert running(daemon, pid)
    daemon.client().kill("good", "SIGKILL")
    daemon.wait_state("good", "FAILED")
    daemon.stop()
    subprocess.run(["umount", str(disk)], check=True)
    subprocess.run(["mount", "-o", "loop", str(disk.parent / "disk"), str(disk)], check=True)
    daemon.start()
    daemon.run(document(job("good", COUNTS), job("new")))
    assert daemon.job("new")["state"] == "RUNNING"
    daemon.stop()


def test_a_full_run_directory(made: Callable[..., Daemon]) -> None:
    daemon = made(small=("run",))
    daemon.run(document(job("good")))
    pid = daemon.job("good")["pid"]
    ballast = fill(daemon.root / "run")
    task = daemon.apply(document(job("good"), job("new", restart=True)))
    assert running(daemon, pid)
    ballast.unlink()
    if task["status"] != "complete":
        daemon.run(document(job("good"), job("new", restart=True)))
    daemon.wait_state("new", "RUNNING")
    assert running(daemon, pid)


# descriptors, processes, memory


def test_no_descriptors_left(made: Callable[..., Daemon]) -> None:
    daemon = made()
    daemon.run(
        document(job("good"), job("dying", "exit 1", no_autostart=True, restart=True, restart_pause=50))
    )
    assert daemon.process
    pid = daemon.job("good")["pid"]
    count = len(os.listdir(f"/proc/{daemon.process.pid}/fd"))
    prlimit(daemon.process.pid, "nofile", count + 2)
    with pytest.raises((MaestroError, AssertionError, OSError)):
        daemon.run(document(job("good"), *(job(f"new{n}") for n in range(5))))
    busy = cpu(daemon.process.pid)
    time.sleep(1)
    assert cpu(daemon.process.pid) - busy < 0.5, "it spins"
    prlimit(daemon.process.pid, "nofile", 4096)
    eventually(lambda: answers(daemon))
    assert running(daemon, pid)
    daemon.run(document(job("good"), job("new")))
    assert daemon.job("new")["state"] == "RUNNING"


def answers(daemon: Daemon) -> bool:
    try:
        daemon.client().version()
    except MaestroError:
        return False
    return True


def cpu(pid: int) -> float:
    """Return the seconds of CPU a process has used."""
    words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")


def prlimit(pid: int, name: str, value: int) -> None:
    subprocess.run(["prlimit", f"--pid={pid}", f"--{name}={value}:"], check=True)


@contextmanager
def few_pids(pid: int, more: int) -> Iterator[None]:
    """Let a process have only so many children more, as a control group of its own says."""
    top = Path("/sys/fs/cgroup/pids")
    if not (top / "cgroup.procs").exists():
        pytest.skip("no cgroup v1 pids controller is mounted")
    group = top / f"maestro-test-{os.getpid()}"
    group.mkdir()
    try:
        (group / "cgroup.procs").write_text(str(pid))
        (group / "pids.max").write_text(str(int((group / "pids.current").read_text()) + more))
        yield
        (group / "pids.max").write_text("max")
    finally:
        for member in (group / "cgroup.procs").read_text().split():
            (top / "cgroup.procs").write_text(member)
        group.rmdir()


def test_no_processes_left(made: Callable[..., Daemon]) -> None:
    daemon = made()
    daemon.run(document(job("good")))
    assert daemon.process
    pid = daemon.job("good")["pid"]
    with few_pids(daemon.process.pid, 0):
        daemon.client().apply(document(job("good"), job("new", restart=True)))
        row = daemon.wait("new", lambda row: row["state"] == "RESTARTING")
        assert "Resource temporarily unavailable" in row["cause"]
        assert running(daemon, pid)
        (Path("/sys/fs/cgroup/pids") / f"maestro-test-{os.getpid()}" / "pids.max").write_text("max")
        daemon.wait_state("new", "RUNNING", timeout=60)
        daemon.do("new", "stop")


def test_no_memory_for_a_fork(made: Callable[..., Daemon]) -> None:
    patched = (
        "import os, sys, errno\nfrom pathlib import Path\nfork = os.fork\n"
        "def scarce():\n"
        "    if Path(sys.argv[-1], 'scarce').exists():\n"
        "        raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))\n"
        "    return fork()\n"
        "os.fork = scarce\n"
        "from maestro_py.process import kernel\n"
        "clone = kernel.clone_into_cgroup\n"
        "def scarce_clone(fd):\n"
        "    if Path(sys.argv[-1], 'scarce').exists():\n"
        "        raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))\n"
        "    return clone(fd)\n"
        "kernel.clone_into_cgroup = scarce_clone\n"
        "from maestro_py.daemon.main import main\nsys.exit(main())\n"
    )
    daemon = made(program=(sys.executable, "-c", patched))
    daemon.run(document(job("good")))
    pid = daemon.job("good")["pid"]
    (daemon.root / "scarce").touch()
    daemon.client().apply(document(job("good"), job("new", restart=True)))
    row = daemon.wait("new", lambda row: row["state"] == "RESTARTING")
    assert "Cannot allocate memory" in row["cause"]
    assert running(daemon, pid)
    (daemon.root / "scarce").unlink()
    daemon.wait_state("new", "RUNNING", timeout=60)


# control groups


def test_a_control_group_that_somebody_removed(made: Callable[..., Daemon]) -> None:
    daemon = made()
    limited = {"cgroup": {"pids_max": 50}}
    daemon.run(document(job("good"), job("idle", no_autostart=True, **limited)))
    pid = daemon.job("good")["pid"]
    daemon.do("idle", "start")
    daemon.do("idle", "stop")
    for path in daemon.groups():
        for below in sorted(path.rglob("*"), key=lambda p: -len(p.parts)):
            if below.is_dir():
                try:
                    below.rmdir()
                except OSError:
                    pass  # somebody is in it
    assert daemon.do("idle", "start")["status"] == "complete"
    assert daemon.job("idle")["state"] == "RUNNING"
    assert running(daemon, pid)
