# nooelint: oelint.var.mandatoryvar.HOMEPAGE - the class pypi sets it
# SPDX-License-Identifier: Apache-2.0
SUMMARY = "Process supervisor for small Linux devices"
DESCRIPTION = "maestrod makes a device match one JSON document of jobs, images and configs; maestro is its command."
SECTION = "devel/python"
LICENSE = "Apache-2.0"
LIC_FILES_CHKSUM = "file://LICENSE;md5=3b83ef96387f14655fc854ddc3c6bd57"

PYPI_PACKAGE = "maestro_py"

SRC_URI += "file://run-ptest"
SRC_URI[sha256sum] = "0d6fae3126a96ec952376c885c8b448a2ba19ad71c329580454d3193158238a8"

# the clone of the project that this layer is part of, for EXTERNALSRC (packaging/yocto/README.md)
# nooelint: oelint.vars.mispell.unknown - only users' own settings read it
MAESTRO_TREE = "${@os.path.abspath('${THISDIR}/../../../../..')}"

inherit pypi python_hatchling systemd update-rc.d useradd ptest-python-pytest bash-completion

# What the daemon can do without, each with the packages it needs. Asked for on a device that lacks it, it is
# refused with a sentence that says so; everything else goes on.
PACKAGECONFIG ?= "\
    http \
    network \
    top \
    yaml \
    zstd \
    ${@bb.utils.filter('DISTRO_FEATURES', 'seccomp systemd', d)} \
"
# limits on kernels that are booted with version 1 control groups
PACKAGECONFIG[cgroup-v1] = ",,,python3-cgroupspy"
# images as differences to what is there
PACKAGECONFIG[delta] = ",,,zstd"
# images from http and https addresses; without it from files
PACKAGECONFIG[http] = ",,,python3-requests ca-certificates"
# `network: private`: namespaces, bridges, published ports
PACKAGECONFIG[network] = ",,,python3-pyroute2"
# `seccomp: default`
PACKAGECONFIG[seccomp] = ",,,python3-pyseccomp"
# signatures of images
PACKAGECONFIG[signature] = ",,,python3-cryptography"
# readiness and watchdog of the service
PACKAGECONFIG[systemd] = ",,,python3-sdnotify"
# `maestro top`
PACKAGECONFIG[top] = ",,,python3-psutil"
# config files and documents in YAML; without it in JSON
PACKAGECONFIG[yaml] = ",,,python3-pyyaml"
# images compressed with zstd
PACKAGECONFIG[zstd] = ",,,libzstd"

SYSTEMD_SERVICE:${PN} = "maestrod.service"
INITSCRIPT_NAME = "maestrod"
INITSCRIPT_PARAMS = "defaults 90 10"

# members of the group maestro may operate the daemon; maestro-fetch downloads images
USERADD_PACKAGES = "${PN}"
GROUPADD_PARAM:${PN} = "--system maestro; --system maestro-fetch"
USERADD_PARAM:${PN} = "--system --gid maestro-fetch --no-create-home --shell /sbin/nologin maestro-fetch"

do_install:append() {
    # the wheel brings these below ${prefix}, for systems that have no package of their own for them
    rm -rf ${D}${prefix}/lib/systemd ${D}${datadir}/maestro
    install -d ${D}${systemd_system_unitdir}
    install -m 0644 ${S}/packaging/systemd/maestrod.service ${D}${systemd_system_unitdir}
    install -m 0644 ${S}/packaging/systemd/maestro-jobs.service ${D}${systemd_system_unitdir}
    install -d ${D}${sysconfdir}/init.d
    install -m 0755 ${S}/packaging/sysvinit/maestrod ${D}${sysconfdir}/init.d/maestrod
    install -d ${D}${sysconfdir}/maestro
    install -m 0644 ${S}/packaging/maestro.yaml ${D}${sysconfdir}/maestro/maestro.yaml
}

do_install_ptest:append() {
    install -m 0644 ${S}/pyproject.toml ${D}${PTEST_PATH}/pyproject.toml
}

PACKAGE_BEFORE_PN += "${PN}-template-devicejs ${PN}-template-python-modules"

FILES:${PN} += "${systemd_system_unitdir}/maestro-jobs.service ${datadir}/fish/* ${datadir}/zsh/*"
FILES:${PN}-template-devicejs += "${PYTHON_SITEPACKAGES_DIR}/maestro_py/templates/devicejs*"
FILES:${PN}-template-python-modules += "${PYTHON_SITEPACKAGES_DIR}/maestro_py/templates/python-modules*"

CONFFILES:${PN} = "${sysconfdir}/maestro/maestro.yaml"

# the standard library is split: packaging/stdlib.txt says which module is why
RDEPENDS:${PN} += "\
    python3-compression \
    python3-core \
    python3-crypt \
    python3-ctypes \
    python3-datetime \
    python3-email \
    python3-h11 \
    python3-io \
    python3-json \
    python3-mmap \
    python3-netclient \
    python3-resource \
    python3-sqlite3 \
    python3-terminal \
    python3-threading \
"
RDEPENDS:${PN}-template-devicejs += "${PN} nodejs"
RDEPENDS:${PN}-template-python-modules += "${PN}"
RDEPENDS:${PN}-ptest += "\
    python3-hypothesis \
    python3-jsonschema \
    python3-modules \
    python3-pytest-timeout \
    python3-pyyaml \
"
RRECOMMENDS:${PN} += "${PN}-template-python-modules"
