# SPDX-License-Identifier: Apache-2.0
"""The capabilities a process keeps (capabilities(7)), and that it can get no others.

Two steps around the change of user: the first, still with every right, takes the rest out of the
bounding set and says that user 0 means nothing to exec; the second sets what is kept, in the ambient
set too, so that it survives the exec of an ordinary program.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from typing import ClassVar

from maestro_py.errors import Unsupported
from maestro_py.process import kernel
from maestro_py.process.steps import Step
from maestro_py.spec.isolation import CAPABILITIES
from maestro_py.valueclass import valueclass

_SETPCAP = 1 << CAPABILITIES.index("setpcap")


@valueclass(frozen=True)
class DropCapabilities:
    """Take capabilities out of the bounding set, by number; exec as user 0 gives none any more."""

    numbers: tuple[int, ...]
    name: ClassVar[str] = "capabilities"
    libc: ClassVar[bool] = True

    def describe(self) -> str:
        """Return what it does."""
        return "drop capabilities"

    def run(self) -> None:
        """prctl(PR_CAPBSET_DROP) for each; those that are kept outlive setresuid(2)."""
        bits = kernel.SECBIT_NOROOT | kernel.SECBIT_NOROOT_LOCKED | kernel.SECBIT_KEEP_CAPS
        kernel.prctl(kernel.PR_SET_SECUREBITS, bits)
        for number in self.numbers:
            kernel.prctl(kernel.PR_CAPBSET_DROP, number)


@valueclass(frozen=True)
class KeepCapabilities:
    """Have exactly these capabilities, by number."""

    numbers: tuple[int, ...]
    name: ClassVar[str] = "capabilities"
    libc: ClassVar[bool] = True

    def describe(self) -> str:
        """Return what it does."""
        return f"keep the capabilities {', '.join(CAPABILITIES[n] for n in self.numbers) or '(none)'}"

    def run(self) -> None:
        """capset(2), then the ambient set."""
        mask = sum(1 << number for number in self.numbers)
        # until exec this is a copy of the daemon: nobody with the same rights shall look into it
        kernel.prctl(kernel.PR_SET_DUMPABLE, 0)
        try:
            kernel.prctl(kernel.PR_CAP_AMBIENT, kernel.PR_CAP_AMBIENT_CLEAR_ALL)
        except OSError as error:
            if error.errno != errno.EINVAL or mask:  # Linux 4.3 has it
                raise
        kernel.set_capabilities(mask)
        for number in self.numbers:
            kernel.prctl(kernel.PR_CAP_AMBIENT, kernel.PR_CAP_AMBIENT_RAISE, number)


def steps(names: Sequence[str] | None, doing: str) -> tuple[list[Step], list[Step]]:
    """Return the steps before and after the change of user; None: what the user has by itself.

    Raises Unsupported when the daemon lacks one of them; `doing` starts the message, as "run x".
    """
    own = kernel.capabilities()
    if names is None:
        # a daemon that is not root may have been given some; they are not for its jobs
        return [], ([KeepCapabilities(())] if own.get("CapAmb") and os.geteuid() != 0 else [])
    numbers = tuple(CAPABILITIES.index(name) for name in names)
    missing = [name for name, number in zip(names, numbers, strict=True) if not own["CapPrm"] >> number & 1]
    if missing:
        why = f"maestrod itself has not the capability {', '.join(missing)}"
        hint = "" if os.geteuid() == 0 else "run maestrod as root, or leave it out of capabilities"
        raise Unsupported(f"cannot {doing} with its capabilities: {why}", hint=hint)
    if not own["CapEff"] & _SETPCAP:
        return [], [KeepCapabilities(numbers)]
    drop = tuple(n for n in range(own["CapBnd"].bit_length()) if own["CapBnd"] >> n & 1 and n not in numbers)
    return [DropCapabilities(drop)], [KeepCapabilities(numbers)]
