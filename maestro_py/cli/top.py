# SPDX-License-Identifier: Apache-2.0
"""`top`: what jobs use of processor and memory, as a page that lives or as one table.

Memory, its peak and its limit are what the daemon reads from a job's control group. Processor time
and the number of processes are read here, from /proc by psutil: a process belongs to a job when it
is in the same control group as the job's main process, or descends from it.
"""

from __future__ import annotations

import time

from maestro_py.cli.screen import clean

TYPE_CHECKING = False  # typing's constant, without the import of typing
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from maestro_py.cli.session import Session

INTERVAL = 2.0
"""Seconds between two looks."""

_ONCE = 0.5  # seconds over which a single table is measured

HEAD = ("JOB", "STATE", "PID", "CPU%", "MEMORY", "PEAK", "LIMIT", "PROCS", "RST", "UP")
_RIGHT = (2, 3, 4, 5, 6, 7, 8)
_SHRINK = ((0, 16), (1, 8), (0, 8))
_DROP = (5, 7, 6, 2, 8, 9)


def top(session: Session) -> int:
    """`maestro top [JOB...] [--interval S] [--sort KEY]`."""
    names = session.job_names(session.call.many("job"))
    interval = session.call.seconds("interval") or INTERVAL
    sort = str((session.call.values.get("sort") or ["cpu"])[0])
    meter = _Meter(session, names)
    if session.json or not session.screen.moves:
        meter.look()
        time.sleep(min(interval, _ONCE))
        rows = _sorted(meter.look(), sort)
        if session.json:
            session.screen.json({"jobs": rows})
        else:
            session.screen.lines(_table(session, rows))
        return 0
    _live(session, meter, interval, sort)
    return 0


def _live(session: Session, meter: _Meter, interval: float, sort: str) -> None:
    from maestro_py.cli.live import Live
    from maestro_py.errors import Unavailable

    keys = {"c": "cpu", "m": "memory", "j": "job"}
    meter.look()
    rows: list[dict[str, Any]] = []
    note, pause = "", _ONCE
    with Live(session.screen) as page:
        while True:
            key = page.wait(pause)
            if key in ("q", "\x1b", "\x03", "\x04"):
                return
            sort = keys.get(key, sort)
            if not key:
                try:
                    rows, note = meter.look(), ""
                except Unavailable as error:
                    note = error.message
            pause = interval
            page.draw([*_heading(session, rows, sort, note), *_table(session, _sorted(rows, sort))])


def _heading(session: Session, rows: Sequence[Mapping[str, Any]], sort: str, note: str) -> list[str]:
    from maestro_py.units import format_size

    running = sum(row["state"] == "RUNNING" for row in rows)
    cpu = sum(row["cpu"] or 0.0 for row in rows)
    memory = format_size(sum(row["memory"] or 0 for row in rows))
    left = f"{time.strftime('%H:%M:%S')}  {running} of {len(rows)} running  cpu {cpu:.1f}%  memory {memory}"
    right = f"sort: {sort} (c m j)  q quits"
    line = f"{left}{right:>{max(2 + len(right), session.screen.width - len(left))}}"
    return [session.screen.clip(line, session.screen.width), session.screen.clip(note, session.screen.width)]


def _table(session: Session, rows: Sequence[Mapping[str, Any]]) -> list[str]:
    cells = [_cells(row) for row in rows]
    return session.screen.table(HEAD, cells, shrink=_SHRINK, right=_RIGHT, drop=_DROP)


def _cells(row: Mapping[str, Any]) -> tuple[str, ...]:
    from maestro_py.units import format_duration, format_size

    def size(key: str) -> str:
        return "-" if row[key] is None else format_size(row[key])

    return (
        clean(row["job"]),
        row["state"],
        str(row["pid"] or "-"),
        "-" if row["cpu"] is None else f"{row['cpu']:.1f}",
        size("memory"),
        size("peak"),
        size("limit"),
        str(row["processes"] or "-"),
        str(row["restarts"]),
        "-" if row["uptime"] is None else format_duration(int(row["uptime"])),
    )


def _sorted(rows: list[dict[str, Any]], key: str) -> list[dict[str, Any]]:
    if key == "job":
        return sorted(rows, key=lambda row: str(row["job"]))
    return sorted(rows, key=lambda row: (-(row[key] or 0), str(row["job"])))


class _Meter:
    """Looks at the daemon and at /proc, and knows what it saw the last time."""

    def __init__(self, session: Session, names: Sequence[str]) -> None:
        self._session = session
        self._names = list(names)
        self._cpu: dict[int, float] = {}  # pid -> seconds ever used
        self._when = 0.0

    def look(self) -> list[dict[str, Any]]:
        """Return a row for each job, processor use since the look before in percent of one processor."""
        jobs = self._session.client.status(self._names, memory=True)["jobs"]
        now, wall = time.monotonic(), time.time()
        cpu, found = _processes({int(job["pid"]) for job in jobs if job["pid"]})
        spent = now - self._when if self._when else 0.0
        rows = []
        for job in jobs:
            pids = found.get(job["pid"] or 0, {})
            used = sum(max(0.0, cpu[pid] - self._cpu.get(pid, 0.0)) for pid in pids)
            memory = job["memory"] or {}
            current = memory.get("current")
            up = job["state"] == "RUNNING" and job["since"]
            rows.append(
                {
                    "job": job["job"],
                    "process": job["process"],
                    "state": job["state"],
                    "pid": job["pid"],
                    "cpu": round(100 * used / spent, 1) if pids and spent else None,
                    "memory": current if current is not None else sum(pids.values()) or None,
                    "peak": memory.get("peak"),
                    "limit": memory.get("limit"),
                    "processes": len(pids),
                    "restarts": job["restarts"],
                    "uptime": max(0.0, wall - job["since"]) if up else None,
                }
            )
        self._cpu, self._when = cpu, now
        return rows


def _processes(mains: set[int]) -> tuple[dict[int, float], dict[int, dict[int, int]]]:
    """Return (pid -> seconds of processor time, main pid -> its processes with their resident bytes)."""
    import psutil

    seen: dict[int, tuple[int, float, int]] = {}
    for process in psutil.process_iter(["pid", "ppid", "cpu_times", "memory_info"]):
        facts = process.info
        if facts["cpu_times"] is not None and facts["memory_info"] is not None:
            times = facts["cpu_times"]
            seen[facts["pid"]] = (facts["ppid"], times.user + times.system, facts["memory_info"].rss)
    own = _group("self")
    groups = {text: pid for pid in mains if (text := _group(pid)) and text != own}
    found: dict[int, dict[int, int]] = {pid: {} for pid in mains}
    for pid, (_, _, resident) in seen.items():
        main = _ancestor(pid, seen, mains) or (groups.get(_group(pid), 0) if groups else 0)
        if main:
            found[main][pid] = resident
    return {pid: seconds for pid, (_, seconds, _) in seen.items()}, found


def _ancestor(pid: int, seen: Mapping[int, tuple[int, float, int]], mains: set[int]) -> int:
    for _ in range(100):
        if pid in mains or pid not in seen:
            break
        pid = seen[pid][0]
    return pid if pid in mains else 0


def _group(pid: int | str) -> str:
    """Return the control groups of a process (cgroups(7)), nothing when it is gone."""
    try:
        with open(f"/proc/{pid}/cgroup") as file:
            return file.read()
    except OSError:
        return ""
