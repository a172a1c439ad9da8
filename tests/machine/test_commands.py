# SPDX-License-Identifier: Apache-2.0
"""The command as a person uses it, against a real daemon."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support.daemon import Daemon
from support.documents import WAIT, document, image, job, python


@contextmanager
def following(daemon: Daemon, *args: str) -> Iterator[subprocess.Popen[str]]:
    """Run a command that stays; end it at the end."""
    process = subprocess.Popen(
        [sys.executable, "-m", "maestro_py.cli", "--socket", str(daemon.socket), *args],
        stdout=subprocess.PIPE,
        text=True,
        env=daemon.env,
    )
    try:
        yield process
    finally:
        process.terminate()
        assert process.stdout
        process.stdout.close()
        process.wait(10)


def read_until(process: subprocess.Popen[str], text: str) -> str:
    assert process.stdout
    seen = ""
    for line in process.stdout:
        seen += line
        if text in line:
            return seen
    raise AssertionError(f"ended without {text!r}: {seen}")


def test_status_shows_jobs_and_json_has_every_field(daemon: Daemon, tmp_path: Path) -> None:
    assert daemon.cli("status").stdout == "no jobs; apply a running config with `maestro apply FILE`\n"
    daemon.apply(document(job("one"), job("two", "exit 3")))
    daemon.wait_state("two", "FAILED")
    shown = daemon.cli("status")
    assert shown.returncode == 0
    head, one, two = shown.stdout.splitlines()
    assert head.split()[:2] == ["JOB", "STATE"]
    assert one.split()[:2] == ["one", "RUNNING"]
    assert two.split()[:2] == ["two", "FAILED"]
    assert "exit code 3" in two
    rows = json.loads(daemon.cli("--json", "status").stdout)["jobs"]
    assert set(rows[0]) >= {
        "job", "state", "pid", "composite_id", "template", "restarts", "image_version", "since",
        "cause", "memory", "ready",
    }  # fmt: skip
    only = json.loads(daemon.cli("--json", "status", "two").stdout)["jobs"]
    assert [row["job"] for row in only] == ["two"]
    unknown = daemon.cli("status", "tow")
    assert unknown.returncode == 1
    assert "no job tow" in unknown.stderr
    assert "did you mean two?" in unknown.stderr


def test_start_stop_restart_wait_for_the_result(daemon: Daemon) -> None:
    daemon.run(document(job("one"), job("two")))
    stopped = daemon.cli("stop", "one", "two")
    assert (stopped.returncode, stopped.stdout) == (0, "stopped one\nstopped two\n")
    assert {row["state"] for row in daemon.client().status()["jobs"]} == {"STOPPED"}
    started = daemon.cli("start", "one", "two")
    assert (started.returncode, started.stdout) == (0, "started one\nstarted two\n")
    pid = daemon.job("one")["pid"]
    assert daemon.cli("restart", "one").returncode == 0
    assert daemon.job("one")["pid"] not in (None, pid)


def test_start_of_a_job_that_fails_says_why_and_where_to_look(daemon: Daemon) -> None:
    daemon.apply(document(job("bad", "echo my last words; exit 4", wait_for_ok=True)))
    said = daemon.cli("start", "bad")
    assert said.returncode == 1
    assert "cannot start bad: exit code 4 before it said OK" in said.stderr
    assert "maestro why bad" in said.stderr
    assert daemon.cli("logs", "bad").stdout.startswith("my last words\n")


def test_acting_on_an_unknown_job_names_it_and_the_others_are_done(daemon: Daemon) -> None:
    daemon.run(document(job("one")))
    said = daemon.cli("stop", "on", "one")
    assert said.returncode == 1
    assert "no job on" in said.stderr
    assert daemon.job("one")["state"] == "STOPPED"


@pytest.mark.parametrize("spelled", ["SIGUSR1", "usr1", "10"])
def test_kill_sends_the_signal_that_was_named(spelled: str, daemon: Daemon) -> None:
    script = (
        "import signal\nsignal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])\n"
        "print('!!OK!!', flush=True)\nprint('got', signal.sigwait([signal.SIGUSR1]).name, flush=True)\n"
        "signal.pause()"
    )
    daemon.run(document(python("app", script, wait_for_ok=True)))
    sent = daemon.cli("kill", "-s", spelled, "app")
    assert (sent.returncode, sent.stdout) == (0, "sent SIGUSR1 to app\n")
    daemon.wait_log("app", "got SIGUSR1")
    assert daemon.job("app")["state"] == "RUNNING"


def test_kill_of_a_job_that_is_down_and_of_no_signal_is_refused(daemon: Daemon) -> None:
    daemon.run(document(job("app")))
    assert "SIGNONE" in (wrong := daemon.cli("kill", "-s", "SIGNONE", "app")).stderr
    assert wrong.returncode == 2
    assert daemon.cli("kill", "app").returncode == 0  # SIGTERM by default
    assert daemon.wait_state("app", "FAILED")["cause"].startswith("killed by SIGTERM, sent by ")
    down = daemon.cli("kill", "app")
    assert down.returncode == 1
    assert "cannot signal app: it does not run" in down.stderr


def test_disable_keeps_a_job_stopped_and_enable_lets_it_run(daemon: Daemon, tmp_path: Path) -> None:
    daemon.run(document(job("app")))
    assert daemon.cli("disable", "app").stdout == "disabled app\n"
    row = daemon.job("app")
    assert (row["state"], row["enabled"], row["cause"]) == ("STOPPED", False, "disabled")
    for verb in ("start", "restart"):
        refused = daemon.cli(verb, "app")
        assert refused.returncode == 1
        assert f"cannot {verb} app: it is disabled" in refused.stderr
        assert "maestro enable app" in refused.stderr
    assert "`maestro enable app` lets it run" in daemon.cli("why", "app").stdout
    assert daemon.cli("enable", "app").stdout == "enabled app\n"
    assert daemon.job("app")["state"] == "RUNNING"


def test_logs_last_lines_follow_and_previous(daemon: Daemon, tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    script = f"echo one; echo two; echo three; while read line < {fifo}; do echo $line; done"
    daemon.run(document(job("app", script)))
    daemon.wait_log("app", "three")
    assert daemon.cli("logs", "app").stdout == "one\ntwo\nthree\n"
    assert daemon.cli("logs", "app", "-n", "2").stdout == "two\nthree\n"
    assert json.loads(daemon.cli("--json", "logs", "app", "-n1").stdout) == {"job": "app", "lines": ["three"]}
    with following(daemon, "logs", "-f", "-n", "1", "app") as process:
        assert read_until(process, "three") == "three\n"
        fifo.write_text("four\n")
        assert read_until(process, "four") == "four\n"
        daemon.do("app", "restart")
        assert "one" in read_until(process, "three")  # it goes on with the next run
    assert daemon.cli("logs", "app", "--previous", "-n", "2").stdout == "three\nfour\n"
    assert daemon.cli("logs", "app", "--previous").stdout == "one\ntwo\nthree\nfour\n"


def test_logs_hold_both_streams_of_the_job(daemon: Daemon) -> None:
    daemon.run(document(job("app", f"echo out; echo err >&2; {WAIT}")))
    daemon.wait_log("app", "out\n")
    daemon.wait_log("app", "err\n")
    assert sorted(daemon.cli("logs", "app").stdout.splitlines()) == ["err", "out"]


def test_logs_follow_ends_when_the_job_is_removed(daemon: Daemon) -> None:
    daemon.run(document(job("app", f"echo here; {WAIT}"), job("other")))
    with following(daemon, "logs", "-f", "app") as process:
        read_until(process, "here")
        daemon.run(document(job("other")))
        try:
            assert process.wait(3) == 0
        except subprocess.TimeoutExpired:
            pytest.fail("it waits for ever for output of a job that does not exist any more")


def test_logs_of_a_job_that_never_printed_are_empty(daemon: Daemon) -> None:
    daemon.run(document(job("app"), job("lazy", no_autostart=True)))
    for name in ("app", "lazy"):
        shown = daemon.cli("logs", name)
        assert (shown.returncode, shown.stdout) == (0, "")


def test_why_tells_the_state_and_its_reason(daemon: Daemon) -> None:
    daemon.apply(document(job("runs"), job("lazy", no_autostart=True), job("ended", "exit 3")))
    daemon.wait_state("ended", "FAILED")
    daemon.do("runs", "stop")
    assert re.match(r"runs is STOPPED\nruns is stopped: stopped by \S+", daemon.cli("why", "runs").stdout)
    assert "it is not started by itself" in daemon.cli("why", "lazy").stdout
    assert "ended failed: exit code 3." in daemon.cli("why", "ended").stdout
    answer = json.loads(daemon.cli("--json", "why", "ended").stdout)
    assert (answer["job"], answer["state"]) == ("ended", "FAILED")


def test_events_are_numbered_and_followed(daemon: Daemon) -> None:
    daemon.run(document(job("app")))
    events = json.loads(daemon.cli("--json", "events").stdout)["events"]
    numbers = [event["id"] for event in events]
    assert numbers == sorted(set(numbers))
    assert [e["type"] for e in events if e["job"] == "app"] == ["process-starting", "process-running"]
    last = numbers[-1]
    assert daemon.cli("events", "--since", str(last)).stdout == ""
    daemon.do("app", "stop")
    since = daemon.cli("events", "--since", str(last)).stdout.splitlines()
    assert [line.split()[-1] == "STOPPED" or "STOP" in line for line in since] == [True, True]
    assert len(daemon.cli("events", "-n", "1").stdout.splitlines()) == 1
    with following(daemon, "events", "-f", "--since", str(last)) as process:
        read_until(process, "STOPPED")
        daemon.do("app", "start")
        assert "STARTING" in read_until(process, "RUNNING")


def test_tasks_are_listed_and_waited_for(daemon: Daemon, tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    file = tmp_path / "doc.json"
    file.write_text(
        json.dumps(document(job("app", f"read x < {fifo}; echo '!!OK!!'; {WAIT}", wait_for_ok=True)))
    )
    began = daemon.cli("apply", str(file), "--no-wait")
    assert began.returncode == 0
    match = re.fullmatch(r"task (\w+)\n", began.stdout)
    assert match
    task = match[1]
    assert "running" in daemon.cli("task", task).stdout
    short = daemon.cli("task", task, "--wait", "--timeout", "0.2")
    assert short.returncode == 1
    assert "it goes on" in short.stderr
    fifo.write_text("x\n")
    waited = daemon.cli("task", task, "--wait")
    assert waited.returncode == 0
    assert "complete" in waited.stdout
    listed = daemon.cli("tasks").stdout
    assert task in listed
    assert "apply" in listed
    unknown = daemon.cli("task", "nonesuch")
    assert unknown.returncode == 1
    assert "no task nonesuch" in unknown.stderr


def test_failed_task_can_be_asked_for_and_waiting_for_it_fails(daemon: Daemon, tmp_path: Path) -> None:
    file = tmp_path / "doc.json"
    file.write_text(json.dumps(document(job("app", "exit 9", wait_for_ok=True))))
    task = daemon.cli("apply", str(file), "--no-wait").stdout.split()[1]
    waited = daemon.cli("task", task, "--wait")
    assert waited.returncode == 1
    assert "app is FAILED: exit code 9 before it said OK" in waited.stderr
    assert daemon.cli("task", task).returncode == 0


def test_apply_gives_up_waiting_after_its_timeout_and_says_that_it_goes_on(
    daemon: Daemon, tmp_path: Path
) -> None:
    file = tmp_path / "doc.json"
    file.write_text(json.dumps(document(job("slow", WAIT, wait_for_ok=True))))
    said = daemon.cli("apply", str(file), "--timeout", "300ms")
    assert said.returncode == 1
    assert "it goes on" in said.stderr
    assert "slow is STARTING" in said.stderr
    assert daemon.cli("apply", "-", "--no-wait", input=file.read_text()).returncode == 0


def test_templates_are_listed_and_shown(daemon: Daemon) -> None:
    own = {"name": "own", "exec_cmd": "/bin/sh", "restart_pause": 250}
    daemon.run(document(templates=[own]))
    listed = daemon.cli("template", "list").stdout
    for name, source in (("own", "document"), ("python-modules", "shipped"), ("devicejs", "shipped")):
        assert re.search(rf"^{name}\s+{source}", listed, re.MULTILINE), listed
    shown = json.loads(daemon.cli("template", "show", "own").stdout)
    assert shown["exec_cmd"] == "/bin/sh"
    assert shown["restart_pause"] in (250, "250ms")
    missing = daemon.cli("template", "show", "nonesuch")
    assert missing.returncode == 1
    assert "no template nonesuch" in missing.stderr


def test_shown_template_can_be_put_into_a_document(daemon: Daemon) -> None:
    shown = json.loads(daemon.cli("template", "show", "python").stdout)
    shown["name"] = "copied"
    daemon.client().check(document(templates=[shown]))


def test_images_are_listed_with_their_use(daemon: Daemon, tmp_path: Path) -> None:
    assert daemon.cli("image", "list").stdout == "no images\n"
    for version in ("1.0", "2.0"):
        daemon.run(document(job("app"), images=[image("app", version, tmp_path, {"f": version})]))
    rows = [line.split()[:3] for line in daemon.cli("image", "list").stdout.splitlines()]
    assert ["app", "2.0", "current"] in rows
    assert ["app", "1.0", "previous"] in rows


def test_doctor_says_what_the_device_offers(daemon: Daemon) -> None:
    shown = daemon.cli("doctor")
    assert shown.returncode == 0
    assert "cgroup" in shown.stdout.lower()
    facts = json.loads(daemon.cli("--json", "doctor").stdout)["facts"]
    assert {"name", "value", "ok", "means"} <= set(facts[0])


def test_version_of_command_and_daemon(daemon: Daemon) -> None:
    assert daemon.process
    shown = daemon.cli("version").stdout
    assert f"pid {daemon.process.pid}" in shown


def test_without_a_daemon_every_command_ends_with_status_3(daemon: Daemon, tmp_path: Path) -> None:
    daemon.stop()
    file = tmp_path / "doc.json"
    file.write_text(json.dumps(document(job("app"))))
    for command in (
        ["status"],
        ["apply", str(file)],
        ["stop", "app"],
        ["logs", "app"],
        ["events"],
        ["doctor"],
    ):
        said = daemon.cli(*command)
        assert said.returncode == 3, command
        assert f"cannot reach maestrod at {daemon.socket}" in said.stderr
        assert "Traceback" not in said.stderr
    assert daemon.cli("check", str(file)).returncode == 0  # needs none


@pytest.mark.parametrize("flag", ["--stop-jobs", "--keep-jobs", ""])
def test_shutdown_stops_or_keeps_the_jobs(flag: str, daemon: Daemon) -> None:
    daemon.run(document(job("app")))
    pid = daemon.job("app")["pid"]
    pidfd = os.pidfd_open(pid)
    ended = daemon.cli("shutdown", *([flag] if flag else []))
    assert (ended.returncode, ended.stdout) == (0, "the daemon stopped\n")
    assert daemon.process
    assert daemon.process.wait(10) == 0
    assert not daemon.socket.exists()
    lives = Path(f"/proc/{pid}/comm").exists()
    assert lives is (flag == "--keep-jobs")
    os.close(pidfd)
    if lives:
        daemon.start()  # it takes its jobs in hand again, and ends them with itself
        daemon.wait_state("app", "RUNNING")


def test_shutdown_with_both_flags_is_a_usage_error(daemon: Daemon) -> None:
    said = daemon.cli("shutdown", "--keep-jobs", "--stop-jobs")
    assert said.returncode == 2
    assert "together" in said.stderr
