# SPDX-License-Identifier: Apache-2.0
"""Helper program: make the archive of a version out of that of an older one and a delta.

`python -m maestro_py.images.delta`, request on stdin, lines on stdout as in `maestro_py.helper`. A delta is
what `zstd --patch-from=OLD NEW -o DELTA` writes (zstd 1.4.5 and later); the zstd program undoes it, since
Python's own binding came only with 3.14. It is verified before zstd sees it, with the fields of `verify`:

    {"delta", "name", "size", "checksum", …
     "base",                        the older archive
     "part", "content",             where the archive goes, as the download program would have left it
     "max_size"}                    bytes it may have

The caller verifies the outcome like any download.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import Any

from maestro_py import helper
from maestro_py.errors import MaestroError, Unsupported
from maestro_py.images.part import Part
from maestro_py.images.verify import verify

LARGEST_BASE = 128 << 20
"""Bytes of an older archive that are used: zstd holds all of it in memory."""


def apply(request: helper.Request) -> dict[str, Any]:
    """Make the archive; return its `bytes`. Raises MaestroError that names the delta."""
    delta, base, part = (str(request[name]) for name in ("delta", "base", "part"))
    zstd = shutil.which("zstd")
    if zstd is None:
        raise Unsupported(f"cannot use {request['name']}: there is no zstd program on this device")
    if os.stat(base).st_size > LARGEST_BASE:
        why = f"the older archive has more than {LARGEST_BASE >> 20} MiB"
        raise Unsupported(f"cannot use {request['name']}: {why}")
    with open(delta, "rb") as source:
        verify(source.fileno(), request)
    made = Part(part, str(request["content"]))
    try:
        made.begin(0, "", "")  # what is cut short can be gone on with as a download
        argv = [zstd, "-dcq", f"--memory={LARGEST_BASE}", f"--patch-from={base}", delta]
        done = subprocess.run(
            argv, check=False, stdin=subprocess.DEVNULL, stdout=made.fd, stderr=subprocess.PIPE
        )
        size = os.fstat(made.fd).st_size
    finally:
        made.close()
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip().splitlines()
        raise MaestroError(f"cannot use {request['name']}: zstd says {said[-1] if said else 'nothing'}")
    return {"bytes": size}


if __name__ == "__main__":
    helper.main(apply)
