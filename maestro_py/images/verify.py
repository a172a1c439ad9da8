# SPDX-License-Identifier: Apache-2.0
"""Is a file what it shall be: size, checksum, signature. Nothing looks at its content before.

`python -m maestro_py.images.verify`, request on stdin, lines on stdout as in `maestro_py.helper`; the
unpacking program asks the same before its first byte:

    {"file",
     "name",                        what messages call it
     "size",                        exact number of bytes; 0 or null: not said
     "checksum": {"type", "value"}  sha256sum, sha512sum or md5sum; or null
     "signature",                   text of a .minisig file; empty: none
     "keys"}                        directory of the public keys that are trusted, for a signature

What does not fit is an error of code `mismatch`.
"""

from __future__ import annotations

import hashlib
import os
from typing import Any

from maestro_py import helper
from maestro_py.errors import MaestroError

DIGESTS = {"sha256sum": "sha256", "sha512sum": "sha512", "md5sum": "md5"}
"""Checksum types of an image definition, and the digest each means."""

MISMATCH = "mismatch"
CHUNK = 1 << 20


def verify(fd: int, request: helper.Request) -> None:
    """Raise MaestroError, code `mismatch`, unless an open file at its start is what the request says.

    Afterwards it is at its start again.
    """
    why, hint = _fault(fd, request), ""
    if not why and request.get("signature"):
        from maestro_py.images.signature import BadSignature, check  # few images have one

        try:
            check(fd, str(request["signature"]), str(request["keys"]))
        except BadSignature as error:
            why, hint = str(error), error.hint
    if why:
        raise MaestroError(f"cannot accept {request['name']}: {why}", hint=hint, code=MISMATCH)
    os.lseek(fd, 0, os.SEEK_SET)


def _fault(fd: int, request: helper.Request) -> str:
    size, found = int(request.get("size") or 0), os.fstat(fd).st_size
    if size and found != size:
        return f"it has {found} bytes, expected {size}"
    checksum = request.get("checksum")
    if not checksum:
        return ""
    kind = DIGESTS.get(checksum["type"])
    if kind is None:
        return f"checksum type {checksum['type']!r} is not known, expected one of {', '.join(DIGESTS)}"
    is_value, expected = digest(fd, kind).hexdigest(), checksum["value"].lower()
    if is_value != expected:
        return f"checksum does not match: {kind} is {is_value}, expected {expected}"
    return ""


def digest(fd: int, kind: str) -> Any:
    """Return the hash object of an open file's whole content."""
    total, buffer, at = hashlib.new(kind, usedforsecurity=False), memoryview(bytearray(CHUNK)), 0
    while count := os.preadv(fd, [buffer], at):
        total.update(buffer[:count])
        at += count
    return total


def _main(request: helper.Request) -> dict[str, Any]:
    path = str(request["file"])
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            verify(fd, request)
            return {"bytes": os.fstat(fd).st_size}
        finally:
            os.close(fd)
    except OSError as error:
        raise MaestroError(f"cannot read {path}: {error.strerror}") from error


if __name__ == "__main__":
    helper.main(_main)
