# SPDX-License-Identifier: Apache-2.0
SUMMARY = "The maestro process supervisor and what its shipped templates run"
SUMMARY:${PN}-node = "Jobs that are Node modules"
SUMMARY:${PN}-test = "The tests, to be run on the device with ptest-runner"
DESCRIPTION = "For IMAGE_INSTALL: the supervisor, and as packages of their own its parts that need more room."
SECTION = "base"

inherit packagegroup

PACKAGES = "${PN} ${PN}-node ${PN}-test"

RDEPENDS:${PN} = "\
    python3-maestro-py \
    python3-maestro-py-template-python-modules \
"
RDEPENDS:${PN}-node = "python3-maestro-py-template-devicejs"
RDEPENDS:${PN}-test = "\
    ptest-runner \
    python3-maestro-py-ptest \
"
