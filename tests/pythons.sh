#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Run the unit and machine tests under every Python the project is for, each in a virtual environment below
# build/python/. One that is neither in PATH nor among pyenv's is named and skipped. Arguments go to pytest.
set -euo pipefail
cd "$(dirname "$0")/.."

find_python() { # version; pyenv's own first, for what it puts in PATH may not run
    local found
    found=$(compgen -G "${PYENV_ROOT:-$HOME/.pyenv}/versions/$1.*/bin/python" | tail -n 1) ||
        found=$(command -v "python$1") && "$found" -c 'import venv' && echo "$found"
}

# Some tests become another user, to whom root's own directory is closed and with it what pyenv has put there:
# in a mount namespace it is replaced by one that is open and has nothing else.
open_home() { # command
    unshare --mount bash -euc '
        away=$(mktemp -d)
        mount --bind "$HOME/.pyenv" "$away"
        mount -t tmpfs -o mode=755 tmpfs "$HOME"
        mkdir "$HOME/.pyenv"
        mount --move "$away" "$HOME/.pyenv"
        rmdir "$away"
        exec "$@"' - "$@"
}

status=0
for version in ${PYTHONS:-3.10 3.11 3.12 3.13}; do
    python=$(find_python "$version") || { echo "Python $version: not here, skipped"; continue; }
    place=$PWD/build/python/$version
    if [ ! -e "$place/ready" ] || [ pyproject.toml -nt "$place/ready" ]; then
        "$python" -m venv --clear "$place"
        "$place/bin/python" -m pip install --quiet --disable-pip-version-check --use-pep517 -e '.[test,seccomp,signature]'
        touch "$place/ready"
    fi
    echo "Python $("$python" -c 'import platform; print(platform.python_version())')"
    run=("$place/bin/python" -m pytest -q -n 2 -p no:cacheprovider -m "not bench and not device and not packages")
    case $(id -u):$(realpath "$python"):$PWD in
        *:"$HOME"/*:"$HOME"/*) ;; # the project is in there too: no other user gets to it in any case
        0:"$HOME"/*) run=(open_home "${run[@]}") ;;
    esac
    "${run[@]}" tests/unit tests/machine "$@" || status=1
done
exit "$status"
