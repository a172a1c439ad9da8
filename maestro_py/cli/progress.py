# SPDX-License-Identifier: Apache-2.0
"""A task as it goes on: bars that are redrawn on a terminal, a line at start and end elsewhere."""

from __future__ import annotations

import time

from maestro_py.cli.screen import Screen, clean
from maestro_py.units import format_duration, format_size

TYPE_CHECKING = False  # typing's constant, without the import of typing
if TYPE_CHECKING:
    from typing import Any

REDRAW = 0.2
"""Least seconds between two drawings: five a second look alive and leave a slow line room to breathe."""

ENDED = frozenset({"complete", "done", "failed"})
BAR = 20


class Progress:
    """Shows one task's messages and the progress of its parts."""

    def __init__(self, screen: Screen) -> None:
        self._screen = screen
        self._said = 0
        self._states: dict[str, str] = {}
        self._waits_for: list[str] = []
        self._drawn: list[str] = []
        self._when = 0.0

    def update(self, task: dict[str, Any]) -> None:
        """Show what is new in a task."""
        messages, parts = task["messages"][self._said :], task["progress"]
        states = {str(part["subject"]): str(part["state"]) for part in parts}
        if not self._screen.moves:
            self._plain(messages, parts)
        elif (
            messages
            or states != self._states
            or task["waits_for"] != self._waits_for
            or time.monotonic() - self._when >= REDRAW
        ):
            self._draw(messages, [*map(self._bar, parts), *self._waiting(task["waits_for"])])
        else:
            return
        self._said += len(messages)
        self._states, self._waits_for = states, list(task["waits_for"])
        self._screen.out.flush()

    def _plain(self, messages: list[str], parts: list[dict[str, Any]]) -> None:
        for part in parts:
            subject, state = str(part["subject"]), str(part["state"])
            before = self._states.get(subject)
            if state == before:
                continue
            if state in ENDED:
                word = "failed" if state == "failed" else f"done, {format_size(part['done'])}"
                self._screen.line(clean(f"{part['what']} {subject}: {word}"))
            elif before is None or before in ENDED:
                size = f", {format_size(part['total'])}" if part["total"] else ""
                self._screen.line(clean(f"{part['what']} {subject}{size}"))
        for message in messages:
            self._screen.line(clean(message))

    def _draw(self, messages: list[str], bars: list[str]) -> None:
        """Rewrite the bars in place, only those that look different; messages go above them."""
        self._when = time.monotonic()
        out = self._screen.out
        up = len(self._drawn)
        if messages:
            out.write(f"\x1b[{up}A\x1b[J" if up else "")
            for message in messages:
                self._screen.line(clean(message))
            self._drawn, up = [], 0
        out.write(f"\x1b[{up}A" if up else "")
        for number, bar in enumerate(bars):
            if number < up and self._drawn[number] == bar:
                out.write("\x1b[B")
            else:
                out.write(f"\r{bar}\x1b[K\n")
        if len(bars) < up:
            out.write("\x1b[J")
        self._drawn = bars

    def _waiting(self, names: list[str]) -> list[str]:
        text = clean(f"waiting until {', '.join(names)} {'is' if len(names) == 1 else 'are'} ready")
        return [self._screen.clip(text, self._screen.width - 1)] if names else []

    def _bar(self, part: dict[str, Any]) -> str:
        done, total, state = int(part["done"]), part["total"], str(part["state"])
        figures = format_size(done)
        if total:
            share = min(1.0, done / total)
            filled = round(share * BAR)
            figures = f"[{'#' * filled:.<{BAR}}] {share:4.0%}  {figures} of {format_size(total)}"
        if state != "running":
            figures += f"  {state}"
        elif part.get("rate"):
            figures += f"  {format_size(part['rate'])}/s"
            if part.get("eta") is not None:
                figures += f"  {format_duration(part['eta'])} left"
        clip, width = self._screen.clip, self._screen.width - 1
        room = max(10, min(32, width - len(figures) - 2))
        return clip(f"{clip(clean(part['what'] + ' ' + part['subject']), room):<{room}}  {figures}", width)
