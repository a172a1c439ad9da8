# SPDX-License-Identifier: Apache-2.0
"""Networks of jobs: none but loopback, or a private one behind the device, on a device made by the test."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.daemon import Daemon
from support.netlab import DEVICE, OUTSIDE, Lab, eventually, lab, run, within

from maestro_py.process import firewall

pytestmark = pytest.mark.root

BRIDGE, SUBNET = "10.88.0.1", "10.88.0."
RANGES = ("10.88.0.0/15", "10.118.0.0/16", "10.188.0.0/16", "10.218.0.0/16")

SERVER = """
import socket
server = socket.create_server(("", 8000))
print("!!OK!!", flush=True)
while True:
    connection, peer = server.accept()
    with connection:
        connection.sendall(f"{NAME} answers {peer[0]}".encode())
"""
UDP_SERVER = """
import socket
server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.bind(("", 8001))
print("!!OK!!", flush=True)
while True:
    data, peer = server.recvfrom(4096)
    server.sendto(f"{NAME} answers {peer[0]}".encode(), peer)
"""
IDLE = "import signal; print('!!OK!!', flush=True); signal.pause()"
LINKS = "import socket; print([name for _, name in socket.if_nameindex()], flush=True);" + IDLE


def job(name: str, code: str, network: Any, **fields: Any) -> dict[str, Any]:
    fields = {"wait_for_ok": True, "restart": False, "stop_timeout": 5, "exec_cmd": sys.executable} | fields
    args = ["-I", "-S", "-u", "-c", f"NAME = {name!r}\n{code}"]
    return {"job": name, "exec_args": args, "network": network, **fields}


def private(*ports: tuple[int, int, str], address: str = "", on: str = "") -> dict[str, Any]:
    published = [{"host": h, "inside": i, "protocol": p, "address": on} for h, i, p in ports]
    return {"mode": "private", "ports": published, "address": address}


def document(*jobs: dict[str, Any]) -> dict[str, Any]:
    return {"config": "running", "jobs": list(jobs)}


@pytest.fixture
def world() -> Iterator[Lab]:
    with lab() as made:
        yield made


class Device(Daemon):
    """A daemon in the device's network namespace."""

    def namespace(self, name: str) -> str:
        return str(self.root / "run/netns" / name)

    def address(self, name: str) -> str:
        words = run("ip", "-4", "-o", "addr", "show", "eth0", namespace=self.namespace(name)).split()
        return words[3].split("/")[0]

    def inode(self, name: str) -> int:
        return os.stat(self.namespace(name)).st_ino

    def mounts(self) -> list[str]:
        lines = Path("/proc/self/mountinfo").read_text().splitlines()
        return [line for line in lines if str(self.root) in line]


@pytest.fixture
def device(world: Lab, tmp_path: Path) -> Iterator[Device]:
    made = Device(tmp_path / "device")
    made.program = world.program()
    try:
        yield made.start()
    finally:
        made.close()
        assert_no_trace(world, made)


def assert_no_trace(world: Lab, device: Device) -> None:
    """What the private network was made of is gone, and the device is as it was."""
    eventually(lambda: world.links() == {"lo", "wan0"}, "removal of the links")
    eventually(lambda: not device.mounts(), "removal of the namespaces")
    eventually(lambda: not (device.root / "run/network").exists(), "removal of the files")
    eventually(lambda: not (device.root / "run/netns").exists(), "removal of the directory")
    assert (world.tables(), world.forwarding()) == (0, "0")


def refused(what: Callable[[], object]) -> bool:
    try:
        what()
    except OSError:
        return True
    return False


def test_host_sees_the_device_and_none_sees_only_loopback(device: Device, world: Lab) -> None:
    device.run(document(job("open", LINKS, "host"), job("closed", LINKS, "none")))
    assert "['lo', 'wan0']" in device.log_of("open")
    assert "['lo']" in device.log_of("closed")
    inside = f"/proc/{device.job('closed')['pid']}/ns/net"
    with within(inside):
        server = socket.create_server(("127.0.0.1", 0))
    with server:
        with within(inside):
            client = socket.create_connection(server.getsockname(), timeout=5)
        client.close()
    assert refused(lambda: world.ask(inside, OUTSIDE, 80, 1))
    assert "maestro" not in "".join(world.links())


def test_private_reaches_out_with_the_devices_address_and_is_not_reached(device: Device, world: Lab) -> None:
    device.run(document(job("web", SERVER, "private")))
    with world.listen(OUTSIDE) as server:
        port = server.getsockname()[1]
        with within(device.namespace("web")):
            connection = socket.socket()
        with connection:
            connection.settimeout(5)
            connection.connect((OUTSIDE, port))
            accepted, peer = server.accept()
            accepted.close()
        assert peer[0] == DEVICE
    address = device.address("web")
    assert address.startswith(SUBNET)
    assert world.ask(world.device, address, 8000) == f"web answers {BRIDGE}"
    run("ip", "route", "add", "10.88.0.0/24", "via", DEVICE, namespace=world.outside)
    assert refused(lambda: world.ask(world.outside, address, 8000, 1))
    with within(device.namespace("web")):
        names = {name for _, name in socket.if_nameindex()}
    assert names == {"lo", "eth0"}


def test_published_ports_lead_inside_from_everywhere(device: Device, world: Lab) -> None:
    device.run(
        document(
            job("web", SERVER, private((8080, 8000, "tcp"))),
            job("udp", UDP_SERVER, private((5353, 8001, "udp"))),
            job("local", SERVER, private((9090, 8000, "tcp"), on="127.0.0.1")),
        )
    )
    assert world.ask(world.outside, DEVICE, 8080) == f"web answers {OUTSIDE}"
    assert world.ask_udp(world.outside, DEVICE, 5353) == f"udp answers {OUTSIDE}"
    for address in (DEVICE, "127.0.0.1", BRIDGE):
        assert world.ask(world.device, address, 8080).startswith("web answers")
        assert world.ask_udp(world.device, address, 5353).startswith("udp answers")
    neighbour = device.namespace("udp")
    assert world.ask(neighbour, DEVICE, 8080) == f"web answers {BRIDGE}"
    assert world.ask(device.namespace("web"), DEVICE, 8080) == f"web answers {BRIDGE}"
    assert world.ask(world.device, "127.0.0.1", 9090).startswith("local answers")
    assert refused(lambda: world.ask(world.outside, DEVICE, 9090, 1))
    assert refused(lambda: world.ask(world.device, DEVICE, 9090, 1))

    device.do("web", "stop")
    eventually(lambda: refused(lambda: world.ask(world.outside, DEVICE, 8080, 1)), "the end of the port")
    assert world.ask_udp(world.outside, DEVICE, 5353) == f"udp answers {OUTSIDE}"


def test_private_jobs_see_each_other_by_address_and_by_name(device: Device, world: Lab) -> None:
    ask = (
        """
import socket
for host in (ADDRESS, "web"):
    with socket.create_connection((host, 8000), 5) as connection:
        print("heard:", connection.recv(100).decode(), flush=True)
print(open("/etc/hosts").read(), flush=True)
"""
        + IDLE
    )
    device.run(
        document(
            job("web", SERVER, private(address="10.88.0.77")),
            job("client", "ADDRESS = '10.88.0.77'\n" + ask, "private", depends_on=["web"]),
        )
    )
    assert device.address("web") == "10.88.0.77"
    assert device.log_of("client").count(f"heard: web answers {device.address('client')}") == 2


def test_an_address_is_the_same_after_every_start(device: Device) -> None:
    device.run(document(job("a", IDLE, "private"), job("b", IDLE, "private")))
    before = {name: device.address(name) for name in "ab"}
    assert len(set(before.values())) == 2
    device.stop()
    device.start()
    for name in "ab":
        device.wait_state(name, "RUNNING")
    assert {name: device.address(name) for name in "ab"} == before


def test_a_restart_after_a_death_keeps_the_network_and_one_by_hand_renews_it(device: Device) -> None:
    crash = IDLE
    device.run(document(job("web", crash, "private", restart_policy="always", restart_pause=10)))
    before, pid = device.inode("web"), device.job("web")["pid"]
    os.kill(pid, 9)
    row = device.wait("web", lambda row: row["pid"] not in (None, pid) and row["state"] == "RUNNING")
    assert device.inode("web") == before
    run("ip", "link", "set", "eth0", "down", namespace=device.namespace("web"))
    device.do("web", "restart")
    device.wait("web", lambda now: now["pid"] not in (None, row["pid"]) and now["state"] == "RUNNING")
    assert "state UP" in run("ip", "link", "show", "eth0", namespace=device.namespace("web"))


def test_what_cannot_be_had_fails_the_launch_and_nothing_else(device: Device, world: Lab) -> None:
    with world.listen(DEVICE, port=7000):
        task = device.apply(
            document(
                job("good", SERVER, private((8080, 8000, "tcp"))),
                job("same-port", SERVER, private((8080, 8000, "tcp"))),
                job("taken", SERVER, private((7000, 8000, "tcp"))),
                job("elsewhere", SERVER, private(address="10.99.0.5")),
                job("gateway", SERVER, private(address=BRIDGE)),
            )
        )
    assert task["status"] != "complete"
    causes = {name: device.job(name)["cause"] for name in ("taken", "elsewhere", "gateway")}
    assert "cannot publish port 7000/tcp of taken: a program of the device listens" in causes["taken"]
    assert "10.99.0.5: it is not in 10.88.0.0/24" in causes["elsewhere"]
    assert "10.88.0.1: it is not free" in causes["gateway"]
    states = {name: device.job(name)["state"] for name in ("good", "same-port")}
    assert sorted(states.values()) == ["FAILED", "RUNNING"], states
    assert {device.job(name)["state"] for name in causes} == {"FAILED"}
    assert "answers" in world.ask(world.outside, DEVICE, 8080)


def test_no_network_to_be_had_is_a_failed_launch_that_is_tried_again(device: Device, world: Lab) -> None:
    for network in RANGES:
        run("ip", "route", "add", network, "via", OUTSIDE, namespace=world.device)
    answer = device.client().apply(document(job("web", LINKS, "private", restart_policy="always",
                                                restart_pause=300)))  # fmt: skip
    row = device.wait("web", lambda row: row["state"] == "RESTARTING")
    assert "cannot make the private network: all its address ranges are in use" in row["cause"]
    assert device.log_of("web") == ""
    for network in RANGES:
        run("ip", "route", "del", network, namespace=world.device)
    assert device.client().task(answer["task_id"], wait=20)["status"] == "complete"
    assert "['lo', 'eth0']" in device.log_of("web")


def test_a_stop_while_the_network_is_made_leaves_nothing(device: Device, world: Lab) -> None:
    device.client().apply(document(job("web", IDLE, "private")))
    device.wait_state("web", "STARTING")
    device.do("web", "stop")
    assert device.job("web")["state"] == "STOPPED"
    assert_no_trace(world, device)


def test_fifty_starts_and_stops_leave_nothing(device: Device, world: Lab) -> None:
    names = [f"job{i}" for i in range(5)]
    jobs = [job(name, IDLE, private((6000 + i, 80, "tcp"))) for i, name in enumerate(names)]
    device.run(document(*jobs))
    assert device.process
    for _ in range(10):
        for verb, state in (("stop", "STOPPED"), ("start", "RUNNING")):
            for name in names:
                device.client().action(name, verb)
            for name in names:
                device.wait_state(name, state)
    for name in names:
        device.do(name, "stop")
    assert_no_trace(world, device)
    fds = len(os.listdir(f"/proc/{device.process.pid}/fd"))
    device.do(names[0], "start")
    device.do(names[0], "stop")
    assert_no_trace(world, device)
    assert len(os.listdir(f"/proc/{device.process.pid}/fd")) <= fds


def test_after_a_crash_of_the_daemon_nothing_is_left_and_all_works(device: Device, world: Lab) -> None:
    device.run(document(job("web", SERVER, private((8080, 8000, "tcp"))), job("gone", IDLE, "private")))
    device.crash()
    assert len(world.links()) == 5  # loopback, the line, the bridge and two ports: still there
    assert device.process
    device.start()
    device.wait_state("web", "RUNNING")
    device.wait_state("gone", "RUNNING")
    assert world.ask(world.outside, DEVICE, 8080) == f"web answers {OUTSIDE}"
    device.crash()
    (device.root / "state/maestro.db").unlink()
    for left in (device.root / "state").glob("maestro.db-*"):
        left.unlink()
    device.start()
    assert_no_trace(world, device)


def test_a_removed_bridge_and_flushed_rules_are_put_back_for_those_at_work(
    device: Device, world: Lab
) -> None:
    device.run(document(job("web", SERVER, private((8080, 8000, "tcp"))), job("other", IDLE, "private")))
    bridge = next(name for name in world.links() if name.startswith("maestro"))
    run("ip", "link", "del", bridge, namespace=world.device)
    with within(world.device):
        firewall.remove(bridge)
    assert refused(lambda: world.ask(world.outside, DEVICE, 8080, 1))
    pid = device.job("web")["pid"]
    device.do("other", "restart")
    assert world.ask(world.outside, DEVICE, 8080) == f"web answers {OUTSIDE}"
    assert device.job("web")["pid"] == pid


def test_the_devices_own_loopback_is_closed_to_the_inside(device: Device, world: Lab) -> None:
    device.run(document(job("web", SERVER, private((8080, 8000, "tcp")))))
    inside = device.namespace("web")
    attack = (
        "echo 1 >/proc/sys/net/ipv4/conf/all/route_localnet;"
        "ip addr del 127.0.0.1/8 dev lo; ip route flush table local 127.0.0.0/8;"
        f"ip route add 127.0.0.0/8 via {BRIDGE} src {device.address('web')}"
    )
    run("sh", "-c", attack, namespace=inside)
    bridge = next(name for name in world.links() if name.startswith("maestro"))
    with world.listen("127.0.0.1", socket.SOCK_DGRAM) as server:
        port = server.getsockname()[1]

        def arrives() -> bool:
            server.settimeout(0.3)
            with within(inside):
                sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            with sender:
                sender.sendto(b"attack", ("127.0.0.1", port))
            return not refused(lambda: server.recv(100))

        assert not arrives()
        with within(world.device):
            firewall.remove(bridge)
        assert arrives(), "the attack works where the guard is missing"
