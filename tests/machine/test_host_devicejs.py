# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import base64
import json
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from composite_host import Host, config_socket, devicejs_host

pytestmark = [
    pytest.mark.node,
    pytest.mark.skipif(shutil.which("node") is None, reason="needs Node: apt-get install nodejs"),
]

SHOW = (
    "module.exports = (config, context) => { console.log(context.name + ' ' + JSON.stringify(config)); };\n"
)
OK = "!!OK!!"


@pytest.fixture
def module(tmp_path: Path) -> Callable[..., dict[str, Any]]:
    def make(name: str, source: str, **files: str) -> dict[str, Any]:
        directory = tmp_path / "modules" / name
        directory.mkdir(parents=True)
        (directory / "index.js").write_text(source)
        for file, text in files.items():
            (directory / file.replace("__", ".")).write_text(text)
        return {"exec_cmd": str(directory), "config": "", "config_name": "default"}

    return make


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Callable[..., Host]]:
    hosts: list[Host] = []

    def start(modules: Any, **options: Any) -> Host:
        hosts.append(Host(devicejs_host(), modules, errors=tmp_path / "stderr", **options))
        return hosts[-1]

    yield start
    for each in hosts:
        each.close()


def test_functions_objects_promises_and_plain_modules_are_all_started_before_ok(module, host):
    running = host(
        {
            "function": module("function", SHOW),
            "object": module("object", "exports.start = async (config) => console.log('object', config);"),
            "promise": module("promise", "module.exports = Promise.resolve(() => console.log('promised'));"),
            "plain": module("plain", "console.log('plain');"),
            "named": module("named", "", package__json='{"main": "lib.js"}', lib__js="console.log('main');"),
        }
    )
    assert sorted(running.until(OK)) == ["function null", "main", "object null", "plain", "promised"]
    assert running.end(signal.SIGTERM) == 0
    assert running.stderr == ""


def test_es_modules_are_loaded_too(module, host):
    running = host(
        {"es": module("es", "export default () => console.log('es');", package__json='{"type": "module"}')}
    )
    assert running.until(OK) == ["es"]


def test_a_module_directory_is_not_mistaken_for_a_file_of_that_name_beside_it(module, host):
    definition = module("1.0.8-abc", SHOW)
    Path(definition["exec_cmd"] + ".json").write_text('{"not": "the module"}')
    running = host({"a": definition})
    assert running.until(OK) == ["a null"]


def test_ok_waits_for_the_slowest_module(module, host):
    slow = """module.exports = () => new Promise((done) => setTimeout(() => {
        console.log('slow is up'); done(); }, 300));"""
    running = host({"quick": module("quick", SHOW), "slow": module("slow", slow)})
    assert running.until(OK) == ["quick null", "slow is up"]


def test_a_module_that_cannot_be_loaded_is_named_and_the_others_run(module, host):
    running = host(
        {
            "good": module("good", SHOW),
            "absent": {"exec_cmd": "/nowhere/at/all"},
            "broken": module("broken", "syntax error here"),
            "thrower": module("thrower", "module.exports = () => { throw new Error('no radio'); };"),
            "unnamed": {"exec_cmd": ""},
        }
    )
    assert running.until(OK) == ["good null"]
    assert running.end(signal.SIGTERM) == 0
    for text in (
        "cannot load module absent: Error: /nowhere/at/all does not exist",
        "cannot load module broken: ",
        "cannot load module thrower: Error: no radio",
        "cannot load module unnamed: Error: it has no exec_cmd",
        "running without: absent, broken, thrower, unnamed",
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
    show = module("show", SHOW)
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
    text, broken = module("text", SHOW), module("broken", SHOW)
    text["config"] = "key = ${VALUE}"
    broken["config"] = '{ "theConf": '
    running = host({"text": text, "broken": broken}, env={"VALUE": '"1"'})
    assert running.until(OK) == ['text "key = \\"1\\""']
    assert "cannot load module broken: Error: its config is not JSON" in running.stderr


def test_config_comes_from_the_daemon_then_from_the_module(module, host, tmp_path):
    stored = {
        ("stored", "night"): {"data": '{"a": "${thisdir}"} // comment', "encoding": "utf8"},
        ("coded", "default"): {"data": base64.b64encode(b'{"b": 2}').decode(), "encoding": "base64"},
    }
    names = ("stored", "coded", "own", "none", "failing")
    modules = {
        name: module(
            name, SHOW, **({"config__json": '{"own": 1} // yes'} if name in ("own", "failing") else {})
        )
        for name in names
    }
    modules["stored"]["config_name"] = "night"
    modules["failing"]["config_name"] = "broken"
    with config_socket(tmp_path, stored) as configs:
        running = host(modules, socket=configs.path)
        lines = running.until(OK)
    directory = modules["stored"]["exec_cmd"]
    assert sorted(lines) == [
        'coded {"b":2}',
        'failing {"own":1}',
        "none null",
        'own {"own":1}',
        f'stored {{"a":"{directory}"}}',
    ]
    assert sorted(configs.asked)[0] == "/jobConfig/coded/default"
    assert "cannot fetch the config of module failing: the daemon answered 500" in running.stderr


def test_a_daemon_that_is_not_there_is_reported_and_does_not_stop_a_module(module, host, tmp_path):
    running = host({"one": module("one", SHOW)}, socket=str(tmp_path / "no.sock"))
    assert running.until(OK) == ["one null"]
    assert "cannot fetch the config of module one: connect ENOENT" in running.stderr


def test_a_module_can_ask_for_a_config_later_and_sees_the_process_config(module, host, tmp_path):
    source = """module.exports = async (config, context) => {
        console.log(JSON.stringify([await context.fetchConfig('late'), await context.fetchConfig('gone')]));
        console.log(JSON.stringify([context.processConfig, context.socket, context.dir]));
    };"""
    with config_socket(tmp_path, {("m", "late"): {"data": '{"x": 1}', "encoding": ""}}) as configs:
        m = module("m", source)
        lines = host({"m": m}, socket=configs.path, process_config='{ "debug": true /* on */ }').until(OK)
        assert [json.loads(line) for line in lines] == [
            [{"x": 1}, None],
            [{"debug": True}, configs.path, m["exec_cmd"]],
        ]


def test_term_calls_stop_of_what_was_returned_and_of_what_was_exported(module, host):
    running = host(
        {
            "returned": module(
                "returned",
                "module.exports = () => ({ stop: async () => console.log('returned stopped') });",
            ),
            "exported": module(
                "exported",
                "module.exports = { start() {}, stop() { console.log('exported stopped'); } };",
            ),
            "clumsy": module(
                "clumsy", "exports.start = () => {}; exports.stop = () => { throw Error('stuck'); };"
            ),
        }
    )
    running.until(OK)
    assert running.end(signal.SIGTERM) == 0
    assert sorted(running.out[1:]) == ["exported stopped", "returned stopped"]
    assert "cannot stop module clumsy: Error: stuck" in running.stderr


def test_term_while_a_module_still_starts_names_it(module, host):
    never = "module.exports = () => { console.log('begun'); return new Promise(() => {}); };"
    running = host({"never": module("never", never)})
    running.until("begun")
    assert running.end(signal.SIGTERM) == 0
    assert running.out == ["begun"]
    assert "SIGTERM came while still starting: never" in running.stderr


@pytest.mark.parametrize("how", ["throw new Error('late')", "Promise.reject(new Error('late'))"])
def test_an_uncaught_error_names_its_module_and_ends_the_host(module, host, how):
    source = f"module.exports = () => {{ process.once('SIGUSR2', () => {{ {how}; }}); }};"
    running = host({"calm": module("calm", SHOW), "wild": module("wild", source)})
    running.until(OK)
    assert running.end(signal.SIGUSR2) == 1
    assert "module wild failed: Error: late" in running.stderr


def test_two_jobs_with_one_directory_get_a_config_each(module, host):
    first = module("shared", SHOW)
    running = host({"a": {**first, "config": "1"}, "b": {**first, "config": "2"}})
    assert running.until(OK) == ["a 1", "b 2"]
