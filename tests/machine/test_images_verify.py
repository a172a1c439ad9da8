# SPDX-License-Identifier: Apache-2.0
"""Size, checksum and signature, all before anything looks at the content."""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
from pathlib import Path
from typing import Any

import pytest
from support.minisign import Signer

from maestro_py.errors import MaestroError
from maestro_py.images.unpack import unpack
from maestro_py.images.verify import verify

DATA = os.urandom(3 << 20)


def check(tmp_path: Path, data: bytes = DATA, **request: Any) -> None:
    path = tmp_path / "file"
    path.write_bytes(data)
    with path.open("rb") as file:
        verify(file.fileno(), {"name": "X", "keys": str(tmp_path / "keys"), **request})
        assert os.lseek(file.fileno(), 0, os.SEEK_CUR) == 0


def refusal(tmp_path: Path, **request: Any) -> MaestroError:
    with pytest.raises(MaestroError) as caught:
        check(tmp_path, **request)
    assert caught.value.code == "mismatch"
    assert caught.value.message.startswith("cannot accept X: ")
    return caught.value


@pytest.mark.parametrize("kind", ["sha256", "sha512", "md5"])
def test_each_checksum_type_is_verified(tmp_path: Path, kind: str) -> None:
    good = hashlib.new(kind, DATA).hexdigest()
    check(tmp_path, size=len(DATA), checksum={"type": kind + "sum", "value": good.upper()})
    bad = "0" * len(good)
    error = refusal(tmp_path, checksum={"type": kind + "sum", "value": bad})
    assert error.message == f"cannot accept X: checksum does not match: {kind} is {good}, expected {bad}"


def test_a_wrong_size_and_an_unknown_checksum_are_named(tmp_path: Path) -> None:
    assert refusal(tmp_path, size=5).message.endswith(f"it has {len(DATA)} bytes, expected 5")
    assert (
        "checksum type 'crc' is not known"
        in refusal(tmp_path, checksum={"type": "crc", "value": "0"}).message
    )


def test_a_signature_by_a_trusted_key_is_accepted(tmp_path: Path) -> None:
    ours, other = Signer(), Signer()
    ours.trust(tmp_path / "keys")
    other.trust(tmp_path / "keys", "other.pub")
    for signer in (ours, other):
        check(tmp_path, signature=signer.sign(DATA, "timestamp:1 file:x"))


def test_a_signature_that_does_not_count_is_refused(tmp_path: Path) -> None:
    ours, stranger = Signer(), Signer()
    good = ours.sign(DATA)
    error = refusal(tmp_path, signature=good)
    assert f"it is signed by the key {ours.number[::-1].hex().upper()}, which is not trusted" in error.message
    assert error.hint == f"trusted keys are in {tmp_path}/keys"
    ours.trust(tmp_path / "keys")
    changed = good.splitlines()
    changed[3] = stranger.sign(DATA).splitlines()[3]
    stranger.number = ours.number
    for signature, why in (
        (ours.sign(DATA[:-1]), "its signature does not fit"),
        (stranger.sign(DATA), "its signature does not fit"),
        (good.replace("timestamp:1", "timestamp:2"), "the comment in its signature was changed"),
        ("\n".join(changed), "the comment in its signature was changed"),
        (ours.sign(DATA, old=True), "its signature is of the old kind"),
        ("nonsense", "its signature is none of minisign's"),
        (good.replace("\n", "\nAAAA", 1), "its signature is none of minisign's"),
    ):
        assert why in refusal(tmp_path, signature=signature).message


def test_a_key_anybody_may_write_or_nobody_can_read_is_not_trusted(tmp_path: Path) -> None:
    signer = Signer()
    path = signer.trust(tmp_path / "keys")
    path.chmod(0o666)
    assert "may be written by others" in refusal(tmp_path, signature=signer.sign(DATA)).message
    path.chmod(0o644)
    path.write_text("untrusted comment: x\nAAAA\n")
    assert "is none of minisign's" in refusal(tmp_path, signature=signer.sign(DATA)).message


def test_nothing_is_unpacked_before_everything_fits(tmp_path: Path) -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        tar.addfile(tarfile.TarInfo("/etc/evil"))  # would be refused with another message, were it looked at
    (tmp_path / "archive").write_bytes(out.getvalue())
    request = {
        "archive": str(tmp_path / "archive"),
        "dest": str(tmp_path / "tree"),
        "image_type": "tarball",
        "checks": {"name": "X", "checksum": {"type": "sha256sum", "value": "0" * 64}},
    }
    with pytest.raises(MaestroError, match="cannot accept X: checksum does not match"):
        unpack(request)
    assert not (tmp_path / "tree").exists()
