# SPDX-License-Identifier: Apache-2.0
"""`python -m maestro_py.cli`, the same as `maestro`."""

from __future__ import annotations

import sys

from maestro_py.cli.main import main

sys.exit(main())
