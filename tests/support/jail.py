# SPDX-License-Identifier: Apache-2.0
"""A root of its own in which Python runs, and hostile code run in it."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from maestro_py.spec.model import Mount

from .launching import Result, process, run

PYTHON = os.path.realpath(sys.executable)
USR = Mount("/usr", "/usr")


def make_jail(path: Path) -> Path:
    """Return a root with the device's programs, shown read-only, and nothing else of it."""
    path.mkdir()
    for name in ("bin", "sbin", "lib", "lib64"):
        if Path("/", name).is_symlink():
            (path / name).symlink_to(os.readlink(f"/{name}"))
    (path / "inside").write_text("from the inside\n")
    path.chmod(0o755)
    return path


def attack(code: str, *args: str, jail: Path | None = None, **fields: Any) -> str:
    """Run hostile code; return what it printed: "got it", or how it was kept from it."""
    if jail is not None:
        fields["mounts"] = (USR, *fields.get("mounts", ()))
        fields["root"] = str(jail)
    prelude = (
        "import ctypes, os, signal, stat, sys\n"
        "libc = ctypes.CDLL(None, use_errno=True)\n"
        "def check(result):\n"
        "    if result < 0:\n"
        "        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))\n"
        "    return result\n"
        "try:\n"
    )
    tail = "except OSError as error:\n    print(error.strerror)\n"
    body = "".join(f"    {line}\n" for line in code.strip().splitlines())
    result: Result = run(process(PYTHON, "-I", "-S", "-c", prelude + body + tail, *args, **fields))
    assert result.failure is None, result.failure
    return result.out.decode().strip()
