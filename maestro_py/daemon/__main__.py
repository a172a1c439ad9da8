# SPDX-License-Identifier: Apache-2.0
"""maestrod as a program; also `python -m maestro_py.daemon`."""

from __future__ import annotations

import sys


def main() -> int:
    """Run the daemon; return its exit status. A Python without what the daemon needs is told in one line."""
    try:
        from maestro_py.daemon.main import main as run
    except ModuleNotFoundError as error:
        name = (error.name or "").lstrip("_")
        if name.startswith("maestro_py"):
            raise
        why = f"{sys.executable} has no module {name} (install it, or a Python that was built with it)"
        print(f"cannot start maestrod: {why}", file=sys.stderr)
        return 1
    return run()


if __name__ == "__main__":
    raise SystemExit(main())
