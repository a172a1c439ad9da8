#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Build what a release consists of into build/dist/: source archive, wheel, bill of materials, checksums. With
# `release` as argument write the archive's checksum into the Yocto recipe, which is not part of the archive.
# PYTHON: an interpreter with the development requirements.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-.venv/bin/python}
out=build/dist
unset SOURCE_DATE_EPOCH # without it hatchling takes a fixed time: the same tree gives the same bytes

rm -rf "$out"
"$python" -m hatchling build -d "$out" >/dev/null
NO_COLOR=1 "$python" -m twine check --strict "$out"/*
"$python" packaging/sbom.py --extra seccomp --extra signature -o "$out/maestro_py.cdx.json"
(cd "$out" && sha256sum -- * >SHA256SUMS && cat SHA256SUMS)

[ "${1:-}" = release ] || exit 0
sum=$(sed -n 's/ .*\.tar\.gz$//p' "$out/SHA256SUMS")
sed -i "s/^SRC_URI\[sha256sum\] = .*/SRC_URI[sha256sum] = \"$sum\"/" \
    packaging/yocto/meta-maestro/recipes-maestro/maestro/python3-maestro-py_*.bb
