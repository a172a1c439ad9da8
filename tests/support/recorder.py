# SPDX-License-Identifier: Apache-2.0
"""A stand-in for the programs that configurations of gateways name: it records how it was started."""

from __future__ import annotations

import os
from pathlib import Path

_SCRIPT = """\
#!/bin/sh
# what it prints says that all of it is written down
to={records}/$MAESTRO_PROCESS.$$
/bin/mkdir "$to"
/bin/cat "/proc/$$/cmdline" >"$to/argv"
/bin/cat "/proc/$$/environ" >"$to/environ"
/bin/cat >"$to/stdin"
/bin/rm -rf "{records}/$MAESTRO_PROCESS"
/bin/mv "$to" "{records}/$MAESTRO_PROCESS"
echo recorded
/bin/sleep {pause}
echo '!!OK!!'
exec /bin/sleep 1000
"""


class Recorder:
    """Makes stand-ins and reads what they recorded, by the name of the process they ran as.

    It is a shell script, small enough for the memory limits such configurations have.
    """

    def __init__(self, records: Path) -> None:
        self.records = records
        records.mkdir(parents=True)

    def install(self, *paths: Path, pause: float = 0) -> None:
        """Put a stand-in at each path. pause: seconds until it says OK."""
        for path in paths:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(_SCRIPT.format(records=self.records, pause=pause))
            path.chmod(0o755)

    def argv(self, process: str) -> list[str]:
        """Return the program and its arguments; the interpreter of the stand-in is left out."""
        return self._entries(process, "argv")[1:]

    def environ(self, process: str) -> list[tuple[str, str]]:
        """Return the environment as it was handed over, in order."""
        pairs = (entry.partition("=") for entry in self._entries(process, "environ"))
        return [(name, value) for name, _, value in pairs]

    def stdin(self, process: str) -> str:
        """Return what was on standard input until its end."""
        return os.fsdecode((self.records / process / "stdin").read_bytes())

    def _entries(self, process: str, what: str) -> list[str]:
        data = (self.records / process / what).read_bytes()
        return [os.fsdecode(entry) for entry in data.split(b"\0")[:-1]]
