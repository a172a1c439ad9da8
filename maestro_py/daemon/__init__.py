# SPDX-License-Identifier: Apache-2.0
"""The only place that decides and acts."""
