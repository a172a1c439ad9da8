# SPDX-License-Identifier: Apache-2.0
"""What a server, or a file, answers to a download; and why it does not."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple
from urllib.parse import urlsplit, urlunsplit

from maestro_py.errors import MaestroError


class Cannot(Exception):
    """A reason, still without the URL in front. after: seconds until another try; None when it is vain."""

    def __init__(
        self, why: str, *, hint: str = "", kind: type[MaestroError] = MaestroError, after: float | None = None
    ) -> None:
        super().__init__(why)
        self.hint = hint
        self.kind = kind
        self.after = after


class StartAgain(MaestroError):
    """What is here is of no use: the next try begins with the first byte."""


class Answer(NamedTuple):
    """What comes. start: where in the file; total: bytes of the whole file, None when nobody said.

    etag, modified: what the next try names the same content by.
    """

    start: int
    total: int | None
    chunks: Iterator[bytes]
    etag: str = ""
    modified: str = ""


def shown(url: str) -> str:
    """Return a URL as it may be shown: without user and password."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2])) if "@" in parts.netloc else url
