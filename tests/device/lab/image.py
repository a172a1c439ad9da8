# SPDX-License-Identifier: Apache-2.0
"""The disk a device boots from: Debian 12, its cloud kernel, this tree's Debian package and tests.

Three layers, each kept below build/device/ under a name made of what went into it:
base-*.tar, what mmdebstrap makes; tools-*, pytest and its plugins; image-*, disk, kernel and initrd.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from device.lab.architecture import PATH, Architecture, chosen

PROJECT = Path(__file__).parents[3]
CACHE = PROJECT / "build" / "device"
LAB = Path(__file__).parent

SUITE, PYTHON_VERSION = "bookworm", "3.11"
PROGRAMS = ("mmdebstrap", "qemu-img", "mke2fs", "dpkg-buildpackage", "chroot")
DISK_SIZE = "3G"  # sparse

SYSTEM = ("systemd-sysv", "udev", "kmod", "iproute2", "procps")
NEEDED = ("h11", "psutil", "pyroute2", "requests", "sdnotify", "seccomp", "yaml")  # by the package
RIVALS = ("bubblewrap", "crun", "dbus")  # systemd-run needs the last
FOR_TESTS = ("nodejs", "gcc", "libc6-dev", "bzip2", "xz-utils", "zstd", "busybox-static", *RIVALS)
TEST_TOOLS = ("hypothesis", "pytest", "pytest-timeout", "pytest-xdist")
MEASURED = ("supervisor==4.3.0",)  # beside maestro, see tests/bench
PACKAGES = ("initramfs-tools", "python3", *(f"python3-{name}" for name in NEEDED), *FOR_TESTS)

EXCLUDED = ("/usr/share/man/*", "/usr/share/locale/*", "/usr/share/doc/*", "/usr/share/info/*")

TESTED = ("tests/bench", "tests/conftest.py", "tests/linux", "tests/machine", "tests/support", "tests/unit")
PACKAGED = ("LICENSE", "README.md", "man", "maestro_py", "packaging", "pyproject.toml", "templates")

SAMPLES = Path("shared/samples/maestro/payloads")

MASKED = (
    "apt-daily.timer",
    "apt-daily-upgrade.timer",
    "dpkg-db-backup.timer",
    "e2scrub_all.timer",
    "e2scrub_reap.service",
    "fstrim.timer",
    "getty-static.service",
    "getty@tty1.service",
    "serial-getty@ttyS0.service",
    "serial-getty@ttyAMA0.service",
)

AGENT_UNIT = """\
[Unit]
Description=Runs what the test lab asks for

[Service]
ExecStartPre=/bin/sh -c 'until test -e /dev/virtio-ports/maestro.lab; do sleep 0.1; done'
ExecStart=/usr/bin/python3 -I /opt/agent.py
KillMode=process
Restart=always
RestartSec=100ms
StandardOutput=null

[Install]
WantedBy=multi-user.target
"""

TEST_TIMEOUT = 480
"""Seconds for one test in the device: emulation is an order of magnitude slower than a machine."""

# First out of the way: controllers can be enabled only where no process is.
CONTRACT_UNIT = f"""\
[Unit]
Description=Tests of other rooms

[Service]
Type=oneshot
Environment=PYTHONPATH=/opt/tools LC_ALL=C.UTF-8 HOME=/root MAESTRO_CYCLES=20
ExecStart=/bin/sh -c 'cd /sys/fs/cgroup$$(sed -n s/^0:://p /proc/self/cgroup) && mkdir supervisor && \\
    echo $$$$ >supervisor/cgroup.procs && cd /opt/tests && exec python3 -B -m pytest -q -n 2 --durations=15 \\
    -p no:cacheprovider -o timeout={TEST_TIMEOUT} -o junit_family=xunit1 --junit-xml=/run/contract.xml \\
    @/run/contract.args'
SuccessExitStatus=1 5
StandardOutput=truncate:/run/contract.log
StandardError=inherit
Delegate=yes
TasksMax=infinity
OOMPolicy=continue
"""


@dataclass(frozen=True)
class Image:
    """What QEMU boots."""

    architecture: Architecture
    disk: Path
    kernel: Path
    initrd: Path


def missing() -> str:
    """Return why no device can be built here; empty when one can."""
    programs = [name for name in PROGRAMS if not shutil.which(name, path=PATH)]
    if programs:
        return f"needs {', '.join(programs)}"
    return chosen().missing() or ("needs root" if os.geteuid() else "")


def build() -> Image:
    """Return an image of this tree as it is; made only when something in it has changed."""
    CACHE.mkdir(parents=True, exist_ok=True)
    kind = chosen()
    root, tools = base(kind), _tools(kind)
    key = _digest([root.name, tools.name, Path(__file__).read_text(), (LAB / "agent.py").read_text()],
                  _files((*PACKAGED, *TESTED)))  # fmt: skip
    place = CACHE / f"image-{kind.name}-{key}"
    if not place.exists():
        with tempfile.TemporaryDirectory(dir=CACHE, prefix="making-") as work:
            _make(Path(work), root, tools)
            for old in CACHE.glob(f"image-{kind.name}-*"):
                shutil.rmtree(old)
            (Path(work) / "image").rename(place)
    return Image(kind, place / "disk", place / "kernel", place / "initrd")


def base(kind: Architecture) -> Path:
    """Return the archive of a small Debian with everything the package and the tests need."""
    packages = [*SYSTEM, kind.kernel, *PACKAGES]
    path = CACHE / f"base-{_digest([SUITE, *packages, *EXCLUDED])}.tar"
    if not path.exists():
        new = path.with_suffix(".new.tar")
        do(
            "mmdebstrap", "--quiet", "--variant=minbase", f"--architectures={kind.name}",
            f"--include={','.join(packages)}",
            *(f"--dpkgopt=path-exclude={pattern}" for pattern in EXCLUDED),
            "--aptopt=Acquire::Languages none", "--aptopt=Acquire::Retries 3",
            SUITE, str(new),
        )  # fmt: skip
        new.rename(path)
    return path


def _tools(kind: Architecture) -> Path:
    """Install pytest and what it needs, as the project declares them, for the device's Python."""
    wanted = [
        requirement.partition(";")[0].strip()
        for requirement in importlib.metadata.requires("maestro-py") or ()
        if re.search(r"extra == ['\"]test['\"]", requirement)
        and re.split(r"[^a-z-]", requirement)[0] in TEST_TOOLS
    ]
    wanted += MEASURED
    path = CACHE / f"tools-{_digest([PYTHON_VERSION, *kind.wheels, *wanted])}"
    if not path.exists():
        new = path.with_suffix(".new")
        shutil.rmtree(new, ignore_errors=True)
        do(
            sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check",
            "--root-user-action=ignore", "--only-binary=:all:", f"--python-version={PYTHON_VERSION}",
            *(f"--platform={platform}" for platform in kind.wheels), "--target", str(new), *wanted,
        )  # fmt: skip
        new.rename(path)
    return path


def _make(work: Path, base: Path, tools: Path) -> None:
    root, image = work / "root", work / "image"
    image.mkdir()
    unpack(base, root)
    for name, found in (("kernel", "vmlinuz-*"), ("initrd", "initrd.img-*")):
        (file,) = (root / "boot").glob(found)
        shutil.move(file, image / name)

    shutil.copy(LAB / "agent.py", root / "opt")
    shutil.copytree(tools, root / "opt/tools")
    tests = root / "opt/tests"
    tests.mkdir()
    for name in TESTED:
        do("cp", "-r", "--parents", name, str(tests))
    shutil.copy(PROJECT / "pyproject.toml", tests)
    if (PROJECT.parent / SAMPLES).is_dir():
        shutil.copytree(PROJECT.parent / SAMPLES, root / "opt" / SAMPLES)

    system = root / "etc/systemd/system"
    (system / "lab.service").write_text(AGENT_UNIT)
    (system / "contract.service").write_text(CONTRACT_UNIT)
    for unit in MASKED:
        (system / unit).symlink_to("/dev/null")
    (root / "etc/hostname").write_text("device\n")
    (root / "etc/hosts").write_text("127.0.0.1 localhost device\n")
    (root / "etc/fstab").write_text("/dev/vda / ext4 defaults 0 0\n")
    (root / "etc/machine-id").write_text("")
    do("systemctl", f"--root={root}", "--quiet", "enable", "lab.service")

    disk = image / "disk"
    do("mke2fs", "-q", "-t", "ext4", "-d", str(root), str(disk), DISK_SIZE)


def unpack(base: Path, root: Path) -> None:
    """Put the small Debian into a directory, with this tree's package installed and kept in /opt."""
    root.mkdir()
    do("tar", "-x", "--numeric-owner", "-C", str(root), "-f", str(base))
    do(str(PROJECT / "packaging/deb.sh"), env={**os.environ, "PYTHON": sys.executable})
    (package,) = (PROJECT / "build/deb").glob("maestro_*.deb")
    shutil.copy(package, root / "opt/maestro.deb")
    do("chroot", str(root), "dpkg", "--install", "/opt/maestro.deb")


def _files(names: Iterable[str]) -> list[Path]:
    return sorted(
        path
        for name in names
        for path in ([PROJECT / name] if (PROJECT / name).is_file() else (PROJECT / name).rglob("*"))
        if path.is_file() and "__pycache__" not in path.parts
    )


def _digest(texts: Iterable[str], files: Iterable[Path] = ()) -> str:
    digest = hashlib.sha256()
    for text in texts:
        digest.update(text.encode() + b"\0")
    for path in files:
        digest.update(f"{path.relative_to(PROJECT)}\0{path.stat().st_mode:o}\0".encode())
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:16]


def do(*command: str, env: dict[str, str] | None = None) -> None:
    """Run a command that must work, in the project's directory."""
    done = subprocess.run(
        command,
        cwd=PROJECT,
        env={**(env or os.environ), "PATH": PATH, "LC_ALL": "C.UTF-8", "DEBIAN_FRONTEND": "noninteractive"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)[:200]}: exit {done.returncode}\n{done.stdout[-4000:]}")
