# SPDX-License-Identifier: Apache-2.0
"""A device and a world outside of it, as two network namespaces of the test's own.

The machine's own network is never touched: a daemon under test runs in the device's namespace.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from maestro_py.process import kernel

DEVICE, OUTSIDE = "198.51.100.2", "198.51.100.1"
PATIENCE = 30.0


@contextmanager
def within(namespace: str | Path) -> Iterator[None]:
    """Be in a network namespace for a moment; sockets made there stay there."""
    kernel.load()
    home = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        there = os.open(namespace, os.O_RDONLY | os.O_CLOEXEC)
        try:
            kernel.setns(there, kernel.CLONE_NEWNET)
        finally:
            os.close(there)
        try:
            yield
        finally:
            kernel.setns(home, kernel.CLONE_NEWNET)
    finally:
        os.close(home)


def run(*argv: str, namespace: str | Path = "", check: bool = True) -> str:
    """Run a command, in a network namespace when one is given; return what it printed."""
    enter = ("nsenter", f"--net={namespace}") if namespace else ()
    done = subprocess.run([*enter, *argv], capture_output=True, text=True, check=False)
    assert not check or done.returncode == 0, f"{argv}: {done.stderr}"
    return done.stdout


def eventually(condition: Callable[[], object], what: str = "") -> None:
    """Wait for what no event tells of."""
    deadline = time.monotonic() + PATIENCE
    while not (last := condition()):
        assert time.monotonic() < deadline, f"{what} did not happen: {last}"
        time.sleep(0.02)


@dataclass(frozen=True)
class Lab:
    """The two namespaces, by the paths that name them."""

    device: str
    outside: str

    def program(self, *before: str) -> Sequence[str]:
        """Return the command of a maestrod of the device; `before` is a command that runs it."""
        return ("nsenter", f"--net={self.device}", *before, sys.executable, "-m", "maestro_py.daemon")

    def listen(self, where: str, kind: int = socket.SOCK_STREAM, port: int = 0) -> socket.socket:
        """Return a socket of the device or the outside that takes connections or datagrams."""
        with within(self.outside if where == OUTSIDE else self.device):
            made = socket.socket(socket.AF_INET, kind)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.settimeout(PATIENCE)
        made.bind((where, port))
        if kind == socket.SOCK_STREAM:
            made.listen()
        return made

    def ask(self, namespace: str | Path, address: str, port: int, timeout: float = PATIENCE) -> str:
        """Connect from a namespace and return all that comes; OSError when nothing does."""
        with within(namespace):
            connection = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        with connection:
            connection.settimeout(timeout)
            connection.connect((address, port))
            return b"".join(iter(lambda: connection.recv(4096), b"")).decode()

    def ask_udp(self, namespace: str | Path, address: str, port: int, timeout: float = PATIENCE) -> str:
        """Send a datagram from a namespace and return the answer."""
        with within(namespace):
            made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        with made:
            made.settimeout(timeout)
            made.connect((address, port))
            made.send(b"hello")
            return made.recv(4096).decode()

    def links(self) -> set[str]:
        """Return the names of the device's interfaces."""
        with within(self.device):
            return {name for _, name in socket.if_nameindex()}

    def tables(self) -> int:
        """Return the number of nftables tables on the device."""
        code = "from pyroute2.nftables.main import NFTables; print(len(NFTables().get_tables()))"
        return int(run(sys.executable, "-c", code, namespace=self.device))

    def forwarding(self) -> str:
        """Return whether the device forwards packets, as the kernel says it."""
        return run("cat", "/proc/sys/net/ipv4/ip_forward", namespace=self.device).strip()


@contextmanager
def lab() -> Iterator[Lab]:
    """Make the two and the line between them; the device's default route leads outside."""
    names = [f"maestro-test-{os.getpid()}-{role}" for role in ("device", "outside")]
    made = Lab(*(f"/run/netns/{name}" for name in names))
    try:
        for name in names:
            run("ip", "netns", "add", name)
        run("ip", "link", "add", "wan0", "netns", names[0], "type", "veth",
            "peer", "name", "lan0", "netns", names[1])  # fmt: skip
        for space, link, address in ((names[0], "wan0", DEVICE), (names[1], "lan0", OUTSIDE)):
            run("ip", "-n", space, "link", "set", "lo", "up")
            run("ip", "-n", space, "addr", "add", f"{address}/24", "dev", link)
            run("ip", "-n", space, "link", "set", link, "up")
        run("ip", "-n", names[0], "route", "add", "default", "via", OUTSIDE)
        yield made
    finally:
        for name in names:
            run("ip", "netns", "del", name, check=False)
