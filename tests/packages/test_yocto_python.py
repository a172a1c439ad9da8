# SPDX-License-Identifier: Apache-2.0
"""A Python of only those pieces that the recipe asks for runs everything that needs no further library.

The pieces are openembedded-core's, so it takes the layers: MAESTRO_YOCTO_LAYERS as in test_yocto_layer.py.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import h11
import pytest
from support.daemon import PROJECT, Daemon
from support.documents import checksum, document, image, job

sys.path.insert(0, str(PROJECT / "packaging"))
import stdlib

LAYERS = [Path(name) for name in os.environ.get("MAESTRO_YOCTO_LAYERS", "").split(":") if name]
MANIFEST = "openembedded-core/meta/recipes-devtools/python/python3/python3-manifest.json"
PLACE = "${libdir}/python${PYTHON_MAJMIN}/"

RENAMED = ("zipfile.py",)
"""Files that later Pythons, for which the manifest is, have as directories."""


def assemble(top: Path, layers: Path) -> str:
    """Copy this Python's interpreter and the files of the packages we depend on; return the interpreter."""
    manifest = stdlib.read_manifest(str(layers / MANIFEST))
    packages: set[str] = set()
    waiting = [name.removeprefix("python3-") for name in stdlib.read_list().values()]
    while waiting:
        name = waiting.pop()
        if name not in packages:
            packages.add(name)
            waiting += [other for other in manifest[name]["rdepends"] if other in manifest]
    assert {"logging", "asyncio", "xml"}.isdisjoint(packages)
    source = Path(sysconfig.get_path("stdlib"))
    target = top / "lib" / source.name
    (target / "lib-dynload").mkdir(parents=True)
    files = [
        file.removeprefix(PLACE) for name in packages for file in manifest[name]["files"] if PLACE in file
    ]
    for pattern in (*files, *RENAMED):
        for path in source.glob(pattern) if "__pycache__" not in pattern else ():
            copy = target / path.relative_to(source)
            copy.parent.mkdir(parents=True, exist_ok=True)
            if path.is_dir():
                shutil.copytree(path, copy, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(path, copy)
    for site in ("dist-packages", "site-packages"):  # Debian's name, and everybody's
        shutil.copytree(Path(h11.__file__).parent, target / site / "h11")
    (top / "bin").mkdir()
    return str(shutil.copy(os.path.realpath(sys.executable), top / "bin"))


@pytest.mark.skipif(not LAYERS, reason="MAESTRO_YOCTO_LAYERS names no directory with the layers")
@pytest.mark.parametrize("layers", LAYERS, ids=lambda path: path.name)
def test_the_standard_modules_that_are_depended_on_are_enough(layers: Path, tmp_path: Path) -> None:
    python = assemble(tmp_path / "python", layers)
    lacks = subprocess.run([python, "-c", "import asyncio"], capture_output=True, text=True, check=False)
    assert "No module named 'asyncio'" in lacks.stderr
    daemon = Daemon(tmp_path / "device")
    daemon.program = (python, "-m", "maestro_py.daemon")
    packed = {"tarball": image("a", "1", tmp_path, {"a.sh": "#!/bin/sh\n"})}
    shutil.make_archive(str(tmp_path / "b"), "zip", PROJECT / "templates")
    data = (tmp_path / "b.zip").read_bytes()
    packed["zip"] = {
        **packed["tarball"], "job": "b", "image_type": "zip", "size": len(data), "checksum": checksum(data),
        "url": (tmp_path / "b.zip").as_uri(),
    }  # fmt: skip
    try:
        daemon.start()
        task = daemon.apply(document(job("a"), job("b"), images=list(packed.values())))
        assert task["status"] == "complete", task
        pid = daemon.job("a")["pid"]
        for words in ("status", "why a", "doctor", "logs a", "events", "metrics", "image list", "upgrade"):
            command = [python, "-m", "maestro_py.cli", "--socket", str(daemon.socket), *words.split()]
            said = subprocess.run(command, env=daemon.env, capture_output=True, text=True, check=False)
            assert said.returncode == 0, f"{words}: {said.stderr}"
        assert daemon.job("a")["pid"] == pid
    finally:
        daemon.close()
