# SPDX-License-Identifier: Apache-2.0
"""`python -m docs` writes what is out of date; with `--check` it only says so, and exits 1."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

from docs import roff, tables
from maestro_py.daemon.openapi import document
from maestro_py.spec import schema

PROJECT = Path(__file__).resolve().parents[1]
PAGES = Path(__file__).parent / "pages"


def made() -> Iterator[tuple[Path, str]]:
    """Yield every file that is made, with the content it should have."""
    for page in sorted(PAGES.glob("*.md")):
        yield PROJECT / "man" / page.stem, roff.page(tables.fill(page.read_text(encoding="utf-8")))
    for name, make in schema.FILES.items():
        yield PROJECT / "packaging" / "schema" / name, json.dumps(make(), indent=1) + "\n"
    yield Path(document.FILE), document.text()


def main(arguments: list[str]) -> int:
    """Write or check; return the exit status."""
    check = arguments == ["--check"]
    if arguments and not check:
        print("usage: python -m docs [--check]", file=sys.stderr)
        return 2
    stale = False
    for path, text in made():
        if path.exists() and path.read_text(encoding="utf-8") == text:
            continue
        stale = True
        print(f"{path.relative_to(PROJECT)} {'is out of date: make docs' if check else 'written'}")
        if not check:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
    return int(check and stale)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
