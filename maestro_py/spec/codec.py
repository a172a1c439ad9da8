# SPDX-License-Identifier: Apache-2.0
"""Frozen dataclasses as JSON and back, guided by nothing but their own annotations.

For what one daemon writes down and the next reads: a field that is at its default is left out, one that
the reader does not know is passed over, one that the writer did not know has its default.
"""

from __future__ import annotations

import types
from dataclasses import fields, is_dataclass
from enum import Enum
from functools import cache
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

T = TypeVar("T")


def dump(value: Any) -> Any:
    """Return what JSON can hold of a dataclass: objects, lists and plain values."""
    if isinstance(value, Enum):
        return value.value
    if is_dataclass(value):
        return {
            field.name: dump(found)
            for field in fields(value)
            if (found := getattr(value, field.name)) != field.default
        }
    if isinstance(value, (tuple, list)):
        return [dump(item) for item in value]
    return value


def load(kind: type[T], data: Any) -> T:
    """Return the dataclass that `dump` made `data` of. Raises ValueError for anything else."""
    try:
        loaded: T = _load(kind, data)
        return loaded
    except (TypeError, KeyError, AttributeError, IndexError) as error:
        raise ValueError(f"this is no {kind.__name__}: {error}") from error


@cache
def _hints(kind: type) -> dict[str, Any]:
    return get_type_hints(kind)


def _load(kind: Any, data: Any) -> Any:
    origin = get_origin(kind)
    if origin in (Union, types.UnionType):
        return _load_union(get_args(kind), data)
    if origin is tuple:
        if not isinstance(data, list):
            raise TypeError(f"a list was expected, not {data!r}")
        kinds = get_args(kind)
        if kinds[-1] is Ellipsis:
            return tuple(_load(kinds[0], item) for item in data)
        return tuple(_load(each, item) for each, item in zip(kinds, data, strict=True))
    if is_dataclass(kind):
        hints = _hints(kind)  # type: ignore[arg-type]
        return kind(**{name: _load(hints[name], item) for name, item in data.items() if name in hints})  # type: ignore[operator]
    if issubclass(kind, Enum):
        return kind(data)
    if kind is float and type(data) is int:
        return float(data)
    if type(data) is not kind:
        raise TypeError(f"{kind.__name__} was expected, not {data!r}")
    return data


def _load_union(kinds: tuple[Any, ...], data: Any) -> Any:
    if data is None and types.NoneType in kinds:
        return None
    for kind in kinds:
        try:
            return _load(kind, data)
        except (TypeError, AttributeError):
            continue
    raise TypeError(f"{data!r} was not expected")
