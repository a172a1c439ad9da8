# SPDX-License-Identifier: Apache-2.0
"""Which known word a mistyped one was meant to be. Pure, and bounded in what it costs."""

from __future__ import annotations

from collections.abc import Iterable

EFFORT = 300_000
"""Letters compared with letters for all words of one document together, some tenths of a second."""


def nearest(word: str, known: Iterable[str], effort: int = EFFORT) -> tuple[str, int]:
    """Return the nearest known word, "" when none is near, and what is left of the effort.

    The only word that begins with the mistyped one is nearest. Else near is one edit for three letters, two
    for up to eight, three beyond. Case does not count. What the effort does not reach is not looked at.
    """
    folded = word.lower()
    limit = 1 if len(word) < 4 else 2 if len(word) < 9 else 3
    best = ""
    score = (limit + 1, 0)
    begun: list[str] = []
    for candidate in known:
        if effort <= 0:
            break
        apart = abs(len(candidate) - len(word))
        effort -= 1
        if len(word) > 2 and candidate.lower().startswith(folded) and len(begun) < 2:
            begun.append(candidate)
        if apart > min(limit, score[0]):
            continue
        edits, cost = _distance(folded, candidate.lower(), min(limit, score[0]))
        effort -= cost
        if (edits, apart) < score:
            best, score = candidate, (edits, apart)
    return (begun[0] if len(begun) == 1 else best), effort


def _distance(a: str, b: str, limit: int) -> tuple[int, int]:
    """Return the edits between two words, and how many pairs of letters were looked at.

    Swapping two neighbours is one edit. More than `limit` is only told as more.
    """
    while a and b and a[0] == b[0]:  # a shared beginning and a shared end cost no edit
        a, b = a[1:], b[1:]
    while a and b and a[-1] == b[-1]:
        a, b = a[:-1], b[:-1]
    older: list[int] = []
    before: list[int] = []
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        older, before, row = before, row, [i]
        for j, y in enumerate(b, 1):
            cost = min(before[j] + 1, row[j - 1] + 1, before[j - 1] + (x != y))
            if i > 1 and j > 1 and x == b[j - 2] and a[i - 2] == y:
                cost = min(cost, older[j - 2] + 1)
            row.append(cost)
        if min(row) > limit and min(before) > limit:
            return limit + 1, i * len(b)
    return row[-1], len(a) * len(b)
