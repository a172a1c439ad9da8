# SPDX-License-Identifier: Apache-2.0
"""Dependency graphs of processes: an order to start in, and circles by name.

Both walks are iterative, so a chain of any depth works. A dependency that is not a key of the
mapping is not a node here and is passed over.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping


def start_order(deps: Mapping[str, Collection[str]]) -> list[str]:
    """Return every key of `deps`, each after all that it depends on.

    The order is stable: what has no say in the matter stays in the order of the mapping. A circle
    is cut where it is met; `find_cycle` is what refuses one.
    """
    order: list[str] = []
    seen: set[str] = set()
    for first in deps:
        if first in seen:
            continue
        seen.add(first)
        stack: list[tuple[str, Iterator[str]]] = [(first, iter(deps[first]))]
        while stack:
            node, rest = stack[-1]
            for name in rest:
                if name in deps and name not in seen:
                    seen.add(name)
                    stack.append((name, iter(deps[name])))
                    break
            else:
                order.append(node)
                stack.pop()
    return order


def find_cycle(deps: Mapping[str, Collection[str]]) -> list[str] | None:
    """Return one circle, spelled from its start back to its start (`["a", "b", "a"]`), or None."""
    done: set[str] = set()
    for first in deps:
        if first in done:
            continue
        stack: list[tuple[str, Iterator[str]]] = [(first, iter(deps[first]))]
        on_path = {first}
        while stack:
            node, rest = stack[-1]
            for name in rest:
                if name in on_path:
                    trail = [entry[0] for entry in stack]
                    return [*trail[trail.index(name) :], name]
                if name in deps and name not in done:
                    on_path.add(name)
                    stack.append((name, iter(deps[name])))
                    break
            else:
                done.add(node)
                on_path.discard(node)
                stack.pop()
    return None
