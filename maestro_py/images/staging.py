# SPDX-License-Identifier: Apache-2.0
"""Where images wait on their way into the store and out of it, and whether there is room for them."""

from __future__ import annotations

import os
import time

from maestro_py.errors import MaestroError
from maestro_py.images.files import entries, free_bytes, remove_tree, why
from maestro_py.spec.model import ImageSpec
from maestro_py.spec.names import safe_name
from maestro_py.units import format_size

RESERVE = 5 << 20
"""Bytes that stay free on the scratch and image file systems (upstream's minimum scratch space)."""

SLICE = 8 << 20
"""Bytes given back to the file system at a time: some 3 ms, where 100 MB at once held everything for 30."""

UNPACKED_RATIO = 3
"""Guess of unpacked to archive size, for asking before a download whether it can fit."""


class Staging:
    """The store's own directories: trees on their way in, archives and trees on their way out.

    root: the store; scratch: where downloads are, perhaps another file system. reserve: bytes that stay
    free on both. They are made when first needed.
    """

    def __init__(self, root: str, scratch: str, reserve: int = RESERVE) -> None:
        self.root = os.path.abspath(root)
        self.scratch = os.path.abspath(scratch)
        self.spent = os.path.join(self.scratch, "spent")
        self.staging = os.path.join(self.root, ".staging")
        self.trash = os.path.join(self.root, ".trash")
        self.reserve = reserve

    def free_space_problem(self, image: ImageSpec) -> str | None:
        """Return why this image cannot fit, or None.

        Asks for its size and the reserve where downloads go and three times its size and the reserve where
        it is unpacked; for both together when that is one file system. Size 0 (unknown) asks for the reserve.
        """
        self.make_places()
        needs = [
            (self.scratch, image.size + self.reserve),
            (self.root, UNPACKED_RATIO * image.size + self.reserve),
        ]
        if os.stat(self.scratch).st_dev == os.stat(self.root).st_dev:
            needs = [(self.root, (1 + UNPACKED_RATIO) * image.size + self.reserve)]
        for place, need in needs:
            free = free_bytes(place)
            if free < need:
                return (
                    f"cannot install image {label(image)}: needs {format_size(need)}, "
                    f"{format_size(free)} free on {place}"
                )
        return None

    def download_room(self) -> int:
        """Return how many bytes a download may have: what is free on scratch less the reserve."""
        self.make_places()
        return max(0, free_bytes(self.scratch) - self.reserve)

    def unpack_room(self) -> int:
        """Return how many bytes may be unpacked: what is free in the store less the reserve."""
        self.make_places()
        return max(0, free_bytes(self.root) - self.reserve)

    def stage(self, image: ImageSpec) -> str:
        """Return a fresh path to unpack at; it does not exist yet, its parent does."""
        self.make_places()
        return os.path.join(self.staging, f"{safe_name(image.job)[:64]}-{os.urandom(6).hex()}")

    def discard(self, *paths: str) -> None:
        """Take staged paths away; those that never came to be are fine."""
        for path in paths:
            try:
                os.unlink(path)
            except FileNotFoundError:
                pass
            except OSError:  # a directory: EISDIR on Linux, EPERM elsewhere
                self.to_trash(path)

    def spend(self, path: str) -> bool:
        """Take away a download, in scratch, that was used; True when `free_spent` is to do it bit by bit.

        Only what nobody else has a name of may shrink before it goes.
        """
        try:
            found = os.stat(path)
            if found.st_size <= SLICE or found.st_nlink > 1:
                os.unlink(path)
                return False
            os.rename(path, os.path.join(self.spent, os.urandom(8).hex()))
            return True
        except FileNotFoundError:
            return False

    def free_spent(self) -> bool:
        """Give back some of the room of spent downloads; True while there is more."""
        for path in entries(self.spent):
            size = os.stat(path).st_size
            if size > SLICE:
                os.truncate(path, size - SLICE)
                return True
            os.unlink(path)
        return False

    def empty_trash(self, seconds: float = 0.02) -> bool:
        """Delete what was removed, for about `seconds`; True while something is left to delete."""
        until = time.monotonic() + seconds
        return not all(remove_tree(path, until) for path in entries(self.trash))

    def make_places(self) -> None:
        """Make the directories."""
        try:
            os.makedirs(self.root, 0o755, exist_ok=True)
            for private in (self.spent, self.staging, self.trash):
                os.makedirs(private, 0o700, exist_ok=True)
        except OSError as error:
            raise MaestroError(f"cannot use the image directories: {why(error)}") from error

    def to_trash(self, path: str) -> None:
        """Move a file or tree to where `empty_trash` finds it; one that is gone is fine."""
        self.make_places()
        try:
            os.rename(path, os.path.join(self.trash, os.urandom(8).hex()))
        except FileNotFoundError:
            pass
        except OSError as error:
            raise MaestroError(f"cannot remove {path}: {why(error)}") from error


def label(image: ImageSpec) -> str:
    """Return how messages call an image."""
    return f"{image.job} {image.version}".rstrip()
