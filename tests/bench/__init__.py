# SPDX-License-Identifier: Apache-2.0
"""Figures side by side: maestro and whichever other supervisors are installed, in one run."""
