# SPDX-License-Identifier: Apache-2.0
"""The examples of a text in Markdown: files it shows are written, commands it shows are run."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from support.daemon import PROJECT

_BLOCK = re.compile(r"^```(\w+)(?: (\S+))?\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_EXIT = re.compile(r"# exit (\d+)")


@dataclass(frozen=True)
class Block:
    """A fenced block. With a name it is a file, else it is run when its kind is sh."""

    kind: str
    name: str
    body: str


def blocks(text: str) -> list[Block]:
    """Return the fenced blocks of a text."""
    return [Block(kind, name or "", body) for kind, name, body in _BLOCK.findall(text)]


def unfenced(text: str) -> list[str]:
    """Return what looks like an example and is none that is run: indented blocks."""
    return re.findall(r"^\n {4}.+", _BLOCK.sub("", text), re.MULTILINE)


def script(text: str) -> str:
    """Return a shell script that does what the text shows, and stops at the first surprise.

    A comment `# exit 1` says what a command ends with; what follows (-f) is ended after a moment; a daemon
    that is started in the background is waited for.
    """
    lines = ["set -e"]
    for block in blocks(text):
        if block.kind == "sh" and not block.name:
            for line in block.body.replace("\\\n", " ").splitlines():
                lines += [f"echo {shlex.quote('$ ' + line)}", *_command(line)]
        elif block.name:
            lines += [f"cat >{shlex.quote(block.name)} <<'END-OF-EXAMPLE'", block.body + "END-OF-EXAMPLE"]
    return "\n".join(lines) + "\n"


_WAIT = """\
await() {
    tries=0
    until maestro version >/dev/null 2>&1; do
        kill -0 $daemon && [ $((tries += 1)) -lt 300 ] || { cat maestrod.log; exit 1; }
        sleep 0.1
    done
    await() { :; }
}
trap 'kill $daemon 2>/dev/null && wait $daemon || true' EXIT"""


def _command(line: str) -> Iterator[str]:
    if re.match(r"maestrod .*&\s*(#|$)", line):
        yield from (re.sub(r"&\s*(#.*)?$", ">maestrod.log 2>&1 & daemon=$!", line), _WAIT)
        return
    if line.startswith("maestro "):
        yield "[ -z $daemon ] || await"
    wanted = _EXIT.search(line)
    if wanted:
        yield f"status=0; {line[: wanted.start()]} || status=$?; [ $status -eq {wanted[1]} ]"
    elif re.search(r" -f\b", line):
        yield f"status=0; timeout 2 {line.split(' #')[0]} || status=$?; [ $status -eq 124 ]"
    else:
        yield line


def run(text: str, directory: Path, **env: str) -> str:
    """Do what a text shows, in a directory; return all that is printed. Fails at what is not as shown."""
    bin = directory / "bin"
    bin.mkdir(parents=True)
    for name, module in (("maestro", "maestro_py.cli"), ("maestrod", "maestro_py.daemon")):
        program = bin / name
        program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m {module} "$@"\n')
        program.chmod(0o755)
    path = f"{bin}:{os.environ.get('PATH', '/usr/bin:/bin')}"
    done = subprocess.run(
        ["/bin/bash", "-s"],
        input=script(text),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=directory,
        env={**os.environ, "PYTHONPATH": str(PROJECT), "PATH": path, "COLUMNS": "80", **env},
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout
