# SPDX-License-Identifier: Apache-2.0
"""Every death has its cause, the right one: memory is blamed when it was memory, and never otherwise."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path
from typing import Any

import pytest
from support.daemon import Daemon
from support.documents import document, job, python

from maestro_py.daemon.oom import SURVIVED

pytestmark = pytest.mark.root

TIMES = int(os.environ.get("MAESTRO_OOM_KILLS", "100"))
"""How often a job is killed for memory in a row."""

LIMIT = {"mem_limit": "16M", "swap_limit": 0}
NAMED = re.compile(r"killed for memory, limit 16\.0M, peak 1[56]\.\d+M")

EATER = "x = bytearray(64 << 20); x[::4096] = b'x' * (len(x) // 4096)"
"""Takes more than there is at once, so that a hundred deaths take seconds."""

EATING_CHILD = f'/usr/bin/python3 -I -S -c "{EATER}"'

ON_V2 = os.path.exists("/sys/fs/cgroup/cgroup.controllers")
survivors = pytest.mark.skipif(ON_V2, reason="on cgroup v2 nothing of the group survives a kill for memory")


def of(daemon: Daemon, kind: str) -> list[str]:
    """Return what the events of a kind said of the job."""
    return [e["message"] for e in daemon.events("app") if e["type"] == f"process-{kind}"]


def ended(daemon: Daemon, *jobs: dict[str, Any], state: str = "FAILED") -> str:
    """Apply jobs of which `app` dies for good; return its cause."""
    daemon.apply(document(*jobs))
    row = daemon.wait_state("app", state, timeout=60)
    cause = str(row["cause"])
    assert cause in daemon.cli("why", "app").stdout
    return cause


def test_a_hundred_kills_for_memory_are_named_a_hundred_times(daemon: Daemon) -> None:
    restart = {"restart_policy": "always", "restart_limit": TIMES - 1, "restart_pause": 1}
    eater = python("app", EATER, cgroup=LIMIT, **restart)
    eater["exec_args"][:0] = ["-I", "-S"]
    daemon.client().apply(document(eater))
    daemon.wait_state("app", "FAILED", timeout=220)
    said = [text for kind in ("restarting", "failed") for text in of(daemon, kind)]
    assert len(said) == TIMES
    assert [text for text in said if not NAMED.search(text)] == []


def test_twenty_jobs_that_die_of_it_when_their_child_is_killed_name_it_twenty_times(daemon: Daemon) -> None:
    many = [job(f"app{n}", f"{EATING_CHILD}; exit $?", cgroup=LIMIT, wait_for_ok=True) for n in range(20)]
    daemon.client().apply(document(*many))
    causes = [daemon.wait_state(f"app{n}", "FAILED", timeout=60)["cause"] for n in range(20)]
    assert [cause for cause in causes if not NAMED.search(cause)] == []
    if not ON_V2:
        assert all(cause.startswith("a process of it was killed for memory") for cause in causes)
        assert all("; then exit code 137" in cause for cause in causes)


@survivors
@pytest.mark.parametrize(
    ("end", "cause"),
    [
        ("exit 3", "exit code 3"),
        ("kill -SEGV $$", "killed by SIGSEGV"),
        ("kill -KILL $$", "killed by SIGKILL"),
    ],
)
def test_a_death_after_a_kill_that_was_survived_is_named_for_what_it_was(
    daemon: Daemon, end: str, cause: str
) -> None:
    script = f"{EATING_CHILD}; echo child $?; echo '!!OK!!'; trap 'ended=1' USR1; read line < /dev/null;"
    script += f' while [ -z "$ended" ]; do sleep 0.05; done; {end}'
    daemon.run(document(job("app", script, cgroup=LIMIT, wait_for_ok=True)))
    assert "child 137" in daemon.wait_log("app", "child")
    time.sleep(SURVIVED + 0.5)  # nobody announces that the time is over
    daemon.client().kill("app", "SIGUSR1")
    row = daemon.wait_state("app", "FAILED")
    assert row["cause"].startswith(cause)
    assert "memory" not in row["cause"]


@survivors
def test_a_second_kill_after_one_that_was_survived_is_named(daemon: Daemon) -> None:
    script = f"{EATING_CHILD}; echo '!!OK!!'; sleep {SURVIVED + 0.5}; exec {EATING_CHILD}"
    assert NAMED.match(ended(daemon, job("app", script, cgroup=LIMIT, wait_for_ok=True)))


@survivors
def test_a_job_that_takes_its_helpers_death_lightly_and_succeeds_is_not_blamed(daemon: Daemon) -> None:
    cause = ended(daemon, job("app", f"{EATING_CHILD}; exit 0", cgroup=LIMIT), state="STOPPED")
    assert cause == "exit code 0"


def test_a_kill_of_the_launch_before_is_not_the_cause_of_this_ones_end(
    daemon: Daemon, tmp_path: Path
) -> None:
    flag = tmp_path / "flag"
    script = f"[ -e {flag} ] && kill -KILL $$; touch {flag}; exec {EATING_CHILD}"
    restart = {"restart_policy": "on-failure", "restart_limit": 1, "restart_pause": 1}
    cause = ended(daemon, job("app", script, cgroup=LIMIT, **restart))
    assert cause == "killed by SIGKILL; gave up after 1 restart"
    assert NAMED.search(of(daemon, "restarting")[0])


def test_memory_is_not_blamed_for_a_kill_by_hand(daemon: Daemon) -> None:
    daemon.run(document(job("app", cgroup=LIMIT)))
    daemon.client().kill("app", "SIGKILL")
    assert daemon.wait_state("app", "FAILED")["cause"] == "killed by SIGKILL, sent by root"


def test_a_signal_by_hand_names_who_asked(daemon: Daemon) -> None:
    daemon.run(document(job("app")))
    daemon.client().kill("app", "SIGTERM")
    assert daemon.wait_state("app", "FAILED")["cause"] == "killed by SIGTERM, sent by root"


def test_a_signal_by_a_stranger_is_named_without_one(daemon: Daemon) -> None:
    daemon.run(document(job("app")))
    os.kill(daemon.job("app")["pid"], 10)
    assert daemon.wait_state("app", "FAILED")["cause"] == "killed by SIGUSR1"


def test_exit_code_signal_and_core_are_told_apart(daemon: Daemon, tmp_path: Path) -> None:
    daemon.apply(document(job("code", "exit 42"), job("signal", "ulimit -c 0; kill -ABRT $$")))
    assert daemon.wait_state("code", "FAILED")["cause"] == "exit code 42"
    assert daemon.wait_state("signal", "FAILED")["cause"] == "killed by SIGABRT"
    pattern = Path("/proc/sys/kernel/core_pattern").read_text()
    if pattern.startswith("|"):
        pytest.skip("cores go to a program here")
    place = tmp_path / "place"
    place.mkdir()
    core = job("app", "ulimit -c unlimited; kill -ABRT $$", working_dir=str(place))
    assert ended(daemon, core) == "killed by SIGABRT (core dumped)"


def test_a_start_that_takes_too_long_is_named(daemon: Daemon) -> None:
    cause = ended(daemon, job("app", wait_for_ok=True, timeout_for_ok=200))
    assert cause == "did not say OK within 200ms"


def test_the_loss_of_a_dependency_is_named(daemon: Daemon) -> None:
    daemon.run(
        document(job("base"), job("app", depends_on=["base"], restart=True, restart_on_dependency_fail=True))
    )
    daemon.client().kill("base", "SIGKILL")
    daemon.wait_state("app", "WAITING_FOR_DEPS")
    lines = daemon.client().why("app")["lines"]
    assert "Before that: its dependency base is gone." in lines
    assert daemon.job("app")["last_death"] == "its dependency base is gone"


def test_who_stopped_a_job_is_named(daemon: Daemon) -> None:
    daemon.run(document(job("app")))
    daemon.do("app", "stop")
    assert daemon.job("app")["cause"] == "stopped by root"


@pytest.mark.parametrize("crash", [False, True], ids=["ended", "crashed"])
def test_a_death_certificate_survives_the_daemon(daemon: Daemon, crash: bool) -> None:
    eater = job("app", f"exec {EATING_CHILD}", cgroup=LIMIT, no_autostart=True)
    daemon.run(document(eater))
    daemon.do("app", "start")
    cause = str(daemon.wait_state("app", "FAILED")["cause"])
    assert NAMED.match(cause)
    again(daemon, crash)
    row = daemon.job("app")
    state = "FAILED" if crash else "NEVER_RAN"  # over a crash its life goes on as it was
    assert (row["state"], row["cause"], row["last_death"]) == (state, cause, cause)
    assert cause in daemon.cli("why", "app").stdout
    assert cause in daemon.cli("status").stdout


@pytest.mark.parametrize("crash", [False, True], ids=["ended", "crashed"])
def test_the_last_death_is_known_of_a_job_that_runs_again(
    daemon: Daemon, tmp_path: Path, crash: bool
) -> None:
    flag = tmp_path / "flag"
    script = f"[ -e {flag} ] && exec sleep 1000; touch {flag}; exec {EATING_CHILD}"
    daemon.run(document(job("app", script, cgroup=LIMIT, restart=True, restart_pause=1)))
    row = daemon.wait("app", lambda row: row["state"] == "RUNNING" and row["restarts"] == 1)
    cause = str(row["cause"])
    assert NAMED.match(cause)
    for _ in range(2):  # it is still known after the second
        again(daemon, crash)
        row = daemon.wait_state("app", "RUNNING")
        told = (cause, cause, 1) if crash else ("", cause, 0)  # over a crash it simply runs on
        assert (row["cause"], row["last_death"], row["restarts"]) == told
        line = f"Before that: {cause}." if crash else f"Its last death: {cause}."
        assert line in daemon.client().why("app")["lines"]


def again(daemon: Daemon, crash: bool) -> None:
    """Restart the daemon, in order or not."""
    if crash:
        time.sleep(1.5)  # causes are written together, once a second
        daemon.crash()
    else:
        assert daemon.stop() == 0
    daemon.start()
