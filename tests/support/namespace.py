# SPDX-License-Identifier: Apache-2.0
"""A shell with mounts and process numbers of its own: whatever is started in it ends with it."""

from __future__ import annotations

import os
import re
import select
import subprocess
import time
from types import TracebackType


class Shell:
    """`with Shell() as shell: status, said = shell.run("...")`."""

    def __init__(self) -> None:
        enter = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--propagation", "private"]
        # process 1 of the namespace collects what loses its parent, as the first process of a system does
        self._process = subprocess.Popen(
            [*enter, "sh"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            bufsize=0,
        )
        self._number = 0
        self.check("mount -t proc proc /proc")

    def run(self, command: str, timeout: float = 120) -> tuple[int, str]:
        """Run a command to its end; return its exit status and what it said."""
        status, said = self._say(f"( {command}\n) </dev/null; echo END $?", timeout)
        return int(status), said

    def enter(self, root: str) -> None:
        """Have a directory be `/` for all commands from here on."""
        # nothing more may be written before the next shell reads
        self._say(f"exec chroot {root} sh -c 'echo END 0; exec sh'", 60)

    def _say(self, line: str, timeout: float) -> tuple[str, str]:
        """Write a line to the shell; return what comes with the end mark and what comes before it."""
        assert self._process.stdin
        assert self._process.stdout
        self._number += 1
        end = f"=end-{self._number}="
        self._process.stdin.write(line.replace("END", end).encode() + b"\n")
        said = ""
        deadline = time.monotonic() + timeout
        while not (match := re.search(rf"{end} (\d+)\n", said)):
            ready, _, _ = select.select([self._process.stdout], [], [], max(0, deadline - time.monotonic()))
            more = os.read(self._process.stdout.fileno(), 1 << 16) if ready else b""
            assert more, f"{line}: no end, so far:\n{said}"
            said += more.decode(errors="replace")
        return match[1], said[: match.start()]

    def check(self, command: str, timeout: float = 120) -> str:
        """Run a command that has to work; return what it said."""
        status, said = self.run(command, timeout)
        assert status == 0, f"{command}: {status}\n{said}"
        return said

    def until(self, command: str, timeout: float = 60) -> str:
        """Run a command again until it works."""
        deadline = time.monotonic() + timeout
        while True:
            status, said = self.run(command)
            if status == 0:
                return said
            assert time.monotonic() < deadline, f"{command}: {status}\n{said}"
            time.sleep(0.2)

    def __enter__(self) -> Shell:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.communicate()
