# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import contextlib
import importlib
import inspect

import pytest
from hypothesis import given
from hypothesis import strategies as st

from maestro_py.cli.helptext import about, overview
from maestro_py.cli.parser import UsageError, parse
from maestro_py.cli.table import COMMANDS, GLOBAL_OPTIONS


def test_options_may_stand_before_between_and_after_the_words() -> None:
    for line in ("--json logs -f -n 5 web", "logs web --json -fn5", "logs --lines=5 web --follow --json"):
        call = parse(line.split())
        assert call.command is not None
        assert call.command.name == "logs"
        assert call.many("job") == ["web"]
        assert call.flag("follow")
        assert call.flag("json")
        assert call.count("lines") == 5


def test_the_socket_may_be_named_before_the_command_in_both_spellings() -> None:
    for line in (["--socket", "/x", "status"], ["--socket=/x", "status"], ["status", "--socket", "/x"]):
        call = parse(line)
        assert call.text("socket") == "/x"
        assert call.many("job") == []


def test_two_word_commands_are_found() -> None:
    for line in ("config get web main", "config --json get web main", "--json config get web main"):
        call = parse(line.split())
        assert call.command is not None
        assert call.command.name == "config get"
        assert (call.text("job"), call.text("name")) == ("web", "main")


def test_a_double_dash_ends_the_options() -> None:
    assert parse(["start", "--", "-odd", "web"]).many("job") == ["-odd", "web"]


def test_a_lone_dash_is_a_word() -> None:
    assert parse(["apply", "-"]).text("file") == "-"


def test_times_and_signals_are_read_as_people_write_them() -> None:
    assert parse(["apply", "x", "--timeout", "1m30s"]).seconds("timeout") == 90
    assert parse(["kill", "-s", "hup", "web"]).text("signal") == "SIGHUP"
    assert parse(["kill", "--signal=9", "web"]).text("signal") == "SIGKILL"


@pytest.mark.parametrize(
    ("line", "message", "hint"),
    [
        ("stauts", "cannot run 'stauts': no such command", "did you mean 'status'?"),
        ("xyzzy", "cannot run 'xyzzy': no such command", "`maestro --help` lists the commands"),
        ("config", "cannot run 'config': it needs one of list, get, set, remove", ""),
        ("config gte x y", "cannot run 'config gte': no such command", "did you mean 'config get'?"),
        ("apply f --forse", "cannot take option --forse: apply has no such option", "did you mean --force?"),
        (
            "logs web -x",
            "cannot take option -x: logs has no such option",
            "`maestro logs --help` lists the options",
        ),
        ("apply", "cannot run apply: FILE is missing", "usage: maestro apply"),
        ("why a b", "cannot run why: 'b' is one word too many", "usage: maestro why JOB"),
        ("start", "cannot run start: JOB is missing", "usage: maestro start"),
        ("logs web -n", "cannot take -n: it needs a value, -n N", ""),
        ("logs web -n -3", "cannot take -n -3: expected a whole number", ""),
        ("logs web -n x", "cannot take -n x: expected a whole number", ""),
        ("apply f --timeout soon", "cannot take --timeout soon: expected a duration", ""),
        ("kill -s HUPP web", "cannot take -s HUPP: expected a signal", "did you mean SIGHUP?"),
        ("kill -s BOO web", "cannot take -s BOO: expected a signal", ""),
        ("status --json=yes", "cannot take '--json=yes': --json takes no value", ""),
        ("help stauts", "cannot run 'stauts': no such command", "did you mean 'status'?"),
    ],
)
def test_mistakes_are_named_with_what_would_be_right(line: str, message: str, hint: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(line.split())
    assert caught.value.message.startswith(message)
    assert caught.value.hint.startswith(hint)
    assert bool(caught.value.hint) is bool(hint)


def test_an_empty_name_is_refused() -> None:
    with pytest.raises(UsageError, match="an empty job makes no sense"):
        parse(["start", ""])


def test_help_is_understood_wherever_it_stands() -> None:
    for line in ("logs --help", "--help logs", "logs web -h", "help logs", "-h logs"):
        call = parse(line.split())
        assert call.flag("help")
        assert call.command is not None
        assert call.command.name == "logs"
    assert parse(["--help"]).command is None
    assert parse(["help"]).flag("help")
    assert parse(["config", "--help"]).command is None


@given(
    st.lists(
        st.sampled_from(
            ["status", "config", "get", "-n", "-f", "--json", "--", "-", "", "x", "--lines=3", "-s9", "é"]
        )
    )
)
def test_no_command_line_breaks_the_parser(words: list[str]) -> None:
    with contextlib.suppress(UsageError):
        parse(words)


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_every_command_has_a_function_and_help_that_fits(command: object) -> None:
    from maestro_py.cli.grammar import Command

    assert isinstance(command, Command)
    module = importlib.import_module(f"maestro_py.cli.{command.family}")
    assert list(inspect.signature(getattr(module, command.function)).parameters) == ["session"]
    text = about(command)
    assert all(len(line) <= 80 for line in text.splitlines())
    assert all(option.help in text for option in command.options)


def test_the_overview_fits_and_names_every_command() -> None:
    text = overview()
    assert all(len(line) <= 80 for line in text.splitlines())
    assert all(f"\n  {command.name} " in text for command in COMMANDS)


def test_option_names_are_unique_per_command() -> None:
    for command in COMMANDS:
        both = (*GLOBAL_OPTIONS, *command.options)
        spellings = [s for option in both for s in (option.long, option.short) if s]
        assert len(spellings) == len(set(spellings)), command.name


@pytest.mark.parametrize(
    "line",
    [
        "exec web ls -l --json",
        "exec web -- ls -l --json",
        "exec -- web ls -l --json",
        "--socket /x exec web ls -l --json",
    ],
)
def test_a_programs_options_are_its_own(line: str) -> None:
    call = parse(line.split())
    assert call.text("job") == "web"
    assert call.many("command") == ["ls", "-l", "--json"]
    assert not call.flag("json")


def test_options_before_the_program_are_ours() -> None:
    call = parse(["exec", "web", "--json", "--", "ls", "--"])
    assert call.flag("json")
    assert call.many("command") == ["ls", "--"]
    assert parse(["exec", "--help"]).flag("help")


@pytest.mark.parametrize(
    ("words", "name"),
    [("alive", "version"), ("jobs get", "status"), ("jobs start x", "start"), ("jobs stop x", "stop")],
)
def test_words_of_upstreams_shell_stand_for_commands(words: str, name: str) -> None:
    command = parse(words.split()).command
    assert command
    assert command.name == name


def test_the_beginning_of_one_command_alone_suggests_it() -> None:
    from maestro_py.cli.parser import closest

    assert closest("stat", ["start", "status", "stop"]) == "status"
    assert closest("st", ["start", "status", "stop"]) != "status"
    assert closest("sttaus", ["start", "status", "stop"]) == "status"


@pytest.mark.parametrize("text", ["runing", "x,failed"])
def test_a_state_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="expected one of never_ran"):
        parse(["status", "--state", text])
