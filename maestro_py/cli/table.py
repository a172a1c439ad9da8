# SPDX-License-Identifier: Apache-2.0
"""The one table of commands: the parser, the help texts and everything derived from them read it.

A command names its room (a module of this package) and its function there; the module is imported
only when the command runs, so that `maestro --help` and `maestro status` pay for nothing else.
Plain classes rather than dataclasses for the same reason.
"""

from __future__ import annotations


class Argument:
    """A positional argument. `many` takes all that follow; an optional one may be left out."""

    __slots__ = ("help", "many", "metavar", "name", "optional")

    def __init__(
        self, name: str, metavar: str, help: str, *, many: bool = False, optional: bool = False
    ) -> None:
        self.name = name
        self.metavar = metavar
        self.help = help
        self.many = many
        self.optional = optional

    @property
    def usage(self) -> str:
        """How it is written in a usage line."""
        text = self.metavar + ("..." if self.many else "")
        return f"[{text}]" if self.optional else text


class Option:
    """An option. Without a metavar it is a flag. kind: text, count, seconds or signal."""

    __slots__ = ("help", "kind", "long", "metavar", "short")

    def __init__(self, long: str, help: str, *, short: str = "", metavar: str = "", kind: str = "text"):
        self.long = long
        self.short = short
        self.metavar = metavar
        self.help = help
        self.kind = kind

    @property
    def name(self) -> str:
        """Key under which a parsed call holds it: `no_wait` for `--no-wait`."""
        return self.long.lstrip("-").replace("-", "_")

    @property
    def usage(self) -> str:
        """How it is written in a usage line."""
        text = self.short or self.long
        return f"[{text} {self.metavar}]" if self.metavar else f"[{text}]"


class Command:
    """One command: `name` may be two words (`config get`); runs `function` of cli module `family`."""

    __slots__ = ("arguments", "family", "function", "help", "name", "options", "section")

    def __init__(
        self,
        name: str,
        help: str,
        *parts: Argument | Option,
        section: str,
        family: str,
        function: str = "",
    ) -> None:
        self.name = name
        self.help = help
        self.arguments = tuple(p for p in parts if isinstance(p, Argument))
        self.options = tuple(p for p in parts if isinstance(p, Option))
        self.section = section
        self.family = family
        self.function = function or name.replace(" ", "_")

    @property
    def usage(self) -> str:
        """The usage line without the program's name."""
        return " ".join((self.name, *self.parts_usage))

    @property
    def parts_usage(self) -> list[str]:
        """How options and arguments are written in a usage line, one by one."""
        return [option.usage for option in self.options] + [argument.usage for argument in self.arguments]


GLOBAL_OPTIONS = (
    Option("--socket", "the daemon's socket (default: $MAESTRO_SOCKET)", metavar="PATH"),
    Option("--json", "print JSON: one document, or one per line when following"),
    Option("--help", "show help, for a command when one is named", short="-h"),
    Option("--version", "show the version of this command"),
)
"""Understood before and after every command."""

_FILE = Argument("file", "FILE|-", "the document, JSON or YAML; - reads standard input")
_JOB = Argument("job", "JOB", "name of a job")
_JOBS = Argument("job", "JOB", "name of a job; * and ? match several", many=True)
_NAME = Argument("name", "NAME", "name of the config")
_NO_WAIT = Option("--no-wait", "print the task's id instead of waiting for its end")
_TIMEOUT = Option("--timeout", "wait no longer than this, as 30 or 1m30s", metavar="S", kind="seconds")
_FOLLOW = Option("--follow", "stay, and print what comes", short="-f")

_DOCUMENTS, _JOBS_SECTION, _LOOKING = "Documents", "Jobs", "Looking closer"
_DATA, _DEVICE = "Templates, configs, images", "The daemon and the device"


def _action(verb: str, help: str) -> Command:
    return Command(
        verb, help, _JOBS, _NO_WAIT, _TIMEOUT, section=_JOBS_SECTION, family="jobs", function="act"
    )


COMMANDS = (
    Command(
        "apply",
        "make the device match a running config",
        _FILE,
        Option("--dry-run", "print the plan, change nothing"),
        _NO_WAIT,
        _TIMEOUT,
        Option("--force", "apply even if a newer document is in force"),
        section=_DOCUMENTS,
        family="documents",
    ),
    Command(
        "check",
        "validate a document without a daemon, listing every problem",
        _FILE,
        Option("--daemon", "the document is a daemon's config file"),
        section=_DOCUMENTS,
        family="documents",
    ),
    Command(
        "diff",
        "show what apply would do, and why; exit 1 if anything",
        _FILE,
        section=_DOCUMENTS,
        family="documents",
    ),
    Command(
        "status",
        "show jobs and their states",
        Argument("job", "JOB", "name of a job; * and ? match several", many=True, optional=True),
        Option("--wide", "do not cut lines to the width of the screen", short="-w"),
        section=_JOBS_SECTION,
        family="jobs",
    ),
    _action("start", "start jobs"),
    _action("stop", "stop jobs"),
    _action("restart", "stop jobs and start them again"),
    _action("reload", "have jobs read their configs again"),
    _action("pause", "freeze jobs as they are; they stay RUNNING"),
    _action("resume", "let paused jobs go on"),
    Command(
        "kill",
        "send a signal to jobs",
        Option("--signal", "the signal (default: SIGTERM)", short="-s", metavar="SIG", kind="signal"),
        _JOBS,
        section=_JOBS_SECTION,
        family="jobs",
    ),
    _action("enable", "let jobs run, now and after a restart of the device"),
    _action("disable", "stop jobs and keep them stopped"),
    Command(
        "logs",
        "show what a job printed",
        _FOLLOW,
        Option("--lines", "so many of the last lines", short="-n", metavar="N", kind="count"),
        Option("--previous", "the output of the run before this one"),
        _JOB,
        section=_LOOKING,
        family="logs",
    ),
    Command("why", "say why a job is in its state", _JOB, section=_LOOKING, family="jobs"),
    Command(
        "events",
        "show what happened",
        _FOLLOW,
        Option("--since", "only events after this one", metavar="ID", kind="count"),
        Option("--lines", "so many of the last events", short="-n", metavar="N", kind="count"),
        section=_LOOKING,
        family="logs",
    ),
    Command("tasks", "list what is being done and was done last", section=_LOOKING, family="tasks"),
    Command(
        "task",
        "show one task",
        Argument("id", "ID", "id of the task"),
        Option("--wait", "follow it to its end; exit 1 if it fails"),
        _TIMEOUT,
        section=_LOOKING,
        family="tasks",
    ),
    Command(
        "config list",
        "list configs",
        Argument("job", "JOB", "only this job's", optional=True),
        section=_DATA,
        family="data",
    ),
    Command("config get", "print a config's data", _JOB, _NAME, section=_DATA, family="data"),
    Command(
        "config set",
        "store a config's data; a running job gets it",
        _JOB,
        _NAME,
        Argument("file", "FILE|-", "the data; - reads standard input"),
        section=_DATA,
        family="data",
    ),
    Command("config remove", "remove a config", _JOB, _NAME, section=_DATA, family="data"),
    Command("template list", "list templates", section=_DATA, family="data"),
    Command(
        "template show",
        "print a template",
        Argument("name", "NAME", "name of the template"),
        section=_DATA,
        family="data",
    ),
    Command("image list", "list installed images", section=_DATA, family="data"),
    Command("doctor", "say what this device offers, and what is missing", section=_DEVICE, family="device"),
    Command(
        "shutdown",
        "stop the daemon",
        Option("--keep-jobs", "leave the jobs running"),
        Option("--stop-jobs", "stop the jobs first"),
        Option("--no-wait", "do not wait until the daemon is gone"),
        section=_DEVICE,
        family="device",
    ),
    Command("version", "show the versions of command and daemon", section=_DEVICE, family="device"),
)
