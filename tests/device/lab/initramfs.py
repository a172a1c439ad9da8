# SPDX-License-Identifier: Apache-2.0
"""A device that is nothing but an initramfs: a kernel, BusyBox, Python and maestrod as process 1."""

from __future__ import annotations

import json
import os
import re
import select
import shutil
import subprocess
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from device.lab import image
from device.lab.architecture import Architecture, chosen
from device.lab.machine import BOOT_TIMEOUT

MODULES = ("virtio_pci", "virtio_blk", "ext4")
"""What the lab's kernel needs for a disk."""

# run in the lab's root; libraries are wanted under the short names that are links there
COLLECT = f"""
set -e
mkdir -p /small/usr/bin /small/usr/sbin /small/usr/lib/modules
cp -P /bin /sbin /lib /small
[ ! -e /lib64 ] || cp -P /lib64 /small
{{
    find usr/lib/python3.11 usr/lib/python3/dist-packages/h11 usr/lib/python3/dist-packages/maestro_py
    ls usr/bin/python3 usr/bin/python3.11 usr/bin/maestro usr/bin/maestrod usr/bin/busybox
}} | cpio --quiet -pdm /small
ldd usr/bin/python3.11 usr/lib/python3.11/lib-dynload/*.so |
    sed -n 's,.*[[:space:]]/\\(lib[^ ]*\\) (0x.*,usr/\\1,p' | sort -u | cpio --quiet -pdmL /small
version=$(ls /lib/modules)
for name in {" ".join(MODULES)}; do modprobe -S "$version" --show-depends $name; done |
    sed -n 's/^insmod //p' | awk '!seen[$1]++' | while read -r file rest; do
        cp "$file" /small/usr/lib/modules
        echo "insmod /usr/lib/modules/${{file##*/}}"
    done >/modules
"""

EARLY = """\
#!/bin/sh
set -e
MODULES
until test -e /dev/vda; do sleep 0.1; done
mkdir -p /var/lib/maestro
mount -t ext4 /dev/vda /var/lib/maestro
"""


def build(config: Mapping[str, Any], place: Path) -> Path:
    """Make an initramfs of the lab's base, this tree's package and a config file; return the file."""
    with tempfile.TemporaryDirectory(dir=image.CACHE, prefix="making-") as work:
        root = Path(work) / "root"
        image.unpack(image.base(chosen()), root)
        image.do("chroot", str(root), "/bin/sh", "-c", COLLECT)
        small = root / "small"
        shutil.copy(image.PROJECT / "packaging/initramfs/init", small / "init")
        (small / "etc/maestro").mkdir(parents=True)
        (small / "etc/maestro/maestro.json").write_text(json.dumps(config))
        early = small / "etc/early"
        early.write_text(EARLY.replace("MODULES\n", (root / "modules").read_text()))
        early.chmod(0o755)
        for name, line in (("passwd", "root:x:0:0::/:/bin/sh"), ("group", "root:x:0:")):
            (small / "etc" / name).write_text(f"{line}\n")
        pack = "cd /small && find . | cpio --quiet -o -H newc | gzip -1 >/small.gz"
        image.do("chroot", str(root), "/bin/sh", "-c", pack)
        shutil.move(root / "small.gz", place)
    return place


class Console:
    """A device that is told what to do on its serial console, by a shell that runs there as a job."""

    def __init__(self, kernel: Path, initrd: Path, disk: Path) -> None:
        kind: Architecture = chosen()
        self.output = ""
        self._at = 0
        self._qemu = subprocess.Popen(
            [
                *kind.emulator, "-accel", "tcg,thread=multi", "-smp", "2", "-m", "1024", "-nodefaults",
                "-no-user-config", "-display", "none", "-serial", "stdio",
                "-kernel", str(kernel), "-initrd", str(initrd),
                "-append", f"console={kind.serial} quiet panic=-1 rdinit=/init",
                "-drive", f"file={disk},format=raw,if=virtio",
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )  # fmt: skip

    def expect(self, pattern: str, timeout: float = BOOT_TIMEOUT) -> re.Match[str]:
        """Wait until it says something that matches, after what was matched before."""
        deadline = time.monotonic() + timeout
        while not (found := re.compile(pattern).search(self.output, self._at)):
            assert self._read(deadline), f"it never said {pattern!r}\n{self.output[-3000:]}"
        self._at = found.end()
        return found

    def _read(self, deadline: float) -> bool:
        """Take up what it says; return whether it may say more."""
        assert self._qemu.stdout
        ready, _, _ = select.select([self._qemu.stdout], [], [], max(0.0, deadline - time.monotonic()))
        data = os.read(self._qemu.stdout.fileno(), 65536) if ready else b""
        self.output += data.decode(errors="replace").replace("\r", "")
        return bool(data)

    def say(self, line: str) -> None:
        """Type a line."""
        assert self._qemu.stdin
        self._qemu.stdin.write(f"{line}\n".encode())
        self._qemu.stdin.flush()

    def run(self, command: str, timeout: float = 60) -> str:
        """Return what a command says."""
        self.say(f"{command}; echo end''-$?-")
        said = self.expect(r"(?s)echo end''-\$\?-\n(.*?)end-(\d+)-\n", timeout)
        assert said[2] == "0", f"{command}: {said[0]}"
        return said[1]

    def wait_off(self, timeout: float = 60) -> int:
        """Wait until the device has switched itself off; return the emulator's exit status."""
        deadline = time.monotonic() + timeout
        while self._read(deadline):
            pass
        return self._qemu.wait(max(1.0, deadline - time.monotonic()))

    def close(self) -> None:
        """Take the power away, should it still be on."""
        self._qemu.kill()
        self._qemu.wait()
        for pipe in (self._qemu.stdin, self._qemu.stdout):
            if pipe:
                pipe.close()
