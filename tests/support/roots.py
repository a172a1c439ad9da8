# SPDX-License-Identifier: Apache-2.0
"""Small Debian systems in a directory, made once by mmdebstrap and kept below build/roots/."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from support.daemon import PROJECT

CACHE = PROJECT / "build" / "roots"
SUITE = "bookworm"
LEFT_OUT = ("/usr/share/doc/*", "/usr/share/info/*", "/usr/share/locale/*", "/usr/share/man/*")


def missing() -> str:
    """Return why no system can be made here; empty when one can."""
    if os.geteuid():
        return "needs root"
    return "" if shutil.which("mmdebstrap") else "needs mmdebstrap"


def unpack(packages: Sequence[str], top: Path) -> Path:
    """Put a minimal system with these packages into a directory, and return it."""
    key = hashlib.sha256(repr((SUITE, sorted(packages), LEFT_OUT)).encode()).hexdigest()[:12]
    archive = CACHE / f"{key}.tar"
    if not archive.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        new = archive.with_suffix(f".{os.getpid()}.tar")
        options = [f"--dpkgopt=path-exclude={pattern}" for pattern in LEFT_OUT]
        options += ["--aptopt=Acquire::Languages none", "--aptopt=Acquire::Retries 3"]
        include = f"--include={','.join(packages)}"
        subprocess.run(
            ["mmdebstrap", "--quiet", "--variant=minbase", include, *options, SUITE, str(new)],
            check=True,
            stdout=sys.stderr,
        )
        new.rename(archive)
    top.mkdir(exist_ok=True)
    subprocess.run(["tar", "--extract", "--file", str(archive), "--directory", str(top)], check=True)
    return top
