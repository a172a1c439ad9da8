# SPDX-License-Identifier: Apache-2.0
"""`maestro metrics`: what a collector of metrics reads, for one who has no collector at hand."""

from __future__ import annotations

TYPE_CHECKING = False  # typing's constant, without the import of typing
if TYPE_CHECKING:
    from typing import Any

    from maestro_py.cli.session import Session


def metrics(session: Session) -> int:
    """`maestro metrics [--textfile FILE]`: as OpenMetrics; to a file in the format before, as a whole."""
    path = session.call.text("textfile")
    if path:
        _replace(path, session.client.metrics(openmetrics=False))
        if session.json:
            session.screen.json({"file": path})
        return 0
    page = session.client.metrics()
    if session.json:
        session.screen.json({"samples": _samples(page)})
    else:
        session.screen.out.write(page)
    return 0


def _replace(path: str, text: str) -> None:
    """Put a text in the place of a file; a reader sees the old one or the new."""
    import os

    from maestro_py.errors import MaestroError

    temporary = f"{path}.new"  # the collector reads names that end in .prom
    try:
        with open(temporary, "w", encoding="utf-8") as file:
            file.write(text)
        os.rename(temporary, path)
    except OSError as error:
        raise MaestroError(f"cannot write {path}: {error.strerror}") from error


def _samples(page: str) -> list[dict[str, Any]]:
    """Return the samples of a page as the daemon writes it: name, labels, value."""
    import json
    import re

    sample = re.compile(r"(\w+)(?:\{(.*)\})? (\S+)$")
    label = re.compile(r'(\w+)=("(?:[^"\\]|\\.)*")')
    samples = []
    for line in page.splitlines():
        found = None if line.startswith("#") else sample.match(line)
        if found:
            labels = {name: json.loads(value, strict=False) for name, value in label.findall(found[2] or "")}
            samples.append({"name": found[1], "labels": labels, "value": json.loads(found[3])})
    return samples
