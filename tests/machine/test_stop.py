# SPDX-License-Identifier: Apache-2.0
"""Stopping: the signal that asks, the time that is given, and the end of everything that is left."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path

import pytest
from support.daemon import Daemon
from support.documents import document, job, python

HANDLES = """
import os, signal
def ask(number, frame):
    os.write(1, b"asked by " + signal.Signals(number).name.encode())
    os._exit(0)
for each in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT):
    signal.signal(each, ask)
print("!!OK!!", flush=True)
signal.pause()
"""

# a child that left session, group and parent behind, as a daemon of the old kind does
FORKS = """
import os, signal, sys
signal.signal(signal.SIGTERM, signal.SIG_IGN)
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.setsid()
        print("grandchild", os.getpid(), flush=True)
        print("!!OK!!", flush=True)
        signal.pause()
    os._exit(0)
signal.pause()
"""


@pytest.mark.parametrize("signal", ["SIGTERM", "SIGINT", "SIGQUIT"])
def test_stop_sends_the_jobs_own_stop_signal(signal: str, daemon: Daemon) -> None:
    daemon.run(document(python("app", HANDLES, wait_for_ok=True, stop_signal=signal)))
    assert daemon.do("app", "stop")["status"] == "complete"
    assert f"asked by {signal}" in daemon.log_of("app")
    row = daemon.job("app")
    assert (row["state"], row["pid"]) == ("STOPPED", None)
    assert row["cause"].startswith("stopped by")


def test_job_that_ignores_the_signal_is_killed_after_stop_timeout_with_all_it_started(
    daemon: Daemon,
) -> None:
    daemon.run(document(python("app", FORKS, wait_for_ok=True, stop_timeout=0.3)))
    main = daemon.job("app")["pid"]
    grandchild = int(daemon.wait_log("app", "grandchild ").split("grandchild ")[1].split()[0])
    began = time.monotonic()
    assert daemon.do("app", "stop")["status"] == "complete"
    took = time.monotonic() - began
    assert 0.3 <= took < 2
    for pid in (main, grandchild):
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
    kinds = [e["type"] for e in daemon.events("app")]
    assert kinds[-2:] == ["process-stopping", "process-stopped"]


def test_stop_waits_for_a_child_that_outlives_its_parent(daemon: Daemon, tmp_path: Path) -> None:
    done = tmp_path / "done"
    child = f"import signal,time\nsignal.sigwait([signal.SIGTERM])\ntime.sleep(0.2)\nopen({str(done)!r}, 'w')"
    script = (
        "import os, signal, subprocess, sys\n"
        "signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])\n"
        f"subprocess.Popen([sys.executable, '-c', {child!r}])\n"
        "signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])\n"
        "print('!!OK!!', flush=True)\n"
        "signal.pause()\n"
    )
    daemon.run(document(python("app", script, wait_for_ok=True)))
    assert daemon.do("app", "stop")["status"] == "complete"
    assert done.exists()  # it was let finish


def test_stop_of_a_stopped_job_and_start_of_a_running_one_change_nothing(daemon: Daemon) -> None:
    daemon.run(document(job("app")))
    pid = daemon.job("app")["pid"]
    assert daemon.do("app", "start")["status"] == "complete"
    assert daemon.job("app")["pid"] == pid
    assert daemon.do("app", "stop")["status"] == "complete"
    assert daemon.do("app", "stop")["status"] == "complete"
    assert daemon.job("app")["state"] == "STOPPED"


def test_stopped_job_is_not_restarted_by_its_policy(daemon: Daemon) -> None:
    daemon.run(document(job("app", restart_policy="always", restart_pause=1)))
    daemon.do("app", "stop")
    row = daemon.job("app")
    assert (row["state"], row["restarts"]) == ("STOPPED", 0)


STUBBORN = "trap '' TERM; echo '!!OK!!'; while :; do sleep 1000; done"


def test_start_while_it_is_stopping_starts_it_once_it_is_gone(daemon: Daemon) -> None:
    daemon.run(document(job("app", STUBBORN, wait_for_ok=True, stop_timeout=0.4)))
    client, pid = daemon.client(), daemon.job("app")["pid"]
    stop = client.action("app", "stop")["task_id"]
    daemon.wait_state("app", "STOPPING")
    start = client.action("app", "start")["task_id"]
    assert client.task(start, wait=20)["status"] == "complete"
    row = daemon.job("app")
    assert row["state"] == "RUNNING"
    assert row["pid"] != pid
    assert client.task(stop, wait=3)["ended"], "the stop's task goes on though its process is long gone"


def test_start_by_hand_while_an_apply_restarts_the_job_does_not_hold_up_the_apply(daemon: Daemon) -> None:
    keys = {"wait_for_ok": True, "stop_timeout": 0.4}
    daemon.run(document(job("app", STUBBORN, **keys)))
    client = daemon.client()
    changed = document(job("app", f"echo new; {STUBBORN}", **keys))
    apply = client.apply(changed)["task_id"]
    daemon.wait_state("app", "STOPPING")
    client.action("app", "start")
    assert client.task(apply, wait=4)["status"] == "complete", "it waits for ever, all later ones behind it"
    daemon.wait_log("app", "new", timeout=4)
    assert daemon.plan(changed) == []


def test_restart_stops_first_and_starts_again(daemon: Daemon) -> None:
    daemon.run(document(python("app", HANDLES, wait_for_ok=True)))
    pid = daemon.job("app")["pid"]
    assert daemon.do("app", "restart")["status"] == "complete"
    row = daemon.job("app")
    assert row["state"] == "RUNNING"
    assert row["pid"] != pid
    assert row["restarts"] == 0
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_job_stopped_in_its_back_off_leaves_no_group_behind(daemon: Daemon) -> None:
    daemon.client().apply(document(job("app", "exit 4", restart=True, restart_pause="1h")))
    daemon.wait_state("app", "RESTARTING")
    daemon.do("app", "stop")
    assert [group.name for group in daemon.groups() if "app" in group.name] == []
    daemon.stop()
    assert daemon.groups() == []


def test_daemon_that_ends_during_an_apply_starts_nothing_any_more(daemon: Daemon) -> None:
    keys = {"wait_for_ok": True, "stop_timeout": 0.4}
    daemon.run(document(job("app", STUBBORN, **keys)))
    daemon.client().apply(document(job("app", f"echo new; {STUBBORN}", **keys)))
    daemon.wait_state("app", "STOPPING")
    daemon.stop()
    log = daemon.output()
    left = [int(pid) for pid in re.findall(r"STARTING \(pid (\d+)\)", log)]
    alive = [pid for pid in left if os.path.exists(f"/proc/{pid}")]
    for pid in alive:
        os.kill(pid, 9)  # nobody else would ever end it
    assert alive == [], log
