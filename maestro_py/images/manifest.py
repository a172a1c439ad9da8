# SPDX-License-Identifier: Apache-2.0
"""Checksums of what was unpacked, and whether it is still so.

A manifest has a line for each file, `<crc32>\\t<path>`, and for each link, `-><target>\\t<path>`; where a
path comes twice the later line counts. The reader of archives lets no control character into a name. CRC-32
finds what flash or a power cut damaged; who changes files on purpose could change the manifest too.

As a helper program, `python -m maestro_py.images.manifest` takes

    {"tree", "manifest"}            a directory, and the file with its checksums

and its last line carries `files` looked at, `bytes` read and `damaged`: at most DAMAGE_SHOWN sentences.
Files that came later are no damage: a job may have been given places to write at.
"""

from __future__ import annotations

import os
import stat
import zlib
from collections.abc import Callable, Iterator
from typing import Any

from maestro_py import helper
from maestro_py.errors import MaestroError

BLOCK = 1 << 18
"""Bytes read at a time: what was just written is still in the processor's cache."""

DAMAGE_SHOWN = 20

_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class Checksum:
    """CRC-32 of the bytes it is told, that of gzip and zip (RFC 1952)."""

    def __init__(self) -> None:
        self._value = 0

    def update(self, data: memoryview) -> None:
        """Take some more bytes."""
        self._value = zlib.crc32(data, self._value)

    def hexdigest(self) -> str:
        """Return it as eight hexadecimal digits."""
        return f"{self._value:08x}"


class Sums:
    """Writes a manifest, beside the tree it is about; bringing it to disk is the caller's affair."""

    def __init__(self, path: str) -> None:
        self._file = open(path, "x", encoding="utf-8")  # noqa: SIM115  # closed by `close`

    def file(self, path: str, digest: str) -> None:
        """Add a file; digest: of its content, see Checksum."""
        self._file.write(f"{digest}\t{path}\n")

    def link(self, path: str, target: str) -> None:
        """Add a symbolic link."""
        self._file.write(f"->{target}\t{path}\n")

    def close(self) -> None:
        """Write what is not written yet."""
        self._file.close()


def _digest(fd: int, buffer: memoryview, count: Callable[[int], None]) -> str:
    digest, offset = Checksum(), 0
    while size := os.preadv(fd, [buffer], offset):
        digest.update(buffer[:size])
        offset += size
        count(size)
    return digest.hexdigest()


def check(request: helper.Request) -> dict[str, Any]:
    """Compare a tree with its manifest. Raises MaestroError when there is no manifest."""
    tree = str(request["tree"])
    damaged: list[str] = []
    try:
        with open(str(request["manifest"]), encoding="utf-8") as file:
            expected = {path: what for what, _, path in (line.rstrip("\n").partition("\t") for line in file)}
    except (OSError, UnicodeDecodeError) as error:
        raise MaestroError(f"cannot verify {tree}: its checksums cannot be read: {error}") from error
    buffer, progress, seen = memoryview(bytearray(BLOCK)), helper.Progress(), [0]

    def count(size: int) -> None:
        seen[0] += size
        progress.report(seen[0], None)

    for path, why in _differences(tree, expected, buffer, count):
        if len(damaged) < DAMAGE_SHOWN:
            damaged.append(f"{path}: {why}")
    return {"files": len(expected), "bytes": seen[0], "damaged": damaged}


def _differences(
    tree: str, expected: dict[str, str], buffer: memoryview, count: Callable[[int], None]
) -> Iterator[tuple[str, str]]:
    for path, what in expected.items():
        place = os.path.join(tree, path)
        try:
            if what.startswith("->"):
                if not os.path.islink(place) or os.readlink(place) != what[2:]:
                    yield path, "it is not the link that it was"
                continue
            fd = os.open(place, _READ)
            try:
                if not stat.S_ISREG(os.fstat(fd).st_mode):
                    yield path, "it is no file any more"
                elif _digest(fd, buffer, count) != what:
                    yield path, "its content changed"
            finally:
                os.close(fd)
        except OSError as error:
            yield path, str(error.strerror)


if __name__ == "__main__":
    helper.main(check)
