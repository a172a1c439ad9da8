# SPDX-License-Identifier: Apache-2.0
"""What the minisign program writes, made from its description: keys and signatures."""

from __future__ import annotations

import base64
import hashlib
import os
from pathlib import Path

import pytest

pytest.importorskip("cryptography", reason="needs cryptography")
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat


class Signer:
    """One key pair."""

    def __init__(self) -> None:
        self._key = Ed25519PrivateKey.generate()
        self.number = os.urandom(8)

    def trust(self, directory: Path, name: str = "test.pub") -> Path:
        """Write the public key into a directory of trusted keys."""
        directory.mkdir(exist_ok=True)
        raw = self._key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        text = base64.b64encode(b"Ed" + self.number + raw).decode()
        path = directory / name
        path.write_text(f"untrusted comment: minisign public key\n{text}\n")
        path.chmod(0o644)
        return path

    def sign(self, data: bytes, comment: str = "timestamp:1", *, old: bool = False) -> str:
        """Return the text of the .minisig file of some data."""
        value = self._key.sign(data if old else hashlib.blake2b(data).digest())
        first = base64.b64encode((b"Ed" if old else b"ED") + self.number + value).decode()
        second = base64.b64encode(self._key.sign(value + comment.encode())).decode()
        return f"untrusted comment: signature\n{first}\ntrusted comment: {comment}\n{second}\n"
