# SPDX-License-Identifier: Apache-2.0
"""Archives of installed images, kept because deltas lead from them to the next version."""

from __future__ import annotations

import os

from maestro_py.images.files import entries, unlink
from maestro_py.images.store import ImageStore
from maestro_py.spec.model import ImageSpec


class Archives:
    """The archives in `directory`, each called by its checksum. wanted: whether any are to be kept."""

    def __init__(self, images: ImageStore, directory: str, *, wanted: bool) -> None:
        self._images = images
        self._directory = directory
        self._wanted = wanted

    def find(self, job: str, version: str) -> str:
        """Return the archive of an installed version, or nothing."""
        for row in self._images.list():
            if row["job"] == job and row["version"] == version and row["checksum"]:
                path = os.path.join(self._directory, row["checksum"]["value"])
                if os.path.exists(path):
                    return path
        return ""

    def keep(self, image: ImageSpec, path: str) -> None:
        """Take the archive of an image that was installed, and let those go that nothing is installed of."""
        kept = {row["checksum"]["value"] for row in self._images.list() if row["checksum"]}
        if not self._wanted:
            kept.clear()
        elif image.checksum and image.checksum.value in kept:
            os.makedirs(self._directory, 0o700, exist_ok=True)
            os.rename(path, os.path.join(self._directory, image.checksum.value))
        for archive in entries(self._directory):
            if os.path.basename(archive) not in kept:
                unlink(archive)
