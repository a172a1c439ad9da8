# SPDX-License-Identifier: Apache-2.0
"""Image versions on disk: staging, publishing, current and previous, removal.

    <root>/<job>/<version>            the unpacked tree, never written again once published
    <root>/<job>/.<version>.json      what it is; written last, so its presence is the commit mark
    <root>/<job>/.<version>.sums      checksums of its files, as `images.manifest` writes them
    <root>/<job>/current              relative link: the version in use
    <root>/.staging, <root>/.trash    trees on their way in and out, on the same file system
    <scratch>/downloads               archives on their way in

The record of a version says which one it took over from, before the link is switched: so the rename of
that one link changes current and previous together, whenever the power goes.

Names are those of `safe_name(job)` and `ImageSpec.dirname`, so no job can reach the dotted directories
and no version is called `current`. Used by the daemon: deletion is done in slices (`empty_trash`).
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from maestro_py.errors import Conflict, MaestroError, NotFound
from maestro_py.faultpoint import reach
from maestro_py.images.files import entries, link, sync_dir, unlink, why, write_synced
from maestro_py.images.staging import Staging, label
from maestro_py.spec.model import Checksum, ImageSpec
from maestro_py.spec.names import safe_name

Row = dict[str, Any]
Rows = list[Row]
Version = tuple[str, str]
"""(job, directory name) of a version."""


class ImageStore(Staging):
    """The versions of every job's image. What the file system refuses is raised as MaestroError."""

    # ---- where things are

    def path(self, image: ImageSpec) -> str:
        """Return the directory that holds, or will hold, this version."""
        return os.path.join(self._job_dir(image.job), image.dirname)

    def installed(self, image: ImageSpec) -> bool:
        """Say whether exactly this image is completely there.

        Without a checksum the URL stands for the content.
        """
        meta = self._meta(image.job, image.dirname)
        return meta is not None and _is_record_of(meta, image)

    def current(self, job: str) -> Row | None:
        """Return what is recorded of the job's current version, with its `path` and `dirname`, or None."""
        target = self._current(job)
        return self._meta(job, target) if target else None

    def previous(self, job: str) -> Row | None:
        """Return the version to roll back to, as `current` does, or None."""
        now = self.current(job)
        before = now and now.get("previous")
        return self._meta(job, before) if isinstance(before, str) else None

    def version(self, job: str, dirname: str) -> Row:
        """Return what is recorded of one version; NotFound names it."""
        meta = self._meta(job, dirname) if safe_name(dirname) == dirname else None
        if meta is None:
            raise NotFound(f"no image {job} {dirname}", hint="`maestro image list` lists them")
        return meta

    def twin(self, image: ImageSpec, made: Mapping[str, Any]) -> Row | None:
        """Return a whole version, of any job, unpacked from the very same archive in the same way.

        made: how it is to be unpacked, as recorded with `publish`. None without one.
        """
        if image.checksum is None or image.checksum.type == "md5sum":  # whose collisions are made at will
            return None
        for meta in self.versions():
            same = meta.get("checksum") == _checksum(image) and meta.get("image_type") == image.image_type
            itself = (meta["job"], meta["dirname"]) == (image.job, image.dirname)
            if same and not itself and not meta.get("damaged") and meta.get("made") == made:
                return meta
        return None

    def versions(self) -> Iterator[Row]:
        """Yield what is recorded of every version, as `current` returns it."""
        for job_dir in sorted(self._job_dirs()):
            for path in sorted(entries(job_dir)):
                if path.endswith(".json"):
                    record = _read_record(path)
                    meta = record and self._meta(record["job"], os.path.basename(_recorded(path)))
                    if meta:
                        yield meta

    def list(self) -> Rows:
        """Return every installed version as `GET /v1/images` shows it; `size` is what it takes unpacked."""
        return [self.row(meta) for meta in self.versions()]

    def row(self, meta: Row) -> Row:
        """Return a version as the API shows it."""
        job, dirname = meta["job"], meta["dirname"]
        now = self.current(job) or {}
        return {
            "job": job,
            "version": meta.get("version", ""),
            "checksum": meta.get("checksum"),
            "path": meta["path"],
            "size": meta.get("bytes", meta.get("size", 0)),
            "current": meta["current"],
            "previous": not meta["current"] and now.get("previous") == dirname,
            "pinned": bool(meta.get("pinned")),
            "damaged": meta.get("damaged") or "",
        }

    # ---- on its way in

    def publish(self, image: ImageSpec, unpack_path: str, meta: Mapping[str, Any]) -> str:
        """Make the staged tree, and the `.sums` beside it, the installed version; return its path.

        Their content must be on disk already (the unpacking program sees to it). `meta` is added to
        the record, for example `bytes` unpacked. A version of the same name that is there is replaced: see
        `occupied`.
        """
        job_dir, target = self._job_dir(image.job), self.path(image)
        old = self._meta(image.job, image.dirname) or {}
        kept: Row = {key: old[key] for key in ("previous", "pinned") if key in old}
        record: Row = {
            **kept,
            **meta,
            "job": image.job,
            "version": image.version,
            "url": image.url,
            "size": image.size,
            "checksum": _checksum(image),
            "image_type": image.image_type,
            "installed": time.time(),  # shown only
        }
        try:
            if not os.path.isdir(job_dir):
                os.makedirs(job_dir, 0o755)
                sync_dir(self.root)
            if os.path.lexists(target):
                unlink(_record(target))
                sync_dir(job_dir)
                self.to_trash(target)
            unlink(sums(target))
            os.rename(unpack_path, target)
            reach("images.publish.renamed")
            if os.path.exists(sums(unpack_path, staged=True)):
                os.rename(sums(unpack_path, staged=True), sums(target))
            write_synced(_record(target), json.dumps(record, sort_keys=True))
            sync_dir(job_dir)
            reach("images.publish.recorded")
        except OSError as error:
            raise MaestroError(f"cannot store image {label(image)}: {why(error)}") from error
        return target

    def occupied(self, image: ImageSpec) -> bool:
        """Whether publishing would replace a tree, which nothing may be running from then."""
        return os.path.lexists(self.path(image))

    def switch(self, job: str, image: ImageSpec, *, back: bool = False) -> None:
        """Make an installed version the current one; what was current becomes previous.

        back: it takes its old place, and previous is what was so then. A crash in between leaves the old
        version current. Raises NotFound when it is not installed.
        """
        if not self.installed(image):
            raise NotFound(f"cannot switch {job} to image {label(image)}: it is not installed")
        job_dir, now = self._job_dir(job), self._current(job)
        if now == image.dirname:
            return
        try:
            if not back:
                self._amend(job, image.dirname, previous=now or None)
            reach("images.switch.prepared")
            link(job_dir, "current", image.dirname)
            sync_dir(job_dir)
            reach("images.switch.done")
        except OSError as error:
            raise MaestroError(f"cannot switch {job} to image {label(image)}: {why(error)}") from error

    def mark(self, job: str, dirname: str, **facts: Any) -> None:
        """Record something of a version: `pinned`, or `damaged` with what is. Raises NotFound."""
        self.version(job, dirname)
        try:
            self._amend(job, dirname, **facts)
        except OSError as error:
            raise MaestroError(f"cannot mark image {job} {dirname}: {why(error)}") from error

    # ---- on its way out

    def unused(self, used: Collection[Version], jobs: Collection[str]) -> Rows:
        """Return what may be collected: not in `used`, not pinned, not current or previous of these jobs."""
        found = []
        for meta in self.versions():
            row = self.row(meta)
            place = meta["job"] in jobs and (row["current"] or row["previous"])
            if not (place or row["pinned"] or (meta["job"], meta["dirname"]) in used):
                found.append(meta)
        return found

    def remove_version(self, job: str, dirname: str) -> None:
        """Remove one version. Raises NotFound when it is not there, Conflict when it is pinned.

        Whether anybody uses it is the caller's affair.
        """
        target = os.path.join(self._job_dir(job), dirname)
        if safe_name(dirname) != dirname or not os.path.isdir(target) or os.path.islink(target):
            raise NotFound(f"cannot remove image {job} {dirname}: there is no such version")
        if (_read_record(_record(target)) or {}).get("pinned"):
            raise Conflict(
                f"cannot remove image {job} {dirname}: it is pinned",
                hint=f"`maestro image unpin {job}` first",
            )
        unlink(_record(target))
        unlink(sums(target))
        self.to_trash(target)
        if self._current(job) == dirname:
            unlink(os.path.join(self._job_dir(job), "current"))

    def clean_staging(self) -> None:
        """Take away what an interrupted run left: call at boot, with no helper program running.

        Staged trees, spent downloads, version directories without a record, records without a directory.
        """
        self.make_places()
        for entry in entries(self.spent) + entries(self.staging):
            self.discard(entry)
        for job_dir in self._job_dirs():
            for path in entries(job_dir):
                if os.path.islink(path):
                    if os.path.basename(path).startswith("."):
                        unlink(path)
                elif os.path.isdir(path):
                    if not os.path.isfile(_record(path)):
                        self.to_trash(path)
                elif not os.path.isdir(_recorded(path)):
                    unlink(path)

    # ---- inside

    def _job_dir(self, job: str) -> str:
        return os.path.join(self.root, safe_name(job))

    def _job_dirs(self) -> Iterator[str]:
        for path in entries(self.root):
            if not os.path.basename(path).startswith(".") and os.path.isdir(path):
                yield path

    def _meta(self, job: str, dirname: str) -> Row | None:
        path = os.path.join(self._job_dir(job), dirname)
        meta = _read_record(_record(path))
        if meta is None or not os.path.isdir(path):
            return None
        return {**meta, "path": path, "dirname": dirname, "current": self._current(job) == dirname}

    def _amend(self, job: str, dirname: str, **facts: Any) -> None:
        """Write the record of a version anew, with some facts changed; None takes one away."""
        path = _record(os.path.join(self._job_dir(job), dirname))
        record = {**(_read_record(path) or {}), **facts}
        kept = {key: value for key, value in record.items() if value is not None or key == "checksum"}
        write_synced(path, json.dumps(kept, sort_keys=True))

    def _current(self, job: str) -> str:
        """Return the directory name of the current version, or nothing."""
        try:
            target = os.readlink(os.path.join(self._job_dir(job), "current"))
        except OSError:
            return ""
        return target if safe_name(target) == target else ""


def spec_of(meta: Mapping[str, Any]) -> ImageSpec:
    """Return the image that a version was installed for, from its record."""
    checksum = meta.get("checksum")
    return ImageSpec(
        meta["job"],
        meta.get("version", ""),
        meta.get("url", ""),
        size=meta.get("size", 0),
        checksum=Checksum(**checksum) if checksum else None,
        image_type=meta.get("image_type", "tarball"),
    )


def sums(tree: str, *, staged: bool = False) -> str:
    """Return where the checksums of a version's files are, or wait while it is staged."""
    if staged:
        return f"{tree}.sums"
    directory, name = os.path.split(tree)
    return os.path.join(directory, f".{name}.sums")


def _checksum(image: ImageSpec) -> dict[str, str] | None:
    return {"type": image.checksum.type, "value": image.checksum.value} if image.checksum else None


def _is_record_of(meta: Mapping[str, Any], image: ImageSpec) -> bool:
    if meta.get("version") != image.version:
        return False
    if image.checksum is None:
        return bool(meta.get("url") == image.url)
    return bool(meta.get("checksum") == _checksum(image))


def _record(version: str) -> str:
    """Return the record of a version's directory; hidden, as Node loads `<name>.json` for `<name>`."""
    directory, name = os.path.split(version)
    return os.path.join(directory, f".{name}.json")


def _recorded(hidden: str) -> str:
    """Return the version's directory that a record, or its checksums, belong to."""
    directory, name = os.path.split(hidden)
    return os.path.join(directory, os.path.splitext(name)[0].removeprefix("."))


def _read_record(path: str) -> Row | None:
    try:
        with open(path, encoding="utf-8") as file:
            record = json.load(file)
    except (OSError, ValueError):
        return None
    return record if isinstance(record, dict) and isinstance(record.get("job"), str) else None
