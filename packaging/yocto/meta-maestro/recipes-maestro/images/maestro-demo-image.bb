# SPDX-License-Identifier: Apache-2.0
SUMMARY = "A small image with maestro and a running job"
DESCRIPTION = "Boots into maestrod, which runs the job hello of /etc/maestro/maestro.yaml."
SECTION = "images"
LICENSE = "Apache-2.0"

inherit core-image

IMAGE_LINGUAS = ""
IMAGE_INSTALL = "packagegroup-core-boot packagegroup-maestro ${CORE_IMAGE_EXTRA_INSTALL}"

DEMO_CONFIG = "${THISDIR}/maestro-demo-image/maestro.yaml"

ROOTFS_POSTPROCESS_COMMAND += "install_demo_config"

install_demo_config() {
    install -m 0644 ${DEMO_CONFIG} ${IMAGE_ROOTFS}${sysconfdir}/maestro/maestro.yaml
}
install_demo_config[doc] = "Put the demo's config file in the place of the packaged one"
install_demo_config[file-checksums] = "${DEMO_CONFIG}:True"
do_rootfs[file-checksums] += "${DEMO_CONFIG}:True"
