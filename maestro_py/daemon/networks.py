# SPDX-License-Identifier: Apache-2.0
"""Private networks of processes: who has one, at which number, and when the helper program is asked.

The helper (`process/network.py`) is always told the whole of what is wanted and makes it so; what an
earlier daemon left is gone with that. One request is under way at a time, and all that comes meanwhile
goes into the next, so that many processes starting at once cost few helpers. What a process has is kept
while it is restarted after a death; a start that somebody asked for gets a new one.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Collection, Mapping
from typing import Any

from maestro_py.daemon import helpers, log
from maestro_py.daemon.loop import Loop
from maestro_py.daemon.paths import Paths
from maestro_py.daemon.waiting import Future, Signal, TimedOutError
from maestro_py.errors import MaestroError, Unsupported
from maestro_py.process import kernel
from maestro_py.process.netns import PrivateNetwork
from maestro_py.spec.model import Network
from maestro_py.spec.names import safe_name

SUBNETS = tuple(f"10.{second}.0.0/24" for second in (88, 89, 118, 188, 218))
"""Address ranges a private network may have, the first that the device does not use otherwise."""

FIRST, COUNT = 128, 126
"""Numbers of chosen addresses: the upper half; the lower is for those that a document asks for."""

RESOLVING = ("/etc/resolv.conf", "/etc/hosts", "/run/systemd/resolve/resolv.conf")
"""Files of the device that say how names are resolved; when they change, those inside are told."""

QUIET = 0.2
"""Seconds after such a change in which more of them are waited for."""

TIME_LIMIT = 20.0
"""Seconds for one request to the helper."""

REMEMBERED = 1000
"""Processes whose numbers are kept when they are gone, so that they come back with the same address."""


def choose(name: str, taken: Collection[int]) -> int:
    """Return a free number for a process, the same one each time when nothing is in the way.

    Raises MaestroError when all are taken.
    """
    start = int.from_bytes(name.encode("utf-8", "surrogatepass"), "big")
    for step in range(COUNT):
        number = FIRST + (start + step) % COUNT
        if number not in taken:
            return number
    raise MaestroError(f"cannot give {name} an address: {COUNT} processes have one already")


def number_of(name: str, known: Mapping[str, int], used: Collection[str]) -> int:
    """Return the number a process had before, or a new one; others are sure of theirs while in use."""
    in_use = {known[other] for other in used if other != name and other in known}
    if name in known and known[name] not in in_use:
        return known[name]
    try:
        return choose(name, {number for other, number in known.items() if other != name})
    except MaestroError:
        return choose(name, in_use)


def request(
    base: Mapping[str, Any],
    wanted: Mapping[str, Network],
    numbers: Mapping[str, int],
    fresh: Collection[str],
) -> dict[str, Any]:
    """Return what to ask the helper for. numbers has one for each that has no address of its own.

    Those at work come first: what they have is theirs.
    """
    endpoints = [
        {
            "name": name,
            "file": safe_name(name),
            "number": numbers.get(name, 0),
            "address": network.address,
            "ports": [
                {"host": p.host, "inside": p.inside, "protocol": p.protocol, "address": p.address}
                for p in network.ports
            ],
        }
        for name, network in sorted(wanted.items(), key=lambda item: item[0] in fresh)
    ]
    return {**base, "endpoints": endpoints, "fresh": sorted(fresh)}


class Networks:
    """The private networks of this device's processes."""

    def __init__(self, loop: Loop, paths: Paths) -> None:
        self.loop = loop
        self.namespaces, self.files = places(paths)
        self._numbers_file = os.path.join(paths.state, "addresses.json")
        # a daemon below a directory of its own has a network of its own
        suffix = f"-{os.stat(paths.root).st_ino & 0xFFFFFF:x}" if paths.root else ""
        self._base = {
            "bridge": f"maestro{suffix or '0'}",
            "table": f"maestro{suffix}",
            "subnets": list(SUBNETS),
            "namespaces": self.namespaces,
            "files": self.files,
        }
        self.addresses: dict[str, str] = {}
        self._wanted: dict[str, Network] = {}
        self._fresh: set[str] = set()
        self._waiting: dict[str, Future[None]] = {}
        self._numbers = _read_numbers(self._numbers_file)
        self._asked = False
        self._at_work = False
        self._rested = Signal(loop)
        self._watch = -1

    async def attach(self, name: str, network: Network, *, anew: bool) -> None:
        """Give a process its network; anew: even when it has the same one already.

        Raises MaestroError; nothing of it is there then.
        """
        if os.geteuid() != 0:
            why = f"maestrod runs as user {os.geteuid()}, and only root may make networks"
            raise Unsupported(
                f"cannot connect {name} to the private network: {why}",
                hint="run maestrod as root, or leave the network out",
            )
        if not anew and self._wanted.get(name) == network and name in self.addresses:
            return
        if not network.address:
            self._number(name)
        self._wanted[name] = network
        self._fresh.add(name)
        self.addresses.pop(name, None)
        ready: Future[None] = Future(self.loop)
        self._waiting[name] = ready
        self._ask()
        await ready

    def detach(self, name: str) -> None:
        """Take the network of a process away, soon."""
        if self._wanted.pop(name, None) is not None:
            self.addresses.pop(name, None)
            self._fresh.discard(name)
            self._ask()

    def open(self, name: str) -> PrivateNetwork:
        """Return the network of a process for its launch; the caller closes the descriptor.

        Raises MaestroError when it has none: nobody gets the device's network by mistake.
        """
        if name not in self.addresses:
            raise MaestroError(f"cannot start {name}: its private network is not there")
        path = os.path.join(self.namespaces, safe_name(name))
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            self.addresses.pop(name)  # the next start makes it anew
            text = f"cannot start {name}: its private network is gone: {error.strerror}"
            raise MaestroError(text) from error
        names = ("resolv.conf", "hosts")
        return PrivateNetwork(fd, tuple((os.path.join(self.files, n), f"/etc/{n}") for n in names))

    def take_over(self, wanted: Mapping[str, Network]) -> None:
        """Go on with the networks of processes that an earlier daemon launched; remove all others it left."""
        self._wanted.update(wanted)
        self._ask()

    async def settled(self) -> None:
        """Wait until nothing is under way."""
        while self._at_work:
            await self._rested.wait()

    # asking

    def _ask(self) -> None:
        self._asked = True
        if not self._at_work:
            self._at_work = True
            self.loop.spawn(self._work(), name="networks")

    async def _work(self) -> None:
        try:
            while self._asked:
                self._asked = False
                await self._settle()
        finally:
            self._at_work = False
            self._rested.notify()

    def _watch_resolving(self) -> None:
        """Look out for changes of name resolution while there are private networks."""
        if self._watch >= 0:
            self.loop.remove_reader(self._watch)
            os.close(self._watch)
            self._watch = -1
        if not self._wanted:
            return
        files = {*RESOLVING, *map(os.path.realpath, RESOLVING)}
        events = kernel.IN_CLOSE_WRITE | kernel.IN_MOVED_TO | kernel.IN_CREATE
        try:
            # the directories too: a file may be replaced by another
            watched = sorted(files | {os.path.dirname(path) for path in files})
            self._watch = kernel.inotify(watched, events)
        except OSError as error:
            log.warning(f"changes of name resolution will not be seen inside private networks: {error}")
            return
        names = {os.path.basename(path).encode() for path in files}
        self.loop.add_reader(self._watch, lambda: self._seen(names))

    def _seen(self, names: Collection[bytes]) -> None:
        for name in _changed(os.read(self._watch, 65536)):
            if not name or name in names:
                self.loop.remove_reader(self._watch)  # until the helper has been asked
                self.loop.call_later(QUIET, self._ask)
                return

    async def _settle(self) -> None:
        self._watch_resolving()
        waiting, self._waiting = self._waiting, {}
        fresh, self._fresh = self._fresh, set()
        asked = request(self._base, self._wanted, self._numbers, fresh)
        try:
            answer = await self.loop.wait_for(
                helpers.run(self.loop, "maestro_py.process.network", asked), TIME_LIMIT
            )
        except (MaestroError, TimedOutError) as error:
            self._failed(str(error), getattr(error, "code", "failed"), waiting)
            return
        except BaseException:
            self._failed("it was interrupted", "failed", waiting)
            raise
        for name, address in answer["addresses"].items():
            # what was asked for anew meanwhile comes with the next answer
            if name in self._wanted and name not in self._waiting:
                self.addresses[name] = address
        for name, why in answer["failed"].items():
            if name not in waiting:
                log.error(why)
                continue
            if name not in self._waiting:
                self._drop(name)
            waiting[name].set_exception(MaestroError(why))
        for ready in waiting.values():
            ready.set_result(None)

    def _failed(self, why: str, code: str, waiting: Mapping[str, Future[None]]) -> None:
        """The helper failed as a whole: whoever waited for it has no network."""
        if not waiting:
            log.error(f"{why}; it is tried again with the next process that has a private network")
        for name, ready in waiting.items():
            if name not in self._waiting:
                self._drop(name)
            kind = Unsupported if code == Unsupported.code else MaestroError
            ready.set_exception(kind(f"cannot connect {name} to the private network: {why}"))
            self._asked = True  # once more without them, so that nothing half done stays

    def _drop(self, name: str) -> None:
        self._wanted.pop(name, None)
        self.addresses.pop(name, None)
        self._fresh.discard(name)

    # numbers

    def _number(self, name: str) -> None:
        number = number_of(name, self._numbers, self._wanted)
        if self._numbers.get(name) == number:
            return
        kept = {other: n for other, n in self._numbers.items() if n != number or other in self._wanted}
        for other in list(kept)[: max(0, len(kept) - REMEMBERED)]:
            if other not in self._wanted:
                del kept[other]
        self._numbers = {**kept, name: number}
        try:
            temporary = f"{self._numbers_file}.new"
            with open(temporary, "w", encoding="ascii") as file:
                json.dump(self._numbers, file)
            os.rename(temporary, self._numbers_file)
        except OSError as error:
            log.warning(f"cannot remember the address of {name}: {error.strerror}")


def places(paths: Paths) -> tuple[str, str]:
    """Return the directories of the named namespaces and of the other files."""
    return os.path.join(paths.run, "netns"), os.path.join(paths.run, "network")


def _changed(data: bytes) -> list[bytes]:
    """Return the names in inotify events; empty for one of a watched file itself (inotify(7))."""
    found, at = [], 0
    while at < len(data):
        length = int.from_bytes(data[at + 12 : at + 16], sys.byteorder)
        found.append(data[at + 16 : at + 16 + length].rstrip(b"\0"))
        at += 16 + length
    return found


def _read_numbers(path: str) -> dict[str, int]:
    try:
        with open(path, encoding="ascii") as file:
            found = json.load(file)
        return {
            name: number
            for name, number in found.items()
            if isinstance(number, int) and FIRST <= number < FIRST + COUNT
        }
    except (OSError, ValueError, AttributeError):
        return {}  # chosen anew, and mostly the same
