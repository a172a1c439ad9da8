# SPDX-License-Identifier: Apache-2.0
"""What the first process of a device has to do beside its work: end the device. Loaded there alone.

Process 1 of a pid namespace is not meant: it ends like any other program, and its namespace with it.
"""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Callable
from functools import partial

from maestro_py.daemon import log
from maestro_py.daemon.loop import Loop
from maestro_py.process import kernel

SIGNALS = {
    signal.SIGTERM: kernel.REBOOT_RESTART,
    signal.SIGINT: kernel.REBOOT_RESTART,
    signal.SIGUSR1: kernel.REBOOT_HALT,
    signal.SIGUSR2: kernel.REBOOT_POWER_OFF,
    signal.SIGPWR: kernel.REBOOT_POWER_OFF,
}
"""What `reboot`, `halt` and `poweroff` of BusyBox send to process 1 (its init/init.c); the kernel sends
SIGINT for Ctrl-Alt-Del (reboot(2)), and whoever watches the power supply SIGPWR."""

PATIENCE = 3.0
"""Seconds in which the processes that are left may end by themselves, before they are killed."""

_FIRST_NAMESPACE = 0xEFFFFFFC
"""Inode of the pid namespace the kernel makes at boot: PROC_PID_INIT_INO of its include/linux/proc_ns.h."""


def of_device() -> bool:
    """Return whether this process is the first one of the whole device."""
    try:
        return os.getpid() == 1 and os.stat("/proc/self/ns/pid").st_ino == _FIRST_NAMESPACE
    except OSError:  # without /proc nothing works, and something else will say so
        return False


class Device:
    """The device whose first process this is."""

    def __init__(self, loop: Loop, shut_down: Callable[[], None]) -> None:
        self._shut_down = shut_down
        self._how = kernel.REBOOT_POWER_OFF
        kernel.reboot(kernel.REBOOT_CAD_OFF)  # Ctrl-Alt-Del is a signal from now on
        for number, how in SIGNALS.items():
            loop.add_signal(number, partial(self._told, how))

    def _told(self, how: int) -> None:
        self._how = how
        self._shut_down()

    def end(self) -> None:
        """End all other processes, put the file systems to rest, and restart, halt or switch off."""
        _end_processes()
        os.sync()
        _put_to_rest()
        log.info("the device ends")
        kernel.reboot(self._how)


def _end_processes() -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.kill(-1, number)
        except ProcessLookupError:
            return
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            try:
                if os.waitpid(-1, os.WNOHANG) == (0, 0):
                    time.sleep(0.01)
            except ChildProcessError:  # all of them were ours: what loses its parent comes to process 1
                return


def _put_to_rest() -> None:
    """Unmount what can be unmounted, the last one first; what is in use becomes read-only."""
    with open("/proc/mounts", encoding="utf-8", errors="surrogateescape") as file:
        lines = [line.split() for line in file]
    for source, target, *_ in reversed(lines):
        path = re.sub(r"\\(\d{3})", lambda match: chr(int(match[1], 8)), target)  # proc_pid_mounts(5)
        try:
            kernel.umount(path)
        except OSError:
            try:
                kernel.mount(source, path, None, kernel.MS_REMOUNT | kernel.MS_RDONLY)
            except OSError:
                pass  # nothing that is on a disk: it has no such state
