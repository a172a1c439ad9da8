# SPDX-License-Identifier: Apache-2.0
# Only for a distribution that asks for it: DISTRO_FEATURES:append = " maestro"
require ${@bb.utils.contains('DISTRO_FEATURES', 'maestro', 'maestro-kernel.inc', '', d)}
