# SPDX-License-Identifier: Apache-2.0
SUMMARY = "Python library for managing cgroups"
DESCRIPTION = "Nodes and controllers of version 1 control groups as Python objects."
HOMEPAGE = "https://github.com/cloudsigma/cgroupspy"
SECTION = "devel/python"
LICENSE = "BSD-3-Clause"
LIC_FILES_CHKSUM = "file://LICENSE;md5=490066fd7cfd35eabc44075bb71627d4"

inherit pypi python_setuptools_build_meta

SRC_URI[sha256sum] = "8ee941c7ab9234a0b17a81b0b26487f7f1031f78b7a24cdd8eed1b5fa5970496"

RDEPENDS:${PN} += "\
    python3-core \
    python3-logging \
"
