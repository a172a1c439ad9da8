# SPDX-License-Identifier: Apache-2.0
"""What happened, numbered: a bounded history that followers can resume by id."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from maestro_py.valueclass import valueclass


@valueclass(frozen=True)
class Happened:
    """One event. `time` is unix seconds, for people; `id` grows by one and orders events."""

    id: int
    time: float
    type: str
    job: str
    process: str
    message: str

    def to_json(self) -> dict[str, object]:
        """Return the event as the API sends it."""
        return {
            "id": self.id,
            "time": self.time,
            "type": self.type,
            "job": self.job,
            "process": self.process,
            "message": self.message,
        }


class History:
    """The last `keep` events, after `earlier` ones; without those the first gets the id `first`."""

    def __init__(self, keep: int = 1000, earlier: Iterable[Happened] = (), first: int = 1) -> None:
        self.keep = keep
        self._events: deque[Happened] = deque(earlier, maxlen=keep)
        self._next = self._events[-1].id + 1 if self._events else first

    @property
    def last_id(self) -> int:
        """Id of the newest event; one less than the first to come when there was none."""
        return self._next - 1

    def lost_after(self, id: int) -> Happened | None:
        """Return an event that stands for those after `id` which are kept no more, None when all are."""
        oldest = self._events[0].id if self._events else self._next
        if oldest <= id + 1:
            return None
        when = self._events[0].time if self._events else 0.0
        message = f"events before number {oldest} are not kept any more"
        return Happened(oldest - 1, when, "lost", "", "", message)

    def add(self, time: float, type: str, message: str, *, job: str = "", process: str = "") -> Happened:
        """Append an event and return it."""
        event = Happened(self._next, time, type, job, process, message)
        self._next += 1
        self._events.append(event)
        return event

    def since(self, id: int, limit: int | None = None) -> list[Happened]:
        """Return the events after `id`, oldest first; with a limit, the newest of them."""
        found: list[Happened] = []
        for event in reversed(self._events):  # by id, not by place: a failed write leaves a gap
            if event.id <= id or len(found) == limit:
                break
            found.append(event)
        found.reverse()
        return found
