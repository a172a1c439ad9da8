# SPDX-License-Identifier: Apache-2.0
"""Lists the standard-library modules the program needs, for systems that split or trim Python.

    python packaging/stdlib.py [--manifest FILE] [--check]

Writes packaging/stdlib.txt: module, and the Yocto package that holds it. The second column is read from
openembedded-core's meta/recipes-devtools/python/python3/python3-manifest.json where `--manifest` names it,
and is carried over from the list otherwise. The recipe's RDEPENDS are written to match.
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import re
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
PACKAGE = os.path.join(os.path.dirname(HERE), "maestro_py")
LIST = os.path.join(HERE, "stdlib.txt")
RECIPES = os.path.join(HERE, "yocto", "meta-maestro", "recipes-maestro", "maestro")
ALWAYS = "python3-h11"
"""The one other library without which the daemon does not start."""
HEADER = (
    "# Standard-library modules that maestro_py imports, made by `make stdlib`: module and Yocto package\n"
)
UNKNOWN = "?"

BUILT_IN = {
    "__future__": "python3-core",
    "errno": "python3-core",
    "gc": "python3-core",
    "pwd": "python3-core",
}
"""Modules the manifest does not name: compiled into the interpreter, or without a file of their own."""


def needed(package: str = PACKAGE) -> list[str]:
    """Return every standard module that is imported below `package`, also inside functions."""
    found: set[str] = set()
    for directory, _, names in os.walk(package):
        for name in names:
            if not name.endswith(".py"):
                continue
            path = os.path.join(directory, name)
            with open(path, encoding="utf-8") as file:
                tree = ast.parse(file.read(), path)
            found.update(_imports(tree))
    return sorted(module for module in found if module.split(".")[0] in sys.stdlib_module_names)


def _imports(tree: ast.AST) -> list[str]:
    found: list[str] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.append(node.module)
    return found


def yocto_package(module: str, manifest: dict[str, dict[str, list[str]]]) -> str:
    """Return the Yocto package of a module: that of its file, else of the directory it lies in."""
    path = module.replace(".", "/")
    wanted = [f"{path}.py", f"{path}/", path, f"lib-dynload/{module}."]
    while "/" in path:
        path = path.rpartition("/")[0]
        wanted += [f"{path}/", path]
    for want in wanted:
        for package, entry in manifest.items():
            for file in entry["files"]:
                name = file.replace("${libdir}/python${PYTHON_MAJMIN}/", "")
                if name == want or (want.endswith(".") and name.startswith(want)):
                    return f"python3-{package}"
    return BUILT_IN.get(module, "python3-core" if module in sys.builtin_module_names else UNKNOWN)


def read_manifest(path: str) -> dict[str, dict[str, list[str]]]:
    """Return the manifest: JSON below a heading of comments."""
    with open(path, encoding="utf-8") as file:
        text = file.read()
    manifest: dict[str, dict[str, list[str]]] = json.loads(re.sub(r"(?m)^#.*$", "", text))
    return manifest


def read_list(path: str = LIST) -> dict[str, str]:
    """Return the Yocto package by module, as the list has it; empty without a list."""
    if not os.path.exists(path):
        return {}
    with open(path, encoding="utf-8") as file:
        rows = [line.split() for line in file if line.strip() and not line.startswith("#")]
    return dict(rows)


def render(manifest: dict[str, dict[str, list[str]]] | None = None) -> str:
    """Return the text of the list."""
    known = read_list()
    rows = []
    for module in needed():
        package = yocto_package(module, manifest) if manifest else known.get(module, UNKNOWN)
        rows.append(f"{module:16} {package}\n")
    return HEADER + "".join(rows)


def write_recipe(packages: set[str]) -> None:
    """Have the recipe depend on these packages."""
    for name in os.listdir(RECIPES):
        if name.endswith(".bb"):
            path = os.path.join(RECIPES, name)
            with open(path, encoding="utf-8") as file:
                text = file.read()
            lines = "".join(f"    {package} \\\n" for package in sorted({*packages, ALWAYS}))
            block = 'RDEPENDS:${PN} += "\\\n' + lines + '"\n'
            pattern = r'(?m)^RDEPENDS:\$\{PN\} \+= "\\\n(?:    .*\n)*"\n'
            with open(path, "w", encoding="utf-8") as file:
                file.write(re.sub(pattern, block.replace("\\", r"\\"), text))


def main() -> int:
    """Write the list, or compare it."""
    parser = argparse.ArgumentParser(description="list the standard-library modules that are needed")
    parser.add_argument("--manifest", help="python3-manifest.json of openembedded-core")
    parser.add_argument(
        "--check", action="store_true", help="only compare; 1 when the list is not up to date"
    )
    options = parser.parse_args()
    text = render(read_manifest(options.manifest) if options.manifest else None)
    if options.check:
        with open(LIST, encoding="utf-8") as file:
            same = file.read() == text
        if not same:
            print(f"{LIST} is not up to date: make stdlib", file=sys.stderr)
        return 0 if same else 1
    with open(LIST, "w", encoding="utf-8") as file:
        file.write(text)
    unknown = [module for module, package in read_list().items() if package == UNKNOWN]
    if unknown:
        print(f"no Yocto package is known for {', '.join(unknown)}: give --manifest", file=sys.stderr)
        return 1
    write_recipe(set(read_list().values()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
