# SPDX-License-Identifier: Apache-2.0
"""Pythons with less in them: split as Yocto does it, without ssl, without sqlite, without a library."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.daemon import PROJECT, Daemon
from support.documents import document, image, job
from support.httpserver import FileServer

Small = Callable[..., Daemon]

# read by this Python before anything else is imported
WITHOUT = """\
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name in {names!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Refuse())
"""


def python_without(top: Path, *names: str) -> str:
    """Return an interpreter that has our libraries and lacks these modules, also in what it starts itself."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(top)], check=True)
    (site,) = top.glob("lib/python3*/site-packages")
    borrowed = [path for path in sys.path if path.endswith("site-packages")]
    (site / "refusing.py").write_text(WITHOUT.format(names=names))
    (site / "borrowed.pth").write_text("\n".join(["import refusing", str(PROJECT), *borrowed]))
    return str(top / "bin" / "python")


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Small]:
    """Return a maker of daemons, not started, whose Python lacks modules."""
    made: list[Daemon] = []

    def make(*names: str, config: str = "") -> Daemon:
        daemon = Daemon(tmp_path / "device", config)
        daemon.program = (python_without(tmp_path / "python", *names), "-m", "maestro_py.daemon")
        made.append(daemon)
        return daemon

    yield make
    for daemon in made:
        daemon.close()


def refusal(daemon: Daemon) -> str:
    """Return the one line with which a daemon refuses to start."""
    command = [*daemon.program, "--root", str(daemon.root)]
    said = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert said.returncode == 1
    assert len(said.stderr.splitlines()) == 1, said.stderr
    return said.stderr


def test_list_of_standard_modules_is_up_to_date() -> None:
    script = PROJECT / "packaging" / "stdlib.py"
    said = subprocess.run([sys.executable, script, "--check"], capture_output=True, text=True, check=False)
    assert said.returncode == 0, said.stderr
    assert "?" not in (PROJECT / "packaging" / "stdlib.txt").read_text()


def test_without_ssl_images_come_from_files_and_over_http(small: Small, tmp_path: Path) -> None:
    daemon = small("ssl", "_ssl").start()
    with FileServer(tmp_path) as url:
        for version, source in (("1", tmp_path.as_uri()), ("2", url)):
            needed = image("a", version, tmp_path, {"version": version})
            needed["url"] = f"{source}/a-{version}.tar.gz"
            task = daemon.apply(document(job("a"), images=[needed]))
            assert task["status"] == "complete", task
            assert daemon.job("a")["image_version"] == version
    needed = {**image("a", "3", tmp_path, {"version": "3"}), "url": "https://localhost/a-3.tar.gz"}
    task = daemon.apply(document(job("a"), images=[needed]))
    assert "this device's Python was built without ssl" in str(task)


@pytest.mark.parametrize("module", ["_sqlite3", "h11"])
def test_what_the_daemon_cannot_do_without_is_named_in_one_line(small: Small, module: str) -> None:
    said = refusal(small(module))
    assert said.startswith("cannot start maestrod: ")
    assert f"has no module {module.lstrip('_')} (install it" in said


def test_config_file_in_yaml_needs_the_library_and_says_so(small: Small) -> None:
    said = refusal(small("yaml", config="log_max_files: 3\n"))
    assert "this device lacks the Python library yaml" in said


def test_image_from_the_network_needs_the_library_and_says_so(small: Small, tmp_path: Path) -> None:
    daemon = small("requests").start()
    with FileServer(tmp_path) as url:
        needed = image("a", "1", tmp_path, {"hello.sh": "#!/bin/sh\n"})
        needed["url"] = f"{url}/a-1.tar.gz"
        task = daemon.apply(document(job("a"), images=[needed]))
    assert task["status"] == "failed"
    assert "this device lacks the Python library requests" in str(task)
    assert daemon.apply(document(job("b")))["status"] == "complete"
