# SPDX-License-Identifier: Apache-2.0
"""Running configs for tests: jobs that are small shell scripts, images that are small archives."""

from __future__ import annotations

import hashlib
import io
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

WAIT = "exec sleep 1000"
"""A script that runs until it is ended."""

Document = dict[str, Any]


def job(name: str, script: str = WAIT, **keys: Any) -> Document:
    """Return a job that runs a shell script; its stop is quick should it ignore the signal."""
    command = {"exec_cmd": "/bin/sh", "exec_args": ["-c", script]}
    return {"job": name, **command, "stop_timeout": 5, **keys}


def python(name: str, script: str, **keys: Any) -> Document:
    """Return a job that runs a Python script."""
    return job(name, **{"exec_cmd": "/usr/bin/python3", "exec_args": ["-c", script], **keys})


def document(*jobs: Document, **keys: Any) -> Document:
    """Return a running config of these jobs."""
    return {"jobs": list(jobs), **keys}


def tarball(files: Mapping[str, str]) -> bytes:
    """Return a tar.gz of executable text files."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w:gz") as tar:
        for name, text in files.items():
            info = tarfile.TarInfo(name)
            raw = text.encode()
            info.size, info.mode = len(raw), 0o755
            tar.addfile(info, io.BytesIO(raw))
    return data.getvalue()


def checksum(data: bytes) -> Document:
    return {"type": "sha256sum", "value": hashlib.sha256(data).hexdigest()}


def image(owner: str, version: str, directory: Path, files: Mapping[str, str]) -> Document:
    """Write an archive and return the image that is fetched from it."""
    data = tarball(files)
    path = directory / f"{owner}-{version}.tar.gz"
    path.write_bytes(data)
    return {
        "job": owner,
        "version": version,
        "url": path.as_uri(),
        "size": len(data),
        "checksum": checksum(data),
        "image_type": "tarball",
    }
