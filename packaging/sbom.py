# SPDX-License-Identifier: Apache-2.0
"""Writes the software bill of materials of an installed maestro_py: CycloneDX 1.5, JSON.

    python packaging/sbom.py [--extra NAME]... [-o FILE]

Lists the project and the distributions it needs, with what they need, as they are installed for the
interpreter that runs this. The same installation gives the same bytes: the time is SOURCE_DATE_EPOCH
or none.
Source of the format: https://cyclonedx.org/docs/1.5/json/
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import re
import sys
import uuid
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from typing import Any

PROJECT = "maestro-py"
LICENCES = {
    "License :: OSI Approved :: MIT License": "MIT",
    "License :: OSI Approved :: Apache Software License": "Apache-2.0",
    "License :: OSI Approved :: ISC License (ISCL)": "ISC",
    "License :: OSI Approved :: Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
}
"""SPDX names of the classifiers that name one licence exactly."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_EXTRA = re.compile(r"extra\s*==\s*['\"]([\w.-]+)['\"]")


def needed(dist: Distribution, extras: set[str]) -> list[str]:
    """Return the names a distribution requires, those of these extras included."""
    names = set()
    for requirement in dist.requires or []:
        extra = _EXTRA.search(requirement)
        name = _NAME.match(requirement)
        if name and (not extra or extra[1] in extras):
            names.add(normal(name[0]))
    return sorted(names)


def normal(name: str) -> str:
    """Return the one spelling of a distribution's name (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def collect(extras: set[str]) -> tuple[dict[str, Distribution], dict[str, list[str]]]:
    """Return the installed distributions by name, the project first, and who needs whom."""
    found: dict[str, Distribution] = {}
    edges: dict[str, list[str]] = {}
    waiting = [PROJECT]
    while waiting:
        name = waiting.pop(0)
        if name in found:
            continue
        try:
            dist = distribution(name)
        except PackageNotFoundError:
            if name == PROJECT:
                raise
            continue  # for another system or Python: not part of this installation
        found[name] = dist
        edges[name] = needed(dist, extras if name == PROJECT else set())
        waiting += edges[name]
    return found, {name: [other for other in others if other in found] for name, others in edges.items()}


def component(name: str, dist: Distribution) -> dict[str, Any]:
    """Return a distribution as CycloneDX has it."""
    reference = f"pkg:pypi/{name}@{dist.version}"
    entry: dict[str, Any] = {"type": "application" if name == PROJECT else "library", "bom-ref": reference}
    entry |= {"name": name, "version": dist.version, "purl": reference}
    licence = licence_of(dist)
    if licence:
        entry["licenses"] = [licence]
    return entry


def licence_of(dist: Distribution) -> dict[str, Any] | None:
    """Return the licence a distribution declares: an expression, a classifier, or its own words."""
    meta = dist.metadata
    if expression := meta.get_all("License-Expression"):
        return {"expression": expression[0]}
    for classifier in meta.get_all("Classifier") or []:
        if classifier in LICENCES:
            return {"license": {"id": LICENCES[classifier]}}
    words = [text.strip().splitlines()[0] for text in meta.get_all("License") or [] if text.strip()]
    return {"license": {"name": words[0]}} if words else None


def bom(extras: set[str]) -> dict[str, Any]:
    """Return the whole document."""
    found, edges = collect(extras)
    components = {name: component(name, dist) for name, dist in found.items()}
    metadata: dict[str, Any] = {"component": components[PROJECT]}
    epoch = os.environ.get("SOURCE_DATE_EPOCH")
    if epoch:
        when = datetime.datetime.fromtimestamp(int(epoch), datetime.timezone.utc)
        metadata = {"timestamp": when.strftime("%Y-%m-%dT%H:%M:%SZ"), **metadata}
    content = {
        "metadata": metadata,
        "components": [components[name] for name in sorted(components) if name != PROJECT],
        "dependencies": [
            {
                "ref": components[name]["bom-ref"],
                "dependsOn": [components[other]["bom-ref"] for other in others],
            }
            for name, others in sorted(edges.items())
        ],
    }
    serial = uuid.uuid5(uuid.NAMESPACE_URL, json.dumps(content, sort_keys=True))
    head = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "serialNumber": f"urn:uuid:{serial}",
        "version": 1,
    }
    return {**head, **content}


def main() -> int:
    """Write the document to stdout or to a file."""
    parser = argparse.ArgumentParser(description="write the bill of materials of an installed maestro_py")
    parser.add_argument("--extra", action="append", default=[], help="an optional part to include")
    parser.add_argument("-o", "--output", help="file to write; stdout otherwise")
    options = parser.parse_args()
    try:
        text = json.dumps(bom(set(options.extra)), indent=2) + "\n"
    except PackageNotFoundError:
        print(f"cannot list what {sys.executable} uses: {PROJECT} is not installed there", file=sys.stderr)
        return 1
    if options.output:
        with open(options.output, "w", encoding="utf-8") as file:
            file.write(text)
    else:
        sys.stdout.write(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
