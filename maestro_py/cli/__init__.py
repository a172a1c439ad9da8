# SPDX-License-Identifier: Apache-2.0
"""The maestro command."""
