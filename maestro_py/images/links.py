# SPDX-License-Identifier: Apache-2.0
"""Where symbolic links lead, by name alone: nothing on disk is looked at, so nothing there can mislead."""

from __future__ import annotations

from maestro_py.images.archive import Refused, printable

MAX_STEPS = 1000
"""Components looked at while one link is followed."""

Parts = tuple[str, ...]


class Links:
    """The symbolic links of one tree. absolute: they may be so, because the tree becomes a root."""

    def __init__(self, *, absolute: bool) -> None:
        self._absolute = absolute
        self._targets: dict[Parts, str] = {}

    def add(self, parts: Parts, target: str) -> None:
        """Note a link, and stop early when it leaves the tree; a later one may change where it leads."""
        self._targets[parts] = target
        self._check(parts)

    def check(self) -> None:
        """Raise Refused at a link that leaves the tree."""
        for parts in self._targets:
            self._check(parts)

    def _check(self, parts: Parts) -> None:
        """Follow a link by name through the tree, as the kernel would; it may dangle, not leave."""
        name, target = "/".join(parts), self._targets[parts]
        at, todo = list(parts[:-1]), _components(target)
        for _ in range(MAX_STEPS):
            if not todo:
                return
            part = todo.pop()
            if part == "/":
                if not self._absolute:
                    raise Refused(name, f"it is a link to {printable(target)}, an absolute path")
                at = []
            elif part == "..":
                if not at:
                    raise Refused(name, f"it is a link to {printable(target)}, which leaves the image")
                at.pop()
            else:
                at.append(part)
                further = self._targets.get(tuple(at))
                if further is not None:
                    at.pop()
                    todo += _components(further)
        raise Refused(name, f"it is a link to {printable(target)}, which leads in a circle or too far")


def _components(target: str) -> list[str]:
    """Return a target's components, last first; a leading `/` is one of them."""
    parts = [part for part in target.split("/") if part not in ("", ".")]
    return [*reversed(parts), "/"] if target.startswith("/") else parts[::-1]
