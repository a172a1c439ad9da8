# SPDX-License-Identifier: Apache-2.0
"""Helper program: a second tree of the same files, by hard links; images are never written to.

`python -m maestro_py.images.clone`, request on stdin, lines on stdout as in `maestro_py.helper`:

    {"tree", "dest"}                a directory, and one on the same file system that does not exist yet

The last line carries `bytes` and `entries`, as for the first tree. When it comes, everything is on disk.
On any failure `dest` is gone completely.
"""

from __future__ import annotations

import os
import stat
from typing import Any

from maestro_py import helper
from maestro_py.errors import MaestroError
from maestro_py.faultpoint import reach
from maestro_py.images.files import remove_tree, why
from maestro_py.images.flush import sync_file_system


def clone(request: helper.Request) -> dict[str, Any]:
    """Make the tree. Raises MaestroError, also where the file system has no more links to give."""
    tree, dest = str(request["tree"]), str(request["dest"])
    progress, entries, size = helper.Progress(), 0, 0
    try:
        os.mkdir(dest, 0o700)
        pending = [(tree, dest)]
        made = []
        while pending:
            source, target = pending.pop()
            made.append((source, target))
            with os.scandir(source) as found:
                for entry in found:
                    entries += 1
                    place = os.path.join(target, entry.name)
                    status = entry.stat(follow_symlinks=False)
                    if stat.S_ISDIR(status.st_mode):
                        os.mkdir(place, 0o700)
                        pending.append((entry.path, place))
                    else:
                        os.link(entry.path, place, follow_symlinks=False)
                        size += status.st_size
            progress.report(entries, None)
        for source, target in reversed(made):  # what is inside first: it changes the times of what is around
            status = os.stat(source)
            os.chown(target, status.st_uid, status.st_gid)
            os.chmod(target, stat.S_IMODE(status.st_mode))
            os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))
        reach("images.clone.linked")
        _sync(dest)
    except OSError as error:
        remove_tree(dest)
        raise MaestroError(f"cannot link {tree} once more: {why(error)}") from error
    except BaseException:
        remove_tree(dest)
        raise
    return {"bytes": size, "entries": entries}


def _sync(path: str) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        sync_file_system(fd)
    finally:
        os.close(fd)


if __name__ == "__main__":
    helper.main(clone)
