# SPDX-License-Identifier: Apache-2.0
"""The entry point: parse, run the one family that is needed, turn every outcome into an exit status.

0 done, 1 the thing asked for failed, 2 usage, 3 daemon not reachable; 130 and 141 as a shell would
say it for an interrupt and for a reader of our output that went away.
"""

from __future__ import annotations

import os
import sys

from maestro_py.cli.parser import Call, UsageError, parse
from maestro_py.cli.screen import Screen, standard

TYPE_CHECKING = False  # typing's constant, without the import of typing
if TYPE_CHECKING:
    from collections.abc import Sequence

DONE, FAILED, USAGE, UNREACHABLE, INTERRUPTED, NO_READER = 0, 1, 2, 3, 130, 141


def main(words: Sequence[str] | None = None) -> int:
    """Run one command line (that of the process by default) and return the exit status."""
    screen = standard()
    try:
        status = _run(sys.argv[1:] if words is None else words, screen)
        screen.out.flush()
    except KeyboardInterrupt:
        status = INTERRUPTED
    except BrokenPipeError:
        status = NO_READER
    except OSError as error:
        name = f" {error.filename}" if error.filename else ""
        screen.err.write(f"maestro: cannot go on{name}: {error.strerror or error}\n")
        status = FAILED
    except Exception as error:
        screen.err.write(f"maestro: cannot go on: internal error: {error!r}\n")
        status = FAILED
    try:
        screen.out.flush()
    except OSError:
        # what is still buffered has nowhere to go; keep the interpreter from trying at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), screen.out.fileno())
    return status


def _run(words: Sequence[str], screen: Screen) -> int:
    try:
        call = parse(words)
        if call.flag("help") or call.flag("version"):
            return _inform(call, screen)
        if call.command is None:
            raise UsageError(
                "usage: maestro [--socket PATH] [--json] COMMAND ...", "`maestro --help` lists the commands"
            )
        return _dispatch(call, screen)
    except UsageError as error:
        screen.note(error.message)
        if error.hint:
            screen.note(error.hint)
        return USAGE


def _inform(call: Call, screen: Screen) -> int:
    from maestro_py.cli.helptext import about, overview

    if not call.flag("help"):
        from maestro_py import __version__

        screen.line(f"maestro {__version__}")
    else:
        screen.out.write(about(call.command) if call.command else overview())
    return DONE


def _dispatch(call: Call, screen: Screen) -> int:
    from maestro_py.cli.session import Session

    assert call.command is not None
    family = __import__(f"maestro_py.cli.{call.command.family}", fromlist=["*"])
    session = Session(call, screen)
    try:
        return int(getattr(family, call.command.function)(session))
    except Exception as error:
        from maestro_py.errors import MaestroError

        if not isinstance(error, MaestroError):
            raise
        session.fail(error)
        return UNREACHABLE if error.code == "unavailable" else FAILED
