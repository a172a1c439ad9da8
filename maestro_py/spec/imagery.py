# SPDX-License-Identifier: Apache-2.0
"""Field tables of how images and files come to the device, and what of them is accepted.

Part of the one table of fields: `fields` and `daemonfile` put these rows where they belong.
"""

from __future__ import annotations

from typing import Any

from maestro_py.spec import checks, kinds
from maestro_py.spec.daemonconfig import Downloads, Unpacking
from maestro_py.spec.kinds import ARGUMENT, BOOLEAN, TEXT, choice, integer, list_of, object_of
from maestro_py.spec.model import Checksum, Credentials, Delta, Signature
from maestro_py.spec.quantities import SECONDS, SIZE
from maestro_py.spec.reader import Field, Reading, Table

SIGNATURE_LIMIT = 4096
"""Characters a signature file may have; minisign's has four short lines."""

CHECKSUM = Table(
    "a checksum",
    Checksum,
    (
        Field("type", TEXT, "sha256sum, sha512sum or md5sum.", required=True),
        Field("value", TEXT, "The digest in hexadecimal digits.", required=True),
    ),
)

CREDENTIALS = Table(
    "credentials",
    Credentials,
    (
        Field("type", choice("bearer", "basic"), "bearer: a token. basic: `user` and a password.",
              required=True),
        Field("secret", kinds.NAME, "Name of the job's secret that holds the token or the password.",
              required=True),
        Field("user", TEXT, "User name, for basic.", "none"),
    ),
)  # fmt: skip

SIGNATURE = Table(
    "a signature",
    Signature,
    (
        Field("type", choice("minisign", empty="minisign"), "The word minisign.", "minisign"),
        Field("url", kinds.URL, "Where the .minisig file is.", "`value`"),
        Field("value", TEXT, "The text of the .minisig file.", "`url`"),
    ),
)

DELTA = Table(
    "a delta",
    Delta,
    (
        Field("from", kinds.VERSION, "Version it leads from.", required=True, attr="base"),
        Field("url", kinds.URL, "Where it is: an http, https or file URL.", required=True),
        Field("checksum", object_of(CHECKSUM, checks.checksum), "Digest the delta must have.",
              required=True),
        Field("size", SIZE, "Size of the delta; checked when it is not 0.", "0"),
    ),
)  # fmt: skip


def _signature_check(values: dict[str, Any], path: str, reading: Reading) -> None:
    if ("url" in values) == ("value" in values):
        reading.problem(path, "give one of `url` and `value`")
    elif len(values.get("value", "")) > SIGNATURE_LIMIT:
        reading.problem(f"{path}.value", f"a signature has at most {SIGNATURE_LIMIT} characters")


def _credentials_check(values: dict[str, Any], path: str, reading: Reading) -> None:
    kind, user = values.get("type"), values.get("user", "")
    if kind == "basic" and not user:
        reading.problem(path, "`user` is missing, which basic needs")
    elif kind == "bearer" and user:
        reading.problem(f"{path}.user", "only basic has a user")
    elif ":" in user or not user.isprintable():
        reading.problem(f"{path}.user", "a user name has neither `:` nor control characters")


CREDENTIALS_OBJECT = object_of(CREDENTIALS, _credentials_check)
SIGNATURE_OBJECT = object_of(SIGNATURE, _signature_check)
DELTAS = list_of(object_of(DELTA), "deltas")

IMAGE_ALLOW = list_of(
    choice("devices", "fifos", "setuid", "capabilities"), "devices, fifos, setuid and capabilities"
)
IMAGE_OWNER = choice("daemon", "user", "archive")

DOWNLOADS = Table(
    "download options",
    Downloads,
    (
        Field("connect_timeout", SECONDS, "Time to connect to a server in.", "20s"),
        Field("read_timeout", SECONDS, "Silence after which a connection is given up.", "30s"),
        Field("deadline", SECONDS, "Time for one download with all its tries.", "6h"),
        Field("retries", integer(0, 1000), "Tries in a row that bring nothing new before it is given up.",
              "4"),
        Field("retry_pause", SECONDS, "Pause before the second try; it doubles with each, to 5 minutes.",
              "1s"),
        Field("parallel", integer(1, 64), "Downloads at a time.", "4"),
        Field("max_size", SIZE, "Largest file fetched; 0 is what fits on the disk.", "0"),
        Field("user", kinds.USER, "User the download program becomes when the daemon is root.",
              "maestro-fetch where it exists, else nobody"),
        Field("ca_file", ARGUMENT, "Certificates servers are checked by, as a PEM file.", "the system's"),
        Field("client_cert", ARGUMENT, "Certificate shown to servers, as a PEM file, perhaps with its key.",
              "none"),
        Field("client_key", ARGUMENT, "Key of `client_cert`, as a PEM file.", "in `client_cert`"),
        Field("keep_archives", BOOLEAN, "Keep the archives of installed images, so that deltas can be used.",
              "false"),
    ),
)  # fmt: skip

UNPACKING = Table(
    "unpacking limits",
    Unpacking,
    (
        Field("max_size", SIZE, "Bytes one image may unpack to; 0 is what fits on the disk.", "0"),
        Field("max_entries", integer(1, 10_000_000), "Files, directories and links one image may have.",
              "200000"),
        Field("max_ratio", integer(1, 1_000_000),
              "Times its own size an archive may unpack to, after the first 64 MiB.", "100"),
    ),
)  # fmt: skip
