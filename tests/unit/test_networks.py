# SPDX-License-Identifier: Apache-2.0
"""Private networks decided: numbers and addresses, ports, names, what the helper is asked."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from maestro_py.daemon.networks import COUNT, FIRST, choose, number_of, request
from maestro_py.errors import MaestroError, Unsupported
from maestro_py.process import firewall, netns, netplan
from maestro_py.process.netplan import Endpoint
from maestro_py.spec.model import Network, Port
from maestro_py.spec.resolved import ResolvedProcess

SUBNET = "10.88.0.0/24"


def endpoint(name: str, number: int = 0, address: str = "", *ports: tuple[str, int, str]) -> Endpoint:
    published = tuple({"protocol": p, "host": h, "inside": h, "address": a} for p, h, a in ports)
    return Endpoint(name, name, number, address, published)


def test_a_number_depends_on_the_name_alone_while_nothing_is_in_the_way() -> None:
    assert choose("web", ()) == choose("web", ()) in range(FIRST, FIRST + COUNT)
    assert choose("web", {choose("web", ())}) != choose("web", ())


def test_no_number_is_left_when_all_are_taken() -> None:
    with pytest.raises(MaestroError, match="cannot give web an address: 126 processes have one already"):
        choose("web", range(FIRST, FIRST + COUNT))


@given(st.lists(st.text(min_size=1, max_size=8), unique=True, max_size=COUNT))
def test_numbers_are_unique_and_remembered(names: list[str]) -> None:
    known: dict[str, int] = {}
    for name in names:
        known[name] = number_of(name, known, known)
    assert len(set(known.values())) == len(names)
    assert {name: number_of(name, known, known) for name in names} == known


def test_a_number_of_somebody_gone_is_given_away_only_when_no_other_is_left() -> None:
    known = {f"old{i}": FIRST + i for i in range(COUNT)}
    assert number_of("new", known, ["old5"]) != FIRST + 5
    del known["old7"]
    assert number_of("new", known, ()) == FIRST + 7


def test_those_at_work_come_first_in_a_request() -> None:
    port = Port(80, 8080, "udp", "192.0.2.1")
    wanted = {"b/c": Network("private", "10.88.0.9", (port,)), "a": Network("private")}
    asked = request({"bridge": "maestro0"}, wanted, {"a": 130}, ["b/c"])
    assert asked == {
        "bridge": "maestro0",
        "fresh": ["b/c"],
        "endpoints": [
            {"name": "a", "file": "a", "number": 130, "address": "", "ports": []},
            {
                "name": "b/c",
                "file": "b%2Fc",
                "number": 0,
                "address": "10.88.0.9",
                "ports": [{"host": 80, "inside": 8080, "protocol": "udp", "address": "192.0.2.1"}],
            },
        ],
    }


def test_addresses_are_checked_against_the_network_and_the_others() -> None:
    found, failed = netplan.addresses(
        [
            endpoint("a", 128),
            endpoint("b", 0, "10.88.0.7"),
            endpoint("c", 0, "10.88.0.7"),
            endpoint("d", 0, "10.89.0.7"),
            endpoint("e", 0, "10.88.0.1"),
            endpoint("f", 0, "10.88.0.255"),
        ],
        SUBNET,
    )
    assert found == {"a": "10.88.0.128", "b": "10.88.0.7"}
    assert failed["c"] == "cannot give c the address 10.88.0.7: b has it"
    assert failed["d"].endswith("it is not in 10.88.0.0/24, the private network of this device")
    assert failed["e"].endswith("it is not free for a process in 10.88.0.0/24")
    assert set(failed) == {"c", "d", "e", "f"}


@pytest.mark.parametrize(
    ("other", "free"),
    [
        (("tcp", 80, ""), False),
        (("tcp", 80, "192.0.2.1"), False),
        (("tcp", 80, "192.0.2.2"), True),
        (("udp", 80, "192.0.2.1"), True),
        (("tcp", 81, ""), True),
    ],
)
def test_a_port_is_published_once(other: tuple[str, int, str], free: bool) -> None:
    first = endpoint("a", 128, "", ("tcp", 80, "192.0.2.1"))
    found, failed = netplan.addresses([first, endpoint("b", 129, "", other)], SUBNET)
    assert ("b" in found) is free
    assert free or failed == {"b": f"cannot publish port {other[1]}/tcp of b: a has it"}


def test_the_first_network_the_device_does_not_use_is_taken() -> None:
    assert netplan.free_subnet([SUBNET, "10.89.0.0/24"], ["192.0.2.0/24"]) == SUBNET
    assert netplan.free_subnet([SUBNET, "10.89.0.0/24"], ["10.88.0.0/16"]) == "10.89.0.0/24"
    with pytest.raises(MaestroError, match="all its address ranges are in use"):
        netplan.free_subnet([SUBNET], ["10.0.0.0/8"])


@given(st.text(max_size=40))
def test_a_link_name_is_one_the_kernel_takes(name: str) -> None:
    link = netplan.link_name("maestro0", name)
    assert 3 < len(link) <= 15
    assert link.isascii()
    assert link.isalnum()
    assert link != netplan.link_name("maestro-1", name)


@pytest.mark.parametrize(
    ("own", "upstream", "seen"),
    [
        ("nameserver 192.0.2.53\n", "", "nameserver 192.0.2.53\n"),
        (
            "# stub\nnameserver 127.0.0.53\noptions edns0\nsearch lan\n",
            "nameserver 192.0.2.1\nnameserver 192.0.2.2\nsearch other\n",
            "nameserver 192.0.2.1\nnameserver 192.0.2.2\noptions edns0\nsearch lan\n",
        ),
        ("nameserver 127.0.0.1\nnameserver 192.0.2.53\n", "", "nameserver 192.0.2.53\n"),
        ("nameserver fe80::1%eth0\nnameserver ::1\n", "", "nameserver 10.88.0.1\n"),
        ("", "", "nameserver 10.88.0.1\n"),
        ("nameserver\n;x\n\n  \nnameserver nonsense\n", "", "nameserver 10.88.0.1\n"),
    ],
)
def test_only_name_servers_that_can_be_reached_from_inside_are_named(
    own: str, upstream: str, seen: str
) -> None:
    assert netplan.resolver(own, upstream, "10.88.0.1") == seen


def test_hosts_has_the_devices_lines_and_the_processes() -> None:
    own = "127.0.0.1 localhost\n127.0.1.1 gateway # us\n"
    found = {"web": "10.88.0.5", "a/b": "10.88.0.6", "gateway": "10.88.0.7", "-x": "10.88.0.8"}
    assert netplan.hosts(own, found) == own + "10.88.0.5 web\n"
    assert netplan.hosts("", {}) == "127.0.0.1 localhost\n"


def test_nothing_is_forwarded_for_others_only_where_it_was_off_before() -> None:
    def last(*, keep_closed: bool) -> Any:
        rules = firewall.rules("maestro0", SUBNET, [], keep_closed=keep_closed)
        return [expressions for chain, expressions in rules if chain == "passing"][-1]

    assert last(keep_closed=True) == firewall.verdict(firewall.DROP)
    assert last(keep_closed=False) != firewall.verdict(firewall.DROP)


def test_a_published_port_has_a_rule_for_others_and_one_for_the_device() -> None:
    published = [firewall.Published("tcp", "", 80, "10.88.0.5", 8080)]
    rules = firewall.rules("maestro0", SUBNET, published, keep_closed=False)
    chains = [chain for chain, _ in rules if chain.startswith("published")]
    assert chains == ["published", "published-here"]


def process(mode: str) -> ResolvedProcess:
    return ResolvedProcess(name="web", members=("web",), network=Network(mode))


def test_host_costs_no_step_and_private_needs_its_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert netns.steps(process("host"), None) == []
    assert netns.steps(process("none"), None) == [netns.OwnNetwork()]
    with pytest.raises(MaestroError, match="cannot run web: its private network is not there"):
        netns.steps(process("private"), None)


@pytest.mark.parametrize("mode", ["none", "private"])
def test_without_root_only_the_devices_network_is_to_be_had(
    mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert netns.steps(process("host"), None) == []
    with pytest.raises(Unsupported, match=f"cannot run web with network {mode}: maestrod runs as user 1000"):
        netns.steps(process(mode), None)


def test_a_bad_request_is_one_error_line() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "maestro_py.process.network"],
        input="[]\n",
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    assert done.returncode == 1
    assert json.loads(done.stdout)["error"]["message"].startswith("cannot read the request")
    assert done.stderr == ""
