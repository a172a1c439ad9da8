# SPDX-License-Identifier: Apache-2.0
"""Rules about several values of one object, and about several objects of one document.

Each is handed the attribute values that were read so far (what was refused is absent), notes
problems on the reading, and may put a value into its canonical form.
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Iterable, Sequence
from typing import Any

from maestro_py.spec.model import Backoff, ConfigSpec, ImageSpec, JobSpec, TemplateSpec
from maestro_py.spec.names import safe_name
from maestro_py.spec.reader import Reading, show

DIGITS = {"sha256sum": 64, "sha512sum": 128, "md5sum": 32}
"""Hexadecimal digits of each checksum type."""

_HEX = frozenset("0123456789abcdef")
_BASE64 = re.compile(r"[A-Za-z0-9+/]*={0,2}")


def checksum(values: dict[str, Any], path: str, reading: Reading) -> None:
    """Check the number of hex digits. An object with both texts empty is upstream's "no checksum"."""
    kind, value = values.get("type"), values.get("value")
    if kind == "" and value == "":
        values.clear()
        return
    if kind is not None and kind not in DIGITS:
        reading.problem(
            f"{path}.type",
            f"expected one of {', '.join(DIGITS)}, not {show(kind)}",
            reading.suggest(kind[:40], DIGITS),
        )
        return
    if kind is None or value is None:
        return
    digits = values["value"] = value.strip().lower()
    if not _HEX.issuperset(digits):
        reading.problem(f"{path}.value", f"{kind} value is not hexadecimal")
    elif len(digits) != DIGITS[kind]:
        reading.problem(
            f"{path}.value", f"{kind} value has {len(digits)} hex digits, expected {DIGITS[kind]}"
        )


def backoff(values: dict[str, Any], path: str, reading: Reading) -> None:
    """Check that the longest delay is not below the first; one that is not said follows the other."""
    if "max" not in values:
        values["max"] = max(values.get("initial", 0.0), Backoff.max)
    elif "initial" not in values:
        values["initial"] = min(values["max"], Backoff.initial)
    if values["max"] < values.get("initial", Backoff.initial):
        reading.problem(f"{path}.max", f"the longest delay is below the initial one, {values['initial']:g} s")


def image(values: dict[str, Any], path: str, reading: Reading) -> None:
    """Give an image without a version an empty one."""
    values.setdefault("version", "")


def config(values: dict[str, Any], path: str, reading: Reading) -> None:
    """Check that base64 data decodes."""
    if values.get("encoding") == "base64" and not check_base64(values.get("data", "")):
        reading.problem(f"{path}.data", "is not valid base64, which `encoding` says it is")


def jobs(items: Sequence[JobSpec], path: str, reading: Reading) -> None:
    """Check that job names are unique, and that no composite takes the name of another process."""
    _unique(((job.job, f"{path}[{i}].job") for i, job in enumerate(items)), "job", reading)
    for i, name in composite_clashes(items):
        reading.problem(
            f"{path}[{i}].composite_id", f'"{name}" is also the name of a job outside this composite'
        )


def composite_clashes(items: Sequence[JobSpec]) -> list[tuple[int, str]]:
    """Return (index of a member, composite_id) for each composite named as a job outside it."""
    composites = {job.job: job.composite_id for job in items}
    found: dict[str, int] = {}
    for i, job in enumerate(items):
        name = job.composite_id
        if name and name not in found and composites.get(name, name) != name:
            found[name] = i
    return [(i, name) for name, i in found.items()]


def templates(items: Sequence[TemplateSpec], path: str, reading: Reading) -> None:
    """Check that template names are unique."""
    _unique(((item.name, f"{path}[{i}].name") for i, item in enumerate(items)), "template", reading)


def images(items: Sequence[ImageSpec], path: str, reading: Reading) -> None:
    """Check that there is one image per job; tell of those whose content cannot be verified."""
    _unique(((item.job, f"{path}[{i}].job") for i, item in enumerate(items)), "image of job", reading)
    for i, item in enumerate(items):
        if item.checksum is None:
            reading.warn(f"{path}[{i}]", f'the image of job "{item.job}" has no checksum to verify it by')


def configs(items: Sequence[ConfigSpec], path: str, reading: Reading) -> None:
    """Check that configs are unique per job, and that no two files of a job have the same place."""
    _unique(
        ((f"{item.job}/{item.name}", f"{path}[{i}].name") for i, item in enumerate(items)), "config", reading
    )
    taken: dict[tuple[str, str], str] = {}
    parents: dict[tuple[str, str], str] = {}
    for i, item in enumerate(items):
        places = [(f"{path}[{i}].files[{n}]", f.dest_relative_path) for n, f in enumerate(item.files)]
        if item.data:
            places.append((f"{path}[{i}].data", safe_name(item.name)))
        for at, place in places:
            above = [place[:n] for n, c in enumerate(place) if c == "/"]
            clash = [taken.get((item.job, p)) for p in (place, *above)] + [parents.get((item.job, place))]
            first = next((other for other in clash if other), None)
            if first:
                reading.problem(at, f'its place "{place}" is taken by {first}')
            taken.setdefault((item.job, place), at)
            for directory in above:
                parents.setdefault((item.job, directory), at)


def _unique(names: Iterable[tuple[str, str]], noun: str, reading: Reading) -> None:
    first: dict[str, str] = {}
    for name, at in names:
        if name in first:
            reading.problem(at, f'{noun} "{name}" is given twice; the first is {first[name]}')
        else:
            first[name] = at


def check_base64(data: str) -> bool:
    """Return whether the text, white space aside, decodes as standard base64."""
    text = "".join(data.split())
    if len(text) % 4 or not _BASE64.fullmatch(text):
        return False
    try:
        binascii.a2b_base64(text)
    except binascii.Error:
        return False
    return True
