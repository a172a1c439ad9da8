# SPDX-License-Identifier: Apache-2.0
SUMMARY = "Python interface to libseccomp"
DESCRIPTION = "libseccomp through ctypes, with the interface of libseccomp's own Python module."
HOMEPAGE = "https://github.com/cptpcrd/pyseccomp"
SECTION = "devel/python"
LICENSE = "MIT"
# the archive has no licence file
LIC_FILES_CHKSUM = "file://PKG-INFO;beginline=6;endline=6;md5=8227180126797a0148f94f483f3e1489"

SRC_URI += "file://0001-load-the-libraries-by-soname.patch"
SRC_URI[sha256sum] = "0d54efacf71bda4bdfd21233f5444b730cbecf593d602f796e6412a8682258bd"

inherit pypi python_setuptools_build_meta features_check

REQUIRED_DISTRO_FEATURES = "seccomp"

RDEPENDS:${PN} += "\
    libseccomp \
    python3-core \
    python3-ctypes \
"
