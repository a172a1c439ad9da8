# SPDX-License-Identifier: Apache-2.0
"""What the device's service manager is told: ready, stopping, still alive (sd_notify(3))."""

from __future__ import annotations

import os
import time
from collections.abc import MutableMapping
from typing import TYPE_CHECKING

from maestro_py.daemon.loop import Loop

if TYPE_CHECKING:
    from sdnotify import SystemdNotifier

_VARIABLES = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")


class Manager:
    """The service manager that started the daemon; nobody, and free of cost, when there is none.

    Its variables are taken out of the environment: a job that inherits that is not the service.
    """

    def __init__(self, loop: Loop, environ: MutableMapping[str, str] = os.environ) -> None:
        self._loop = loop
        self._notifier: SystemdNotifier | None = None
        if environ.get("NOTIFY_SOCKET"):
            from sdnotify import SystemdNotifier

            self._notifier = SystemdNotifier()
        told = {name: environ.pop(name, "") for name in _VARIABLES}
        self.environ = tuple((name, value) for name, value in told.items() if value)
        mine = told["WATCHDOG_PID"] in ("", str(os.getpid()))
        patience = told["WATCHDOG_USEC"]  # microseconds
        self._interval = int(patience) / 2e6 if mine and patience.isdigit() else 0.0

    def ready(self) -> None:
        """Say that the daemon serves; from here on also that it is alive, if the manager wants to know."""
        self._say("READY=1")
        if self._notifier and self._interval:
            self._alive()

    def reloading(self) -> None:
        """Say that the daemon is about to be replaced in place; the new one says that it is ready."""
        # the time tells systemd which READY=1 belongs to it (sd_notify(3), Type=notify-reload)
        self._say(f"RELOADING=1\nMONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")

    def stopping(self) -> None:
        """Say that the daemon is about to end."""
        self._say("STOPPING=1")

    def _alive(self) -> None:
        self._say("WATCHDOG=1")
        self._loop.call_later(self._interval, self._alive)

    def _say(self, state: str) -> None:
        if self._notifier:
            self._notifier.notify(state)
