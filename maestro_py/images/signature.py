# SPDX-License-Identifier: Apache-2.0
"""Signatures in minisign's format: Ed25519 over the BLAKE2b digest of a file, and over a trusted comment.

Format: jedisct1.github.io/minisign, "Signature format" and "Public key format". The older kind, over the
file itself, would need all of it in memory and is refused. Ed25519 comes from `cryptography`: it is what
distributions for devices ship, Yocto's core layer included; loaded only for an image with a signature.
"""

from __future__ import annotations

import binascii
import os
import stat

from maestro_py.valueclass import valueclass

KEY_LIMIT = 4096
"""Bytes a key file may have."""


class BadSignature(Exception):
    """A signature that does not count, and why."""

    def __init__(self, why: str, hint: str = "") -> None:
        super().__init__(why)
        self.hint = hint


@valueclass(frozen=True)
class _Signature:
    key: bytes  # the number of the key, 8 bytes
    value: bytes
    comment: bytes
    comment_value: bytes


def check(fd: int, text: str, keys: str) -> str:
    """Return the trusted comment of a signature of an open file; keys: directory of `*.pub` files.

    Raises BadSignature unless one of these keys made it.
    """
    from maestro_py.images.verify import digest

    signature = _parse(text)
    public = _trusted(keys).get(signature.key)
    if public is None:
        name = signature.key[::-1].hex().upper()
        raise BadSignature(
            f"it is signed by the key {name}, which is not trusted", f"trusted keys are in {keys}"
        )
    if not _is_signed(public, signature.value, digest(fd, "blake2b").digest()):
        raise BadSignature("its signature does not fit: it is not what was signed")
    if not _is_signed(public, signature.comment_value, signature.value + signature.comment):
        raise BadSignature("the comment in its signature was changed")
    return signature.comment.decode(errors="replace")


def _parse(text: str) -> _Signature:
    lines = text.strip().splitlines()
    comment = "trusted comment: "
    try:
        if (
            len(lines) != 4
            or not lines[0].startswith("untrusted comment:")
            or not lines[2].startswith(comment)
        ):
            raise ValueError
        first = binascii.a2b_base64(lines[1].encode("ascii"))
        second = binascii.a2b_base64(lines[3].encode("ascii"))
        if len(first) != 74 or len(second) != 64:
            raise ValueError
    except ValueError:
        raise BadSignature("its signature is none of minisign's") from None
    if first[:2] == b"Ed":
        raise BadSignature(
            "its signature is of the old kind, over the whole file", "sign it with `minisign -S -H`"
        )
    if first[:2] != b"ED":
        raise BadSignature("its signature is of an unknown kind")
    return _Signature(first[2:10], first[10:], lines[2][len(comment) :].encode(), second)


def _trusted(directory: str) -> dict[bytes, bytes]:
    """Return key number -> key of every `*.pub` file; one that others may write is not trusted."""
    found = {}
    try:
        names = sorted(name for name in os.listdir(directory) if name.endswith(".pub"))
    except FileNotFoundError:
        names = []
    except OSError as error:
        raise BadSignature(f"the trusted keys in {directory} cannot be read: {error.strerror}") from error
    for name in names:
        path = os.path.join(directory, name)
        try:
            with open(path, "rb") as file:
                if stat.S_IMODE(os.fstat(file.fileno()).st_mode) & 0o022:
                    raise BadSignature(f"the key {path} may be written by others", f"chmod 644 {path}")
                lines = file.read(KEY_LIMIT).split(b"\n")
        except OSError as error:
            raise BadSignature(f"the key {path} cannot be read: {error.strerror}") from error
        try:
            data = binascii.a2b_base64(lines[1].strip() if len(lines) > 1 else lines[0].strip())
        except ValueError:
            data = b""
        if len(data) != 42 or data[:2] != b"Ed":
            raise BadSignature(f"the key {path} is none of minisign's")
        found[data[2:10]] = data[10:]
    return found


def _is_signed(public: bytes, signature: bytes, message: bytes) -> bool:
    try:
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    except ImportError:
        raise BadSignature(
            "this device cannot check its signature: Python's cryptography is not installed",
            "install python3-cryptography, or maestro-py[signature]",
        ) from None
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True
