# SPDX-License-Identifier: Apache-2.0
"""Printing of the figures, supervisors side by side."""

from __future__ import annotations

import os
import platform
import statistics
from collections.abc import Mapping, Sequence

from .rows import Figure, Figures, Row


def number(value: float) -> str:
    """Return three significant digits, never an exponent."""
    if value == 0:
        return "0"
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2
    return f"{value:.{digits}f}"


def cell(figure: Figure | None) -> str:
    """Return `median (min-max)`, `-` for a figure nobody took."""
    if figure is None:
        return "-"
    if not figure.values:
        return "failed" if figure.note.startswith("failed") else "-"
    text = number(statistics.median(figure.values))
    if len(figure.values) > 1:
        text += f" ({number(min(figure.values))}-{number(max(figure.values))})"
    return text


def verdict(row: Row, figure: Figure | None, join: float) -> str:
    """Return whether the median keeps what the row promises; empty when nothing is promised or known."""
    if row.now is None or figure is None or not figure.values:
        return ""
    median = statistics.median(figure.values)
    target = row.now + (join if row.plus_join else 0)
    return " ok" if (median >= target if row.more_is_better else median <= target) else " MISS"


def target(row: Row) -> str:
    """Return the promised value as text."""
    if row.now is None:
        return ""
    return f"{'≥' if row.more_is_better else '≤'} {row.now:g}" + (" + join" if row.plus_join else "")


def render(rows: Sequence[Row], results: Mapping[str, Figures], join: Figure) -> str:
    """Return the whole table with its notes. `join` is the kernel's cost of joining control groups, ms."""
    cost = statistics.median(join.values) if join.values else 0.0
    lines = [["", "now", *results]]
    for row in rows:
        line = [row.label, target(row)]
        for peer, figures in results.items():
            figure = figures.get(row.key)
            mine = peer.startswith("maestro")
            allowed = cost if peer != "maestro" else 0.0
            line.append(cell(figure) + (verdict(row, figure, allowed) if mine else ""))
        lines.append(line)
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    text = [
        "  ".join(word.ljust(width) for word, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    ]
    text.insert(1, "  ".join("-" * width for width in widths))
    for peer, figures in results.items():
        notes: dict[str, list[str]] = {}
        for row in rows:
            if row.key in figures and figures[row.key].note:
                notes.setdefault(figures[row.key].note, []).append(row.key)
        text += [f"{peer}: {', '.join(keys)}: {note}" for note, keys in notes.items()]
    if join.values:
        text.append(
            f"join: {cell(join)} ms on this kernel, the control groups of a job with limits after an idle gap"
        )
    return "\n".join(text)


def heading() -> str:
    """Return what machine this is."""
    uname = platform.uname()
    cores = len(os.sched_getaffinity(0))
    load = os.getloadavg()[0]
    python = f"Python {platform.python_version()}"
    return f"{uname.system} {uname.release}, {uname.machine}, {cores} cores, {python}, load {load:.1f}"
