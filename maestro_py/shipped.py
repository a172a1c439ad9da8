# SPDX-License-Identifier: Apache-2.0
"""Where the files are that come with the program, installed or in a checkout."""

from __future__ import annotations

import os

_PACKAGE = os.path.dirname(os.path.abspath(__file__))


def templates() -> str:
    """Return the directory of the shipped templates."""
    installed = os.path.join(_PACKAGE, "templates")
    return installed if os.path.isdir(installed) else os.path.join(os.path.dirname(_PACKAGE), "templates")
