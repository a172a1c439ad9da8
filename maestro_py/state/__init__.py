# SPDX-License-Identifier: Apache-2.0
"""What must survive a restart: SQLite."""
