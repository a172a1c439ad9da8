# SPDX-License-Identifier: Apache-2.0
"""The Yocto layer: oelint-adv, what its package installs, and, where layers are at hand, real bitbake.

MAESTRO_YOCTO_LAYERS: directories with openembedded-core, meta-openembedded and bitbake, separated by colons.
"""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from fnmatch import fnmatch
from pathlib import Path

import pytest
from support.daemon import PROJECT

YOCTO = PROJECT / "packaging" / "yocto"
LAYER = YOCTO / "meta-maestro"
RECIPES = LAYER / "recipes-maestro" / "maestro"
SITE = "/usr/lib/python3/site-packages"

PATHS = {
    "prefix": "/usr",
    "datadir": "/usr/share",
    "sysconfdir": "/etc",
    "systemd_system_unitdir": "/usr/lib/systemd/system",
    "PYTHON_SITEPACKAGES_DIR": SITE,
    "PN": "python3-maestro-py",
}
DEFAULT_FILES = {
    "python3-maestro-py-doc": ["/usr/share/doc/*", "/usr/share/man/*"],
    "python3-maestro-py-bash-completion": ["/usr/share/bash-completion/*"],
    "python3-maestro-py": [
        "/usr/bin/*", "/etc/*", "/usr/lib/systemd/system/maestrod.service", f"{SITE}/*",
    ],
}  # fmt: skip
"""What bitbake.conf and the classes put where, in the order of PACKAGES; the recipe's own come first."""

ONLY_PIP = {"RECORD", "INSTALLER", "REQUESTED", "direct_url.json"}
"""Files about the installation itself."""


def recipe() -> str:
    (path,) = RECIPES.glob("python3-maestro-py_*.bb")
    return path.read_text()


def values(name: str) -> list[str]:
    """Return the words given to a variable of the recipe, over all its assignments."""
    found = re.findall(rf'(?ms)^{re.escape(name)} (?:\?|\+|:)?= "(.*?)"$', recipe())
    return [expand(word) for text in found for word in text.replace("\\\n", " ").split()]


def expand(text: str) -> str:
    """Fill in what the recipe's own variables hold on a device."""
    return re.sub(r"\$\{(\w+)\}", lambda match: PATHS.get(match[1], match[0]), text)


def function(name: str) -> str:
    """Return the body of a shell function of the recipe."""
    match = re.search(rf"(?ms)^{re.escape(name)}\(\) \{{\n(.*?)^\}}", recipe())
    assert match, name
    return match[1]


def listing(top: Path) -> dict[str, tuple[int, str]]:
    """Return (mode, checksum) of every file, by its path with python3.X called python3."""
    found = {}
    for path in sorted(top.rglob("*")):
        if path.is_file() and path.name not in ONLY_PIP:
            name = re.sub(r"/python3\.\d+/", "/python3/", f"/{path.relative_to(top)}")
            found[name] = (path.stat().st_mode & 0o7777, hashlib.sha256(path.read_bytes()).hexdigest())
    return found


@pytest.fixture(scope="module")
def by_pip(archives: Mapping[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return what `pip install --root` makes of the wheel."""
    top = tmp_path_factory.mktemp("pip")
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", "install", "--no-index"]
    options = ["--no-deps", "--compile", "--ignore-installed", "--root", str(top), "--prefix", "/usr"]
    subprocess.run([*command, *options, str(archives["wheel"])], check=True)
    return top


@pytest.fixture(scope="module")
def by_recipe(archives: Mapping[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return what the recipe installs: first as the class python_pep517 does it, then its own do_install."""
    top = tmp_path_factory.mktemp("recipe")
    command = [sys.executable, "-m", "installer", "--compile-bytecode=0", "--prefix=/usr", f"--destdir={top}"]
    subprocess.run([*command, str(archives["wheel"])], check=True)
    script = expand(function("do_install:append")).replace("${D}", str(top)).replace("${S}", str(PROJECT))
    assert "${" not in script, "a variable this test does not know"
    subprocess.run(["sh", "-e", "-u", "-c", script], check=True)
    return top


def test_oelint_has_no_findings() -> None:
    files = [str(path) for path in LAYER.rglob("*") if path.suffix in (".bb", ".bbappend", ".conf", ".inc")]
    assert len(files) > 6
    program = Path(sys.executable).with_name("oelint-adv")
    for release in ("wrynose", "blacksail"):
        command = [str(program), "--quiet", "--relpaths", "--release", release, *files]
        said = subprocess.run(command, cwd=LAYER, capture_output=True, text=True, check=False)
        assert (said.returncode, said.stdout + said.stderr) == (0, "")


def test_package_has_file_by_file_and_mode_by_mode_what_pip_installs(by_pip: Path, by_recipe: Path) -> None:
    pip, package = listing(by_pip), listing(by_recipe)
    units = "/usr/lib/systemd/system"
    moved = {
        "/usr/share/maestro/maestro.yaml": "/etc/maestro/maestro.yaml",
        "/usr/share/maestro/sysvinit/maestrod": "/etc/init.d/maestrod",
    }
    dropped = {"/usr/share/maestro/openrc/maestrod"}
    wanted = {moved.get(path, path): entry for path, entry in pip.items() if path not in dropped}
    programs = {path for path in wanted if path.startswith("/usr/bin/")}  # their first line differs
    assert {path: mode for path, (mode, _) in package.items()} == {
        path: mode for path, (mode, _) in wanted.items()
    }
    differ = {path for path in wanted if package[path][1] != wanted[path][1] and path[-4:] != ".pyc"}
    assert differ == programs == {"/usr/bin/maestro", "/usr/bin/maestrod"}
    assert {f"{units}/maestrod.service", f"{units}/maestro-jobs.service"} < set(package)


def test_every_file_is_in_a_package(by_recipe: Path) -> None:
    names = [expand(name) for name in values("PACKAGE_BEFORE_PN")]
    assert names
    order = {name: values(f"FILES:{name.replace('python3-maestro-py', '${PN}')}") for name in names}
    order |= DEFAULT_FILES
    order["python3-maestro-py"] = order["python3-maestro-py"] + values("FILES:${PN}")
    packages: dict[str, list[str]] = {name: [] for name in order}
    for path in listing(by_recipe):
        owner = next(
            (name for name, patterns in order.items() if any(fnmatch(path, pattern) for pattern in patterns)),
            "",
        )
        assert owner, f"{path} is in no package: FILES of the recipe"
        packages[owner].append(path)
    for name in names:
        template = name.rpartition("-template-")[2]
        assert f"{SITE}/maestro_py/templates/{template}.json" in packages[name]
        assert [path for path in packages[name] if f"/templates/{template}/host." in path]
    for path in values("CONFFILES:${PN}"):
        assert path in packages["python3-maestro-py"]


def test_standard_modules_are_depended_on_exactly() -> None:
    rows = (PROJECT / "packaging" / "stdlib.txt").read_text().splitlines()
    needed = {row.split()[1] for row in rows if not row.startswith("#")}
    assert {name for name in values("RDEPENDS:${PN}") if name != "python3-h11"} == needed


def test_every_dependency_and_every_extra_has_its_place_in_the_recipe() -> None:
    project = (PROJECT / "pyproject.toml").read_text()
    required = re.search(r"(?ms)^dependencies = \[(.*?)^\]", project)
    assert required
    libraries = set(re.findall(r'(?m)^  "([a-z0-9]+)', required[1]))
    options = dict(re.findall(r'(?m)^PACKAGECONFIG\[([\w-]+)\] = ",,,(.*?)"', recipe()))
    optional = {name.removeprefix("python3-") for text in options.values() for name in text.split()}
    always = {name.removeprefix("python3-") for name in values("RDEPENDS:${PN}")}
    assert libraries <= optional | always
    tables = re.search(r"(?ms)^\[project.optional-dependencies\]\n(.*?)^\[", project)
    assert tables
    extras = set(re.findall(r"(?m)^([\w-]+) = \[", tables[1])) - {"dev", "test"}
    packages = {name.rpartition("maestro-py-")[2] for name in values("PACKAGE_BEFORE_PN")}
    assert extras <= set(options) | packages, "a PACKAGECONFIG or a sub-package for each extra"


def test_licence_and_version_are_those_of_the_project() -> None:
    said = re.search(r"file://LICENSE;md5=(\w+)", recipe())
    assert said
    assert said[1] == hashlib.md5((PROJECT / "LICENSE").read_bytes(), usedforsecurity=False).hexdigest()
    version = re.search(r'(?m)^version = "(.*)"', (PROJECT / "pyproject.toml").read_text())
    assert version
    assert (RECIPES / f"python3-maestro-py_{version[1]}.bb").exists()


def test_layer_and_kas_file_speak_of_the_same_series() -> None:
    series = re.search(r'LAYERSERIES_COMPAT_maestro = "(.*)"', (LAYER / "conf" / "layer.conf").read_text())
    assert series
    assert f"branch: {series[1].split()[0]}" in (YOCTO / "kas" / "maestro-demo.yml").read_text()


def test_kernel_options_are_given_once_and_each_group_has_its_reason() -> None:
    text = (LAYER / "recipes-kernel" / "linux" / "linux-yocto" / "maestro.cfg").read_text()
    options = [line for line in text.splitlines() if line and not line.startswith("#")]
    assert all(re.fullmatch(r"CONFIG_[A-Z0-9_]+=[ym]", line) for line in options)
    assert len({line.partition("=")[0] for line in options}) == len(options)
    assert all(group.startswith("#") for group in text.strip().split("\n\n"))


def test_demo_config_is_good() -> None:
    config = LAYER / "recipes-maestro" / "images" / "maestro-demo-image" / "maestro.yaml"
    command = [sys.executable, "-m", "maestro_py.daemon", "--check", "--config", str(config)]
    said = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False)
    assert "good: 1 job," in said.stdout, said.stderr


LAYERS = [Path(name) for name in os.environ.get("MAESTRO_YOCTO_LAYERS", "").split(":") if name]


@pytest.mark.skipif(not LAYERS, reason="MAESTRO_YOCTO_LAYERS names no directory with the layers")
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("layers", LAYERS, ids=lambda path: path.name)
def test_bitbake_parses_the_layer_and_resolves_all_dependencies(layers: Path, public_path: Path) -> None:
    manifest = layers / "openembedded-core/meta/recipes-devtools/python/python3/python3-manifest.json"
    script = [
        sys.executable,
        str(PROJECT / "packaging" / "stdlib.py"),
        "--check",
        "--manifest",
        str(manifest),
    ]
    subprocess.run(script, check=True)
    command = [str(YOCTO / "check.sh"), str(layers)]
    said = subprocess.run(
        command, env={**os.environ, "KEEP": str(public_path)}, capture_output=True, text=True, check=False
    )
    assert said.returncode == 0, said.stdout + said.stderr
    assert said.stdout.splitlines()[-1] == "0 errors, 0 warnings"
    assert said.stdout.count(" 0 errors.") == 2
    for init in ("systemd", "sysvinit"):
        dump = (public_path / f"{init}-python3-maestro-py.env").read_text()
        wanted = {
            "SYSTEMD_SERVICE:python3-maestro-py": "maestrod.service",
            "INITSCRIPT_NAME": "maestrod",
            "CONFFILES:python3-maestro-py": "/etc/maestro/maestro.yaml",
            "LICENSE": "Apache-2.0",
        }
        for name, value in wanted.items():
            assert f'\n{name}="{value}"\n' in dump
    image = (public_path / "systemd-maestro-demo-image.env").read_text()
    assert "packagegroup-maestro" in image
