# SPDX-License-Identifier: Apache-2.0
"""The private network decided: addresses, ports and names, without touching anything.

Part of the helper program network.py.
"""

from __future__ import annotations

import hashlib
import ipaddress
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from maestro_py.errors import MaestroError
from maestro_py.valueclass import valueclass

_HOST_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?")


@valueclass(frozen=True)
class Endpoint:
    """One process in the private network."""

    name: str
    file: str
    number: int
    address: str
    ports: tuple[Mapping[str, Any], ...]


def link_name(bridge: str, process: str) -> str:
    """Return the name of a process's port on the bridge: readable, unique, at most 15 characters."""
    digest = hashlib.sha256(f"{bridge}/{process}".encode()).hexdigest()
    readable = "".join(c for c in process if c.isascii() and c.isalnum())[:6]
    return f"mst{readable}{digest[:6]}"


def free_subnet(candidates: Sequence[str], taken: Iterable[str]) -> str:
    """Return the first candidate that overlaps no network in use. Raises MaestroError."""
    used = [ipaddress.IPv4Network(network, strict=False) for network in taken]
    for candidate in candidates:
        if not any(ipaddress.IPv4Network(candidate).overlaps(network) for network in used):
            return candidate
    raise MaestroError("cannot make the private network: all its address ranges are in use on this device")


def addresses(endpoints: Sequence[Endpoint], subnet: str) -> tuple[dict[str, str], dict[str, str]]:
    """Return (name -> address, name -> why not); of two that want the same the first has it."""
    network = ipaddress.IPv4Network(subnet)
    found: dict[str, str] = {}
    failed: dict[str, str] = {}
    ports: dict[tuple[str, int], list[tuple[str, str]]] = {}
    for each in endpoints:
        address = ipaddress.IPv4Address(each.address) if each.address else network[each.number]
        why = ""
        if address not in network:
            why = f"it is not in {subnet}, the private network of this device"
        elif address in (network[0], network[1], network[-1]):
            why = f"it is not free for a process in {subnet}"
        for name, other in found.items():
            if other == str(address):
                why = f"{name} has it"
        if why:
            failed[each.name] = f"cannot give {each.name} the address {address}: {why}"
            continue
        mine = [(port["protocol"], port["host"], port["address"]) for port in each.ports]
        for protocol, number, on in mine:
            for name, other_on in ports.get((protocol, number), ()):
                if not on or not other_on or on == other_on:
                    why = f"cannot publish port {number}/{protocol} of {each.name}: {name} has it"
        if why:
            failed[each.name] = why
            continue
        found[each.name] = str(address)
        for protocol, number, on in mine:
            ports.setdefault((protocol, number), []).append((each.name, on))
    return found, failed


def resolver(own: str, upstream: str, bridge: str) -> str:
    """Return a resolv.conf for the inside, from the device's own and systemd-resolved's upstream one."""
    servers = _servers(own) or _servers(upstream) or [bridge]
    kept = [line for line in own.splitlines() if line.split()[:1] not in ([], ["nameserver"])]
    kept = [line for line in kept if line[0] not in "#;"]
    return "".join(f"{line}\n" for line in [*(f"nameserver {server}" for server in servers), *kept])


def _servers(text: str) -> list[str]:
    """Return the name servers that can be reached from inside."""
    found = []
    for line in text.splitlines():
        words = line.split()
        if len(words) > 1 and words[0] == "nameserver":
            try:
                address = ipaddress.IPv4Address(words[1])
            except ValueError:
                continue  # IPv6 does not reach inside
            if not address.is_loopback and not address.is_unspecified:
                found.append(str(address))
    return found


def hosts(own: str, found: Mapping[str, str]) -> str:
    """Return a hosts file: the device's own, and a line for each process whose name can be a host's."""
    lines = own.splitlines() or ["127.0.0.1 localhost"]
    known = {word for line in lines for word in line.partition("#")[0].split()[1:]}
    for name, address in sorted(found.items()):
        if _HOST_NAME.fullmatch(name) and name not in known:
            lines.append(f"{address} {name}")
    return "".join(f"{line}\n" for line in lines)
