# SPDX-License-Identifier: Apache-2.0
"""Upstream's view of the network: interfaces, their changes, name servers.

It is shown, not managed: the network belongs to the system. Changes come from rtnetlink(7), over one socket
that is open only while somebody is subscribed.
"""

from __future__ import annotations

import fcntl
import os
import socket
import struct
import time
from typing import Any

from maestro_py.daemon.loop import Loop, Timer
from maestro_py.daemon.messages import Request, Response, json_response
from maestro_py.daemon.upstream.bodies import error
from maestro_py.daemon.waiting import Signal, TimedOutError

POLL = 20.0
"""Seconds a request for events waits (upstream's long poll)."""
UNPOLLED = 45.0
"""Seconds after which a subscription nobody asked for is dropped."""
MAX_SUBSCRIPTIONS = 64
_KEPT = 100  # events kept per subscription

_NETLINK_ROUTE = 0
_GROUPS = 0x1 | 0x10 | 0x100  # RTMGRP_LINK, RTMGRP_IPV4_IFADDR, RTMGRP_IPV6_IFADDR
_NEWLINK, _DELLINK, _NEWADDR = 16, 17, 20
_SIOCGIFADDR = 0x8915
_IFF_RUNNING = 0x40
_LOCAL_ADDRESSES = "/proc/net/if_inet6"


class _Subscription:
    def __init__(self, loop: Loop) -> None:
        self.events: list[dict[str, Any]] = []
        self.more = Signal(loop)
        self.waiting = 0
        self.timer: Timer | None = None


class Network:
    """Handlers of the network."""

    def __init__(self, loop: Loop) -> None:
        self.loop = loop
        self._subscriptions: dict[str, _Subscription] = {}
        self._netlink: socket.socket | None = None

    async def interfaces(self, request: Request) -> Response:
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        return json_response(
            [
                {
                    "name": name,
                    "CurrentIPv4Addr": _ipv4(name),
                    "CurrentIPv6Addr": _ipv6(name),
                    "StoredIfconfig": None,
                    "RunningIfconfig": None,
                    "DhcpLease": None,
                    "LastUpdated": now,
                }
                for _, name in socket.if_nameindex()
            ]
        )

    async def nameservers(self, request: Request) -> Response:
        try:
            with open("/etc/resolv.conf", encoding="utf-8", errors="replace") as file:
                words = [line.split() for line in file]
        except OSError:
            words = []
        return json_response([line[1] for line in words if len(line) > 1 and line[0] == "nameserver"])

    async def refused(self, request: Request) -> Response:
        return error(400, "maestro does not manage the network: the system does")

    async def subscribe(self, request: Request) -> Response:
        if len(self._subscriptions) >= MAX_SUBSCRIPTIONS:
            return error(503, "too many subscriptions")
        if self._netlink is None:
            sock = socket.socket(
                socket.AF_NETLINK,
                socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC,
                _NETLINK_ROUTE,
            )
            sock.bind((0, _GROUPS))
            self._netlink = sock
            self.loop.add_reader(sock.fileno(), self._receive)
        id = os.urandom(8).hex()
        self._subscriptions[id] = _Subscription(self.loop)
        self._expire_later(id)
        return json_response({"id": id})

    async def events(self, request: Request) -> Response:
        id = request.params["id"]
        subscription = self._subscriptions.get(id)
        if subscription is None:
            return error(404, "no such subscription")
        subscription.waiting += 1
        self._expire_later(id)
        try:
            if not subscription.events:
                try:
                    await self.loop.wait_for(subscription.more.wait(), POLL)
                except TimedOutError:
                    return Response(204)
            taken, subscription.events = subscription.events, []
            return json_response([{"data": event} for event in taken])
        finally:
            subscription.waiting -= 1
            self._expire_later(id)

    def _expire_later(self, id: str) -> None:
        subscription = self._subscriptions[id]
        if subscription.timer:
            subscription.timer.cancel()
        subscription.timer = None
        if not subscription.waiting:
            subscription.timer = self.loop.call_later(UNPOLLED, lambda: self._expire(id))

    def _expire(self, id: str) -> None:
        del self._subscriptions[id]
        if not self._subscriptions and self._netlink:
            self.loop.remove_reader(self._netlink.fileno())
            self._netlink.close()
            self._netlink = None

    def _receive(self) -> None:
        assert self._netlink
        try:
            data = self._netlink.recv(65536)
        except OSError:  # ENOBUFS: some were lost, the next one tells the state again
            return
        for event in parse(data):
            for subscription in self._subscriptions.values():
                subscription.events = [*subscription.events[1 - _KEPT :], event]
                subscription.more.notify()


def parse(data: bytes) -> list[dict[str, Any]]:
    """Return upstream's NetEventData for each change in a datagram of rtnetlink(7)."""
    found = []
    while len(data) >= 16:
        size, kind = struct.unpack_from("=IH", data)
        if size < 16 or size > len(data):
            break
        body, data = data[16:size], data[(size + 3) & ~3 :]
        if kind in (_NEWLINK, _DELLINK) and len(body) >= 16:
            index, flags = struct.unpack_from("=iI", body, 4)
            up = kind == _NEWLINK and bool(flags & _IFF_RUNNING)
            name = _attributes(body[16:]).get(3, b"").rstrip(b"\0").decode("utf-8", "replace")  # IFLA_IFNAME
            found.append(_event(f"interface-state-{'up' if up else 'down'}", name, index, up=up))
        elif kind == _NEWADDR and len(body) >= 8:
            index = struct.unpack_from("=I", body, 4)[0]
            raw = _attributes(body[8:]).get(1, b"")  # IFA_ADDRESS
            six = socket.inet_ntop(socket.AF_INET6, raw) if len(raw) == 16 else ""
            four = socket.inet_ntop(socket.AF_INET, raw) if len(raw) == 4 else ""
            try:
                name = socket.if_indextoname(index)
            except OSError:
                name = ""
            found.append(_event("new-address", name, index, up=True, four=four, six=six))
    return found


def _event(type: str, name: str, index: int, *, up: bool, four: str = "", six: str = "") -> dict[str, Any]:
    interface = {"id": name, "index": index, "address": four, "addressV6": six}
    return {"type": type, "interface": {**interface, "linkstate": "up" if up else "down"}}


def _attributes(data: bytes) -> dict[int, bytes]:
    """Return the attributes (struct rtattr) behind a message, by type."""
    found: dict[int, bytes] = {}
    while len(data) >= 4:
        size, kind = struct.unpack_from("=HH", data)
        if size < 4 or size > len(data):
            break
        found[kind] = data[4:size]
        data = data[(size + 3) & ~3 :]
    return found


def _ipv4(name: str) -> str:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            answer = fcntl.ioctl(sock, _SIOCGIFADDR, struct.pack("256s", name.encode()[:15]))
        except OSError:  # it has none
            return ""
    return socket.inet_ntoa(answer[20:24])


def _ipv6(name: str) -> str:
    """Return the first address of an interface, one with global scope before others."""
    best = (256, "")
    try:
        with open(_LOCAL_ADDRESSES, encoding="ascii") as file:
            for line in file:
                raw, _, _, scope, _, device = line.split()
                if device == name:
                    address = socket.inet_ntop(socket.AF_INET6, bytes.fromhex(raw))
                    best = min(best, (int(scope, 16), address))
    except (OSError, ValueError):
        pass
    return best[1]
