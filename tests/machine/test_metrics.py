# SPDX-License-Identifier: Apache-2.0
"""Metrics, as the programs read them that collect metrics."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families as text_format
from support.daemon import Daemon
from support.documents import document, job

from maestro_py.daemon.metrics import FAMILIES
from maestro_py.spec.resolved import State

EAGER = {"initial": 0.01, "max": 0.01, "jitter": 0}
STARTS = {"uses_ok_string": True, "timeout_for_ok": 20000}
PATIENCE = 20

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def samples(families: Iterator[object]) -> Samples:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in families
        for sample in family.samples  # type: ignore[attr-defined]
    }


def ask(daemon: Daemon) -> Samples:
    return samples(openmetrics(daemon.client().metrics()))


def value(found: Samples, name: str, **labels: str) -> float | None:
    return found.get((name, frozenset(labels.items())))


def wait_for(what: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.02)  # a counter moves without saying so


def test_a_page_is_valid_openmetrics_and_says_its_type(daemon: Daemon) -> None:
    daemon.run(document(job("app"), job("other", "echo '!!OK!!'; exec sleep 1000", **STARTS)))
    stream = daemon.client().stream("GET", "/v1/metrics")
    page = b"".join(stream).decode()
    assert stream.content_type == "application/openmetrics-text"
    families = {family.name: family.type for family in openmetrics(page)}
    known = {name: type for name, type, _ in FAMILIES}
    assert families.items() <= known.items()
    measured_anywhere = {
        name for name in known if "limit" not in name and "peak" not in name and "oom" not in name
    }
    assert measured_anywhere - {"maestro_process_restarts"} <= set(families)


def test_the_text_format_before_openmetrics_has_the_same_samples(daemon: Daemon) -> None:
    daemon.run(document(job("app")))
    stream = daemon.client().stream("GET", "/v1/metrics", {"format": "text"})
    page = b"".join(stream).decode()
    assert stream.content_type == "text/plain"
    assert set(samples(text_format(page))) == set(ask(daemon))


def test_an_unknown_format_is_refused(daemon: Daemon) -> None:
    with pytest.raises(Exception, match="format is `openmetrics` or `text`"):
        daemon.client().request("GET", "/v1/metrics", {"format": "csv"})


def test_every_job_is_in_exactly_one_state(daemon: Daemon) -> None:
    daemon.run(document(job("app"), job("off", disabled=True)))
    found = ask(daemon)
    for name, now in (("app", State.RUNNING), ("off", daemon.job("off")["state"])):
        states = {s.value: value(found, "maestro_job_state", job=name, state=s.value) for s in State}
        assert {state for state, one in states.items() if one} == {State(now).value}
        assert None not in states.values()


def test_restarts_are_counted_by_cause_and_not_forgotten_by_a_start(daemon: Daemon) -> None:
    restart = {"restart": True, "restart_backoff": EAGER}
    died = daemon.root / "died"
    daemon.client().apply(
        document(job("app", f"test -e {died} || {{ >{died}; exit 3; }}; exec sleep 1000", **restart))
    )
    wait_for(lambda: value(ask(daemon), "maestro_process_restarts_total", process="app", cause="exit") == 1)
    daemon.wait_state("app", "RUNNING")
    daemon.do("app", "restart")
    os.kill(daemon.job("app")["pid"], signal.SIGKILL)
    wait_for(lambda: value(ask(daemon), "maestro_process_restarts_total", process="app", cause="signal") == 1)
    assert value(ask(daemon), "maestro_process_restarts_total", process="app", cause="exit") == 1


def test_what_a_running_process_uses_is_measured(daemon: Daemon) -> None:
    script = "i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done; echo '!!OK!!'; sleep 1000 & wait"
    daemon.run(document(job("app", script, **STARTS)))
    wait_for(lambda: value(ask(daemon), "maestro_process_tasks", process="app") == 2)
    found = ask(daemon)
    for name in ("cpu_seconds_total", "memory_bytes", "ready_seconds"):
        measured = value(found, f"maestro_process_{name}", process="app")
        assert measured is not None
        assert measured > 0, name
    assert value(found, "maestro_process_io_read_bytes_total", process="app") is not None
    daemon.do("app", "stop")
    assert value(ask(daemon), "maestro_process_memory_bytes", process="app") is None


def test_logged_bytes_are_counted_exactly(daemon: Daemon) -> None:
    daemon.run(document(job("app", "printf 12345; sleep 1000")))
    daemon.wait_log("app", "12345")
    found = ask(daemon)
    assert value(found, "maestro_process_log_bytes_total", process="app") == 5
    assert value(found, "maestro_daemon_log_bytes_total") == 5
    assert value(found, "maestro_process_log_dropped_bytes_total", process="app") == 0


def test_the_daemon_measures_its_loop_and_its_databases(daemon: Daemon) -> None:
    before = ask(daemon)
    daemon.run(document(job("app")))
    after = ask(daemon)
    for name in ("maestro_daemon_loop_round_seconds_count", "maestro_daemon_loop_round_seconds_sum"):
        assert (value(after, name) or 0) > (value(before, name) or 0)
    name = "maestro_daemon_state_write_seconds_count"
    wait_for(lambda: all(value(ask(daemon), name, database=database) for database in ("run", "state")))


def test_a_name_full_of_marks_stays_a_name(daemon: Daemon) -> None:
    name = 'a"b\\c{d}=<e>,1 #'
    daemon.run(document(job(name)))
    found = ask(daemon)
    assert value(found, "maestro_job_state", job=name, state="RUNNING") == 1


@pytest.mark.root
def test_a_limited_job_shows_its_limit_its_peak_and_its_kills(daemon: Daemon) -> None:
    hog = "tail /dev/zero"  # keeps what has no line end
    limited = job(
        "hog", hog, cgroup={"mem_limit": "16M", "pids_max": 20}, restart=True, restart_backoff=EAGER
    )
    daemon.client().apply(document(limited))
    wait_for(
        lambda: (value(ask(daemon), "maestro_process_restarts_total", process="hog", cause="oom") or 0) > 0
    )
    wait_for(lambda: (value(ask(daemon), "maestro_process_oom_kills_total", process="hog") or 0) > 0)

    def limits() -> bool:
        found = ask(daemon)
        names = ("memory_limit_bytes", "memory_peak_bytes", "tasks_limit")
        shown = [value(found, f"maestro_process_{name}", process="hog") for name in names]
        return shown[0] == 16 << 20 and 0 < (shown[1] or 0) <= 16 << 20 and shown[2] == 20

    wait_for(limits)  # between two lives there is nothing to measure


def test_the_command_prints_the_page_and_json(daemon: Daemon) -> None:
    daemon.run(document(job('a "b"')))
    printed = daemon.cli("metrics")
    assert (printed.returncode, printed.stderr) == (0, "")
    assert value(samples(openmetrics(printed.stdout)), "maestro_job_state", job='a "b"', state="RUNNING") == 1
    import json

    rows = json.loads(daemon.cli("metrics", "--json").stdout)["samples"]
    wanted = {"name": "maestro_job_state", "labels": {"job": 'a "b"', "state": "RUNNING"}, "value": 1}
    assert wanted in rows


def test_the_command_writes_a_file_for_the_textfile_collector(daemon: Daemon, tmp_path: Path) -> None:
    file = tmp_path / "maestro.prom"
    file.write_text("old")
    done = daemon.cli("metrics", "--textfile", str(file))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert value(samples(text_format(file.read_text())), "maestro_daemon_log_bytes_total") == 0
    assert [path.name for path in tmp_path.glob("*.prom*")] == ["maestro.prom"]
    nowhere = daemon.cli("metrics", "--textfile", str(tmp_path / "absent" / "maestro.prom"))
    assert nowhere.returncode == 1
    assert "cannot write" in nowhere.stderr
    assert "No such file or directory" in nowhere.stderr


def test_a_file_is_kept_as_long_as_the_config_file_says_so(
    make_daemon: Callable[..., Daemon], tmp_path: Path
) -> None:
    file = tmp_path / "maestro.prom"
    daemon = make_daemon(f"metrics_file: {file}\nmetrics_interval: 1s\n")
    daemon.client().apply(document(job("app")))

    def shown() -> bool:
        page = file.read_text() if file.exists() else ""
        return value(samples(text_format(page)), "maestro_job_state", job="app", state="RUNNING") == 1

    wait_for(shown)
    assert file.stat().st_mode & 0o777 == 0o644
    config = daemon.root / "maestro.yaml"
    config.write_text("log_level: info\n")
    assert daemon.process
    daemon.process.send_signal(signal.SIGHUP)
    wait_for(lambda: any(task["kind"] == "reload" for task in daemon.client().tasks()["tasks"]))
    file.unlink()
    time.sleep(1.5)  # what does not happen can only be waited for
    assert not file.exists()


def test_a_file_that_cannot_be_written_is_told_once_and_does_no_harm(
    make_daemon: Callable[..., Daemon], tmp_path: Path
) -> None:
    daemon = make_daemon(f"metrics_file: {tmp_path}/absent/maestro.prom\nmetrics_interval: 1s\n")
    daemon.run(document(job("app")))
    wait_for(lambda: "cannot write the metrics file" in daemon.output())
    time.sleep(1.5)  # it would be told again by now
    assert daemon.output().count("cannot write the metrics file") == 1
    (tmp_path / "absent").mkdir()
    wait_for((tmp_path / "absent" / "maestro.prom").exists)


def test_an_interval_below_a_second_is_refused(tmp_path: Path) -> None:
    config = tmp_path / "maestro.yaml"
    config.write_text("metrics_file: /tmp/m.prom\nmetrics_interval: 10ms\n")
    from maestro_py.daemon.main import main

    assert main(["--check", "--config", str(config)]) == 1
