# SPDX-License-Identifier: Apache-2.0
"""What differs between two definitions of a process, in words, and how each difference takes effect. Pure."""

from __future__ import annotations

from dataclasses import fields
from enum import Enum

from maestro_py.spec.model import Limits
from maestro_py.spec.resolved import ResolvedProcess
from maestro_py.units import format_size
from maestro_py.valueclass import valueclass

_LIVE = frozenset(
    {
        "autostart",
        "depends_on",
        "enabled",
        "probation",
        "health",
        "on_failure",
        "post_stop",
        "pre_start",
        "ready",
        "reload_signal",
        "restart",
        "stop_signal",
        "stop_timeout",
        "template",
    }
)
"""Fields that take effect without a restart: the daemon reads them when it next decides."""


class How(str, Enum):
    """How a difference takes effect."""

    RESTART = "restart"
    LIMITS = "limits"
    RELOAD = "reload"
    LIVE = "live"


@valueclass(frozen=True)
class Change:
    """One difference between two definitions of a process."""

    how: How
    text: str


def differences(old: ResolvedProcess, new: ResolvedProcess) -> list[Change]:
    """Return every difference, in words, with how it takes effect."""
    found: list[Change] = []
    if old == new:
        return found
    members_changed = old.members != new.members
    for item in fields(ResolvedProcess):
        key = item.name
        a, b = getattr(old, key), getattr(new, key)
        if a == b or (key in ("argv", "stdin", "env") and members_changed and new.composite_id):
            continue
        if key == "images":
            found += _image_changes(old, new)
        elif key == "configs":
            found += _config_changes(old, new)
        elif key == "limits":
            found += _limit_changes(a, b)
        elif key == "members":
            found.append(Change(How.RESTART, _members_text(a, b)))
        elif (
            key in ("argv", "root", "env", "stdin", "config_dir", "config_dir_inside")
            and old.images != new.images
        ):
            continue  # the path of the new version; the image's own line says it
        elif key in _LIVE:
            found.append(Change(How.LIVE, f"{_word(key)} changed"))
        else:
            found.append(Change(How.RESTART, _text(key, a, b)))
    return found or [Change(How.RESTART, "its definition changed")]


def _members_text(old: tuple[str, ...], new: tuple[str, ...]) -> str:
    plus = [name for name in new if name not in old]
    minus = [name for name in old if name not in new]
    parts = []
    if plus:
        parts.append(f"{', '.join(plus)} join{'s' if len(plus) == 1 else ''}")
    if minus:
        parts.append(f"{', '.join(minus)} leave{'s' if len(minus) == 1 else ''}")
    return "; ".join(parts) or "its members come in another order"


def _image_changes(old: ResolvedProcess, new: ResolvedProcess) -> list[Change]:
    was = {ref.job: ref for ref in old.images}
    found = []
    for ref in new.images:
        before = was.pop(ref.job, None)
        if before is None:
            if ref.job in old.members or not new.composite_id:
                found.append(Change(How.RESTART, f"image {ref.job} {ref.version} is new"))
        elif before != ref:
            text = f"image {ref.job}: {before.version} becomes {ref.version}"
            if before.version == ref.version:
                text = f"image {ref.job} {ref.version} has new content"
            found.append(Change(How.RESTART, text))
    found += [Change(How.RESTART, f"image {job} is gone") for job in was if job in new.members]
    return found


def _config_changes(old: ResolvedProcess, new: ResolvedProcess) -> list[Change]:
    how = How.RELOAD if new.reload_signal else How.RESTART
    was = {(c.job, c.name): c for c in old.configs}
    found = []
    for config in new.configs:
        before = was.pop((config.job, config.name), None)
        if before is None:
            found.append(Change(how, f"config {config.name} of {config.job} is new"))
        elif before != config:
            found.append(Change(how, f"config {config.name} of {config.job} changed"))
    found += [Change(how, f"config {name} of {job} is gone") for job, name in was]
    return found


def _limit_changes(old: Limits, new: Limits) -> list[Change]:
    found = []
    for item in fields(Limits):
        a, b = getattr(old, item.name), getattr(new, item.name)
        if a != b:
            was, now = _limit(item.name, a), _limit(item.name, b)
            if was == now:  # rounding hides the difference
                was, now = str(a), str(b)
            found.append(Change(How.LIMITS, f"{item.name} {was} becomes {now}"))
    return found


def _limit(name: str, value: float | None) -> str:
    if value is None:
        return "none"
    return format_size(value) if name in ("mem_limit", "mem_high", "swap_limit") else f"{value:g}"


def _word(key: str) -> str:
    words = {
        "depends_on": "what it depends on",
        "probation": "how a new version proves itself",
        "ready": "how it says it is ready",
        "restart": "its restart policy",
    }
    return words.get(key, key)


def _text(key: str, old: object, new: object) -> str:
    if key == "argv":
        return "its command line changed"
    if key == "env":
        return "its environment changed"
    if key == "stdin":
        return "its message on stdin changed"
    if key == "umask":
        return f"umask {old:04o} becomes {new:04o}"
    if isinstance(old, (str, int, float)) and isinstance(new, (str, int, float)) and key != "root":
        return f"{key} {old!r} becomes {new!r}"
    return f"{key} changed"
