# SPDX-License-Identifier: Apache-2.0
"""When a job counts as running: the OK string, its timeout, and the deferred status."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from support.daemon import Daemon
from support.documents import WAIT, document, job, python


def states(daemon: Daemon, name: str) -> list[str]:
    return [e["type"].removeprefix("process-") for e in daemon.events(name)]


@pytest.mark.parametrize(
    ("script", "printed"),
    [
        ("echo '!!OK!!'; echo on", "\non\n"),
        ("printf 'before!!OK!!after\\n'", "beforeafter\n"),
        ("printf 'some !'; sleep 0.05; printf '!O'; sleep 0.05; printf 'K!!\\nmore\\n'", "some \nmore\n"),
        ("printf '!!O!!OK!!\\n'", "!!O\n"),
        ("head -c 200000 /dev/zero | tr '\\0' x; printf '\\n!!OK!!end\\n'", "x\nend\n"),
        ("printf '!!OK!!'; printf '!!OK!!\\n'", "!!OK!!\n"),
    ],
    ids=["first", "middle", "split", "false-start", "after-much", "only-once"],
)
def test_ok_string_is_found_anywhere_and_taken_out(script: str, printed: str, daemon: Daemon) -> None:
    daemon.run(document(job("app", f"{script}; {WAIT}", wait_for_ok=True)))
    assert daemon.job("app")["state"] == "RUNNING"
    assert daemon.wait_log("app", printed).endswith(printed)


def test_job_is_starting_until_it_says_ok(daemon: Daemon, tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    client = daemon.client()
    task = client.apply(document(job("app", f"read go < {fifo}; echo '!!OK!!'; {WAIT}", wait_for_ok=True)))
    row = daemon.wait("app", lambda row: row["state"] == "STARTING" and row["pid"] is not None)
    assert not row["ready"]
    assert "has not said !!OK!!" in client.why("app")["lines"][0]
    assert client.task(task["task_id"])["status"] == "running"
    fifo.write_text("go\n")
    assert client.task(task["task_id"], wait=20)["status"] == "complete"
    row = daemon.job("app")
    assert (row["state"], row["ready"]) == ("RUNNING", True)


def test_ok_string_on_stderr_does_not_count(daemon: Daemon) -> None:
    client = daemon.client()
    client.apply(document(job("app", f"echo '!!OK!!' >&2; {WAIT}", wait_for_ok=True)))
    assert "!!OK!!" in daemon.wait_log("app", "!!OK!!\n")
    assert daemon.job("app")["state"] == "STARTING"


def test_template_may_have_an_ok_string_of_its_own(daemon: Daemon) -> None:
    template = {"name": "t", "uses_ok_string": True, "ok_string": "ready to serve"}
    script = f"echo '!!OK!!'; echo ready to serve; {WAIT}"
    daemon.run(document(job("app", script, container_template="t"), templates=[template]))
    assert "ready to serve" not in daemon.wait_log("app", "!!OK!!\n\n")


def test_job_that_does_not_say_ok_in_time_is_killed_and_restarted_by_policy(daemon: Daemon) -> None:
    keys = {"restart": True, "restart_limit": 1, "restart_pause": 1}
    stubborn = f"trap '' TERM; echo here; {WAIT}"
    task = daemon.apply(document(job("app", stubborn, wait_for_ok=True, timeout_for_ok=150, **keys)))
    row = daemon.wait_state("app", "FAILED")
    assert row["cause"] == "did not say OK within 150ms; gave up after 1 restart"
    assert states(daemon, "app") == [
        "starting", "stopping", "restarting", "starting", "stopping", "failed",
    ]  # fmt: skip
    assert task["status"] == "failed"
    assert "app is FAILED: did not say OK within 150ms" in task["error"]["message"]


def test_timeout_ends_descendants_too(daemon: Daemon) -> None:
    script = "import os,time\nprint(os.fork(), flush=True)\ntime.sleep(1000)"
    daemon.apply(document(python("app", script, wait_for_ok=True, timeout_for_ok=300)))
    daemon.wait_state("app", "FAILED")
    pids = [int(line) for line in daemon.log_of("app").split() if int(line)]
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
    assert pids


def test_death_before_ok_is_named_as_such(daemon: Daemon) -> None:
    daemon.apply(document(job("app", "exit 0", wait_for_ok=True)))
    assert daemon.wait_state("app", "FAILED")["cause"] == "exit code 0 before it said OK"


def test_deferred_status_counts_as_running_only_after_its_time(daemon: Daemon) -> None:
    daemon.run(document(job("app", defer_running_status=200)))
    starting, running = (
        next(e["time"] for e in daemon.events("app") if e["type"] == f"process-{kind}")
        for kind in ("starting", "running")
    )
    assert 0.19 <= running - starting < 1


def test_deferred_job_that_dies_first_is_never_running(daemon: Daemon) -> None:
    daemon.apply(document(job("app", "exit 2", defer_running_status=60000)))
    assert daemon.wait_state("app", "FAILED")["cause"] == "exit code 2"
    assert "running" not in states(daemon, "app")


def test_ok_string_wins_over_the_deferred_status(daemon: Daemon) -> None:
    daemon.run(document(job("app", f"echo '!!OK!!'; {WAIT}", wait_for_ok=True, defer_running_status=60000)))
    assert daemon.job("app")["state"] == "RUNNING"
