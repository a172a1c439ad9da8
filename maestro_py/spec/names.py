# SPDX-License-Identifier: Apache-2.0
"""Names that people give, and what they become as names of files and control groups."""

from __future__ import annotations

NAME_LIMIT = 128
"""Characters a name may have."""

FILE_NAME_LIMIT = 200
"""Bytes a name may have once it is a file name; 255 is what Linux allows, the rest is for suffixes."""

_SAFE = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-")


def safe_name(name: str) -> str:
    """Return a name that can be one path component on any file system and in a cgroup tree.

    Letters, digits, `.`, `_` and `-` stay; everything else becomes `%XX` per UTF-8 byte, a
    leading dot too.
    Different names stay different.
    """
    text = "".join(c if c in _SAFE else "".join(f"%{b:02X}" for b in c.encode()) for c in name)
    return "%2E" + text[1:] if text.startswith(".") else text or "%"
