# SPDX-License-Identifier: Apache-2.0
"""A plan as a person approves it, and what came of it in one line."""

from __future__ import annotations

from maestro_py.cli.screen import Screen, clean, wrap

TYPE_CHECKING = False  # typing's constant, without the import of typing
if TYPE_CHECKING:
    from typing import Any

SYMBOLS = {
    "fetch-image": "+",
    "fetch-config": "+",
    "place-config": "+",
    "start": "+",
    "stop": "-",
    "remove-job": "-",
    "remove-image": "-",
}
"""What comes, what goes; everything else changes something that stays: `~`."""

OUTCOMES = (
    ("start", "to start", "started"),
    ("restart", "to restart", "restarted"),
    ("reload", "to reload", "reloaded"),
    ("stop", "to stop", "stopped"),
    ("set-limits", "with new limits", "with new limits"),
    ("update", "to update", "updated"),
    ("fetch-image", "to download", "downloaded"),
    ("remove-job", "to remove", "removed"),
)
"""Actions that are counted, with the words before and after."""


def folded(plan: dict[str, Any]) -> list[dict[str, str]]:
    """Return the steps with each stop and start of one process folded into one `restart`."""
    starts = {step["subject"] for step in plan["steps"] if step["action"] == "start"}
    both = {step["subject"] for step in plan["steps"] if step["action"] == "stop"} & starts
    steps = []
    for step in plan["steps"]:
        if step["subject"] in both and step["action"] == "stop":
            steps.append({**step, "action": "restart"})
        elif step["subject"] not in both or step["action"] != "start":
            steps.append(step)
    return steps


def show(screen: Screen, plan: dict[str, Any]) -> None:
    """Write the steps, aligned, long reasons wrapped below themselves, and a closing line."""
    steps = folded(plan)
    if not steps:
        screen.line("nothing to change")
        return
    actions = max(len(step["action"]) for step in steps)
    subjects = min(24, max(len(clean(step["subject"])) for step in steps))
    margin = 2 + 2 + actions + 2 + subjects + 2
    for step in steps:
        symbol = SYMBOLS.get(step["action"], "~")
        head = f"{step['action']:<{actions}}  {clean(step['subject']):<{subjects}}"
        reason = wrap(clean(step["reason"]), max(20, screen.width - margin), margin)
        screen.line(f"  {screen.paint(symbol)} {head}  {reason}".rstrip())
    screen.line()
    screen.prose(f"plan: {summary(plan, done=False)}", margin=2)


def summary(plan: dict[str, Any], *, done: bool) -> str:
    """Return `3 started, 1 restarted`, or with `done` false `3 to start, 1 to restart`."""
    steps = folded(plan)
    parts = []
    for action, before, after in OUTCOMES:
        count = sum(step["action"] == action for step in steps)
        if count:
            parts.append(f"{count} {after if done else before}")
    if not parts:
        return "nothing to change" if not steps else f"{len(steps)} step{'s' if len(steps) > 1 else ''}"
    return ", ".join(parts)
