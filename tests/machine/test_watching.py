# SPDX-License-Identifier: Apache-2.0
"""Ways to say ready besides the OK string, health checks, watchdogs, and what runs around a process."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.daemon import Daemon
from support.documents import WAIT, document, job, python

from maestro_py.errors import InvalidDocument

NOTIFY = """
import os, socket, sys, time
def say(text):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
        s.sendto(text.encode(), os.environ["NOTIFY_SOCKET"])
"""


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


def server(port: int, *answers: int) -> str:
    """Return a program that answers with these statuses, the last one for ever, and says each."""
    return (
        "import http.server, sys\n"
        f"answers = list({answers!r})\n"
        "class Handler(http.server.BaseHTTPRequestHandler):\n"
        "    def do_GET(self):\n"
        "        status = answers.pop(0) if len(answers) > 1 else answers[0]\n"
        "        self.send_response(status)\n"
        "        self.end_headers()\n"
        "        print('answered', self.path, status, flush=True)\n"
        "    def log_message(self, *args): pass\n"
        f"http.server.ThreadingHTTPServer(('127.0.0.1', {port}), Handler).serve_forever()\n"
    )


def go(path: Path) -> str:
    """Return shell words that wait until somebody opens the FIFO and writes a line."""
    os.mkfifo(path)
    return f"read go < {path}"


# readiness


def test_ready_by_sd_notify(daemon: Daemon, tmp_path: Path) -> None:
    fifo = tmp_path / "go"
    os.mkfifo(fifo)
    code = NOTIFY + f"say('STATUS=loading')\nopen({str(fifo)!r}).read()\nsay('READY=1')\ntime.sleep(1000)"
    task = daemon.client().apply(document(python("app", code, ready="notify")))
    daemon.wait("app", lambda row: row["state"] == "STARTING" and row["pid"])
    assert "it has not sent READY=1" in daemon.client().why("app")["lines"][0]
    fifo.write_text("go")
    assert daemon.client().task(task["task_id"], wait=30)["status"] == "complete"
    assert daemon.job("app")["state"] == "RUNNING"


def test_a_child_of_the_process_may_say_it(daemon: Daemon) -> None:
    child = NOTIFY + "say('READY=1')\ntime.sleep(1000)"
    code = f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {child!r}])"
    daemon.run(document(python("app", code, ready="notify")))


def test_a_stranger_cannot_say_it(daemon: Daemon) -> None:
    task = daemon.client().apply(document(job("app", f"echo $NOTIFY_SOCKET; {WAIT}", ready="notify")))
    path = daemon.wait_log("app", "/notify/").strip()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.sendto(b"READY=1", path)
    daemon.client().status()
    assert daemon.job("app")["state"] == "STARTING"
    assert daemon.client().task(task["task_id"])["status"] == "running"


def test_ready_by_a_newline_on_a_descriptor(daemon: Daemon, tmp_path: Path) -> None:
    wait = go(tmp_path / "go")
    script = f"{wait}; echo >&3; exec 3>&-; {WAIT}"
    daemon.client().apply(document(job("app", script, ready={"type": "fd", "fd": 3})))
    daemon.wait("app", lambda row: row["state"] == "STARTING" and row["pid"])
    (tmp_path / "go").write_text("now\n")
    daemon.wait_state("app", "RUNNING")
    assert not any("pipe:" in target for target in descriptors(daemon.job("app")["pid"], above=2))


def event(daemon: Daemon, type: str) -> dict[str, Any]:
    """Return the first event of a type, once there is one."""
    found: list[dict[str, Any]] = []

    def there(row: dict[str, Any]) -> bool:
        found.extend(e for e in daemon.events("app") if e["type"] == type)
        return bool(found)

    daemon.wait("app", there)
    return found[0]


def descriptors(pid: int, above: int) -> list[str]:
    return [os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd") if int(fd) > above]


@pytest.mark.parametrize("fd", [3, 9, 30])
def test_the_process_has_that_descriptor_and_no_other(daemon: Daemon, fd: int) -> None:
    code = (
        "import os, sys, time\n"
        f"found = [int(n) for n in os.listdir('/proc/self/fd') if int(n) > 2]\n"
        f"print([n for n in found if os.path.exists(f'/proc/self/fd/{{n}}')], flush=True)\n"
        f"os.write({fd}, b'\\n')\ntime.sleep(1000)"
    )
    daemon.run(document(python("app", code, ready={"type": "fd", "fd": fd})))
    assert daemon.wait_log("app", "]").strip() == f"[{fd}]"


def test_ready_once_its_port_is_open(daemon: Daemon) -> None:
    port = free_port()
    code = f"import socket, time\ns = socket.create_server(('127.0.0.1', {port}))\ntime.sleep(1000)"
    ready = {"type": "tcp", "port": port, "interval": "20ms"}
    daemon.run(document(python("app", code, ready=ready)))
    assert daemon.job("app")["state"] == "RUNNING"


def test_a_port_nobody_opens_is_named_when_time_is_up(daemon: Daemon) -> None:
    port = free_port()
    ready = {"type": "tcp", "port": port, "timeout": "300ms", "interval": "20ms"}
    daemon.apply(document(job("app", ready=ready)))
    row = daemon.wait_state("app", "FAILED")
    assert row["cause"].startswith("did not become ready within 300ms")


def test_ready_once_it_answers_well(daemon: Daemon) -> None:
    port = free_port()
    ready = {"type": "http", "port": port, "path": "/up", "interval": "20ms"}
    daemon.run(document(python("app", server(port, 503, 404, 204), ready=ready)))
    assert daemon.log_of("app").splitlines()[:3] == [f"answered /up {n}" for n in (503, 404, 204)]


def test_ready_once_a_command_succeeds(daemon: Daemon, tmp_path: Path) -> None:
    made = tmp_path / "made"
    ready = {"type": "exec", "command": ["/usr/bin/test", "-e", str(made)], "interval": "20ms"}
    daemon.client().apply(document(job("app", ready=ready)))
    daemon.wait("app", lambda row: row["state"] == "STARTING" and row["pid"])
    assert f"/usr/bin/test -e {made} does not succeed" in daemon.client().why("app")["lines"][0]
    made.touch()
    daemon.wait_state("app", "RUNNING")


def test_an_end_before_it_was_ready_is_a_failure(daemon: Daemon) -> None:
    daemon.apply(document(job("app", "exit 0", ready="notify", restart_policy="on-failure", restart_limit=1,
                              restart_pause=1)))  # fmt: skip
    row = daemon.wait_state("app", "FAILED")
    assert row["cause"] == "exit code 0 before it was ready; gave up after 1 restart"


# health


def test_a_process_that_fails_its_checks_is_restarted(daemon: Daemon) -> None:
    port = free_port()
    health = {"type": "http", "port": port, "interval": "30ms", "threshold": 2}
    ready = {"type": "tcp", "port": port, "interval": "20ms"}
    daemon.run(document(python("app", server(port, 200, 500, 200, 500), ready=ready, health=health,
                               restart=True, restart_pause=1)))  # fmt: skip
    row = daemon.wait("app", lambda row: row["restarts"] >= 1)
    said = [e["message"] for e in daemon.events("app") if e["type"] == "process-stopping"]
    wanted = f"STOPPING: failed its health check 2 times in a row: / on port {port} was answered with 500"
    assert said[0] == wanted
    assert row["last_death"].startswith("failed its health check")


def test_one_bad_answer_is_not_enough(daemon: Daemon) -> None:
    port = free_port()
    health = {"type": "http", "port": port, "interval": "20ms", "threshold": 2}
    ready = {"type": "tcp", "port": port, "interval": "20ms"}
    answers = (500, 200, 500, 200, 500, 200, 200)
    daemon.run(document(python("app", server(port, *answers), ready=ready, health=health)))
    wanted = "answered / 200\nanswered / 200\nanswered / 200\n"
    daemon.wait_log("app", wanted)
    assert daemon.job("app")["restarts"] == 0


def test_a_check_may_only_report(daemon: Daemon) -> None:
    health = {
        "type": "exec",
        "command": ["/bin/false"],
        "interval": "20ms",
        "threshold": 2,
        "action": "report",
    }
    daemon.run(document(job("app", health=health)))
    said = event(daemon, "process-unhealthy")
    assert said["message"] == "failed its health check 2 times in a row: false: exit code 1"
    assert daemon.job("app")["state"] == "RUNNING"


def test_a_check_that_hangs_is_ended(daemon: Daemon) -> None:
    health = {"type": "exec", "command": ["/bin/sleep", "1000"], "interval": "20ms", "timeout": "50ms",
              "threshold": 1}  # fmt: skip
    daemon.apply(document(job("app", health=health)))
    row = daemon.wait_state("app", "FAILED")
    assert row["cause"] == "failed its health check once: sleep did not end within 50ms"


def test_a_check_can_be_given_and_taken_away_while_it_runs(daemon: Daemon) -> None:
    health = {
        "type": "exec",
        "command": ["/bin/false"],
        "interval": "20ms",
        "threshold": 1,
        "action": "report",
    }
    daemon.run(document(job("app")))
    pid = daemon.job("app")["pid"]
    daemon.run(document(job("app", health=health)))
    event(daemon, "process-unhealthy")
    daemon.run(document(job("app")))
    assert daemon.job("app")["pid"] == pid


# watchdog


def test_a_process_that_falls_silent_is_restarted(daemon: Daemon) -> None:
    code = NOTIFY + (
        "assert os.environ['WATCHDOG_USEC'] == '1000000'\n"
        "for _ in range(5):\n    say('WATCHDOG=1')\n    time.sleep(0.5)\n"
        "print('silent now', flush=True)\ntime.sleep(1000)"
    )
    daemon.run(document(python("app", code, watchdog=1, restart=True, restart_pause=1)))
    daemon.wait("app", lambda row: row["restarts"] == 1)
    assert "silent now" in daemon.log_of("app")
    row = daemon.job("app")
    assert row["last_death"] == "did not say within 1s that it is alive"


def test_a_process_may_call_for_it_itself(daemon: Daemon) -> None:
    daemon.apply(document(python("app", NOTIFY + "say('WATCHDOG=trigger')\ntime.sleep(1000)", watchdog=60)))
    assert daemon.wait_state("app", "FAILED")["cause"] == "it triggered its watchdog itself"


# around a process


def test_pre_start_runs_first_each_time_and_its_output_is_in_the_log(daemon: Daemon) -> None:
    pre = ["/bin/sh", "-c", "echo before $WHO"]
    script = "echo during; sleep 0.01; exit 1"
    daemon.apply(document(job("app", script, pre_start=pre, env=["WHO=me"], restart_policy="always",
                              restart_limit=1, restart_pause=1)))  # fmt: skip
    daemon.wait_state("app", "FAILED")
    assert daemon.log_of("app") == "before me\nduring\n" * 2


def test_a_pre_start_that_fails_keeps_it_from_starting(daemon: Daemon) -> None:
    pre = ["/bin/sh", "-c", "echo no >&2; exit 7"]
    daemon.apply(document(job("app", "echo never", pre_start=pre)))
    assert daemon.wait_state("app", "FAILED")["cause"] == "its pre_start failed: sh: exit code 7"
    assert "never" not in daemon.log_of("app")
    daemon.apply(document(job("app", pre_start=["/no/such"])))
    assert "cannot execute /no/such: No such file" in daemon.wait_state("app", "FAILED")["cause"]


def test_a_stop_during_pre_start_ends_it(daemon: Daemon) -> None:
    daemon.client().apply(document(job("app", pre_start=["/bin/sh", "-c", "echo waits; exec sleep 1000"])))
    daemon.wait_log("app", "waits")
    assert daemon.do("app", "stop")["status"] == "complete"
    assert daemon.job("app")["state"] == "STOPPED"


def test_post_stop_runs_after_each_end_however_it_came(daemon: Daemon, tmp_path: Path) -> None:
    post = ["/bin/sh", "-c", f"echo after >> {tmp_path}/said"]
    daemon.run(document(job("app", post_stop=post)))
    daemon.do("app", "stop")
    assert (tmp_path / "said").read_text() == "after\n"
    daemon.do("app", "start")
    daemon.client().kill("app", "SIGKILL")
    assert daemon.wait_state("app", "FAILED")["cause"].startswith("killed by SIGKILL")
    assert (tmp_path / "said").read_text() == "after\nafter\n"


def test_on_failure_runs_a_command_that_knows_the_cause(daemon: Daemon) -> None:
    wish = {"command": ["/bin/sh", "-c", 'echo "alarm: $MAESTRO_PROCESS $MAESTRO_CAUSE"']}
    daemon.apply(document(job("app", "exit 3", on_failure=wish)))
    assert "alarm: app exit code 3\n" in daemon.wait_log("app", "alarm")
    daemon.wait_state("app", "FAILED")


def test_on_failure_starts_another_job(daemon: Daemon) -> None:
    rescue = job("rescue", no_autostart=True)
    daemon.apply(document(job("app", "exit 3", on_failure={"job": "rescue"}), rescue))
    daemon.wait_state("rescue", "RUNNING")


def test_a_job_to_start_that_nobody_knows_is_named(daemon: Daemon) -> None:
    rescue = job("rescue", no_autostart=True)
    with pytest.raises(InvalidDocument) as error:
        daemon.apply(document(job("app", on_failure={"job": "rescu"}), rescue))
    assert 'jobs["app"].on_failure.job: no job is called "rescu" (did you mean `rescue`?)' in str(error.value)


# the whole device


def test_jobs_that_crash_without_end_leave_the_rest_its_time(make_daemon: Callable[..., Daemon]) -> None:
    daemon = make_daemon("restart_rate: 1\n")
    crashing = [job(f"bad{n}", "exit 1", restart=True, restart_pause=1) for n in range(10)]
    begun = time.monotonic()
    daemon.client().apply(document(*crashing, job("good")))
    daemon.wait_state("good", "RUNNING")
    # each has used up its part of the burst by then, and waits in line
    daemon.wait("bad9", lambda row: row["state"] == "RESTARTING" and row["restarts"] >= 1)
    restarts = sum(row["restarts"] for row in daemon.client().status([])["jobs"])
    assert restarts <= 10 + 1 + (time.monotonic() - begun) * 1
