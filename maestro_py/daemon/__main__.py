# SPDX-License-Identifier: Apache-2.0
"""`python -m maestro_py.daemon` is maestrod."""

from maestro_py.daemon.main import main

raise SystemExit(main())
