# SPDX-License-Identifier: Apache-2.0
"""`python -m maestro_py.daemon.openapi` writes openapi.json."""

from __future__ import annotations

from maestro_py.daemon.openapi.document import FILE, text

if __name__ == "__main__":
    made = text()
    with open(FILE, "w", encoding="utf-8") as file:
        file.write(made)
