# SPDX-License-Identifier: Apache-2.0
"""Files and trees as the store needs them: no power cut tears what is written, deletion comes in slices."""

from __future__ import annotations

import os
import stat
import time

from maestro_py.errors import MaestroError


def why(error: OSError) -> str:
    """Return what the system says, with the path it is about."""
    place = error.filename2 or error.filename
    return f"{place}: {error.strerror}" if place else str(error.strerror or error)


def free_bytes(path: str) -> int:
    """Return how many bytes an ordinary user may still write where a path is."""
    found = os.statvfs(path)
    return found.f_bavail * found.f_frsize


def entries(path: str) -> list[str]:
    """Return the paths in a directory, nothing when it is not there."""
    try:
        return [os.path.join(path, name) for name in os.listdir(path)]
    except FileNotFoundError:
        return []


def unlink(path: str) -> None:
    """Remove a file that may be gone already."""
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass


def sync_dir(path: str) -> None:
    """Bring the names in a directory to disk."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def write_synced(path: str, text: str) -> None:
    """Write a file so that after a power cut it is the old one or the new one."""
    directory, name = os.path.split(path)
    temporary = os.path.join(directory, f".{os.urandom(6).hex()}{os.path.splitext(name)[1]}")
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    try:
        with open(fd, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(fd)
        os.rename(temporary, path)
    except OSError:
        unlink(temporary)
        raise


def link(directory: str, name: str, target: str) -> None:
    """Make a symbolic link, in place of an earlier one of that name, by one rename."""
    temporary = os.path.join(directory, f".{os.urandom(6).hex()}")
    os.symlink(target, temporary)
    os.rename(temporary, os.path.join(directory, name))


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
            with os.scandir(top) as found:
                for entry in found:
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
            raise MaestroError(f"cannot remove {top}: {why(error)}") from error
    return True
