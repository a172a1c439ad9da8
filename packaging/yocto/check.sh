#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Check meta-maestro with real bitbake, without network and without building anything.
#
#   packaging/yocto/check.sh LAYERS [DOWNLOADS]
#
# LAYERS: a directory with openembedded-core, meta-openembedded and bitbake of one series, readable by everybody.
# DOWNLOADS: a directory with the source archives of the layer's recipes; with it do_fetch is run and checks them.
# FULL=1: parse every recipe of the layers, not only those that can be needed. KEEP=DIR: leave the build
# directory there, e.g. for its environment dumps. Started by root, bitbake runs as nobody.
# Says for each init system how the layer parses, whether all dependencies of the demo image and of all packages
# resolve, and fails on any warning or error.
set -euo pipefail

layers=$(realpath "${1:?usage: check.sh LAYERS [DOWNLOADS]}")
downloads=${2:+$(realpath "$2")}
here=$(dirname "$(realpath "$0")")
for name in openembedded-core meta-openembedded bitbake; do
    [ -d "$layers/$name" ] || { echo "cannot check the layer: no $layers/$name" >&2; exit 1; }
done

if [ -n "${KEEP:-}" ]; then
    mkdir -p "$KEEP" && work=$(realpath "$KEEP")
else
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
fi
user=()
[ "$(id -u)" != 0 ] || user=(runuser -u nobody --)

mkdir -p "$work/home" "$work/downloads"
rm -rf "$work/meta-maestro"
cp -r "$here/meta-maestro" "$work"
[ -z "$downloads" ] || cp "$downloads"/*.tar.gz "$work/downloads"

# what no package here can need, nor anything below it
mask='/meta-openembedded/(?!.*/(brotli|c-ares|googletest|nodejs|python3-(h11|pexpect|ptyprocess|pyroute2|pytest-timeout|sdnotify))_)
/openembedded-core/meta/recipes-(rt|sato)/'
[ -z "${FULL:-}" ] || mask=

prepare() { # init manager
    local build=$work/build-$1
    mkdir -p "$build/conf"
    cat >"$build/conf/bblayers.conf" <<CONF
BBPATH = "\${TOPDIR}"
BBFILES ?= ""
BBLAYERS = "$layers/openembedded-core/meta $layers/meta-openembedded/meta-oe \
$layers/meta-openembedded/meta-python $work/meta-maestro"
CONF
    cat >"$build/conf/local.conf" <<CONF
MACHINE = "${MACHINE:-qemuarm64}"
DISTRO = "nodistro"
INIT_MANAGER = "$1"
BB_NO_NETWORK = "1"
INHERIT:remove = "uninative"
DL_DIR = "$work/downloads"
DISTRO_FEATURES:append = " maestro ptest"
PACKAGECONFIG:append:pn-python3-maestro-py = " cgroup-v1 delta signature"
BBMASK = "$(tr '\n' ' ' <<<"$mask")"
CONF
    [ "$(id -u)" != 0 ] || chown -R nobody "$work"
}

bake() { # init manager, arguments of bitbake
    local build=$work/build-$1
    shift
    (cd "$build" && "${user[@]}" env -i HOME="$work/home" USER=nobody LC_ALL=en_US.UTF-8 TERM=dumb \
        BUILDDIR="$build" PATH="$layers/bitbake/bin:$layers/openembedded-core/scripts:/usr/sbin:/usr/bin:/sbin:/bin" \
        bitbake "$@")
}

for init in ${INITS:-systemd sysvinit}; do
    prepare "$init"
    log=$work/$init.log
    echo "== $init: bitbake -g maestro-demo-image packagegroup-maestro"
    bake "$init" -g maestro-demo-image packagegroup-maestro 2>&1 | tee "$log" | grep -E '^(Parsing of|ERROR|WARNING|NOTE: PN build list)'
    for recipe in maestro/python3-maestro-py_*.bb images/maestro-demo-image.bb; do
        name=$(basename "${recipe%%[_.]*}")
        bake "$init" -e -b "$work"/meta-maestro/recipes-maestro/$recipe >"$work/$init-$name.env" 2>>"$log"
    done
    if [ -n "$downloads" ]; then
        echo "== $init: bitbake -c fetch"
        bake "$init" -c fetch python3-maestro-py python3-cgroupspy python3-pyseccomp 2>&1 | tee -a "$log" |
            grep -E 'Tasks Summary|ERROR|WARNING'
    fi
    if grep -E '^(ERROR|WARNING)' "$log"; then
        exit 1
    fi
done
echo "0 errors, 0 warnings"
