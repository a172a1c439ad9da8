# SPDX-License-Identifier: Apache-2.0
"""Helper program: pack a directory into an archive that is the same bytes for the same content.

`python -m maestro_py.images.pack`, request on stdin, lines on stdout as in `maestro_py.helper`:

    {"directory", "file"}           the kind of archive follows from the ending of the file's name

Names are sorted, every file belongs to user 0, all times are SOURCE_DATE_EPOCH of the environment, else
1980-01-01, where zip's calendar begins. What a device would refuse is refused here already. The last line
carries `bytes`, `entries`, `sha256` and `image_type`.
"""

from __future__ import annotations

import gzip
import lzma
import os
import shutil
import stat
import subprocess
import tarfile
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO, Any

from maestro_py import helper
from maestro_py.errors import MaestroError, Unsupported
from maestro_py.images.archive import Refused, split_path
from maestro_py.images.links import Links
from maestro_py.images.verify import digest

EPOCH = 315532800
"""1980-01-01 00:00 UTC."""

ENDINGS = (".tar", ".tar.gz", ".tgz", ".tar.xz", ".tar.zst", ".zip")
ZSTD_LEVEL = "-19"


class _Tree:
    """What is in a directory, in the order in which it is packed: (path, name in the archive, stat)."""

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._links = Links(absolute=True)
        self.entries = 0

    def __iter__(self) -> Iterator[tuple[str, str, os.stat_result]]:
        yield from self._below(self._directory, "")
        self._links.check()

    def _below(self, directory: str, prefix: str) -> Iterator[tuple[str, str, os.stat_result]]:
        for name in sorted(os.listdir(directory), key=os.fsencode):
            path, inside = os.path.join(directory, name), prefix + name
            found = os.lstat(path)
            self._check(path, inside, found)
            self.entries += 1
            yield path, inside, found
            if stat.S_ISDIR(found.st_mode):
                yield from self._below(path, inside + "/")

    def _check(self, path: str, inside: str, found: os.stat_result) -> None:
        parts = split_path(inside)
        kind = stat.S_IFMT(found.st_mode)
        if kind == stat.S_IFLNK:
            self._links.add(parts, os.readlink(path))
        elif kind not in (stat.S_IFREG, stat.S_IFDIR):
            raise Refused(inside, "it is neither a file nor a directory nor a link")
        elif found.st_mode & (stat.S_ISUID | stat.S_ISGID):
            raise Refused(inside, "it has the setuid or the setgid bit")


def pack(request: helper.Request) -> dict[str, Any]:
    """Pack; return what an image entry needs. Raises MaestroError; a half written file is removed."""
    directory, target = str(request["directory"]), str(request["file"])
    ending = next((e for e in sorted(ENDINGS, key=len, reverse=True) if target.endswith(e)), "")
    cannot = f"cannot pack {directory}"
    if not ending:
        raise MaestroError(f"{cannot}: the name {target} ends in none of {', '.join(ENDINGS)}")
    if not os.path.isdir(directory):
        raise MaestroError(f"{cannot}: there is no such directory")
    temporary = f"{target}.part-{os.getpid()}"
    tree = _Tree(directory)
    try:
        try:
            with open(temporary, "xb") as out:
                (_write_zip if ending == ".zip" else _write_tar)(tree, out, ending)
            with open(temporary, "rb") as file:
                size, sha256 = os.fstat(file.fileno()).st_size, digest(file.fileno(), "sha256").hexdigest()
            os.rename(temporary, target)
        except BaseException:
            if os.path.exists(temporary):
                os.unlink(temporary)
            raise
    except Refused as error:
        raise MaestroError(f"{cannot}: {error}") from error
    except OSError as error:
        raise MaestroError(f"{cannot}: {error.filename or target}: {error.strerror}") from error
    image_type = "zip" if ending == ".zip" else "tarball"
    return {"bytes": size, "sha256": sha256, "entries": tree.entries, "image_type": image_type}


def _epoch() -> int:
    text = os.environ.get("SOURCE_DATE_EPOCH", "")
    return int(text) if text.isascii() and text.isdigit() else EPOCH


def _write_tar(tree: _Tree, out: IO[bytes], ending: str) -> None:
    with (
        _COMPRESSED[ending](out) as plain,
        tarfile.open(fileobj=plain, mode="w|", format=tarfile.PAX_FORMAT, bufsize=1 << 20) as archive,
    ):
        for path, name, found in tree:
            info = tarfile.TarInfo(name)
            info.mtime, info.mode = _epoch(), stat.S_IMODE(found.st_mode)
            if stat.S_ISREG(found.st_mode):
                info.size = found.st_size
                with open(path, "rb") as file:
                    archive.addfile(info, file)
                continue
            info.type = tarfile.DIRTYPE
            if stat.S_ISLNK(found.st_mode):
                info.type, info.linkname, info.mode = tarfile.SYMTYPE, os.readlink(path), 0o777
            archive.addfile(info)


def _write_zip(tree: _Tree, out: IO[bytes], ending: str) -> None:
    when = time.gmtime(max(_epoch(), EPOCH))[:6]
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for path, name, found in tree:
            directory = stat.S_ISDIR(found.st_mode)
            info = zipfile.ZipInfo(name + "/" if directory else name, when)
            info.create_system, info.external_attr = 3, found.st_mode << 16
            info.compress_type = zipfile.ZIP_DEFLATED
            if stat.S_ISREG(found.st_mode):
                with open(path, "rb") as file, archive.open(info, "w") as into:
                    shutil.copyfileobj(file, into, 1 << 20)
            else:
                archive.writestr(info, os.fsencode(os.readlink(path)) if not directory else b"")


@contextmanager
def _plain(out: IO[bytes]) -> Iterator[IO[bytes]]:
    yield out


def _xz(out: IO[bytes]) -> Any:
    return lzma.LZMAFile(out, "wb")


def _gzip(out: IO[bytes]) -> Any:
    return gzip.GzipFile("", "wb", 9, out, mtime=0)  # its header names neither file nor time


@contextmanager
def _zstd(out: IO[bytes]) -> Iterator[IO[bytes]]:
    program = shutil.which("zstd")
    if program is None:
        raise Unsupported("cannot pack as zst: there is no zstd program here")
    with subprocess.Popen([program, "-qc", ZSTD_LEVEL], stdin=subprocess.PIPE, stdout=out) as running:
        assert running.stdin
        with running.stdin:
            yield running.stdin
    if running.returncode:
        raise MaestroError(f"cannot pack as zst: zstd ended with status {running.returncode}")


_COMPRESSED: dict[str, Callable[[IO[bytes]], Any]] = {
    ".tar": _plain,
    ".tar.gz": _gzip,
    ".tgz": _gzip,
    ".tar.xz": _xz,
    ".tar.zst": _zstd,
}


if __name__ == "__main__":
    helper.main(pack)
