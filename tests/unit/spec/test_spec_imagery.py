# SPDX-License-Identifier: Apache-2.0
"""Fields of images that say how they come and what of them is accepted."""

from __future__ import annotations

from typing import Any

import pytest

from maestro_py.errors import InvalidDocument
from maestro_py.spec.daemonconfig import DaemonConfig
from maestro_py.spec.documents import read_daemon_config, read_image, read_template, to_json
from maestro_py.spec.model import Checksum, Credentials, Delta, Signature

IMAGE = {"job": "a", "version": "1", "url": "https://h/x.tgz"}
SUM = {"type": "sha256sum", "value": "a" * 64}


def problems(**keys: Any) -> str:
    with pytest.raises(InvalidDocument) as caught:
        read_image({**IMAGE, **keys}, "image")
    return str(caught.value)


def test_an_image_says_who_asks_who_signed_and_what_it_can_be_made_of() -> None:
    data = {
        **IMAGE,
        "checksum": SUM,
        "credentials": {"type": "basic", "user": "me", "secret": "password"},
        "signature": {"url": "https://h/x.tgz.minisig"},
        "deltas": [{"from": "0.9", "url": "https://h/d", "checksum": SUM, "size": "1K"}],
    }
    image = read_image(data, "image")
    assert image.credentials == Credentials("basic", "password", "me")
    assert image.signature == Signature(url="https://h/x.tgz.minisig")
    assert image.deltas == (Delta("0.9", "https://h/d", Checksum(**SUM), 1024),)
    assert read_image(to_json(image), "image") == image


@pytest.mark.parametrize(
    ("keys", "why"),
    [
        ({"credentials": {"type": "basic", "secret": "s"}}, "`user` is missing, which basic needs"),
        ({"credentials": {"type": "bearer", "secret": "s", "user": "u"}}, "only basic has a user"),
        ({"credentials": {"type": "basic", "secret": "s", "user": "u:v"}}, "neither `:` nor control"),
        ({"credentials": {"type": "token", "secret": "s"}}, "expected one of bearer, basic"),
        ({"credentials": {"type": "bearer"}}, "`secret` is missing"),
        ({"signature": {}}, "give one of `url` and `value`"),
        ({"signature": {"url": "https://h/x", "value": "x"}}, "give one of `url` and `value`"),
        ({"signature": {"value": "x" * 5000}}, "a signature has at most 4096 characters"),
        ({"signature": {"type": "gpg", "value": "x"}}, "expected"),
        ({"deltas": [{"url": "https://h/x", "checksum": SUM}]}, "`from` is missing"),
        ({"deltas": [{"from": "1", "url": "https://h/x"}]}, "`checksum` is missing"),
    ],
)
def test_what_makes_no_sense_is_said(keys: dict[str, Any], why: str) -> None:
    assert why in problems(**keys)


def test_a_template_says_what_its_images_may_have() -> None:
    template = read_template({"name": "t", "image_allow": ["setuid"], "image_owner": "user"}, "t")
    assert (template.settings.image_allow, template.settings.image_owner) == (("setuid",), "user")
    with pytest.raises(InvalidDocument, match="did you mean `devices`"):
        read_template({"name": "t", "image_allow": ["device"]}, "t")


def test_the_daemon_is_told_how_to_fetch_and_unpack() -> None:
    data = {
        "downloads": {"read_timeout": "5s", "retries": 9, "max_size": "1G", "user": "fetcher"},
        "unpacking": {"max_entries": 10, "max_ratio": 20},
        "require_signature": True,
    }
    config, warnings = read_daemon_config(data, environ={}, builtins={}, source="x")
    assert warnings == []
    downloads, unpacking = config.downloads, config.unpacking
    assert (downloads.read_timeout, downloads.retries, downloads.user) == (5, 9, "fetcher")
    assert (unpacking.max_entries, unpacking.max_ratio, unpacking.max_size) == (10, 20, 0)
    assert config.require_signature
    assert DaemonConfig().downloads.parallel == 4
