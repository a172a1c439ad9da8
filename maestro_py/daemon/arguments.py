# SPDX-License-Identifier: Apache-2.0
"""The command line of maestrod."""

from __future__ import annotations

import getopt
import sys
from dataclasses import replace

import maestro_py
from maestro_py.valueclass import valueclass

USAGE = """\
usage: maestrod [--config FILE] [--root DIR] [--socket PATH]
                [--check] [--check-state] [--version]

Make this device match its running config, and keep its jobs running. Stays in
the foreground.

  --config FILE   the daemon's config file (default /etc/maestro/maestro.yaml)
  --root DIR      keep everything below DIR; needs no root, touches nothing of
                  the system
  --socket PATH   socket of the API (default /run/maestro/maestro.sock, or
                  DIR/run/maestro.sock)
  --check         check the config file and exit
  --check-state   check whether this version could go on with what is stored,
                  and exit
  --version       print the version and exit
"""


@valueclass(frozen=True)
class Arguments:
    """The command line."""

    config: str = ""
    root: str = ""
    socket: str = ""
    check: bool = False
    check_state: bool = False


def parse(argv: list[str]) -> Arguments | int:
    """Return the arguments, or the exit status when there is nothing more to do."""
    try:
        options, rest = getopt.gnu_getopt(
            argv, "h", ["config=", "root=", "socket=", "check", "check-state", "version", "help"]
        )
        if rest:
            raise getopt.GetoptError(f"unexpected argument {rest[0]!r}")
    except getopt.GetoptError as error:
        print(
            f"maestrod: cannot start: {error}\nmaestrod: `maestrod --help` lists the options", file=sys.stderr
        )
        return 2
    found = Arguments()
    for name, value in options:
        if name in ("-h", "--help"):
            print(USAGE, end="")
            return 0
        if name == "--version":
            print(f"maestrod {maestro_py.__version__}")
            return 0
        if name == "--check":
            found = replace(found, check=True)
        elif name == "--check-state":
            found = replace(found, check_state=True)
        elif name == "--config":
            found = replace(found, config=value)
        elif name == "--root":
            found = replace(found, root=value)
        else:
            found = replace(found, socket=value)
    return found
