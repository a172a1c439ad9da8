# SPDX-License-Identifier: Apache-2.0
"""The wheel and the source archive: the same bytes every time, complete, found where they are installed."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest
from support.archives import build, only
from support.daemon import PROJECT

Archives = Mapping[str, Path]

TEMPLATES = {path.name for path in (PROJECT / "templates").glob("*.json")}


def sources(top: Path) -> set[str]:
    """Return the files of a directory of the project, as they are kept under version control."""
    return {
        str(path.relative_to(PROJECT))
        for path in (PROJECT / top).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def data_files(wheel: Path) -> dict[str, str]:
    """Return what the wheel puts below the prefix: path -> place in the wheel."""
    with zipfile.ZipFile(wheel) as file:
        marked = [(name, name.partition(".data/data/")[2]) for name in file.namelist()]
    return {inside: name for name, inside in marked if inside}


def test_a_second_build_from_the_unpacked_source_archive_gives_the_same_bytes(
    archives: Archives, tmp_path: Path
) -> None:
    subprocess.run(["tar", "-xzf", str(archives["sdist"]), "-C", str(tmp_path)], check=True)
    source = only(tmp_path, "maestro_py-*")
    for path in source.rglob("*"):
        os.utime(path)
    build(source, tmp_path / "dist")
    for kind, pattern in (("wheel", "*.whl"), ("sdist", "*.tar.gz")):
        again = only(tmp_path / "dist", pattern)
        assert (
            hashlib.sha256(again.read_bytes()).digest()
            == hashlib.sha256(archives[kind].read_bytes()).digest()
        )


def test_twine_has_nothing_to_say(archives: Archives) -> None:
    command = [sys.executable, "-m", "twine", "check", "--strict", *map(str, archives.values())]
    said = subprocess.run(command, capture_output=True, text=True, check=False)
    assert said.returncode == 0, said.stdout + said.stderr


def test_wheel_has_the_package_the_templates_and_what_goes_below_the_prefix(archives: Archives) -> None:
    with zipfile.ZipFile(archives["wheel"]) as file:
        names = set(file.namelist())
    assert sources(Path("maestro_py")) <= names
    assert {f"maestro_py/{name}" for name in sources(Path("templates"))} <= names
    below = data_files(archives["wheel"])
    assert {
        "lib/systemd/system/maestrod.service",
        "lib/systemd/system/maestro-jobs.service",
        "share/maestro/maestro.yaml",
        "share/maestro/openrc/maestrod",
        "share/maestro/sysvinit/maestrod",
    } <= set(below)
    for page in (PROJECT / "man").glob("*.[1-8]"):
        assert f"share/man/man{page.suffix[1:]}/{page.name}" in below, "pyproject.toml: shared-data"
    completions = [
        path
        for path in (PROJECT / "packaging" / "completions").glob("*")
        if path.suffix != ".py" and path.is_file()
    ]
    assert len([path for path in below if "complet" in path or "site-functions" in path]) == len(completions)


def test_source_archive_has_what_the_tests_and_the_packages_need(archives: Archives) -> None:
    with tarfile.open(archives["sdist"]) as tar:
        names = {name.partition("/")[2] for name in tar.getnames()}
    for top in ("demo", "docs", "maestro_py", "man", "templates"):
        assert sources(Path(top)) <= names
    assert {"LICENSE", "README.md", "CHANGELOG.md", "SECURITY.md", "Makefile", "pyproject.toml"} <= names
    assert sources(Path("packaging/debian")) | sources(Path("packaging/systemd")) <= names
    assert not [name for name in names if name.startswith("packaging/yocto")]  # its recipe names our checksum


def found(python: Path, *command: str) -> str:
    """Return what a program says that does not see this checkout."""
    env = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    said = subprocess.run([python, *command], cwd="/", env=env, capture_output=True, text=True, check=False)
    assert said.returncode == 0, said.stderr
    return said.stdout.strip()


WHERE = "from maestro_py import shipped; print(shipped.templates())"


@pytest.fixture(scope="module")
def environment(archives: Archives, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a virtual environment with the wheel in it, which borrows this one's dependencies."""
    top = tmp_path_factory.mktemp("venv") / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(top)], check=True)
    (site,) = top.glob("lib/python3*/site-packages")
    ours = [path for path in sys.path if path.endswith("site-packages")]
    install = ["--no-deps", "--no-index", "--no-compile", "--quiet", str(archives["wheel"])]
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", str(top / "bin/python")]
    subprocess.run([*pip, "install", *install], check=True)
    (site / "zz_borrowed.pth").write_text("\n".join(ours))
    return top


def test_virtual_environment_has_the_programs_and_finds_the_templates(environment: Path) -> None:
    templates = Path(found(environment / "bin" / "python", "-c", WHERE))
    assert environment in templates.parents
    assert {path.name for path in templates.glob("*.json")} == TEMPLATES
    for program in ("maestro", "maestrod"):
        assert found(environment / "bin" / program, "--version").split()[-1] == found(
            environment / "bin" / "python", "-c", "import maestro_py; print(maestro_py.__version__)"
        )
    assert (environment / "lib/systemd/system/maestrod.service").is_file()
    assert os.access(environment / "share/maestro/sysvinit/maestrod", os.X_OK)


def test_system_prefix_has_them_too(archives: Archives, tmp_path: Path) -> None:
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", "install"]
    options = ["--no-deps", "--no-index", "--no-compile", "--root", str(tmp_path), "--prefix", "/usr"]
    subprocess.run([*pip, *options, "--ignore-installed", str(archives["wheel"])], check=True)
    (site,) = tmp_path.glob("usr/lib/python3*/site-packages")
    templates = Path(
        found(Path(sys.executable), "-c", f"import sys; sys.path.insert(0, {str(site)!r}); {WHERE}")
    )
    assert templates == site / "maestro_py" / "templates"
    assert {path.name for path in templates.glob("*.json")} == TEMPLATES
    assert (tmp_path / "usr/lib/systemd/system/maestrod.service").is_file()


def test_checkout_finds_its_own(tmp_path: Path) -> None:
    shutil.copytree(
        PROJECT / "maestro_py", tmp_path / "maestro_py", ignore=shutil.ignore_patterns("__pycache__")
    )
    shutil.copytree(PROJECT / "templates", tmp_path / "templates")
    script = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); {WHERE}"
    assert found(Path(sys.executable), "-c", script) == str(tmp_path / "templates")
