# SPDX-License-Identifier: Apache-2.0
"""Image versions on disk: staging, publishing, current and previous, removal.

    <root>/<job>/<version>            the unpacked tree, never written again once published
    <root>/<job>/.<version>.json      what it is; written last, so its presence is the commit mark
    <root>/<job>/current, previous    relative links, each switched by one rename
    <root>/.staging, <root>/.trash    trees on their way in and out, on the same file system
    <scratch>/downloads               archives on their way in

Names are those of `safe_name(job)` and `ImageSpec.dirname`, so no job can reach the dotted directories
and no version is called `current`. Used by the daemon: deletion is done in slices (`empty_trash`).
"""

from __future__ import annotations

import json
import os
import stat
import time
from collections.abc import Iterator, Mapping
from typing import Any

from maestro_py.errors import Conflict, MaestroError, NotFound
from maestro_py.spec.model import ImageSpec, safe_name
from maestro_py.units import format_size

SCRATCH_RESERVE = 5 << 20
"""Bytes that stay free on the scratch and image file systems (upstream's minimum scratch space)."""

UNPACKED_RATIO = 3
"""Guess of unpacked to archive size, for asking before a download whether it can fit."""

Rows = list[dict[str, Any]]


class ImageStore:
    """The versions of every job's image below `root`; downloads wait in `scratch`.

    Both directories are made when first needed. Every method raises MaestroError for what the file
    system refuses.
    """

    def __init__(self, root: str, scratch: str) -> None:
        self.root = os.path.abspath(root)
        self.downloads = os.path.join(os.path.abspath(scratch), "downloads")
        self.staging = os.path.join(self.root, ".staging")
        self.trash = os.path.join(self.root, ".trash")

    # ---- where things are

    def path(self, image: ImageSpec) -> str:
        """Return the directory that holds, or will hold, this version."""
        return os.path.join(self._job_dir(image.job), image.dirname)

    def installed(self, image: ImageSpec) -> bool:
        """Say whether exactly this image is completely there.

        Without a checksum the URL stands for the content.
        """
        meta = self._meta(image.job, image.dirname)
        if meta is None:
            return False
        if image.checksum is None:
            return bool(meta.get("version") == image.version and meta.get("url") == image.url)
        checksum = {"type": image.checksum.type, "value": image.checksum.value}
        return bool(meta.get("version") == image.version and meta.get("checksum") == checksum)

    def current(self, job: str) -> dict[str, Any] | None:
        """Return what is recorded of the job's current version, with its `path` and `dirname`, or None."""
        return self._linked(job, "current")

    def previous(self, job: str) -> dict[str, Any] | None:
        """Return the version to roll back to, as `current` does, or None."""
        found = self._linked(job, "previous")
        now = self._target(job, "current")
        return None if found is None or found["dirname"] == now else found

    # ---- on its way in

    def free_space_problem(self, image: ImageSpec) -> str | None:
        """Return why this image cannot fit, or None.

        Asks for its size + 5 MiB where downloads go and three times its size + 5 MiB where it is
        unpacked; for both together when that is one file system. Size 0 (unknown) asks for the 5 MiB.
        """
        self._make_places()
        needs = [
            (self.downloads, image.size + SCRATCH_RESERVE),
            (self.root, UNPACKED_RATIO * image.size + SCRATCH_RESERVE),
        ]
        if os.stat(self.downloads).st_dev == os.stat(self.root).st_dev:
            needs = [(self.root, (1 + UNPACKED_RATIO) * image.size + SCRATCH_RESERVE)]
        for place, need in needs:
            free = _free(place)
            if free < need:
                return (
                    f"cannot install image {_label(image)}: needs {format_size(need)}, "
                    f"{format_size(free)} free on {place}"
                )
        return None

    def download_room(self) -> int:
        """Return how many bytes a download may have: what is free on scratch less the reserve."""
        self._make_places()
        return max(0, _free(self.downloads) - SCRATCH_RESERVE)

    def unpack_room(self) -> int:
        """Return how many bytes may be unpacked: what is free in the store less the reserve."""
        self._make_places()
        return max(0, _free(self.root) - SCRATCH_RESERVE)

    def stage(self, image: ImageSpec) -> tuple[str, str]:
        """Return fresh paths (download, unpack); neither exists yet, their parents do."""
        self._make_places()
        name = f"{_short(image.job)}-{os.urandom(6).hex()}"
        return os.path.join(self.downloads, name), os.path.join(self.staging, name)

    def discard(self, *paths: str) -> None:
        """Take staged paths away; those that never came to be are fine."""
        for path in paths:
            try:
                os.unlink(path)
            except FileNotFoundError:
                pass
            except OSError:  # a directory: EISDIR on Linux, EPERM elsewhere
                self._to_trash(path)

    def publish(self, image: ImageSpec, unpack_path: str, meta: Mapping[str, Any]) -> str:
        """Make the staged tree the installed version and return its path.

        The tree's content must be on disk already (the unpacking program sees to it). `meta` is added to
        the record, for example `bytes` unpacked. A version of the same name that is there is replaced.
        """
        job_dir, dirname = self._job_dir(image.job), image.dirname
        target = os.path.join(job_dir, dirname)
        checksum = image.checksum and {"type": image.checksum.type, "value": image.checksum.value}
        record = {
            **meta,
            "job": image.job,
            "version": image.version,
            "url": image.url,
            "size": image.size,
            "checksum": checksum,
            "image_type": image.image_type,
            "installed": time.time(),  # shown only
        }
        try:
            if not os.path.isdir(job_dir):
                os.makedirs(job_dir, 0o755)
                _sync_dir(self.root)
            if os.path.lexists(target):
                _unlink(_record(target))
                _sync_dir(job_dir)
                self._to_trash(target)
            os.rename(unpack_path, target)
            _write_synced(_record(target), json.dumps(record, sort_keys=True))
            _sync_dir(job_dir)
        except OSError as error:
            raise MaestroError(f"cannot store image {_label(image)}: {_why(error)}") from error
        return target

    def switch(self, job: str, image: ImageSpec) -> None:
        """Make an installed version the current one; what was current becomes previous.

        A crash in between leaves the old version current. Raises NotFound when it is not installed.
        """
        if not self.installed(image):
            raise NotFound(f"cannot switch {job} to image {_label(image)}: it is not installed")
        job_dir, now = self._job_dir(job), self._target(job, "current")
        if now == image.dirname:
            return
        try:
            if now:
                _link(job_dir, "previous", now)
            _link(job_dir, "current", image.dirname)
            _sync_dir(job_dir)
        except OSError as error:
            raise MaestroError(f"cannot switch {job} to image {_label(image)}: {_why(error)}") from error

    # ---- on its way out

    def remove(self, job: str) -> None:
        """Remove every version of a job's image; a job without one is fine."""
        self._to_trash(self._job_dir(job))

    def remove_version(self, job: str, dirname: str) -> None:
        """Remove one version. Raises NotFound when it is not there, Conflict when it is the current one."""
        job_dir = self._job_dir(job)
        target = os.path.join(job_dir, dirname)
        if safe_name(dirname) != dirname or not os.path.isdir(target) or os.path.islink(target):
            raise NotFound(f"cannot remove image {job} {dirname}: there is no such version")
        if self._target(job, "current") == dirname:
            raise Conflict(f"cannot remove image {job} {dirname}: it is the current version")
        if self._target(job, "previous") == dirname:
            _unlink(os.path.join(job_dir, "previous"))
        _unlink(_record(target))
        self._to_trash(target)

    def clean_staging(self) -> None:
        """Take away what an interrupted run left: call at boot, with no helper program running.

        Staged trees, downloads, version directories without a record, records without a directory.
        """
        self._make_places()
        for entry in _entries(self.downloads) + _entries(self.staging):
            self.discard(entry)
        for job_dir in self._job_dirs():
            for path in _entries(job_dir):
                if os.path.islink(path):
                    if os.path.basename(path).startswith("."):
                        _unlink(path)
                elif os.path.isdir(path):
                    if not os.path.isfile(_record(path)):
                        self._to_trash(path)
                elif not os.path.isdir(_recorded(path)):
                    _unlink(path)

    def empty_trash(self, seconds: float = 0.02) -> bool:
        """Delete what was removed, for about `seconds`; True while something is left to delete."""
        until = time.monotonic() + seconds
        return not all(remove_tree(path, until) for path in _entries(self.trash))

    # ---- inside

    def _job_dir(self, job: str) -> str:
        return os.path.join(self.root, safe_name(job))

    def _job_dirs(self) -> Iterator[str]:
        for path in _entries(self.root):
            if not os.path.basename(path).startswith(".") and os.path.isdir(path):
                yield path

    def _make_places(self) -> None:
        try:
            os.makedirs(self.root, 0o755, exist_ok=True)
            for private in (self.downloads, self.staging, self.trash):
                os.makedirs(private, 0o700, exist_ok=True)
        except OSError as error:
            raise MaestroError(f"cannot use the image directories: {_why(error)}") from error

    def _to_trash(self, path: str) -> None:
        self._make_places()
        try:
            os.rename(path, os.path.join(self.trash, os.urandom(8).hex()))
        except FileNotFoundError:
            pass
        except OSError as error:
            raise MaestroError(f"cannot remove {path}: {_why(error)}") from error

    def _meta(self, job: str, dirname: str) -> dict[str, Any] | None:
        path = os.path.join(self._job_dir(job), dirname)
        meta = _read_record(_record(path))
        if meta is None or not os.path.isdir(path):
            return None
        return {**meta, "path": path, "dirname": dirname}

    def _target(self, job: str, link: str) -> str:
        try:
            return os.readlink(os.path.join(self._job_dir(job), link))
        except OSError:
            return ""

    def _linked(self, job: str, link: str) -> dict[str, Any] | None:
        target = self._target(job, link)
        return self._meta(job, target) if target and safe_name(target) == target else None

    def list(self) -> Rows:
        """Return every installed version as `GET /v1/images` shows it; `size` is what it takes unpacked."""
        rows: Rows = []
        for job_dir in sorted(self._job_dirs()):
            for path in sorted(_entries(job_dir)):
                if not path.endswith(".json"):
                    continue
                record = _read_record(path)
                dirname = os.path.basename(_recorded(path))
                meta = record and self._meta(record["job"], dirname)
                if not meta:
                    continue
                current = self._target(meta["job"], "current") == dirname
                rows.append(
                    {
                        "job": meta["job"],
                        "version": meta.get("version", ""),
                        "checksum": meta.get("checksum"),
                        "path": meta["path"],
                        "size": meta.get("bytes", meta.get("size", 0)),
                        "current": current,
                        "previous": not current and self._target(meta["job"], "previous") == dirname,
                    }
                )
        return rows


def remove_tree(path: str, until: float | None = None) -> bool:
    """Delete a file or a whole tree without following links; True when it is gone.

    until: monotonic time at which to stop with the rest still there; None deletes everything.
    """
    pending = [path]
    while pending:
        if until is not None and time.monotonic() >= until:
            return False
        top = pending[-1]
        try:
            if not stat.S_ISDIR(os.lstat(top).st_mode):
                os.unlink(top)
                pending.pop()
                continue
            if not os.access(top, os.R_OK | os.W_OK | os.X_OK):
                os.chmod(top, 0o700)  # without root, a read-only directory keeps its entries
            below = []
            with os.scandir(top) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        below.append(entry.path)
                    else:
                        os.unlink(entry.path)
                    if until is not None and time.monotonic() >= until:
                        return False
            if below:
                pending.extend(below)
            else:
                os.rmdir(top)
                pending.pop()
        except FileNotFoundError:
            pending.pop()
        except OSError as error:
            raise MaestroError(f"cannot remove {top}: {_why(error)}") from error
    return True


def _label(image: ImageSpec) -> str:
    return f"{image.job} {image.version}".rstrip()


def _short(job: str) -> str:
    return safe_name(job)[:64]


def _why(error: OSError) -> str:
    place = error.filename2 or error.filename
    return f"{place}: {error.strerror}" if place else str(error.strerror or error)


def _free(path: str) -> int:
    found = os.statvfs(path)
    return found.f_bavail * found.f_frsize


def _entries(path: str) -> list[str]:
    try:
        return [os.path.join(path, name) for name in os.listdir(path)]
    except FileNotFoundError:
        return []


def _unlink(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass


def _record(version: str) -> str:
    """Return the record of a version's directory; hidden, as Node loads `<name>.json` for `<name>`."""
    directory, name = os.path.split(version)
    return os.path.join(directory, f".{name}.json")


def _recorded(record: str) -> str:
    """Return the version's directory that a record belongs to."""
    directory, name = os.path.split(record)
    return os.path.join(directory, name.removeprefix(".").removesuffix(".json"))


def _read_record(path: str) -> dict[str, Any] | None:
    try:
        with open(path, encoding="utf-8") as file:
            record = json.load(file)
    except (OSError, ValueError):
        return None
    return record if isinstance(record, dict) and isinstance(record.get("job"), str) else None


def _sync_dir(path: str) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _write_synced(path: str, text: str) -> None:
    """Write a file so that after a power cut it is the old one or the new one."""
    temporary = os.path.join(os.path.dirname(path), f".{os.urandom(6).hex()}.json")
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    try:
        with open(fd, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(fd)
        os.rename(temporary, path)
    except OSError:
        _unlink(temporary)
        raise


def _link(directory: str, name: str, target: str) -> None:
    temporary = os.path.join(directory, f".{os.urandom(6).hex()}")
    os.symlink(target, temporary)
    os.rename(temporary, os.path.join(directory, name))
