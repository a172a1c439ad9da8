# SPDX-License-Identifier: Apache-2.0
"""The nftables rules of the private network: one table of our own, always replaced as a whole.

Part of the helper program network.py. Rules are data, lists of pyroute2's expressions; `replace` and
`remove` write them in one transaction, so there is never a moment with half of them.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Mapping, Sequence
from typing import Any

from pyroute2.netlink.nfnetlink import nfgen_msg, nftsocket
from pyroute2.nftables.expressions import genex, verdict

from maestro_py.valueclass import valueclass

Expressions = list[Any]
Rule = tuple[str, Expressions]
"""(chain, expressions)"""

# include/uapi/linux/netfilter.h, netfilter_ipv4.h
_PREROUTING, _FORWARD, _OUTPUT, _POSTROUTING = 0, 2, 3, 4
_RAW, _DSTNAT, _FILTER, _SRCNAT = -300, -100, 0, 100
DROP, ACCEPT = 0, 1
MASQUERADE = [genex("masq", {})]

CHAINS = (
    ("guard", "filter", _PREROUTING, _RAW),
    ("published", "nat", _PREROUTING, _DSTNAT),
    ("published-here", "nat", _OUTPUT, _DSTNAT),
    ("passing", "filter", _FORWARD, _FILTER),
    ("leaving", "nat", _POSTROUTING, _SRCNAT),
)
"""(name, type, hook, priority); the policy is to accept."""

# include/uapi/linux/netfilter/nf_tables.h
_NETWORK, _TRANSPORT = 1, 2
_IIFNAME, _OIFNAME, _L4PROTO = 6, 7, 16
_CT_STATE, _CT_STATUS = 0, 2
_EQ, _NEQ = 0, 1
_DNAT = 1
_FIB_DADDR, _FIB_ADDRTYPE = 2, 3
# include/uapi/linux/rtnetlink.h, include/net/netfilter/nf_conntrack.h, nf_conntrack_common.h
_RTN_LOCAL = 2
_ESTABLISHED_OR_RELATED = 2 | 4
_IPS_DST_NAT = 1 << 5

_NLM_F_REQUEST, _NLM_F_ACK, _NLM_F_CREATE, _NLM_F_APPEND = 1, 4, 0x400, 0x800
_NLMSG_ERROR = 2
_BEGIN, _END = 0x10, 0x11
_SUBSYSTEM = 10  # NFNL_SUBSYS_NFTABLES
_HEADER = struct.Struct("=IHHII")


class _RuleMessage(nftsocket.nft_rule_msg):  # type: ignore[misc]
    """pyroute2 has the result of `fib` as a set of flags, but it is a number (nf_tables.h)."""

    class nft_expr(nftsocket.nft_rule_msg.nft_expr):  # type: ignore[misc]
        class nft_fib(nftsocket.nft_regs):  # type: ignore[misc]
            nla_map = (
                ("NFTA_FIB_UNSPEC", "none"),
                ("NFTA_FIB_DREG", "regs"),
                ("NFTA_FIB_RESULT", "be32"),
                ("NFTA_FIB_FLAGS", "be32"),
            )


@valueclass(frozen=True)
class Published:
    """A port of the device that leads to a port of an address. on: the device's address; empty: all."""

    protocol: str
    on: str
    port: int
    to: str
    to_port: int


def rules(bridge: str, subnet: str, published: Sequence[Published], *, keep_closed: bool) -> list[Rule]:
    """Return all rules. subnet is `address/bits`; keep_closed: forward nothing that is not ours.

    guard: nobody inside may pose as another network, or reach what listens on the device's loopback,
    which the kernel would allow once loopback may be translated (route_localnet).
    passing: from outside only what is an answer or was published gets in.
    leaving: packets to elsewhere get the device's address; so do those from its own loopback, and those
    that reach a neighbour through a published port, or the answer would not come back the same way.
    """
    inside, outside = _interface(_IIFNAME, bridge), _interface(_OIFNAME, bridge)
    ours, loopback = _address(subnet, source=True), _address("127.0.0.0/8", source=True)
    found: list[Rule] = [
        ("guard", inside + _address("127.0.0.0/8") + verdict(DROP)),
        ("guard", inside + _address(subnet, source=True, other=True) + verdict(DROP)),
        ("passing", inside + verdict(ACCEPT)),
        ("passing", outside + _conntrack(_CT_STATE, _ESTABLISHED_OR_RELATED) + verdict(ACCEPT)),
        ("passing", outside + _conntrack(_CT_STATUS, _IPS_DST_NAT) + verdict(ACCEPT)),
        ("passing", outside + verdict(DROP)),
        ("leaving", ours + _interface(_OIFNAME, bridge, other=True) + MASQUERADE),
        ("leaving", loopback + outside + MASQUERADE),
        ("leaving", ours + outside + _conntrack(_CT_STATUS, _IPS_DST_NAT) + MASQUERADE),
    ]
    if keep_closed:
        found.append(("passing", verdict(DROP)))
    for chain in ("published", "published-here"):
        found += [(chain, _publish(each)) for each in published]
    return found


def _compare(value: bytes, other: bool = False) -> Expressions:
    operation = _NEQ if other else _EQ
    return [genex("cmp", {"sreg": 1, "op": operation, "data": {"attrs": [("NFTA_DATA_VALUE", value)]}})]


def _interface(key: int, name: str, other: bool = False) -> Expressions:
    return [genex("meta", {"dreg": 1, "key": key}), *_compare(name.encode().ljust(16, b"\0"), other)]


def _mask(mask: bytes) -> Any:
    zero = bytes(len(mask))
    return genex(
        "bitwise",
        {
            "sreg": 1,
            "dreg": 1,
            "len": len(mask),
            "mask": {"attrs": [("NFTA_DATA_VALUE", mask)]},
            "xor": {"attrs": [("NFTA_DATA_VALUE", zero)]},
        },
    )


def _address(network: str, source: bool = False, other: bool = False) -> Expressions:
    """Match the source or destination address; `other`: one that is not in the network."""
    address, _, bits = network.partition("/")
    mask = ((1 << 32) - (1 << 32 - int(bits or 32))).to_bytes(4, "big")
    place = {"dreg": 1, "base": _NETWORK, "offset": 12 if source else 16, "len": 4}
    return [genex("payload", place), _mask(mask), *_compare(socket.inet_aton(address), other)]


def _conntrack(key: int, bits: int) -> Expressions:
    """Match when any of the bits is set."""
    mask = struct.pack("=I", bits)
    return [genex("ct", {"dreg": 1, "key": key}), _mask(mask), *_compare(bytes(4), other=True)]


def _immediate(register: int, value: bytes) -> Any:
    return genex("immediate", {"dreg": register, "data": {"attrs": [("NFTA_DATA_VALUE", value)]}})


def _publish(port: Published) -> Expressions:
    if port.on:
        where = _address(port.on)
    else:
        fib = genex("fib", {"dreg": 1, "result": _FIB_ADDRTYPE, "flags": _FIB_DADDR})
        where = [fib, *_compare(struct.pack("=I", _RTN_LOCAL))]
    protocol = socket.IPPROTO_TCP if port.protocol == "tcp" else socket.IPPROTO_UDP
    return [
        *where,
        genex("meta", {"dreg": 1, "key": _L4PROTO}),
        *_compare(bytes([protocol])),
        genex("payload", {"dreg": 1, "base": _TRANSPORT, "offset": 2, "len": 2}),
        *_compare(port.port.to_bytes(2, "big")),
        _immediate(1, socket.inet_aton(port.to)),
        _immediate(2, port.to_port.to_bytes(2, "big")),
        genex(
            "nat",
            {"type": _DNAT, "family": socket.AF_INET, "reg_addr_min": 1, "reg_proto_min": 2},
        ),
    ]


def replace(table: str, wanted: Sequence[Rule]) -> None:
    """Make the table hold exactly these rules. Raises OSError."""
    batch = [*_fresh(table)]
    for name, kind, hook, priority in CHAINS:
        where = {"attrs": [("NFTA_HOOK_HOOKNUM", hook), ("NFTA_HOOK_PRIORITY", priority)]}
        values = {"table": table, "name": name, "hook": where, "type": kind, "policy": ACCEPT}
        batch.append(_message(nftsocket.nft_chain_msg, nftsocket.NFT_MSG_NEWCHAIN, values))
    for chain, expressions in wanted:
        values = {"table": table, "chain": chain, "expressions": expressions}
        batch.append(_message(_RuleMessage, nftsocket.NFT_MSG_NEWRULE, values))
    _transact(batch)


def remove(table: str) -> None:
    """Remove the table; it may be gone already. Raises OSError."""
    _transact(_fresh(table)[:2])


def _fresh(table: str) -> list[Any]:
    """Return the messages that lead to an empty table whatever was before: add, delete, add."""
    order = (nftsocket.NFT_MSG_NEWTABLE, nftsocket.NFT_MSG_DELTABLE, nftsocket.NFT_MSG_NEWTABLE)
    return [_message(nftsocket.nft_table_msg, kind, {"name": table}) for kind in order]


def _message(kind: Any, number: int, values: Mapping[str, Any]) -> Any:
    message = kind()
    message["attrs"] = [(f"{kind.prefix}{key.upper()}", value) for key, value in values.items()]
    message["nfgen_family"] = socket.AF_INET
    message["header"]["type"] = _SUBSYSTEM << 8 | number
    message["header"]["flags"] = _NLM_F_REQUEST | _NLM_F_ACK | _NLM_F_CREATE | _NLM_F_APPEND
    return message


def _boundary(number: int) -> Any:
    message = nfgen_msg()
    message["res_id"] = _SUBSYSTEM
    message["header"]["type"] = number
    message["header"]["flags"] = _NLM_F_REQUEST
    return message


def _transact(messages: Sequence[Any]) -> None:
    """Send all between begin and end, and wait for the kernel's word on each."""
    batch = [_boundary(_BEGIN), *messages, _boundary(_END)]
    data = b""
    for number, message in enumerate(batch, 1):
        message["header"]["sequence_number"] = number
        message.encode()
        data += bytes(message.data)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 12) as link:  # NETFILTER
        link.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, max(len(data) * 2, 1 << 16))
        link.settimeout(10)
        link.bind((0, 0))
        link.send(data)
        answered = 0
        while answered < len(messages):
            answered += _answers(link.recv(1 << 16))


def _answers(data: bytes) -> int:
    """Return how many messages were accepted; raises OSError for one that was not."""
    count = at = 0
    while at + _HEADER.size <= len(data):
        length, kind, _, _, _ = _HEADER.unpack_from(data, at)
        if kind == _NLMSG_ERROR:
            number = -struct.unpack_from("=i", data, at + _HEADER.size)[0]
            if number:
                text = os.strerror(number)
                if number in (errno.EOPNOTSUPP, errno.ENOENT, errno.EPROTONOSUPPORT):
                    text += " (does this kernel have nf_tables with nat, masq, fib and ct?)"
                raise OSError(number, text)
            count += 1
        at += (length + 3) & ~3
    return count
