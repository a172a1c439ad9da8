# SPDX-License-Identifier: Apache-2.0
"""Places where a crash would hurt most, by name; tests kill the program exactly there."""

from __future__ import annotations

import os
import signal

_wanted, _, _count = os.environ.get("MAESTRO_FAULT_POINT", "").partition("*")
_left = int(_count) if _count.isdigit() else 1


def reach(name: str) -> None:
    """Die by SIGKILL if the environment says `MAESTRO_FAULT_POINT=<name>` or `<name>*<nth time>`."""
    global _left
    if name == _wanted:
        _left -= 1
        if _left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
