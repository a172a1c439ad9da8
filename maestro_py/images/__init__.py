# SPDX-License-Identifier: Apache-2.0
"""Archives to directories, safely."""
