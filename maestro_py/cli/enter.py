# SPDX-License-Identifier: Apache-2.0
"""`exec` and `shell`: the daemon says which process is meant, another program goes there."""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False  # typing's constant, without the import of typing
if TYPE_CHECKING:
    from collections.abc import Sequence

    from maestro_py.cli.session import Session

_ENTER = (
    "import json, sys; sys.path[:] = json.loads(sys.argv.pop(1));"
    "from maestro_py.process.enter import main; sys.exit(main())"
)
"""Modules are found where this process finds them, and not in the directory it stands in."""

_SHELL = ("/bin/sh", "-c", "command -v bash >/dev/null && exec bash --norc -i; exec /bin/sh -i")


def exec(session: Session) -> int:
    """`maestro exec JOB -- COMMAND...`: the exit status is the command's."""
    return _enter(session, session.call.many("command"))


def shell(session: Session) -> int:
    """`maestro shell JOB`: bash where the job has it, else sh."""
    return _enter(session, _SHELL if sys.stdin.isatty() else ("/bin/sh",))


def _enter(session: Session, command: Sequence[str]) -> int:
    import json

    target = session.client.process(session.call.text("job"))
    sys.stdout.flush()
    words = [sys.executable, "-I", "-c", _ENTER, json.dumps(sys.path), json.dumps(target)]
    os.execv(sys.executable, [*words, *command])
