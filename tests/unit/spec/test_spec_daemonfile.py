# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from typing import Any

import pytest

from maestro_py.errors import InvalidDocument
from maestro_py.spec.daemonconfig import DaemonConfig, FileGenerator
from maestro_py.spec.documents import read_daemon_config
from maestro_py.spec.substitute import names, substitute


def read(
    data: object, environ: dict[str, str] | None = None, **builtins: str
) -> tuple[DaemonConfig, list[str]]:
    config, warnings = read_daemon_config(
        data,
        environ=environ or {},
        builtins={"thisdir": "/opt/m", "cwd": "/work", **builtins},
        source="maestro.yaml",
    )
    return config, [str(warning) for warning in warnings]


def variables(*pairs: tuple[str, Any], **environ: str) -> dict[str, str]:
    defs = [{"key": key, "value": value} for key, value in pairs]
    return dict(read({"var_defs": defs}, environ)[0].variables)


def refused(data: object) -> list[str]:
    with pytest.raises(InvalidDocument) as caught:
        read(data)
    return [str(problem) for problem in caught.value.problems]


def test_an_empty_file_is_an_empty_configuration() -> None:
    assert read(None) == (DaemonConfig(), [])
    assert read({"config_end": True}) == (DaemonConfig(), [])


def test_keys_of_both_origins_are_read() -> None:
    config, warnings = read(
        {
            "httpUnixSocket": "{{TMP}}/m.sock",
            "imagePath": "/im",
            "scratchPath": "/scratch",
            "configDBPath": "{{thisdir}}/m.db",
            "debug_opts": {"pid_file": "/run/m.pid", "keep_pids": True},
            "processes": {"reaper_interval": 1500},
            "clientId": 7,
            "var_defs": [{"key": "TMP", "value": "/tmp"}],
            "on_daemon_stop": "keep",
            "log_max_size": "1M",
            "log_max_files": 2,
            "operate_group": "ops",
            "config_end": True,
        }
    )
    assert warnings == []
    assert (config.socket, config.image_path, config.scratch_path) == ("/tmp/m.sock", "/im", "/scratch")
    assert (config.state_db, config.pid_file) == ("/opt/m/m.db", "/run/m.pid")
    assert (config.on_daemon_stop, config.log_max_size, config.log_max_files) == ("keep", 1 << 20, 2)
    assert (config.operate_group, dict(config.variables)) == ("ops", {"TMP": "/tmp"})


def test_other_subsystems_are_named_once_and_unknown_keys_each() -> None:
    _, warnings = read({"network": {"x": 1}, "MDNS": None, "targets": [1], "htpUnixSocket": "/x"})
    assert warnings == [
        "htpUnixSocket: unknown key, ignored (did you mean `httpUnixSocket`?)",
        "sections of other subsystems are ignored: mdns, network, targets",
    ]


def test_an_unknown_key_of_a_job_is_a_warning_and_a_wrong_type_an_error() -> None:
    config, warnings = read({"jobs": [{"job": "a", "exec_cmd": "/x", "colour": "red"}]})
    assert config.jobs[0].exec_cmd == "/x"
    assert warnings == ["jobs[0].colour: unknown key, ignored"]
    assert refused({"jobs": [{"job": "a", "restart": "often"}]}) == [
        'jobs[0].restart: job "a": expected true or false, not "often"'
    ]


@pytest.mark.parametrize("data", [[], "x", {"jobs": {}}, {"on_daemon_stop": "wait"}, {"log_max_files": 0}])
def test_a_wrong_document_is_refused(data: object) -> None:
    assert refused(data)


def test_the_same_job_twice_is_refused() -> None:
    assert "is given twice" in refused({"jobs": [{"job": "a"}, {"job": "a"}]})[0]


def test_numbers_are_taken_for_text_and_config_is_data() -> None:
    config, _ = read(
        {"jobs": [{"job": 7, "exec_args": ["-p", 9000, 1.5], "config": "{{thisdir}} ${thisdir}"}]}
    )
    assert config.jobs[0].job == "7"
    assert config.jobs[0].exec_args == ("-p", "9000", "1.5")
    assert config.jobs[0].config == "/opt/m ${thisdir}"


# Variables


def test_variables_may_be_made_of_variables_before_and_after_them() -> None:
    config, _ = read(
        {
            "var_defs": [
                {"key": "A", "value": "{{LATER}}/a"},
                {"key": "B", "value": "{{A}}/b"},
                {"key": "LATER", "value": "{{thisdir}}"},
            ],
            "jobs": [{"job": "j", "exec_cmd": "{{B}}"}],
        }
    )
    assert config.jobs[0].exec_cmd == "/opt/m/a/b"


def test_the_environment_is_read_in_var_defs_only_and_each_reference_by_itself() -> None:
    found = variables(
        ("A", "${HOST|localhost}:${PORT|443}"),
        ("B", "${HOME_DIR}/x${NONE}"),
        ("C", "${EMPTY|other}"),
        HOME_DIR="/h=1=2",
        PORT="80",
        EMPTY="",
    )
    assert found == {"A": "localhost:80", "B": "/h=1=2/x", "C": ""}
    assert read({"imagePath": "${HOME_DIR}"}, {"HOME_DIR": "/h"})[0].image_path == "${HOME_DIR}"


def test_values_of_variables_may_be_numbers() -> None:
    assert variables(("A", 9000), ("B", True), ("C", 1.5), ("D", None)) == {
        "A": "9000",
        "B": "true",
        "C": "1.5",
        "D": "",
    }


@pytest.mark.parametrize(
    "defs", [5, [5], [{"value": "x"}], [{"key": "", "value": "x"}], [{"key": "A", "value": []}]]
)
def test_wrong_variables_are_refused(defs: object) -> None:
    assert refused({"var_defs": defs})


def test_variables_that_multiply_are_refused() -> None:
    defs = [{"key": "A0", "value": "x" * 100}]
    defs += [{"key": f"A{i}", "value": f"{{{{A{i - 1}}}}}" * 20} for i in range(1, 12)]
    assert "longer than" in refused({"var_defs": defs})[0]


def test_a_variable_of_itself_ends() -> None:
    config, _ = read({"var_defs": [{"key": "A", "value": "{{A}}x"}], "imagePath": "/{{A}}"})
    assert config.image_path == "/" + "x" * 3


def test_an_unknown_name_is_empty_and_told_once_while_image_and_cmd_stay() -> None:
    config, warnings = read(
        {
            "jobs": [
                {"job": "a", "exec_cmd": "{{IMAGE}}/{{ARCH_X}}run", "exec_args": ["{{CMD}}", "{{ARCH_X}}"]}
            ],
            "imagePath": "/{{ ARCH_Y }}",
        }
    )
    assert config.jobs[0].exec_cmd == "{{IMAGE}}/run"
    assert config.jobs[0].exec_args == ("{{CMD}}", "")
    assert warnings == ["undefined variables read as empty: ARCH_X, ARCH_Y"]


def test_what_the_caller_defines_counts_and_is_handed_on() -> None:
    config, warnings = read({"imagePath": "/{{ARCH_X}}"}, ARCH_X="arm")
    assert config.image_path == "/arm"
    assert dict(config.variables) == {"ARCH_X": "arm"}
    assert not warnings


def test_values_are_not_escaped() -> None:
    config, _ = read({"var_defs": [{"key": "A", "value": "<\"&'>"}], "imagePath": "{{A}}{{{A}}}{{ A }}"})
    assert config.image_path == "<\"&'>" * 3


def test_generators_without_a_place_or_content_are_left_out() -> None:
    config, warnings = read(
        {
            "static_file_generators": [
                {"name": "a", "output_file": "/tmp/{{ARCH}}.out", "template": "x {{cwd}}"},
                {
                    "name": "b",
                    "output_file": "/b",
                    "template_file": "{{thisdir}}/b.in",
                    "mode": "640",
                    "user": "root",
                    "group": 0,
                },
                {"name": "c", "output_file": "/c", "template": "{{ARCH}}"},
                {"template": "x"},
            ]
        },
        ARCH="arm",
    )
    assert config.generators == (
        FileGenerator("a", "/tmp/arm.out", template="x /work"),
        FileGenerator("b", "/b", template_file="/opt/m/b.in", mode=0o640, user="root", group=0),
        FileGenerator("c", "/c", template="arm"),
    )
    assert warnings == ["static_file_generators: without an output file or content, ignored: 3"]


def test_platform_readers_are_accepted_and_unknown_ones_named() -> None:
    readers = [{"platform": "fsonly", "params": {"identityPath": "/i"}}, {"platform": "other"}]
    assert read({"platform_readers": readers})[1] == ['platform_readers: no such platform reader: "other"']


# Substitution itself


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{{A}}", "1"),
        ("x{{ A }}y{{{A}}}z", "x1y1z"),
        ("{{B}}", "{{B}}"),
        ('{"a":{"b":{{A}}}}', '{"a":{"b":1}}'),
        ("{{{A}}", "{1"),
        ("{{#A}}x{{/A}}", "{{#A}}x{{/A}}"),
        ("{{A", "{{A"),
        ("{{}}", "{{}}"),
        ("{{ROOT}}/x {{ROOT}}", "/x /"),
        ("${A}", "${A}"),
    ],
)
def test_names_are_replaced_and_the_rest_is_left(text: str, expected: str) -> None:
    assert substitute(text, {"A": "1", "ROOT": "/"}.get) == expected


def test_values_are_not_looked_at_again() -> None:
    assert substitute("{{A}}{{B}}", {"A": "{{B}}", "B": "x"}.get) == "{{B}}x"


def test_names_of_a_text() -> None:
    assert names("{{A}} {{{B}}} {{A}} {{#C}}") == {"A", "B"}


@pytest.mark.parametrize(
    "document",
    [
        {"http_tcp": "\x1b[31m"},
        {"jobs": [{"job": "a", "exec_cmd": "true", "mounts": [{"source": "/", "target": "/\x1b[31m/.."}]}]},
    ],
)
def test_a_value_never_steers_the_terminal_of_who_reads_the_message(document: dict[str, object]) -> None:
    said = refused(document)
    assert said
    assert all(line.isprintable() for line in said)
