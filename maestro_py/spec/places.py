# SPDX-License-Identifier: Apache-2.0
"""Where things are on the device, and where a process sees them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field

from maestro_py.spec.names import safe_name
from maestro_py.spec.resolved import ImageRef
from maestro_py.valueclass import valueclass

CONFIGS_INSIDE = "/run/maestro/config"
"""Where a process with a root of its own finds its configs; the launcher makes them visible there."""

DATA_INSIDE = "/var/lib/maestro/data"
RUN_INSIDE = "/run/maestro/run"
SECRETS_INSIDE = "/run/maestro/secrets"
"""Where such a process finds its own writable directories, and its secrets."""

IMAGES_INSIDE = "/run/maestro/images"
"""Where such a process finds an image that is not inside its root: in a directory per job."""


@valueclass(frozen=True)
class Places:
    """Where things are on the device, and the variables every text may use.

    data, run: below these each process has a writable directory of its own; empty: there are none.
    """

    images: str
    configs: str
    socket: str
    thisdir: str
    cwd: str
    variables: Mapping[str, str] = field(default_factory=dict)
    data: str = ""
    run: str = ""


def image_inside(root: str, image: ImageRef) -> str:
    """Return the directory of an image as a process with this root sees it."""
    if not root:
        return image.path
    top = root.rstrip("/") + "/"
    path = image.path.rstrip("/") + "/"
    if path.startswith(top):
        return "/" + path[len(top) :].rstrip("/")
    return f"{IMAGES_INSIDE}/{safe_name(image.job)}"


@valueclass(frozen=True)
class Own:
    """A process's own directories, on the device and as it sees them."""

    data: str
    data_inside: str
    run: str
    run_inside: str
    secrets: str

    @classmethod
    def of(cls, name: str, rooted: bool, places: Places, *, apart: bool, secrets: bool) -> Own:
        """Return those of one process; the secrets are mounted on one directory that all share.

        apart: it has a user or a root of its own; what runs as the daemon itself needs no place made for it.
        """
        data = f"{places.data}/{safe_name(name)}" if apart and places.data else ""
        run = f"{places.run}/jobs/{safe_name(name)}" if apart and places.run else ""
        if rooted:
            inside = DATA_INSIDE if data else "", RUN_INSIDE if run else ""
            return cls(data, inside[0], run, inside[1], SECRETS_INSIDE if secrets else "")
        return cls(data, data, run, run, f"{places.run}/secrets" if secrets and places.run else "")
