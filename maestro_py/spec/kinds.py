# SPDX-License-Identifier: Apache-2.0
"""Kinds of values the field tables are made of: how each is read, checked and written back."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from maestro_py.spec.model import RestartPolicy
from maestro_py.spec.names import FILE_NAME_LIMIT, NAME_LIMIT, safe_name
from maestro_py.spec.reader import BAD, Kind, Reading, Table, Wrong, read_object, read_value, show, suggest

_LOOPBACK = re.compile(r"127(\.(25[0-5]|2[0-4][0-9]|1?[0-9]{1,2})){3}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_URL = re.compile(r"https?://[^\s/?#]+[^\s]*|file://(localhost)?/[^\s]*", re.IGNORECASE)


def _text(raw: Any, path: str, reading: Reading) -> str:
    if reading.lenient and isinstance(raw, (int, float)) and not isinstance(raw, bool):
        raw = str(raw)
    if not isinstance(raw, str):
        # YAML takes 600 for a number and yes for true
        raise Wrong(hint="put it in quotes" if isinstance(raw, (int, float)) else "")
    if not raw.isascii() and any("\ud800" <= c <= "\udfff" for c in raw):
        raise Wrong("not valid text: half of a surrogate pair")
    return raw


def _no_nul(raw: Any, path: str, reading: Reading) -> str:
    text = _text(raw, path, reading)
    if "\0" in text:
        raise Wrong("a NUL character cannot be passed to a program")
    return text


def _name(raw: Any, path: str, reading: Reading) -> str:
    text = _text(raw, path, reading)
    if not text:
        raise Wrong("a name cannot be empty")
    if _CONTROL.search(text):
        raise Wrong("a name cannot have control characters")
    if len(text) > NAME_LIMIT:
        raise Wrong(f"a name of {len(text)} characters; {NAME_LIMIT} are the most")
    if len(safe_name(text)) > FILE_NAME_LIMIT:
        raise Wrong(f"as a file name it needs {len(safe_name(text))} bytes; {FILE_NAME_LIMIT} are the most")
    return text


def _optional_name(raw: Any, path: str, reading: Reading) -> str:
    return "" if raw == "" else _name(raw, path, reading)


def _version(raw: Any, path: str, reading: Reading) -> str:
    try:
        return _optional_name(raw, path, reading)
    except Wrong as error:
        raise Wrong(str(error).replace("a name", "a version", 1)) from None


def _boolean(raw: Any, path: str, reading: Reading) -> bool:
    if not isinstance(raw, bool):
        raise Wrong
    return raw


def _env_entry(raw: Any, path: str, reading: Reading) -> str:
    text = _no_nul(raw, path, reading)
    if text.find("=") < 1:
        raise Wrong
    return text


def _path_or_variable(raw: Any, path: str, reading: Reading) -> str | None:
    text = _no_nul(raw, path, reading)
    if not text:  # an upstream payload carries every key
        return None
    if not text.startswith(("/", "{{")):
        raise Wrong
    return text


def _ok_string(raw: Any, path: str, reading: Reading) -> str:
    text = _no_nul(raw, path, reading)
    if not text or len(text) > 1024:
        raise Wrong
    return text


def _url(raw: Any, path: str, reading: Reading) -> str:
    text = _no_nul(raw, path, reading)
    if not _URL.fullmatch(text) or _CONTROL.search(text):
        raise Wrong
    return text


def _relative_path(raw: Any, path: str, reading: Reading) -> str:
    text = _no_nul(raw, path, reading)
    if _CONTROL.search(text):
        raise Wrong("a path cannot have control characters")
    parts: list[str] = []
    for part in text.split("/"):
        if part == "..":
            if not parts:
                raise Wrong(f"{show(text)} leaves the config directory")
            parts.pop()
        elif part not in ("", "."):
            if len(part.encode()) > 255:
                raise Wrong("a part of the path is longer than 255 bytes")
            parts.append(part)
    if not parts:
        raise Wrong("names no file")
    return "/".join(parts)


def _user(raw: Any, path: str, reading: Reading) -> str | int:
    if isinstance(raw, str) and raw.isascii() and raw.isdigit() and len(raw) < 11:
        raw = int(raw)
    if isinstance(raw, int) and not isinstance(raw, bool):
        if not 0 <= raw < (1 << 32) - 1:  # the last one means "unchanged" to the kernel
            raise Wrong
        return raw
    if not isinstance(raw, str) or not raw or ":" in raw or raw.isdigit():
        raise Wrong
    return _name(raw, path, reading)


def loopback_address(text: str) -> tuple[str, int]:
    """Return (host, port) of `127.0.0.1:8080`, `[::1]:8080` or `localhost:8080`. Raises ValueError."""
    host, _, port = text.strip().rpartition(":")
    host = {"localhost": "127.0.0.1", "[::1]": "::1"}.get(host.lower(), host)
    if host != "::1" and not _LOOPBACK.fullmatch(host):
        raise Wrong(f"{show(text)} is no address on loopback, and the listener is not encrypted")
    if not (port.isascii() and port.isdigit() and len(port) < 6 and 0 < int(port) < 65536):
        raise Wrong
    return host, int(port)


def _loopback(raw: Any, path: str, reading: Reading) -> str:
    text = _no_nul(raw, path, reading)
    if text:
        loopback_address(text)
    return text


def plain(value: float) -> object:
    """Return a number as it is written: whole ones without a point."""
    return int(value) if value == int(value) else value


STRING = {"type": "string"}
"""JSON Schema of any text."""


def text_kind(expected: str, read: Callable[[Any, str, Reading], Any]) -> Kind:
    """Return a kind that is written as text."""
    return Kind(expected, read, schema=STRING)


TEXT = text_kind("a string", _text)
LOOPBACK = text_kind("an address on loopback with its port, as 127.0.0.1:8080", _loopback)
ARGUMENT = text_kind("a string", _no_nul)
NAME = Kind("a name, as a string", _name, schema={"type": "string", "minLength": 1})
OPTIONAL_NAME = text_kind("a name, as a string", _optional_name)
VERSION = text_kind("a version, as a string", _version)
BOOLEAN = Kind("true or false", _boolean, schema={"type": "boolean"})
ENV_ENTRY = Kind(
    'a string of the form "NAME=value"', _env_entry, schema={"type": "string", "pattern": "^[^=]+="}
)
ABSOLUTE_PATH = Kind(
    "an absolute path, as a string", _path_or_variable, schema={"type": "string", "pattern": "^(/|{{|$)"}
)
OK_TEXT = Kind("a string of 1 to 1024 characters", _ok_string, schema={"type": "string", "minLength": 1})
URL = text_kind("a URL that begins with http://, https:// or file:///", _url)
RELATIVE_PATH = text_kind("a path below the config directory, as a string", _relative_path)
USER = Kind("a user or group, by name or number", _user, schema={"type": ["string", "integer"]})


def integer(low: int, high: int) -> Kind:
    """Return the kind of whole numbers from low to high."""
    wide = high >= (1 << 31) - 1
    expected = f"a whole number, {low} or more" if wide else f"a whole number from {low} to {high}"

    def read(raw: Any, path: str, reading: Reading) -> int:
        if not isinstance(raw, int) or isinstance(raw, bool) or not low <= raw <= high:
            raise Wrong
        return raw

    return Kind(expected, read, schema={"type": "integer", "minimum": low, "maximum": high})


def number(low: float, high: float) -> Kind:
    """Return the kind of numbers from low to high."""

    def read(raw: Any, path: str, reading: Reading) -> float:
        if not isinstance(raw, (int, float)) or isinstance(raw, bool) or not low <= raw <= high:
            raise Wrong
        return float(raw)

    schema = {"type": "number", "minimum": low, "maximum": high}
    return Kind(f"a number from {low:g} to {high:g}", read, plain, schema)


def choice(*words: str, empty: str = "", refused: Mapping[str, str] | None = None) -> Kind:
    """Return the kind of one word out of some, whatever its case.

    empty: what an empty text means, if it may be empty. refused: words with a reason of their own.
    """

    def read(raw: Any, path: str, reading: Reading) -> str:
        if raw == "" and empty:
            return empty
        if not isinstance(raw, str):
            raise Wrong
        word = raw.lower()
        if refused and word in refused:
            raise Wrong(refused[word])
        if word not in words:
            raise Wrong(hint=suggest(word[:40], words))
        return word

    expected = f'"{words[0]}"' if len(words) == 1 else "one of " + ", ".join(words)
    return Kind(expected, read, schema={"enum": [*words, ""] if empty else list(words)})


def _restart_policy(raw: Any, path: str, reading: Reading) -> RestartPolicy:
    return RestartPolicy(_POLICY_WORD.read(raw, path, reading))


_POLICY_WORD = choice(*(policy.value for policy in RestartPolicy))
RESTART_POLICY = Kind(
    _POLICY_WORD.expected, _restart_policy, lambda policy: policy.value, _POLICY_WORD.schema
)


def list_of(item: Kind, expected: str) -> Kind:
    """Return the kind of lists of `item`; read as a tuple. `expected` completes "expected a list of"."""

    def read(raw: Any, path: str, reading: Reading) -> tuple[Any, ...]:
        if not isinstance(raw, list):
            raise Wrong
        values = []
        for i, part in enumerate(raw):
            if reading.enough:
                break
            values.append(read_value(item, part, f"{path}[{i}]", reading))
        return tuple(value for value in values if value is not BAD and value is not None)

    schema = {"type": "array", "items": item}
    return Kind(f"a list of {expected}", read, lambda values: [item.write(value) for value in values], schema)


ARGUMENTS = list_of(ARGUMENT, "strings")
ENVIRONMENT = list_of(ENV_ENTRY, '"NAME=value" strings')
NAMES = list_of(NAME, "names")
USERS = list_of(USER, "groups, by name or number")

Check = Callable[[dict[str, Any], str, Reading], None]
"""Looks at the values of one object together, notes problems, may correct the values."""


def object_of(table: Table, check: Check | None = None) -> Kind:
    """Return the kind of objects with the fields of `table`.

    The value is None when a required field is missing or refused; the problem is noted by then.
    """

    def read(raw: Any, path: str, reading: Reading) -> Any:
        values = read_object(table, raw, path, reading)
        if check is not None:
            check(values, path, reading)
        if any(row.required and row.attr not in values for row in table.fields):
            return None
        return table.build(values)

    return Kind(table.noun, read, table.write, table)
