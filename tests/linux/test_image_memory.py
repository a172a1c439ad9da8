# SPDX-License-Identifier: Apache-2.0
"""What an image costs the control group of the daemon, with all the kernel accounts to it."""

from __future__ import annotations

import io
import json
import os
import tarfile
from pathlib import Path

import pytest
from support.groups import Started, clear, groups_of_kind
from support.pagecache import on_disk

from maestro_py.images.output import WINDOW
from maestro_py.spec.model import Limits

pytestmark = pytest.mark.root

UNPACK = """
import json, sys
from maestro_py.images.unpack import unpack
unpack(json.loads(sys.argv[1]))
print("unpacked", flush=True)
"""


def peak(place: Path, megabytes: int) -> int:
    """Return the most bytes a group has while it unpacks files of 1 MB, on disk before and after."""
    archive = place / f"{megabytes}.tar"
    with tarfile.open(archive, "w") as tar:
        for number in range(megabytes):
            info = tarfile.TarInfo(f"d/{number}")
            info.size = 1 << 20
            tar.addfile(info, io.BytesIO(os.urandom(info.size)))
    with archive.open("rb") as file:
        os.fsync(file.fileno())
    groups = groups_of_kind("v1", f"maestro-test-{os.getpid()}-{megabytes}", place)
    if groups.kind != "v1":
        pytest.skip(f"this machine has {groups.kind}, not v1")
    try:
        group = groups.create("unpack", Limits(mem_limit=1 << 30))
        request = {"archive": str(archive), "dest": str(place / f"{megabytes}"), "image_type": "tarball"}
        process = Started(group, UNPACK, json.dumps(request))
        try:
            while (line := process.line(60)) != "unpacked":
                assert "bytes" in line  # how far it is
            most = group.memory().peak
        finally:
            process.end()
        group.close()
    finally:
        clear(groups)
    assert most
    return most


def test_memory_of_the_group_does_not_grow_with_the_image() -> None:
    with on_disk() as place:
        small, large = peak(place, 32), peak(place, 160)
    assert large - small < WINDOW
    assert large < 96 << 20
