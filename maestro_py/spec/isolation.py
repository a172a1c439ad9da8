# SPDX-License-Identifier: Apache-2.0
"""Kinds and tables of the fields that say what a process may see and do."""

from __future__ import annotations

import posixpath
import re
import socket
from typing import Any

from maestro_py.spec import kinds
from maestro_py.spec.checks import check_base64
from maestro_py.spec.kinds import choice, integer, list_of, object_of, text_kind
from maestro_py.spec.model import Mount, Network, Port, Secret
from maestro_py.spec.reader import Field, Kind, Reading, Table, Wrong, show
from maestro_py.units import parse_size

CAPABILITIES = (
    "chown",
    "dac_override",
    "dac_read_search",
    "fowner",
    "fsetid",
    "kill",
    "setgid",
    "setuid",
    "setpcap",
    "linux_immutable",
    "net_bind_service",
    "net_broadcast",
    "net_admin",
    "net_raw",
    "ipc_lock",
    "ipc_owner",
    "sys_module",
    "sys_rawio",
    "sys_chroot",
    "sys_ptrace",
    "sys_pacct",
    "sys_admin",
    "sys_boot",
    "sys_nice",
    "sys_resource",
    "sys_time",
    "sys_tty_config",
    "mknod",
    "lease",
    "audit_write",
    "audit_control",
    "setfcap",
    "mac_override",
    "mac_admin",
    "syslog",
    "wake_alarm",
    "block_suspend",
    "audit_read",
    "perfmon",
    "bpf",
    "checkpoint_restore",
)
"""Names of capabilities(7) without CAP_, each at its number (include/uapi/linux/capability.h)."""

_SECRET_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}")
SECRET_LIMIT = 1 << 20
"""Bytes one secret may have."""


def _capability(raw: Any, path: str, reading: Reading) -> str:
    if not isinstance(raw, str):
        raise Wrong
    name = raw.lower().removeprefix("cap_")
    if name not in CAPABILITIES:
        raise Wrong(f"no such capability: {show(raw)}", reading.suggest(name[:40], CAPABILITIES))
    return name


_CAPABILITY_LIST = list_of(text_kind("a capability, as a string", _capability), "capabilities")


def _capabilities(raw: Any, path: str, reading: Reading) -> tuple[str, ...]:
    return tuple(sorted(set(_CAPABILITY_LIST.read(raw, path, reading))))


def _normal(text: str, what: str = "a path") -> str:
    """Return an absolute path without `.`, doubled slashes and a slash at its end; `..` is refused."""
    if not text.startswith("/"):
        raise Wrong
    if ".." in text.split("/"):
        raise Wrong(f"{what} cannot have a part `..`")
    return "/" + posixpath.normpath(text).lstrip("/")


def _source(raw: Any, path: str, reading: Reading) -> str:
    text: str = kinds.ARGUMENT.read(raw, path, reading)
    return text if text.startswith("{{") else _normal(text)


def _target(raw: Any, path: str, reading: Reading) -> str:
    text = _normal(kinds.ARGUMENT.read(raw, path, reading))
    if text in ("/", "/proc", "/dev"):
        raise Wrong(f"nothing can be mounted on {show(text)} of a process")
    return text


def _tmpfs(raw: Any, path: str, reading: Reading) -> str:
    place, colon, option = kinds.ARGUMENT.read(raw, path, reading).partition(":")
    place = _target(place, path, reading)
    if not colon:
        return place
    key, _, value = option.partition("=")
    try:
        size = parse_size(value) if key == "size" else 0
    except (ValueError, OverflowError):
        size = 0
    if size < 1:
        raise Wrong
    return f"{place}:size={size}"


def _device(raw: Any, path: str, reading: Reading) -> str:
    text = _normal(kinds.ARGUMENT.read(raw, path, reading))
    if not text.startswith("/dev/"):
        raise Wrong
    return text


def _secret_name(raw: Any, path: str, reading: Reading) -> str:
    if not isinstance(raw, str) or not _SECRET_NAME.fullmatch(raw):
        raise Wrong
    return raw


def _secret_data(raw: Any, path: str, reading: Reading) -> str:
    # its messages never show the value
    if not isinstance(raw, str):
        raise Wrong("expected a string")
    if not raw.isascii() and any("\ud800" <= c <= "\udfff" for c in raw):
        raise Wrong("not valid text: half of a surrogate pair")
    if len(raw) > 2 * SECRET_LIMIT:
        raise Wrong(f"a secret of {len(raw)} characters; {SECRET_LIMIT} bytes are the most")
    return raw


def _address(raw: Any, path: str, reading: Reading) -> str:
    if not isinstance(raw, str):
        raise Wrong
    try:
        return socket.inet_ntoa(socket.inet_pton(socket.AF_INET, raw)) if raw else ""
    except (OSError, ValueError):
        raise Wrong from None


PORT_NUMBER = integer(1, 65535)
ADDRESS = text_kind("an IPv4 address, as a string", _address)

MOUNT = Table(
    "a mount",
    Mount,
    (
        Field("source", text_kind("an absolute path of the device, as a string", _source),
              "Directory or file of the device.", required=True),
        Field("target", text_kind("an absolute path, as a string", _target), "Where the process finds it.",
              required=True),
        Field("options", list_of(choice("ro", "rw", "noexec", "nosuid", "nodev"), "options"),
              "ro or rw, noexec; nosuid and nodev always hold.", "ro"),
    ),
)  # fmt: skip

PORT = Table(
    "a published port",
    Port,
    (
        Field("host", PORT_NUMBER, "Port of the device.", required=True),
        Field("inside", PORT_NUMBER, "Port the process listens on.", required=True),
        Field("protocol", choice("tcp", "udp", empty="tcp"), "tcp or udp.", "tcp"),
        Field("address", ADDRESS, "Address of the device it is published on.", "all"),
    ),
)

SECRET = Table(
    "a secret",
    Secret,
    (
        Field("name",
              text_kind("a file name of letters, digits, `.`, `_` and `-`, as a string", _secret_name),
              "Name of the file in the directory that MAESTRO_SECRETS_DIR names.", required=True),
        Field("file", text_kind("an absolute path of the device, as a string", _source),
              "File of the device to take it from, read at each start.", "`data`"),
        Field("data", text_kind("a string", _secret_data), "The secret itself, as `encoding` says.",
              "`file`"),
        Field("encoding", choice("utf8", "base64", empty="utf8"), "utf8 or base64.", "utf8"),
    ),
)  # fmt: skip


def _mount_check(values: dict[str, Any], path: str, reading: Reading) -> None:
    options = values.get("options", ())
    if "ro" in options and "rw" in options:
        reading.problem(f"{path}.options", "it is either ro or rw")


def _secret_check(values: dict[str, Any], path: str, reading: Reading) -> None:
    if ("file" in values) == ("data" in values):
        reading.problem(path, "give one of `file` and `data`")
    elif values.get("encoding") == "base64" and not check_base64(values.get("data", "")):
        reading.problem(f"{path}.data", "is not valid base64, which `encoding` says it is")


def _network_check(values: dict[str, Any], path: str, reading: Reading) -> None:
    if values.get("mode", "host") != "private":
        for key in ("address", "ports"):
            if values.get(key):
                reading.problem(f"{path}.{key}", "only a private network has this")
    seen: set[tuple[str, int, str]] = set()
    for i, port in enumerate(values.get("ports", ())):
        place = (port.protocol, port.host, port.address)
        if place in seen:
            reading.problem(f"{path}.ports[{i}]", f"port {port.host}/{port.protocol} is published twice")
        seen.add(place)


_NETWORK_MODE = choice("host", "none", "private")

NETWORK = Table(
    "a network",
    Network,
    (
        Field("mode", _NETWORK_MODE, "host, none or private.", required=True),
        Field("address", ADDRESS, "Own address in the private network.", "chosen"),
        Field("ports", list_of(object_of(PORT), "published ports"), "Ports of the device that lead inside.",
              "none"),
    ),
)  # fmt: skip

_NETWORK_OBJECT = object_of(NETWORK, _network_check)


def _network(raw: Any, path: str, reading: Reading) -> Network | None:
    if isinstance(raw, str):
        return Network(_NETWORK_MODE.read(raw, path, reading))
    network: Network | None = _NETWORK_OBJECT.read(raw, path, reading)
    return network


def _write_network(network: Network) -> object:
    return NETWORK.write(network) if network.ports or network.address else network.mode


def _unique(kind: Kind, key: str) -> Kind:
    """Return the kind of lists whose objects differ in the attribute `key`."""

    def read(raw: Any, path: str, reading: Reading) -> tuple[Any, ...]:
        items: tuple[Any, ...] = kind.read(raw, path, reading)
        names = [getattr(item, key) for item in items]
        for i, name in enumerate(names):
            if name in names[:i]:
                reading.problem(path, f'the {key} "{name}" is given twice')
        return items

    return Kind(kind.expected, read, kind.write, kind.schema)


CAPABILITY_SET = Kind(_CAPABILITY_LIST.expected, _capabilities, list, _CAPABILITY_LIST.schema)
SECCOMP = choice("default", "none")
PIDS = choice("host", "private")
MOUNTS = _unique(list_of(object_of(MOUNT, _mount_check), "mounts"), "target")
TMPFS = list_of(text_kind('an absolute path, as "/tmp" or "/tmp:size=16M"', _tmpfs), "paths")
DEVICES = list_of(text_kind("a path below /dev, as a string", _device), "paths below /dev")
NETWORKS = Kind(
    '"host", "none", "private" or an object with `mode`',
    _network,
    _write_network,
    {"anyOf": [_NETWORK_MODE, NETWORK]},
)
SECRETS = _unique(list_of(object_of(SECRET, _secret_check), "secrets"), "name")
