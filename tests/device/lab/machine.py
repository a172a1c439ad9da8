# SPDX-License-Identifier: Apache-2.0
"""A device under QEMU's software emulation, and the channel on which it is told what to run."""

from __future__ import annotations

import json
import os
import shlex
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from device.lab.image import CACHE, Image

BOOT_TIMEOUT = 600.0
TIMEOUT = 180.0
"""Seconds for a command: another processor is emulated, and by a machine that may be busy."""

KERNEL = (
    "root=/dev/vda rw quiet systemd.unified_cgroup_hierarchy=1 systemd.show_status=1 "
    # an emulated processor may be caught in the kernel's tests of its ciphers: left out; and then begin again
    "cryptomgr.notests panic=5 softlockup_panic=1 watchdog_thresh=60"
)


def own_disk(image: Image, path: Path) -> Path:
    """Return a disk that begins as the image and keeps what is written to it."""
    command = ["qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", str(image.disk), str(path)]
    subprocess.run(command, check=True)
    return path


class Machine:
    """A booted device. Its disk is the image, what it writes there is gone when it is switched off.

    disk: another one, whose writes are kept (see `own_disk`). append: more for the kernel's command line.
    """

    def __init__(self, image: Image, disk: Path | None = None, append: str = "") -> None:
        self._place = tempfile.TemporaryDirectory(prefix="maestro-lab-")
        kind = image.architecture
        self.console = CACHE / f"console-{kind.name}.log"
        path = str(Path(self._place.name) / "port")
        self._asked = 0
        drive = f"file={disk},format=qcow2,if=virtio"
        if disk is None:
            drive = f"file={image.disk},format=raw,if=virtio,snapshot=on"
        self._unread = b""
        self._qemu = subprocess.Popen(
            [
                *kind.emulator, "-accel", "tcg,thread=multi", "-smp", "2", "-m", "2048",
                "-nodefaults", "-no-user-config", "-display", "none", "-serial", f"file:{self.console}",
                "-kernel", str(image.kernel), "-initrd", str(image.initrd),
                "-append", f"console={kind.serial} {KERNEL} {append}",
                "-drive", drive,
                "-device", "virtio-serial-pci", "-device", "virtserialport,chardev=lab,name=maestro.lab",
                "-chardev", f"socket,id=lab,path={path},server=on,wait=off",
            ],
            stdin=subprocess.DEVNULL,
            env={**os.environ, "TMPDIR": self._place.name},
        )  # fmt: skip
        self._port = socket.socket(socket.AF_UNIX)
        try:
            self._connect(path)
            self.attempt(":", patience=BOOT_TIMEOUT)
        except BaseException:
            self.close()
            raise

    def _connect(self, path: str) -> None:
        deadline = time.monotonic() + 20
        while True:
            try:
                self._port.connect(path)
                return
            except OSError:
                if self._qemu.poll() is not None or time.monotonic() > deadline:
                    raise AssertionError(f"QEMU did not start: exit {self._qemu.poll()}") from None
                time.sleep(0.02)

    def attempt(self, command: str, timeout: float = TIMEOUT, patience: float = 30) -> tuple[int, str]:
        """Return status and output of a shell command run as root.

        timeout: seconds, after which it is ended, status 124. patience: seconds more for the answer.
        """
        self._asked += 1
        request = {"id": self._asked, "run": command, "timeout": timeout}
        self._port.settimeout(timeout + patience)
        try:
            self._port.sendall(json.dumps(request).encode() + b"\n")
            while True:
                answer = self._answer()
                if answer["id"] == self._asked:
                    return answer["code"], answer["out"]
        except TimeoutError:
            raise AssertionError(f"no answer to {command[:200]!r}\n{self._last_words()}") from None

    def _answer(self) -> dict[str, Any]:
        while b"\n" not in self._unread:
            data = self._port.recv(65536)
            if not data:
                raise AssertionError(f"the device has gone\n{self._last_words()}")
            self._unread += data
        line, _, self._unread = self._unread.partition(b"\n")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def run(self, command: str, timeout: float = TIMEOUT) -> str:
        """Return the output of a shell command that must work."""
        code, out = self.attempt(command, timeout)
        assert code == 0, f"{command}\nexit {code}\n{out}"
        return out

    def write(self, path: str, text: str) -> None:
        """Write a file in the device."""
        self.run(f"mkdir -p $(dirname {path}) && printf %s {shlex.quote(text)} > {path}")

    def maestro(self, *arguments: str, timeout: float = TIMEOUT) -> dict[str, Any]:
        """Run the maestro command, which must work, and return what it printed as JSON."""
        out = self.run(f"maestro --json {' '.join(map(shlex.quote, arguments))}", timeout)
        answer: dict[str, Any] = json.loads(out)
        return answer

    def apply(self, *jobs: Mapping[str, Any], **keys: Any) -> dict[str, Any]:
        """Apply a running config of these jobs, which must work; return the ended task."""
        self.write("/run/applied.json", json.dumps({"jobs": jobs, **keys}))
        return self.maestro("apply", "/run/applied.json")

    def job(self, name: str) -> dict[str, Any]:
        """Return the status row of a job."""
        row: dict[str, Any] = self.maestro("status", name)["jobs"][0]
        return row

    def clear(self) -> None:
        """Make sure that the service is up as it was shipped, and has nothing to run."""
        self.run("rm -rf /run/systemd/system/maestrod.service.d; systemctl daemon-reload")
        self.run("systemctl reset-failed; systemctl start maestrod")
        self.apply()

    def set(self, **settings: str) -> None:
        """Change settings of the service until `clear`."""
        lines = "".join(f"{name}={value}\n" for name, value in settings.items())
        self.write("/run/systemd/system/maestrod.service.d/test.conf", f"[Service]\n{lines}")
        self.run("systemctl daemon-reload")

    def show(self, what: str, unit: str = "maestrod.service") -> str:
        """Return a property of a unit, as systemd knows it."""
        return self.run(f"systemctl show --value -p {what} {unit}").strip()

    def until(self, command: str, timeout: float = TIMEOUT) -> str:
        """Return the output of a shell command once it succeeds."""
        end = "[ $(cut -d . -f 1 /proc/uptime) -lt $end ] || exit 1; sleep 0.2"
        start = f"end=$(($(cut -d . -f 1 /proc/uptime) + {timeout:.0f}))"
        return self.run(f"{start}; until {{ {command}\n}}; do {end}; done", timeout + 30)

    def reboot(self) -> None:
        """Restart it and wait until it takes commands again; its disk keeps what was written."""
        boot = self.run("cat /proc/sys/kernel/random/boot_id")
        # a moment later, or the answer is lost with the agent
        self.run("(sleep 1; systemctl reboot) >/dev/null 2>&1 &")
        deadline = time.monotonic() + BOOT_TIMEOUT
        while True:
            try:
                if self.attempt("cat /proc/sys/kernel/random/boot_id", 5, 5) != (0, boot):
                    return
            except AssertionError:
                pass
            assert time.monotonic() < deadline, f"it did not come back\n{self._last_words()}"
            time.sleep(0.5)

    def begin(self, command: str) -> None:
        """Have a shell command run and do not wait for it."""
        self._asked += 1
        request = {"id": self._asked, "run": command, "timeout": 60}
        self._port.sendall(json.dumps(request).encode() + b"\n")

    def close(self) -> None:
        """Switch it off, as a power cut does: at once."""
        self._port.close()
        self._qemu.send_signal(signal.SIGKILL)
        self._qemu.wait()
        self._place.cleanup()

    def _last_words(self) -> str:
        return self.console.read_text(errors="replace")[-3000:] if self.console.exists() else ""
