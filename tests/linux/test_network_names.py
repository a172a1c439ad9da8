# SPDX-License-Identifier: Apache-2.0
"""Names are resolved inside a private network, whatever the device's own resolver is."""

from __future__ import annotations

import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from support.daemon import Daemon
from support.netlab import OUTSIDE, Lab, eventually, lab

pytestmark = pytest.mark.root

PYTHON = "/usr/bin/python3"
ANSWER = "203.0.113.9"
RESOLVE = """
import signal, socket
signal.signal(signal.SIGUSR1, lambda *_: None)
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
print(open("/etc/resolv.conf").read(), flush=True)
while True:
    try:
        print("found:", socket.gethostbyname("some.test"), flush=True)
    except OSError as error:
        print("not found:", error, flush=True)
    print("!!OK!!", flush=True)
    signal.sigwait([signal.SIGUSR1])
    print(open("/etc/resolv.conf").read(), flush=True)
"""


@contextmanager
def name_server(world: Lab, address: str) -> Iterator[None]:
    """Answer every question with ANSWER, from outside."""
    server = world.listen(address, socket.SOCK_DGRAM, 53)
    server.settimeout(None)

    def serve() -> None:
        while True:
            question, peer = server.recvfrom(512)
            if question == b"end":
                return
            end = question.index(b"\0", 12) + 5
            head = question[:2] + b"\x81\x80\0\1\0\1\0\0\0\0"
            record = b"\xc0\x0c\0\1\0\1\0\0\0\x3c\0\4" + socket.inet_aton(ANSWER)
            server.sendto(head + question[12:end] + record, peer)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield
    finally:
        server.sendto(b"end", server.getsockname())
        thread.join()
        server.close()


@pytest.fixture
def world() -> Iterator[Lab]:
    with lab() as made:
        yield made


@pytest.fixture
def device(world: Lab, tmp_path: Path) -> Iterator[Daemon]:
    """Return a daemon whose device has a resolv.conf of its own: a file of the test, mounted there."""
    (tmp_path / "etc").mkdir()
    own = tmp_path / "etc/resolv.conf"
    own.write_text(f"# the device's own\nnameserver 127.0.0.53\nnameserver {OUTSIDE}\nsearch example.test\n")
    made = Daemon(tmp_path / "device")
    script = f'mount --bind {own} /etc/resolv.conf && exec "$@"'
    made.program = world.program("unshare", "--mount", "sh", "-c", script, "sh")
    try:
        yield made.start()
    finally:
        made.close()


def job(name: str, **fields: Any) -> dict[str, Any]:
    args = ["-I", "-S", "-u", "-c", RESOLVE]
    found = {"job": name, "exec_args": args, "network": "private", "wait_for_ok": True, "exec_cmd": PYTHON}
    return found | {"reload_signal": "USR1"} | fields


def system_root(path: Path, resolver: str) -> Path:
    """Make a root with the device's programs, whose resolv.conf is a link."""
    for name in ("usr", "etc", "proc", "dev"):
        (path / name).mkdir(parents=True)
    for name in ("bin", "lib", "lib64", "sbin"):
        link = Path("/", name)
        if link.is_symlink():
            (path / name).symlink_to(link.readlink())
    (path / "etc/resolv.conf").symlink_to(resolver)
    return path


@pytest.mark.skipif(not Path(PYTHON).exists(), reason=f"needs {PYTHON}")
def test_names_are_found_with_and_without_a_root_of_its_own(
    device: Daemon, world: Lab, tmp_path: Path
) -> None:
    root = system_root(tmp_path / "root", "../run/systemd/resolve/stub-resolv.conf")
    hostile = system_root(tmp_path / "hostile", f"{'../' * 20}{tmp_path}/stray/resolv.conf")
    usr = [{"source": "/usr", "target": "/usr"}]
    with name_server(world, OUTSIDE):
        device.run(
            {
                "config": "running",
                "jobs": [
                    job("plain"),
                    job("user", user=65534),
                    job("rooted", chroot_path=str(root), mounts=usr),
                    job("hostile", chroot_path=str(hostile), mounts=usr),
                ],
            }
        )
        assert not (tmp_path / "stray").exists()
        for name in ("plain", "user", "rooted", "hostile"):
            log = device.log_of(name)
            assert f"found: {ANSWER}" in log, log
            assert f"nameserver {OUTSIDE}\nsearch example.test\n" in log
            assert "127.0.0.53" not in log


@pytest.mark.skipif(not Path(PYTHON).exists(), reason=f"needs {PYTHON}")
def test_a_changed_resolver_of_the_device_is_seen_by_those_at_work(
    device: Daemon, world: Lab, tmp_path: Path
) -> None:
    with name_server(world, OUTSIDE):
        device.run({"config": "running", "jobs": [job("plain")]})
        (tmp_path / "etc/resolv.conf").write_text("nameserver 203.0.113.53\n")
        seen = device.root / "run/network/resolv.conf"
        eventually(lambda: seen.read_text() == "nameserver 203.0.113.53\n", "the new resolver")
        device.client().action("plain", "reload")
        assert "nameserver 203.0.113.53" in device.wait_log("plain", "nameserver 203.0.113.53")


def test_a_stopped_jobs_namespace_is_not_held_by_anothers_mounts(world: Lab, tmp_path: Path) -> None:
    device = Daemon(tmp_path / "device")
    device.program = world.program()
    idle = ["-I", "-S", "-c", "import signal; print('!!OK!!', flush=True); signal.pause()"]
    base = {"exec_cmd": sys.executable, "exec_args": idle, "wait_for_ok": True}
    try:
        device.start()
        device.run({"config": "running", "jobs": [{**base, "job": "web", "network": "private"}]})
        others = [
            {**base, "job": "own-mounts", "tmpfs": ["/mnt"]},
            {**base, "job": "own-network", "network": "private"},
        ]
        device.run({"config": "add", "jobs": others} | {"config": "running", "jobs": [
            {**base, "job": "web", "network": "private"}, *others]})  # fmt: skip
        mounts = [
            Path(f"/proc/{device.job(name)['pid']}/mountinfo") for name in ("own-mounts", "own-network")
        ]
        assert all("netns/web" in each.read_text() for each in mounts)
        device.do("web", "stop")
        eventually(lambda: not any("netns/web" in each.read_text() for each in mounts), "the unmount")
    finally:
        device.close()
