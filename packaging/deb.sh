#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Build the Debian package from this tree, as it is, into build/deb/. PYTHON: an interpreter with pip.
set -euo pipefail
cd "$(dirname "$0")/.."
python=$(command -v "${PYTHON:-python3}")
out=$PWD/build/deb

missing=()
for package in debhelper dh-python fakeroot pybuild-plugin-pyproject python3-hatchling; do
    [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || missing+=("$package")
done
if [ ${#missing[@]} -gt 0 ]; then
    echo "cannot build the package: apt-get install ${missing[*]}" >&2
    exit 1
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$out" "$work/source"
tar -c --exclude=__pycache__ --exclude=yocto LICENSE README.md man maestro_py packaging pyproject.toml templates | tar -x -C "$work/source"
mv "$work/source/packaging/debian" "$work/source/debian"

vendored=$out/vendor-$(sha256sum packaging/debian/vendor.txt | cut -c 1-12)
if [ ! -d "$vendored" ]; then
    "$python" -m pip install --quiet --disable-pip-version-check --root-user-action=ignore --no-compile \
        --use-pep517 --no-deps --require-hashes --target "$work/vendor" -r packaging/debian/vendor.txt
    rm -rf "$work/vendor/cgroupspy/test"
    mv "$work/vendor" "$vendored"
fi
cp -r "$vendored" "$work/source/debian/vendor"

cd "$work/source"
declared=$(sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)
packaged=$(dpkg-parsechangelog -S Version)
if [ "$declared" != "$packaged" ]; then
    echo "cannot build the package: pyproject.toml says $declared, debian/changelog $packaged" >&2
    exit 1
fi
env -u PYTHONPATH -u VIRTUAL_ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    dpkg-buildpackage -b -us -uc >"$out/build.log" 2>&1 || { tail -n 30 "$out/build.log" >&2; exit 1; }
rm -f "$out"/maestro_*
cp "$work"/maestro_* "$out"
ls "$out"/*.deb
