# SPDX-License-Identifier: Apache-2.0
"""The arrows between the rooms, and what the daemon may load, read from the sources themselves."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "maestro_py"
FILES = {
    ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(PACKAGE.rglob("*.py"))
    if "templates" not in path.relative_to(PACKAGE).parts
}

BASE = {"", "valueclass", "errors", "units", "exits", "shipped"}
DECIDING = BASE | {"spec", "plan", "lifecycle", "why"}
ALLOWED = {
    "": set[str](),
    "valueclass": set[str](),
    "errors": {"", "valueclass"},
    "units": {"", "errors"},
    "exits": {"", "valueclass", "errors", "units"},
    "shipped": set[str](),
    "timing": set[str](),
    "faultpoint": set[str](),
    "budget": {"", "valueclass"},
    "spec": BASE | {"spec"},
    "differences": BASE | {"spec"},
    "plan": BASE | {"spec", "differences"},
    "lifecycle": BASE | {"spec"},
    "probation": BASE | {"spec", "lifecycle"},
    "why": DECIDING - {"why"},
    "process": DECIDING | {"faultpoint", "process", "helper"},
    "helper": {"", "errors"},
    "images": DECIDING | {"faultpoint", "images", "helper"},
    "state": DECIDING | {"faultpoint", "timing", "state"},
    "daemon": DECIDING
    | {"budget", "probation", "faultpoint", "timing", "process", "images", "state", "daemon"},
    "client": {"", "valueclass", "errors", "client"},
    "cli": BASE | {"spec", "client", "cli"},
    "adapters": BASE | {"client", "adapters"},
}
"""Room -> rooms it may import from; `` is the package itself."""

NOT_IN_THE_DAEMON = {
    "maestro_py.images.archive",
    "maestro_py.images.tarball",
    "maestro_py.images.zipball",
    "maestro_py.images.decompress",
    "maestro_py.images.delta",
    "maestro_py.images.clone",
    "maestro_py.images.fetch",
    "maestro_py.images.flush",
    "maestro_py.images.pack",
    "maestro_py.images.part",
    "maestro_py.images.signature",
    "maestro_py.images.transport",
    "maestro_py.images.manifest",
    "maestro_py.images.unpack",
    "maestro_py.images.verify",
    "maestro_py.process.enter",
    "maestro_py.process.firewall",
    "maestro_py.process.netplan",
    "maestro_py.process.network",
    "maestro_py.process.terminal",
    "maestro_py.spec.yamltext",
}
HEAVY = {
    "argparse",
    "asyncio",
    "concurrent",
    "email",
    "hashlib",
    "http",
    "inspect",
    "logging",
    "multiprocessing",
    "pathlib",
    "psutil",
    "pyroute2",
    "requests",
    "shutil",
    "socketserver",
    "ssl",
    "subprocess",
    "tarfile",
    "tempfile",
    "threading",
    "urllib",
    "yaml",
    "zipfile",
}
"""What each costs the daemon more memory or start-up time than it is worth."""


def imports(module: str, *, at_load: bool) -> Iterator[tuple[str, int]]:
    """Yield (module, line) of what a module imports; at_load leaves out functions and type checking."""
    yield from _walk(ast.parse(FILES[module].read_bytes()), at_load)


def _walk(node: ast.AST, at_load: bool) -> Iterator[tuple[str, int]]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            yield from ((alias.name, child.lineno) for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            assert child.level == 0, "imports name their module in full"
            assert child.module
            for alias in child.names:
                deeper = f"{child.module}.{alias.name}"
                yield (deeper if deeper in FILES else child.module), child.lineno
        elif at_load and isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        elif at_load and isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            for other in child.orelse:
                yield from _walk(ast.Module([other], []), at_load)
        else:
            yield from _walk(child, at_load)


def room(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


@cache
def loaded_by_the_daemon() -> dict[str, str]:
    """Return every module of ours that starting the daemon loads, and by which it came in."""
    found = {module: "" for module in FILES if room(module) == "daemon"}
    todo = list(found)
    while todo:
        module = todo.pop()
        parents = [module.rsplit(".", i)[0] for i in range(1, module.count(".") + 1)]
        for name in [*parents, *(name for name, _ in imports(module, at_load=True))]:
            if name in FILES and name not in found:
                found[name] = module
                todo.append(name)
    return found


@pytest.mark.parametrize("module", FILES)
def test_arrows_point_one_way(module: str) -> None:
    allowed = ALLOWED[room(module)]
    for name, line in imports(module, at_load=False):
        if name.split(".")[0] != PACKAGE.name:
            continue
        assert name in FILES, f"{FILES[module]}:{line} imports {name}, which is not there"
        assert room(name) in allowed, f"{FILES[module]}:{line}: {room(module) or module} imports {name}"


def test_every_room_has_its_arrows() -> None:
    assert {room(module) for module in FILES} <= set(ALLOWED)


def test_nothing_imports_the_daemon_but_the_daemon_itself() -> None:
    assert [name for name, allowed in ALLOWED.items() if "daemon" in allowed] == ["daemon"]


def test_the_daemon_never_loads_its_helper_programs() -> None:
    loaded = loaded_by_the_daemon()
    assert not {name: by for name, by in loaded.items() if name in NOT_IN_THE_DAEMON}
    assert {"maestro_py.plan", "maestro_py.lifecycle", "maestro_py.state.store"} <= set(loaded)


def test_what_the_daemon_loads_imports_nothing_heavy() -> None:
    heavy = [
        f"{module} imports {name} (line {line})"
        for module in loaded_by_the_daemon()
        for name, line in imports(module, at_load=True)
        if name.split(".")[0] in HEAVY
    ]
    assert heavy == []


def test_the_helper_programs_are_there() -> None:
    assert set(FILES) >= NOT_IN_THE_DAEMON
