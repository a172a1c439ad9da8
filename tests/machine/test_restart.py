# SPDX-License-Identifier: Apache-2.0
"""What follows a death: restarts, their limit, their pauses, and when there are none."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.daemon import Daemon
from support.documents import WAIT, document, job


def times(daemon: Daemon, name: str, kind: str) -> list[float]:
    return [event["time"] for event in daemon.events(name) if event["type"] == f"process-{kind}"]


def test_every_kind_of_death_is_followed_by_a_restart(daemon: Daemon) -> None:
    daemon.run(document(job("app", restart=True, restart_pause=1)))

    def is_up_after(restarts: int) -> Callable[[dict[str, Any]], bool]:
        return lambda row: row["state"] == "RUNNING" and row["pid"] and row["restarts"] == restarts

    for number, signal in enumerate(("SIGSEGV", "SIGKILL", "SIGTERM", "SIGINT"), 1):
        before = daemon.wait("app", is_up_after(number - 1))
        daemon.client().kill("app", signal)
        after = daemon.wait("app", is_up_after(number))
        assert after["pid"] != before["pid"]
        assert after["cause"].startswith(f"killed by {signal}")


def test_restart_limit_ends_in_failed_with_its_cause(daemon: Daemon) -> None:
    task = daemon.apply(document(job("app", "exit 7", restart=True, restart_limit=2, restart_pause=5)))
    row = daemon.wait_state("app", "FAILED")
    assert row["cause"] == "exit code 7; gave up after 2 restarts"
    assert row["restarts"] == 2
    assert row["pid"] is None
    assert len(times(daemon, "app", "starting")) == 3
    assert task["ended"]
    lines = daemon.client().why("app")["lines"]
    assert lines[0] == "app failed: exit code 7; gave up after 2 restarts."
    assert any("maestro start" in line for line in lines)


def test_apply_says_which_job_failed_and_why(daemon: Daemon, tmp_path: Path) -> None:
    wanted = document(job("app", "echo nonsense >&2; exit 7", wait_for_ok=True), job("good"))
    file = tmp_path / "doc.json"
    file.write_text(json.dumps(wanted))
    applied = daemon.cli("apply", str(file))
    assert applied.returncode == 1
    assert "app is FAILED: exit code 7 before it said OK" in applied.stderr
    assert "maestro logs app" in applied.stderr
    assert daemon.job("good")["state"] == "RUNNING"


def test_back_off_grows_by_its_factor_up_to_its_maximum(daemon: Daemon) -> None:
    backoff = {"initial": 0.05, "factor": 3, "max": 0.3, "jitter": 0}
    daemon.apply(
        document(job("app", "exit 1", restart_policy="always", restart_limit=4, restart_backoff=backoff))
    )
    daemon.wait_state("app", "FAILED")
    down, up = times(daemon, "app", "restarting"), times(daemon, "app", "starting")[1:]
    assert len(down) == len(up) == 4
    pauses = [start - death for death, start in zip(down, up, strict=True)]
    for pause, expected in zip(pauses, (0.05, 0.15, 0.3, 0.3), strict=True):
        assert expected - 0.01 <= pause < expected + 0.3, pauses


def test_restart_pause_is_a_fixed_delay_in_milliseconds(daemon: Daemon) -> None:
    daemon.apply(document(job("app", "exit 1", restart=True, restart_limit=2, restart_pause=120)))
    daemon.wait_state("app", "FAILED")
    down, up = times(daemon, "app", "restarting"), times(daemon, "app", "starting")[1:]
    for death, start in zip(down, up, strict=True):
        assert 0.11 <= start - death < 0.5


def test_restarting_job_says_when_it_is_tried_again(daemon: Daemon) -> None:
    client = daemon.client()
    client.apply(document(job("app", "exit 4", restart=True, restart_pause="1h")))
    row = daemon.wait_state("app", "RESTARTING")
    assert (row["cause"], row["pid"]) == ("exit code 4", None)
    assert "is in back-off for another " in (line := client.why("app")["lines"][0])
    assert line.endswith("after 1 death: exit code 4.")
    assert daemon.do("app", "stop")["status"] == "complete"
    assert daemon.job("app")["state"] == "STOPPED"


def test_manual_start_clears_the_counters(daemon: Daemon, tmp_path: Path) -> None:
    flag = tmp_path / "flag"
    script = f"test -e {flag} || exit 5; exec sleep 1000"
    daemon.apply(document(job("app", script, restart=True, restart_limit=1, restart_pause=1)))
    assert daemon.wait_state("app", "FAILED")["restarts"] == 1
    failed = daemon.do("app", "start")
    assert failed["status"] in ("failed", "complete")
    assert daemon.wait_state("app", "FAILED")["restarts"] == 1  # it had its whole limit again
    assert len(times(daemon, "app", "starting")) == 4
    flag.touch()
    assert daemon.do("app", "start")["status"] == "complete"
    row = daemon.job("app")
    assert (row["state"], row["restarts"], row["cause"]) == ("RUNNING", 0, "")


@pytest.mark.parametrize(
    ("policy", "code", "state", "cause"),
    [
        ("on-failure", 0, "STOPPED", "exit code 0"),
        ("never", 0, "STOPPED", "exit code 0"),
        ("never", 6, "FAILED", "exit code 6"),
    ],
)
def test_job_that_is_not_restarted_stays_down(
    policy: str, code: int, state: str, cause: str, daemon: Daemon
) -> None:
    daemon.apply(document(job("app", f"exit {code}", restart_policy=policy)))
    row = daemon.wait_state("app", state)
    assert (row["cause"], row["restarts"], row["pid"]) == (cause, 0, None)
    wanted = document(job("app", f"exit {code}", restart_policy=policy))
    if code == 0:
        assert daemon.plan(wanted) == []  # it did what it was to do


def test_on_failure_restarts_a_failure_and_rests_after_a_success(daemon: Daemon, tmp_path: Path) -> None:
    flag = tmp_path / "flag"
    script = f"test -e {flag} && exit 0; touch {flag}; exit 9"
    daemon.apply(document(job("app", script, restart_policy="on-failure", restart_pause=1)))
    row = daemon.wait_state("app", "STOPPED")
    assert (row["cause"], row["restarts"]) == ("exit code 0", 1)


def test_template_restart_fields_count_and_the_job_wins(daemon: Daemon) -> None:
    template = {"name": "t", "restart": True, "restart_limit": 3, "restart_pause": 1}
    daemon.apply(
        document(
            job("as-template", "exit 1", container_template="t"),
            job("own", "exit 1", container_template="t", restart_limit=1),
            templates=[template],
        )
    )
    assert daemon.wait_state("as-template", "FAILED")["cause"].endswith("gave up after 3 restarts")
    assert daemon.wait_state("own", "FAILED")["cause"].endswith("gave up after 1 restart")


def test_descendants_do_not_outlive_the_process(daemon: Daemon, tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    script = f"setsid sh -c 'echo $$ > {pid_file}; echo child; exec sleep 1000' & exec sleep 1000"
    daemon.run(document(job("app", script)))
    daemon.wait_log("app", "child")
    child = int(pid_file.read_text())
    daemon.client().kill("app", "SIGKILL")
    daemon.wait_state("app", "FAILED")
    assert not Path(f"/proc/{child}").exists()


def test_never_restarted_job_is_started_by_hand_with_its_new_output_apart(daemon: Daemon) -> None:
    daemon.run(document(job("app", f"echo run by $$; {WAIT}")))
    first = daemon.job("app")["pid"]
    daemon.wait_log("app", f"run by {first}")
    assert daemon.do("app", "restart")["status"] == "complete"
    second = daemon.job("app")["pid"]
    daemon.wait_log("app", f"run by {second}")
    assert daemon.log_of("app", previous=True) == f"run by {first}\n"
