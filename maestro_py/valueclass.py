# SPDX-License-Identifier: Apache-2.0
"""Dataclasses that cost little to define: half of the daemon's start went into making the methods of ours.

`@valueclass(frozen=True)` is `@dataclass(frozen=True)` to a type checker, and to `fields`, `replace` and kin.
Only `__init__` is made for each class, the other methods are one function for all. That nobody assigns to a
field is for the type checker to see: nothing looks while the program runs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__all__ = ["valueclass"]

if TYPE_CHECKING:
    from dataclasses import dataclass as valueclass
else:
    from dataclasses import dataclass, fields

    def valueclass(*, frozen: bool) -> Any:
        """Return a decorator. frozen: always true; it is there to be read."""
        assert frozen
        return _define

    def _define(cls: type) -> type:
        cls.__eq__, cls.__hash__, cls.__repr__ = _eq, _hash, _repr
        return dataclass(eq=False, repr=False)(cls)

    def _eq(self, other: object) -> bool:
        return self.__dict__ == other.__dict__ if other.__class__ is self.__class__ else NotImplemented

    def _hash(self) -> int:
        return hash(tuple(self.__dict__.values()))

    def _repr(self) -> str:
        shown = (f"{field.name}={getattr(self, field.name)!r}" for field in fields(self) if field.repr)
        return f"{type(self).__qualname__}({', '.join(shown)})"
