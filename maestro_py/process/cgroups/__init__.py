# SPDX-License-Identifier: Apache-2.0
"""Control groups behind one port: v1, v2, both, or none."""
