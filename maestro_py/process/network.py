# SPDX-License-Identifier: Apache-2.0
"""Helper program: make the private network of this device be as wanted, whatever it was before.

`python -m maestro_py.process.network`, request on stdin, last line on stdout as in `maestro_py.helper`:

    {"bridge", "table"            names of our bridge and of our nftables table
     "subnets",                   private networks as address/bits; the first that is free is taken
     "namespaces", "files",       two directories: named namespaces, and everything else written here
     "endpoints": [{"name",       a process
                    "file",       its namespace's file name in `namespaces`
                    "number",     of its address in the network, unless `address` is said
                    "address",
                    "ports": [{"host", "inside", "protocol", "address"}]}],
     "fresh": [names]}            make these anew; the others are at work and stay as they are

The answer has `subnet`, `addresses` (name -> address) and `failed` (name -> why): one that cannot be had
does not keep the others waiting. What is there and belongs to no endpoint, after a crash say, is removed;
with no endpoint at all nothing remains: no bridge, table, file or changed setting.

Each process has a network namespace with `eth0`, the far end of a veth pair whose near end is a port of
the bridge. The bridge has the first address of the network and is the gateway; packets leave with the
device's address. IPv4 only: IPv6 is switched off inside. Forwarding is a setting of the whole device:
when it was off before, only what comes from or goes to the bridge is forwarded, and at the end it is
off again.

Names are resolved through two files made here, which the processes see in place of the device's own:
`resolv.conf` with those name servers of the device that can be reached from inside (a stub on loopback
cannot: systemd-resolved's upstream servers stand in for it, or else the bridge's address, where a server
that listens on all addresses answers), and `hosts`, the device's own and a line for each process. They
are rewritten in place, so that running processes see the change.
"""

from __future__ import annotations

import errno
import hashlib
import ipaddress
import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from maestro_py import helper
from maestro_py.errors import MaestroError, Unsupported
from maestro_py.process import firewall, kernel
from maestro_py.process.firewall import Published
from maestro_py.process.netplan import Endpoint, addresses, free_subnet, hosts, link_name, resolver

INSIDE = "eth0"
"""Name of a process's interface, as it sees it."""

UPSTREAM_RESOLVERS = "/run/systemd/resolve/resolv.conf"
"""Where systemd-resolved writes the servers its stub asks (systemd-resolved.service(8))."""

_FORWARDING = "/proc/sys/net/ipv4/ip_forward"
_MISSING = (errno.EOPNOTSUPP, errno.ENOSYS, errno.EAFNOSUPPORT, errno.EPROTONOSUPPORT)


@contextmanager
def _doing(what: str) -> Iterator[None]:
    """Turn what the kernel refuses into an error that says what was tried."""
    try:
        yield
    except NetlinkError as error:
        text = os.strerror(error.code) if error.code > 0 else str(error)
        raise _error(what, error.code, text) from error
    except OSError as error:
        where = f": {error.filename}" if error.filename else ""
        raise _error(what, error.errno or 0, f"{error.strerror or error}{where}") from error


def _error(what: str, number: int, text: str) -> MaestroError:
    kind = Unsupported if number in _MISSING else MaestroError
    return kind(f"cannot {what}: {text}")


class Settler:
    """One request being carried out."""

    def __init__(self, request: Mapping[str, Any], route: IPRoute) -> None:
        self.bridge: str = request["bridge"]
        self.table: str = request["table"]
        self.subnets: list[str] = request["subnets"]
        self.namespaces: str = request["namespaces"]
        self.files: str = request["files"]
        self.endpoints = [
            Endpoint(e["name"], e["file"], e["number"], e["address"], tuple(e["ports"]))
            for e in request["endpoints"]
        ]
        self.fresh = frozenset(request["fresh"])
        self.route = route

    def settle(self) -> Mapping[str, Any]:
        """Do it all and return the answer."""
        os.makedirs(self.namespaces, 0o700, exist_ok=True)
        os.makedirs(self.files, 0o700, exist_ok=True)
        index = self._link(self.bridge)
        if not self.endpoints:
            self._remove_all(index)
            return {"subnet": "", "addresses": {}, "failed": {}}
        with _doing(f"make the bridge {self.bridge}"):
            index, subnet = self._make_bridge(index)
        found, failed = addresses(self.endpoints, subnet)
        bits = subnet.partition("/")[2]
        gateway = str(ipaddress.IPv4Network(subnet)[1])
        self._remove_strays(index, found)
        for each in self.endpoints:
            if each.name not in found:
                continue
            try:
                if each.name in self.fresh:
                    self._probe_ports(each)
                    with _doing(f"connect {each.name} to the private network"):
                        self._connect(each, index, f"{found[each.name]}/{bits}", gateway)
                else:
                    self._keep(each, index)
            except MaestroError as error:
                failed[each.name] = error.message
                if each.name in self.fresh:
                    del found[each.name]
                    self._disconnect(each)
        self._rules(subnet, found)
        self._write_names(gateway, found)
        return {"subnet": subnet, "addresses": found, "failed": failed}

    # the bridge and what belongs to the device

    def _link(self, name: str) -> int:
        """Return the index of an interface; 0 when there is none."""
        found = self.route.link_lookup(ifname=name)
        return int(found[0]) if found else 0

    def _make_bridge(self, index: int) -> tuple[int, str]:
        """Return the index and the network of the bridge, which is made when missing."""
        networks = [
            str(ipaddress.IPv4Interface(f"{a.get_attr('IFA_ADDRESS')}/{a['prefixlen']}").network)
            for a in (self.route.get_addr(family=socket.AF_INET, index=index) if index else ())
        ]
        subnet = next((network for network in networks if network in self.subnets), "")
        if not subnet:
            subnet = free_subnet(self.subnets, self._networks_in_use(index))
        if not index:
            # an address of its own: else it changes with the ports, and neighbours must look it up anew
            digest = hashlib.sha256(self.bridge.encode()).hexdigest()
            hardware = "02:" + ":".join(digest[i : i + 2] for i in range(0, 10, 2))
            self.route.link("add", ifname=self.bridge, kind="bridge", address=hardware)
            index = self._link(self.bridge)
            _setting(f"/proc/sys/net/ipv6/conf/{self.bridge}/disable_ipv6", "1", optional=True)
        if subnet not in networks:
            network = ipaddress.IPv4Network(subnet)
            self.route.addr("add", index=index, address=str(network[1]), prefixlen=network.prefixlen,
                            broadcast=str(network[-1]))  # fmt: skip
        self.route.link("set", index=index, state="up")
        return index, subnet

    def _networks_in_use(self, bridge: int) -> list[str]:
        """Return the networks the device has routes to, but for the default route and the bridge's own."""
        found = []
        for route in self.route.get_routes(family=socket.AF_INET):
            target = route.get_attr("RTA_DST")
            if target and route["dst_len"] and (not bridge or route.get_attr("RTA_OIF") != bridge):
                found.append(f"{target}/{route['dst_len']}")
        return found

    def _rules(self, subnet: str, found: Mapping[str, str]) -> None:
        """Write the rules, then switch on what they make safe: forwarding, translation of loopback."""
        published = [
            Published(port["protocol"], port["address"], port["host"], found[each.name], port["inside"])
            for each in self.endpoints
            if each.name in found
            for port in each.ports
        ]
        with _doing("set up forwarding"):
            before = self._forwarding_before()
            if not before:
                before = _read(_FORWARDING).strip()
                _write(os.path.join(self.files, "forwarding"), f"{kernel.boot_id()} {before}")
        with _doing("write the firewall rules of the private network"):
            rules = firewall.rules(self.bridge, subnet, published, keep_closed=before == "0")
            firewall.replace(self.table, rules)
        with _doing("set up forwarding"):
            local = f"/proc/sys/net/ipv4/conf/{self.bridge}/route_localnet"
            _setting(local, "1" if published else "0")
            _setting(_FORWARDING, "1")

    def _forwarding_before(self) -> str:
        """Return what the device's setting was when this network was made; nothing when it is not there."""
        boot, _, value = _read(os.path.join(self.files, "forwarding")).partition(" ")
        return value if boot == kernel.boot_id() else ""

    def _write_names(self, gateway: str, found: Mapping[str, str]) -> None:
        with _doing("write the files for name resolution"):
            own, upstream = _read("/etc/resolv.conf"), _read(UPSTREAM_RESOLVERS)
            _write(os.path.join(self.files, "resolv.conf"), resolver(own, upstream, gateway))
            _write(os.path.join(self.files, "hosts"), hosts(_read("/etc/hosts"), found))

    def _remove_all(self, index: int) -> None:
        self._remove_strays(index, {})
        with _doing("take the private network away"):
            if index:
                self.route.link("del", index=index)
            before = self._forwarding_before()
            if before:
                firewall.remove(self.table)
            if before == "0":
                _setting(_FORWARDING, "0")
            for name in os.listdir(self.files):
                os.unlink(os.path.join(self.files, name))
            os.rmdir(self.files)
            os.rmdir(self.namespaces)

    # one process

    def _connect(self, each: Endpoint, bridge: int, address: str, gateway: str) -> None:
        """Make the namespace and the pair of interfaces, set up to the last route."""
        self._disconnect(each)
        path = os.path.join(self.namespaces, each.file)
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDONLY | os.O_CLOEXEC, 0o400))
        near = link_name(self.bridge, each.name)
        home = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            kernel.unshare(kernel.CLONE_NEWNET)
            try:
                kernel.mount("/proc/self/ns/net", path, None, kernel.MS_BIND)
                _setting("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1", optional=True)
                inside = IPRoute()
            finally:
                kernel.setns(home, kernel.CLONE_NEWNET)
        finally:
            os.close(home)
        with inside:
            there = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                self.route.link("add", ifname=near, kind="veth", peer={"ifname": INSIDE, "net_ns_fd": there})
            finally:
                os.close(there)
            _setting(f"/proc/sys/net/ipv6/conf/{near}/disable_ipv6", "1", optional=True)
            port = self._link(near)
            self.route.link("set", index=port, master=bridge, state="up")
            # hairpin: what a process sends to a port it publishes itself comes back the way it came
            self.route.brport("set", index=port, mode=1)
            own, bits = address.split("/")
            index = inside.link_lookup(ifname=INSIDE)[0]
            inside.link("set", index=inside.link_lookup(ifname="lo")[0], state="up")
            inside.link("set", index=index, state="up")
            inside.addr("add", index=index, address=own, prefixlen=int(bits))
            inside.route("add", dst="default", gateway=gateway)

    def _keep(self, each: Endpoint, bridge: int) -> None:
        """Leave a process at work alone, but put its interface back when somebody removed the bridge."""
        index = self._link(link_name(self.bridge, each.name))
        if index:
            with _doing(f"connect {each.name} to the private network"):
                self.route.link("set", index=index, master=bridge)

    def _disconnect(self, each: Endpoint) -> None:
        with _doing(f"disconnect {each.name} from the private network"):
            index = self._link(link_name(self.bridge, each.name))
            if index:
                self.route.link("del", index=index)
            _remove_namespace(os.path.join(self.namespaces, each.file))

    def _remove_strays(self, bridge: int, found: Mapping[str, str]) -> None:
        """Remove ports of the bridge and namespaces that belong to nobody."""
        with _doing("remove what an earlier private network left"):
            links = {link_name(self.bridge, name) for name in found}
            for link in self.route.get_links() if bridge else ():
                if link.get_attr("IFLA_MASTER") == bridge and link.get_attr("IFLA_IFNAME") not in links:
                    self.route.link("del", index=link["index"])
            files = {each.file for each in self.endpoints if each.name in found}
            for name in os.listdir(self.namespaces):
                if name not in files:
                    _remove_namespace(os.path.join(self.namespaces, name))

    def _probe_ports(self, each: Endpoint) -> None:
        """Refuse a port that a program of the device listens on: its peers would be led astray."""
        for port in each.ports:
            kind = socket.SOCK_STREAM if port["protocol"] == "tcp" else socket.SOCK_DGRAM
            with socket.socket(socket.AF_INET, kind | socket.SOCK_CLOEXEC) as probe:
                if kind == socket.SOCK_STREAM:  # else connections that ended lately count too
                    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    probe.bind((port["address"], port["host"]))
                except OSError as error:
                    if error.errno == errno.EADDRNOTAVAIL:
                        continue  # an address the device may get later
                    why = "a program of the device listens there" if error.errno == errno.EADDRINUSE else ""
                    raise MaestroError(
                        f"cannot publish port {port['host']}/{port['protocol']} of {each.name}: "
                        f"{why or error.strerror}"
                    ) from error


def _remove_namespace(path: str) -> None:
    try:
        kernel.umount(path, kernel.MNT_DETACH)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOENT):  # not mounted
            raise
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass


def _read(path: str) -> str:
    """Return what a file has; nothing when it is not there."""
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            return file.read()
    except (FileNotFoundError, NotADirectoryError):
        return ""


def _write(path: str, text: str) -> None:
    """Write a file in place: it stays the same for those who have it mounted."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        data = text.encode("utf-8", "surrogateescape")
        if os.pwrite(fd, data, 0) < len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)
        os.ftruncate(fd, len(data))
    finally:
        os.close(fd)


def _setting(path: str, value: str, *, optional: bool = False) -> None:
    """Write a kernel setting unless it is so already. optional: the kernel may not have it."""
    try:
        with open(path, "r+", encoding="ascii") as file:
            if file.read().strip() != value:
                file.seek(0)
                file.write(value)
    except FileNotFoundError:
        if not optional:
            raise


def work(request: helper.Request) -> Mapping[str, Any]:
    """Carry out one request."""
    with IPRoute() as route:
        return Settler(request, route).settle()


if __name__ == "__main__":
    helper.main(work)
