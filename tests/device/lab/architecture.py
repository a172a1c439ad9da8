# SPDX-License-Identifier: Apache-2.0
"""The processors a device of the lab can have. MAESTRO_DEVICE chooses one, by Debian's name for it."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass

PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"


@dataclass(frozen=True)
class Architecture:
    """One kind of processor, and what makes and emulates a device with it."""

    name: str
    """As Debian calls it."""
    kernel: str
    """Debian's package with the kernel."""
    emulator: tuple[str, ...]
    """QEMU's program, the board and the processor."""
    serial: str
    """The console's device."""
    wheels: tuple[str, ...]
    """Platforms whose wheels its Python can use (PEP 600)."""

    def missing(self) -> str:
        """Return why no such device can be made here; empty when one can."""
        if not shutil.which(self.emulator[0], path=PATH):
            return f"needs {self.emulator[0]}"
        if self.name == _own() or not _status("arch-test", self.name):
            return ""
        return (
            f"needs to run programs of {self.name}: apt-get install arch-test qemu-user-static "
            "binfmt-support; mount -t binfmt_misc binfmt_misc /proc/sys/fs/binfmt_misc; "
            "update-binfmts --enable"
        )


ARCHITECTURES = {
    kind.name: kind
    for kind in (
        Architecture(
            "amd64",
            "linux-image-cloud-amd64",
            ("qemu-system-x86_64", "-cpu", "max"),
            "ttyS0",
            ("manylinux2014_x86_64", "manylinux_2_17_x86_64", "manylinux_2_28_x86_64"),
        ),
        Architecture(
            "arm64",
            "linux-image-cloud-arm64",
            # pointer authentication, which `max` has, doubles the time of every call under emulation
            ("qemu-system-aarch64", "-M", "virt", "-cpu", "cortex-a72"),
            "ttyAMA0",
            ("manylinux2014_aarch64", "manylinux_2_17_aarch64", "manylinux_2_28_aarch64"),
        ),
    )
}


def _own() -> str:
    command = ["dpkg", "--print-architecture"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


def _status(*command: str) -> int:
    """Return a command's exit status, 127 when there is no such command."""
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode
    except FileNotFoundError:
        return 127


def chosen() -> Architecture:
    """Return the one this run is for."""
    name = os.environ.get("MAESTRO_DEVICE", "amd64")
    if name not in ARCHITECTURES:
        raise ValueError(f"MAESTRO_DEVICE is {name!r}, expected one of {', '.join(ARCHITECTURES)}")
    return ARCHITECTURES[name]
