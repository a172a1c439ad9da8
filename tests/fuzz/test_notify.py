# SPDX-License-Identifier: Apache-2.0
"""Datagrams nobody should send to a notify socket, with descriptors: by the job itself, and by strangers."""

from __future__ import annotations

import os
import random
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from support.daemon import Daemon
from support.documents import WAIT, document, job, python
from support.fuzzing import SEED, TIMEOUT, rounds

# what the job runs; strangers in this process throw the same
THROWER = """
import array, os, random, socket

WORDS = (b"READY=1", b"WATCHDOG=1", b"WATCHDOG=1", b"STATUS=x", b"MAINPID=1", b"FDSTORE=1", b"=", b"\\n",
         b"A=", b"READY=", b"READY=2", b"\\0", b"\\xff\\xfe", b"X" * 3000, b"X=" + b"y" * 8000,
         b"STOPPING=1", b"")

def datagram(dice):
    if dice.random() < 0.2:
        return dice.randbytes(dice.choice((0, 1, 100, 4095, 4096, 4097, 20000)))
    return b"\\n".join(dice.choice(WORDS) for _ in range(dice.randrange(6)))

def descriptors(dice):
    made = []
    for _ in range(dice.choice((0, 0, 1, 2, 16, 17, 200))):
        kind = dice.randrange(4)
        if kind == 0:
            made += os.pipe()
        elif kind == 1:
            made += [s.detach() for s in socket.socketpair()]
        else:
            made.append(os.open("/dev/null", os.O_RDONLY) if kind == 2 else os.memfd_create("x"))
    for extra in made[250:]:
        os.close(extra)
    return made[:250]

def throw(path, dice):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.settimeout(1)
        passed = descriptors(dice)
        control = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", passed))] if passed else []
        try:
            sock.sendmsg([datagram(dice)], control, 0, path)
        except OSError:
            pass  # it is full, gone for a moment, or the datagram is too large
        finally:
            for fd in passed:
                os.close(fd)
"""

LOUD = (
    THROWER
    + """
dice = random.Random({seed})
count = 0
while True:
    throw(os.environ["NOTIFY_SOCKET"], dice)
    count += 1
    if not count % 100:
        print("thrown", count, flush=True)
"""
)


def descriptors(pid: int) -> Counter[str]:
    """Return what a process has open, by kind."""
    found = Counter[str]()
    for fd in os.listdir(f"/proc/{pid}/fd"):
        try:
            found[os.readlink(f"/proc/{pid}/fd/{fd}").partition(":")[0]] += 1
        except OSError:
            continue
    return found


@pytest.mark.timeout(TIMEOUT)
def test_whatever_is_said_to_notify_sockets_the_daemon_stays_and_strangers_are_not_heard(
    make_daemon: Callable[..., Daemon],
) -> None:
    daemon = make_daemon()
    assert daemon.process
    quiet = document(job("other"), job("deaf", WAIT, watchdog="10m"))
    daemon.run(quiet)
    before = descriptors(daemon.process.pid)
    pid = daemon.job("deaf")["pid"]
    loud = python("loud", LOUD.replace("{seed}", str(SEED)), ready={"type": "notify"}, watchdog="10m")
    daemon.run(document(*quiet["jobs"], loud))
    assert daemon.wait_log("loud", "thrown 100\n", timeout=60)

    tools: dict[str, Any] = {}
    exec(THROWER, tools)  # the same hands as the job's
    tools["WORDS"] += (b"WATCHDOG=trigger",)
    [path] = (daemon.root / "run" / "notify").glob("deaf*/socket")
    dice = random.Random(SEED)
    for count in rounds(least=200):
        tools["throw"](str(path), dice)
        if not count % 100:
            daemon.client().version()
    row = daemon.job("deaf")
    assert (row["state"], row["pid"], row["restarts"]) == ("RUNNING", pid, 0)
    assert daemon.job("loud")["restarts"] == 0
    thrown = daemon.log_of("loud").rsplit("thrown ", 1)[1].split()[0]

    daemon.run(quiet)
    deadline = time.monotonic() + 10
    while left := descriptors(daemon.process.pid) - before:  # connections of the last questions end
        assert time.monotonic() < deadline, left
        time.sleep(0.01)
    assert "Traceback" not in daemon.output()
    assert daemon.job("other")["restarts"] == 0
    print(f"\n| notify datagrams | {thrown} by the job, {count + 1} by strangers | 0 jobs hurt |")
