# SPDX-License-Identifier: Apache-2.0
"""What isolation costs per launch, piece by piece, beside tools that do the same.

Run as root: `python -m tests.bench.isolation [ROUNDS]`. The program is `true`; times are from the
decision to launch until it is executed and until its end is known. Every round takes each row once, so
that a busy moment hits all alike. A tool that is not installed, or does not run here, has no row.
"""

from __future__ import annotations

import json
import os
import select
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from maestro_py.errors import MaestroError
from maestro_py.process import kernel, launcher, reaper
from maestro_py.spec.model import Mount, Secret
from maestro_py.spec.places import SECRETS_INSIDE
from maestro_py.spec.resolved import ResolvedProcess

TRUE = "/usr/bin/true"
PROMISE = 3.0
"""Milliseconds that full isolation may cost over a bare launch."""
Row = tuple[str, Callable[[], tuple[float, float]]]


def ours(null: int, **fields: Any) -> tuple[float, float]:
    """Launch once; return milliseconds to exec and to the end."""
    begun = time.perf_counter()
    spec = launcher.prepare(
        ResolvedProcess("bench", ("bench",), argv=(TRUE,), **fields),
        daemon_env={},
        stdin_fd=null,
        stdout_fd=null,
        stderr_fd=null,
    )
    launch = launcher.start(spec)
    _wait(launch.report_fd)
    executed = time.perf_counter()
    failure = launcher.read_report(launch.report_fd)
    _wait(launch.pidfd)
    exit = reaper.wait(launch.pid, launch.pidfd)
    ended = time.perf_counter()
    os.close(launch.report_fd)
    os.close(launch.pidfd)
    if failure or exit is None or exit.code != 0:
        raise MaestroError(failure.message if failure else f"ended with {exit}")
    return (executed - begun) * 1000, (ended - begun) * 1000


def _wait(fd: int) -> None:
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    poll.poll()


def theirs(*argv: str) -> tuple[float, float]:
    """Run a tool once; return nothing known for exec, and milliseconds to the end."""
    begun = time.perf_counter()
    subprocess.run(argv, check=True, stdin=subprocess.DEVNULL, capture_output=True)
    return 0.0, (time.perf_counter() - begun) * 1000


def make_root(path: Path) -> Path:
    """Return a root that holds the device's /usr by a mount."""
    path.mkdir()
    for name in ("bin", "sbin", "lib", "lib64"):
        (path / name).symlink_to(f"usr/{name}")
    for name in ("usr", "proc", "dev", "tmp"):  # the tools cannot make them in a read-only root
        (path / name).mkdir()
    return path


def make_bundle(path: Path, root: Path) -> Path:
    """Return an OCI bundle that asks for the same as our full row."""
    path.mkdir()
    quiet = ["nosuid", "nodev"]
    config = {
        "ociVersion": "1.0.0",
        "process": {
            "user": {"uid": 65534, "gid": 65534},
            "args": [TRUE],
            "cwd": "/",
            "env": ["PATH=/usr/bin"],
            "noNewPrivileges": True,
            "capabilities": {name: [] for name in ("bounding", "effective", "permitted", "ambient")},
        },
        "root": {"path": str(root), "readonly": True},
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid"]},
            {"destination": "/dev/shm", "type": "tmpfs", "source": "shm", "options": quiet},
            {"destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": quiet},
            {"destination": "/usr", "type": "bind", "source": "/usr", "options": ["rbind", "ro", *quiet]},
        ],
        "linux": {"namespaces": [{"type": name} for name in ("pid", "ipc", "uts", "mount")]},
    }
    (path / "config.json").write_text(json.dumps(config))
    return path


def hide_v1() -> None:
    """Show this program a pure cgroup v2 where both are mounted: crun refuses to run beside v1."""
    unified = "/sys/fs/cgroup/unified"
    if os.path.isdir(unified):
        kernel.unshare(kernel.CLONE_NEWNS)
        kernel.mount("none", "/", None, kernel.MS_REC | kernel.MS_PRIVATE)
        kernel.mount(unified, "/sys/fs/cgroup", None, kernel.MS_BIND)


def rows(place: Path, null: int) -> list[Row]:
    """Return every row, ours first."""
    root = make_root(place / "root")
    usr = (Mount("/usr", "/usr"),)
    rooted: dict[str, Any] = {"root": str(root), "mounts": usr}
    private: dict[str, Any] = {"pids": "private"}
    user: dict[str, Any] = {"user": "nobody"}
    sealed: dict[str, Any] = {"read_only_root": True}
    none: dict[str, Any] = {"capabilities": ()}
    secrets: dict[str, Any] = {
        "secrets": (Secret("key", data="x" * 100),),
        "secrets_dir": SECRETS_INSIDE,
    }
    full = {**rooted, **private, **user, **sealed, **none, **secrets}
    ask: dict[str, dict[str, Any]] = {
        "bare": {},
        "user": user,
        "capabilities: []": none,
        "pids: private": private,
        "root": rooted,
        "root, read-only": {**rooted, **sealed},
        "root, secrets": {**rooted, **secrets},
        "full": full,
    }
    try:
        launcher.prepare(
            ResolvedProcess("bench", ("bench",), argv=(TRUE,), seccomp="default"),
            daemon_env={},
            stdin_fd=null,
            stdout_fd=null,
            stderr_fd=null,
        )
        ask["seccomp"] = {"seccomp": "default"}
        ask["full, seccomp"] = {**full, "seccomp": "default"}
    except MaestroError as error:
        print(f"without seccomp: {error}", file=sys.stderr)
    found: list[Row] = [
        (name, lambda fields=fields: ours(null, **fields))  # type: ignore[misc]
        for name, fields in ask.items()
    ]
    found.append(("subprocess, bare", lambda: theirs(TRUE)))
    bwrap = (
        "bwrap --unshare-pid --unshare-ipc --unshare-uts --uid 65534 --gid 65534 --unshare-user --as-pid-1 "
        f"--ro-bind {root} / --ro-bind /usr /usr --proc /proc --dev /dev --tmpfs /tmp --cap-drop ALL {TRUE}"
    )
    bundle = make_bundle(place / "bundle", root)
    numbers = iter(range(1 << 30))
    hardening = ("PrivateTmp=yes", "ProtectSystem=strict", "PrivateDevices=yes", "PrivateIPC=yes")
    options = [f"-p{each}" for each in (*hardening, "NoNewPrivileges=yes", "CapabilityBoundingSet=")]
    peers: list[Row] = [
        ("bwrap, as full", lambda: theirs(*bwrap.split())),
        (
            "crun run, as full",
            lambda: theirs(
                "crun", "--cgroup-manager=disabled", f"--root={place}/crun", "run", f"--bundle={bundle}",
                f"bench{next(numbers)}",
            ),
        ),
        (
            "systemd-run, as full",
            lambda: theirs("systemd-run", "--wait", "-q", "-pUser=nobody", *options, TRUE),
        ),
    ]  # fmt: skip
    for name, run in peers:
        tool = name.split(" ")[0].rstrip(",")
        if shutil.which(tool) is None:
            print(f"without {tool}: it is not installed", file=sys.stderr)
            continue
        try:
            run()
        except (OSError, subprocess.CalledProcessError) as error:
            why = getattr(error, "stderr", b"") or b""
            print(f"without {tool}: {why.decode().strip() or error}", file=sys.stderr)
            continue
        found.append((name, run))
    return found


def main() -> int:
    """Print the table."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 50
    null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    hide_v1()
    with tempfile.TemporaryDirectory(prefix="maestro-bench-") as directory:
        os.chmod(directory, 0o755)
        table = rows(Path(directory), null)
        times: dict[str, list[tuple[float, float]]] = {name: [] for name, _ in table}
        for _ in range(rounds):
            for name, run in table:
                times[name].append(run())
    bare = statistics.median(end for _, end in times["bare"])
    print(
        f"{'launch of true, ms, median of ' + str(rounds):34} {'to exec':>8} {'to end':>8} {'over bare':>10}"
    )
    for name, pairs in times.items():
        executed = statistics.median(pair[0] for pair in pairs)
        ended = statistics.median(pair[1] for pair in pairs)
        verdict = ("  ok" if ended - bare <= PROMISE else "  MISS") if name == "full" else ""
        reached = f"{executed:8.2f}" if executed else "       -"
        print(f"{name:34} {reached} {ended:8.2f} {ended - bare:10.2f}{verdict}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
