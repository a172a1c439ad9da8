# SPDX-License-Identifier: Apache-2.0
"""Native process supervisor for small Linux devices."""

__version__ = "0.1.0"
