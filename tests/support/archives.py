# SPDX-License-Identifier: Apache-2.0
"""The wheel and the source archive of a tree."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

EPOCH = "1577836800"
"""SOURCE_DATE_EPOCH of the builds here: any fixed time."""


def build(source: Path, out: Path) -> None:
    """Build both into a directory."""
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-d", str(out)],
        cwd=source,
        env={**os.environ, "SOURCE_DATE_EPOCH": EPOCH},
        check=True,
        capture_output=True,
    )


def only(directory: Path, pattern: str) -> Path:
    """Return the one file of that name."""
    (found,) = directory.glob(pattern)
    return found
