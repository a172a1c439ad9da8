# SPDX-License-Identifier: Apache-2.0
"""The Debian package in a fresh minimal system that is not booted: lintian, and its whole life."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import roots
from support.archives import only
from support.daemon import PROJECT
from support.namespace import Shell

pytestmark = [
    pytest.mark.root,
    pytest.mark.packages,
    pytest.mark.timeout(900),
    pytest.mark.skipif(bool(roots.missing()), reason=roots.missing() or "-"),
    pytest.mark.skipif(not shutil.which("dpkg-buildpackage"), reason="needs dpkg-dev"),
]

LIBRARIES = ("h11", "psutil", "pyroute2", "requests", "sdnotify", "yaml")
DPKG = "DEBIAN_FRONTEND=noninteractive dpkg"


@pytest.fixture(scope="module")
def package() -> Path:
    """Return the package of this tree."""
    subprocess.run(["bash", str(PROJECT / "packaging" / "deb.sh")], check=True)
    return only(PROJECT / "build" / "deb", "maestro_*_all.deb")


@pytest.fixture(scope="module")
def newer(package: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the same package as the next version has it, the program's own version included."""
    top = tmp_path_factory.mktemp("newer")
    subprocess.run(["dpkg-deb", "--raw-extract", str(package), str(top / "tree")], check=True)
    module = top / "tree/usr/lib/python3/dist-packages/maestro_py/__init__.py"
    version = next(line.split('"')[1] for line in module.read_text().splitlines() if "__version__" in line)
    for path in (module, top / "tree/DEBIAN/control"):
        path.write_text(path.read_text().replace(version, f"{version}.1"))
    subprocess.run(["dpkg-deb", "--build", "--root-owner-group", str(top / "tree"), str(top)], check=True)
    return only(top, "*.deb")


@pytest.fixture(scope="module")
def minimal(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a minimal system with what the package depends on."""
    names = ["procps", "python3", *(f"python3-{name}" for name in LIBRARIES), "systemd"]
    return roots.unpack(names, tmp_path_factory.mktemp("minimal") / "root")


@pytest.fixture
def system(minimal: Path, package: Path, newer: Path) -> Iterator[Shell]:
    """Return a shell in that system, with both packages in /root."""
    shutil.copy(package, minimal / "root/first.deb")
    shutil.copy(newer, minimal / "root/second.deb")
    with Shell() as outer:
        outer.check(f"mount --bind {minimal} {minimal}; cd {minimal}")
        outer.check(f"mount --rbind /sys {minimal}/sys; mount --rbind /dev {minimal}/dev")
        outer.check(f"mount -t tmpfs tmpfs {minimal}/run; mount -t proc proc {minimal}/proc")
        outer.enter(str(minimal))
        yield outer


def test_lintian_has_nothing_to_say(package: Path) -> None:
    if not shutil.which("lintian"):
        pytest.skip("needs lintian")
    files = [str(package), str(only(package.parent, "*.changes"))]
    command = ["lintian", "--allow-root", "--fail-on", "error,warning,info", "--display-info", *files]
    said = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (said.returncode, said.stdout.strip()) == (0, ""), said.stdout + said.stderr


def test_package_has_config_file_units_and_pages(package: Path) -> None:
    command = ["dpkg-deb", "--contents", str(package)]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    files = {line.split()[5].removeprefix(".") for line in said.splitlines()}
    pages = {
        f"/usr/share/man/man{path.suffix[1:]}/{path.name}.gz" for path in (PROJECT / "man").glob("*.[1-8]")
    }
    units = {f"/lib/systemd/system/{name}.service" for name in ("maestrod", "maestro-jobs")}
    assert pages | units | {"/etc/maestro/maestro.yaml", "/usr/bin/maestro", "/usr/bin/maestrod"} <= files
    assert not [path for path in files if path.startswith("/usr/share/maestro")]


def test_upgrade_keeps_jobs_removal_stops_them_purge_takes_the_state(system: Shell) -> None:
    system.check(f"{DPKG} --install /root/first.deb")
    assert system.check("getent group maestro").startswith("maestro:")
    assert ":/nonexistent:" in system.check("getent passwd maestro-fetch")
    assert "enabled" in system.check("systemctl is-enabled maestrod")
    system.check("systemd-analyze --man=no verify maestrod.service maestro-jobs.service")
    system.check("maestrod --check")

    # what the service manager does on a booted device
    system.check("mkdir -p /root/log; setsid maestrod </dev/null >/root/log/maestrod 2>&1 &")
    system.until("maestro status")
    job = {"job": "steady", "exec_cmd": "/bin/sleep", "exec_args": ["100000"], "stop_timeout": 5}
    document = json.dumps({"jobs": [job]})
    system.check(f"echo '{document}' >/root/first.json; maestro apply /root/first.json")
    daemon, pid = system.check("pgrep -f bin/maestrod"), system.check("pgrep -f '^/bin/sleep 100000'")
    before = json.loads(system.check("maestro --json version"))["maestrod"]

    said = system.check(f"{DPKG} --install /root/second.deb")
    assert "goes on until" not in said, said
    system.until("maestro status steady | grep RUNNING")
    after = json.loads(system.check("maestro --json version"))["maestrod"]
    assert after["version"] == f"{before['version']}.1", said + system.check("cat /root/log/maestrod")
    assert system.check("pgrep -f bin/maestrod") == daemon
    assert system.check("pgrep -f '^/bin/sleep 100000'") == pid

    system.check(f"{DPKG} --remove maestro")
    assert system.run("pgrep -f '^/bin/sleep 100000'")[0] == 1
    system.until("! pgrep -f bin/maestrod")
    system.check("test -d /var/lib/maestro && test -e /etc/maestro/maestro.yaml")
    system.check(f"{DPKG} --purge maestro")
    for path in ("/var/lib/maestro", "/var/log/maestro", "/etc/maestro", "/run/maestro"):
        assert system.run(f"test -e {path}")[0] == 1, path
    left = system.check(
        "find / -xdev -name '*maestro*' -not -path '/proc/*' -not -path '/root/*' -not -path '/tmp/*'"
    )
    assert left.split() in ([], ["/var/lib/systemd/deb-systemd-helper-masked"])
