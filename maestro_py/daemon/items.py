# SPDX-License-Identifier: Apache-2.0
"""Files to be had: what for, from where, who asks for them, and what they must be."""

from __future__ import annotations

import binascii
from collections.abc import Mapping
from typing import Any

from maestro_py.errors import MaestroError
from maestro_py.spec.model import Checksum, ConfigFile, Credentials, Delta, ImageSpec
from maestro_py.spec.names import safe_name
from maestro_py.spec.resolved import ResolvedProcess
from maestro_py.valueclass import valueclass


@valueclass(frozen=True)
class Item:
    """A file to be had. name: what it is for, unlike all others; label: what people call it.

    size 0: not said. credentials: as the download program wants them, with the secret.
    """

    name: str
    label: str
    url: str
    size: int = 0
    checksum: Checksum | None = None
    credentials: Mapping[str, str] | None = None
    sync: bool = False

    @property
    def part(self) -> str:
        """File name of what came so far; another content has another."""
        what = self.checksum.value[:16] if self.checksum else f"{binascii.crc32(self.url.encode()):08x}"
        return f"{safe_name(self.name)[:180]}-{what}"

    def checks(self) -> dict[str, Any]:
        """Return what it must be, as the programs that verify want it."""
        checksum = self.checksum and {"type": self.checksum.type, "value": self.checksum.value}
        name = f"{self.label} from {_shown(self.url)}"
        return {"name": name, "size": self.size, "checksum": checksum}


def label(image: ImageSpec) -> str:
    """Return what people call an image."""
    return f"{image.job} {image.version}".strip()


def of_image(image: ImageSpec, process: ResolvedProcess | None = None) -> Item:
    """Return the archive of an image. process: whose secrets are used; None: it is only about the name."""
    secret = secret_of(image.credentials, process, label(image))
    return Item(image.job, label(image), image.url, image.size, image.checksum, secret)


def of_signature(image: ImageSpec, url: str, process: ResolvedProcess | None) -> Item:
    """Return the signature file of an image."""
    text = f"{label(image)} (signature)"
    return Item(f"{image.job}/signature", text, url, credentials=_same_host(image, url, process))


def of_delta(image: ImageSpec, delta: Delta, process: ResolvedProcess | None) -> Item:
    """Return a delta that leads to an image."""
    text = f"{label(image)} (delta from {delta.base})"
    secret = _same_host(image, delta.url, process)
    return Item(f"{image.job}/delta", text, delta.url, delta.size, delta.checksum, secret)


def of_file(job: str, name: str, file: ConfigFile, process: ResolvedProcess | None = None) -> Item:
    """Return a file of a config; process as for `of_image`."""
    text = f"{job}/{name}/{file.dest_relative_path}"
    secret = secret_of(file.credentials, process, text)
    return Item(text, text, file.url, file.size, file.checksum, secret, sync=True)


def _same_host(image: ImageSpec, url: str, process: ResolvedProcess | None) -> dict[str, str] | None:
    """Return an image's credentials for something else of its server, and for no other server."""
    if url.split("/")[:3] != image.url.split("/")[:3]:
        return None
    return secret_of(image.credentials, process, label(image))


def secret_of(
    credentials: Credentials | None, process: ResolvedProcess | None, what: str
) -> dict[str, str] | None:
    """Return credentials as the download program wants them, from the secrets of the process."""
    if credentials is None or process is None:
        return None
    found: dict[str, str] = {"type": credentials.type, "user": credentials.user}
    for secret in process.secrets:
        if secret.name == credentials.secret:
            if secret.file:
                return {**found, "file": secret.file}
            data = secret.data
            if secret.encoding == "base64":
                data = binascii.a2b_base64(data).decode(errors="replace")
            return {**found, "value": data.strip("\r\n")}
    raise MaestroError(f"cannot download {what}: its job has no secret called {credentials.secret!r}")


def _shown(url: str) -> str:
    """Return a URL without user and password."""
    scheme, mark, rest = url.partition("://")
    host, slash, path = rest.partition("/")
    return scheme + mark + host.rpartition("@")[2] + slash + path
