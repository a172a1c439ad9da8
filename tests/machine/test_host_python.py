# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import base64
import json
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from composite_host import Host, config_socket, python_host

SHOW = "import json\ndef start(config, context):\n    print(context.name, json.dumps(config))\n"
OK = "!!OK!!"


@pytest.fixture
def module(tmp_path: Path) -> Callable[..., dict[str, Any]]:
    def make(directory_name: str, files: dict[str, str]) -> dict[str, Any]:
        directory = tmp_path / "modules" / directory_name
        directory.mkdir(parents=True)
        for name, text in files.items():
            (directory / name).write_text(text)
        return {"exec_cmd": str(directory), "config": "", "config_name": "default"}

    return make


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Callable[..., Host]]:
    hosts: list[Host] = []

    def start(modules: Any, **options: Any) -> Host:
        hosts.append(Host(python_host(), modules, errors=tmp_path / "stderr", **options))
        return hosts[-1]

    yield start
    for each in hosts:
        each.close()


def test_packages_scripts_files_and_plain_modules_are_all_started_before_ok(module, host, tmp_path):
    single = tmp_path / "single.py"
    single.write_text("def start(config):\n    print('file', config)\n")
    running = host(
        {
            "package": module(
                "package", {"__init__.py": "from . import part\n", "part.py": "print('part')\n"}
            ),
            "script": module("script", {"main.py": SHOW}),
            "by-name": module("by-name", {"by_name.py": "print('by name')\n"}),
            "file": {"exec_cmd": str(single)},
            "co": module("co", {"main.py": "async def start():\n    print('coroutine')\n"}),
        }
    )
    assert running.until(OK) == ["part", "script null", "by name", "file None", "coroutine"]
    assert running.end(signal.SIGTERM) == 0
    assert running.stderr == ""


def test_run_gets_its_own_thread_and_is_told_to_stop(module, host):
    source = """
import threading
def run(config, context):
    print(threading.current_thread().name + " runs\\n", end="")
    context.stopping.wait()
    print("asked to stop\\n", end="")
def stop():
    print("stop called\\n", end="")
"""
    running = host({"worker": module("worker", {"main.py": source})})
    running.until("worker runs")
    assert running.end(signal.SIGTERM) == 0
    assert sorted(line for line in running.out if line != OK) == [
        "asked to stop",
        "stop called",
        "worker runs",
    ]


def test_a_module_whose_run_has_begun_is_stopped_however_early_the_signal_comes(module, host):
    source = """
import os, signal
def run(config, context):
    os.kill(os.getpid(), signal.SIGTERM)
    context.stopping.wait()
def stop():
    print("stop called")
"""
    running = host({"worker": module("worker", {"main.py": source})})
    assert running.end() == 0
    assert running.out == ["stop called"]


def test_ok_is_said_once_and_after_every_start(module, host):
    slow = "import time\ndef start():\n    time.sleep(0.3)\n    print('slow is up')\n"
    running = host({"slow": module("slow", {"main.py": slow}), "quick": module("quick", {"main.py": SHOW})})
    assert running.until(OK) == ["slow is up", "quick null"]
    running.end(signal.SIGTERM)
    assert running.out.count(OK) == 1


def test_a_module_that_cannot_be_loaded_is_named_and_the_others_run(module, host):
    running = host(
        {
            "good": module("good", {"main.py": SHOW}),
            "absent": {"exec_cmd": "/nowhere/at/all"},
            "broken": module("broken", {"main.py": "syntax error here"}),
            "empty": module("empty", {"readme.txt": ""}),
            "quitter": module("quitter", {"main.py": "raise SystemExit(3)"}),
            "thrower": module("thrower", {"main.py": "def start(): raise OSError('no radio')"}),
            "unnamed": {"exec_cmd": ""},
        }
    )
    assert running.until(OK) == ["good null"]
    assert running.end(signal.SIGTERM) == 0
    for text in (
        "cannot load module absent: FileNotFoundError: /nowhere/at/all does not exist",
        "cannot load module broken: SyntaxError",
        "cannot load module empty: FileNotFoundError",
        "holds none of __init__.py, main.py, empty.py",
        "cannot load module quitter: SystemExit: 3",
        "cannot load module thrower: OSError: no radio",
        "cannot load module unnamed: ValueError: it has no exec_cmd",
        "running without: absent, broken, empty, quitter, thrower, unnamed",
    ):
        assert text in running.stderr


@pytest.mark.parametrize("modules", [{}, {"absent": {"exec_cmd": "/nowhere"}}])
def test_without_any_module_there_is_no_ok_and_the_host_fails(host, modules):
    running = host(modules)
    assert running.end() == 1
    assert running.out == []
    assert "no module could be loaded" in running.stderr


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"process_config": ""}'])
def test_a_broken_list_of_modules_is_reported(host, text):
    running = host(text)
    assert running.end() == 1
    assert "cannot read the list of modules from stdin" in running.stderr


def test_inline_config_is_json_with_comments_and_variables(module, host):
    show = module("show", {"main.py": SHOW})
    show["config"] = """{ // where it lives
        "dir": "${thisdir}/data", "home": "${home}", "quoted": "${QUOTED}", "port": ${PORT},
        "unknown": "${NOT_SET}", "url": "http://host/path" /* no comment inside a string */ }"""
    env = {"HOME": "/home/dev", "QUOTED": 'say "hi" \\', "PORT": "8080"}
    (line,) = host({"show": show}, env=env).until(OK)
    assert json.loads(line.removeprefix("show ")) == {
        "dir": show["exec_cmd"] + "/data",
        "home": "/home/dev",
        "quoted": 'say "hi" \\',
        "port": 8080,
        "unknown": "${NOT_SET}",
        "url": "http://host/path",
    }


def test_config_that_is_not_json_arrives_as_text_and_broken_json_fails_by_name(module, host):
    text, broken = module("text", {"main.py": SHOW}), module("broken", {"main.py": SHOW})
    text["config"] = "key = ${VALUE}"
    broken["config"] = '{ "theConf": '
    running = host({"text": text, "broken": broken}, env={"VALUE": '"1"'})
    assert running.until(OK) == ['text "key = \\"1\\""']
    assert "cannot load module broken: ValueError: its config is not JSON" in running.stderr


def test_config_comes_from_the_daemon_then_from_the_module(module, host, tmp_path):
    stored = {
        ("stored", "night"): {"data": '{"a": "${thisdir}"} // comment', "encoding": "utf8"},
        ("coded", "default"): {"data": base64.b64encode(b'{"b": 2}').decode(), "encoding": "base64"},
    }
    own = {"config.json": '{"own": 1} // yes'}
    modules = {
        name: module(name, {"main.py": SHOW, **(own if name in ("own", "failing") else {})})
        for name in ("stored", "coded", "own", "none", "failing")
    }
    modules["stored"]["config_name"] = "night"
    modules["failing"]["config_name"] = "broken"
    with config_socket(tmp_path, stored) as configs:
        running = host(modules, socket=configs.path)
        lines = running.until(OK)
    directory = modules["stored"]["exec_cmd"]
    assert lines == [
        f'stored {{"a": "{directory}"}}',
        'coded {"b": 2}',
        'own {"own": 1}',
        "none null",
        'failing {"own": 1}',
    ]
    assert configs.asked[0] == "/jobConfig/stored/night"
    assert "cannot fetch the config of module failing: the daemon answered 500" in running.stderr


def test_a_daemon_that_is_not_there_is_reported_and_does_not_stop_a_module(module, host, tmp_path):
    running = host({"one": module("one", {"main.py": SHOW})}, socket=str(tmp_path / "no.sock"))
    assert running.until(OK) == ["one null"]
    assert "cannot fetch the config of module one: No such file" in running.stderr


def test_a_module_can_ask_for_a_config_later_and_sees_the_process_config(module, host, tmp_path):
    source = """
import json
def start(config, context):
    print(json.dumps([context.fetch_config("late"), context.fetch_config("gone")]))
    print(json.dumps([context.process_config, context.socket, context.directory]))
"""
    with config_socket(tmp_path, {("m", "late"): {"data": '{"x": 1}', "encoding": ""}}) as configs:
        m = module("m", {"main.py": source})
        lines = host({"m": m}, socket=configs.path, process_config='{ "debug": true /* on */ }').until(OK)
        assert [json.loads(line) for line in lines] == [
            [{"x": 1}, None],
            [{"debug": True}, configs.path, m["exec_cmd"]],
        ]


def test_two_modules_may_have_files_of_the_same_name(module, host):
    def files(word: str) -> dict[str, str]:
        return {"main.py": "from . import helper\nprint(helper.WORD)\n", "helper.py": f"WORD = '{word}'\n"}

    running = host({"a": module("a", files("first")), "b": module("b", files("second"))})
    assert running.until(OK) == ["first", "second"]
    assert running.stderr == ""


def test_a_helper_that_would_be_mistaken_for_anothers_is_reported(module, host):
    files = {"main.py": "import helper_of_both\n", "helper_of_both.py": ""}
    running = host({"a": module("a", files), "b": module("b", files)})
    running.until(OK)
    assert "modules b and a both hold helper_of_both.py: use `from . import` there" in running.stderr


def test_a_run_that_raises_names_its_module_and_ends_the_host(module, host):
    wild = "def run(config, context):\n    raise RuntimeError('late')\n"
    running = host({"calm": module("calm", {"main.py": SHOW}), "wild": module("wild", {"main.py": wild})})
    assert running.end() == 1
    assert "module wild failed: RuntimeError: late" in running.stderr


def test_the_host_ends_well_once_every_module_has_finished(module, host):
    short = "def run():\n    print('done\\n', end='')\n"
    running = host({"short": module("short", {"main.py": short})})
    assert running.end() == 0
    assert sorted(running.out) == [OK, "done"]
    assert "module short has finished" in running.stderr


def test_term_while_a_module_still_starts_names_it(module, host):
    never = "import threading\ndef start():\n    print('begun')\n    threading.Event().wait()\n"
    running = host({"never": module("never", {"main.py": never})})
    running.until("begun")
    assert running.end(signal.SIGTERM) == 0
    assert running.out == ["begun"]
    assert "asked to stop while still starting: never" in running.stderr


def test_a_stop_that_raises_is_named_and_the_others_are_stopped(module, host):
    def source(body: str) -> dict[str, str]:
        return {"main.py": f"def start(): pass\ndef stop():\n    {body}\n"}

    modules = {
        "a": module("a", source("raise OSError('stuck')")),
        "b": module("b", source("print('b stopped')")),
    }
    running = host(modules)
    running.until(OK)
    assert running.end(signal.SIGTERM) == 0
    assert running.out == [OK, "b stopped"]
    assert "cannot stop module a: OSError: stuck" in running.stderr
