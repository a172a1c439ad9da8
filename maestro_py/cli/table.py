# SPDX-License-Identifier: Apache-2.0
"""The one table of commands: the parser, the help texts and everything derived from them read it.

A command names its room (a module of this package) and its function there; the module is imported
only when the command runs, so that `maestro --help` and `maestro status` pay for nothing else.
"""

from __future__ import annotations

from maestro_py.cli.grammar import Argument, Command, Option

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
_ANY_JOBS = Argument("job", "JOB", "name of a job; * and ? match several", many=True, optional=True)
_NAME = Argument("name", "NAME", "name of the config")
_VERSION = Argument("image_version", "VERSION", "the version (default: the current one)", optional=True)
_NO_WAIT = Option("--no-wait", "print the task's id instead of waiting for its end")
_TIMEOUT = Option("--timeout", "wait no longer than this, as 30 or 1m30s", metavar="S", kind="seconds")
_FOLLOW = Option("--follow", "stay, and print what comes", short="-f")
_INTERVAL = Option("--interval", "seconds between two looks (default: 2)", metavar="S", kind="seconds")
_WORDS = Argument("word", "WORD", "as upstream's shell has it", many=True, optional=True)
_PROGRAM = Argument("command", "COMMAND", "the program and its arguments", many=True, verbatim=True)

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
        Option(
            "--force",
            "even an older one, what was rolled back, what is locked",
        ),
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
        _ANY_JOBS,
        Option("--state", "only jobs in these states, as failed,restarting", metavar="STATE", kind="states"),
        Option("--composite", "only the jobs of this composite", metavar="ID"),
        Option("--watch", "stay, and show what changes"),
        _INTERVAL,
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
        "lock",
        "have updates of a job wait",
        _JOB,
        Option("--reason", "why, for whoever waits", metavar="TEXT"),
        section=_JOBS_SECTION,
        family="store",
    ),
    Command("unlock", "let a job be updated again", _JOB, section=_JOBS_SECTION, family="store"),
    Command(
        "logs",
        "show what jobs printed",
        _FOLLOW,
        Option("--lines", "the last N lines (default: 100), or all", short="-n", metavar="N", kind="lines"),
        Option("--since", "from then on: 10m (ago), 14:30, 2026-05-01 14:30", metavar="TIME", kind="moment"),
        Option("--until", "up to then", metavar="TIME", kind="moment"),
        Option("--previous", "the output of the run before this one"),
        _JOBS,
        section=_LOOKING,
        family="logs",
    ),
    Command("why", "say why a job is in its state", _JOB, section=_LOOKING, family="jobs"),
    Command(
        "top",
        "show what jobs use of processor and memory",
        _ANY_JOBS,
        _INTERVAL,
        Option("--sort", "by cpu, memory or job (default: cpu)", metavar="KEY", kind="sort"),
        section=_LOOKING,
        family="top",
    ),
    Command(
        "exec",
        "run a program where a job runs",
        _JOB,
        _PROGRAM,
        section=_LOOKING,
        family="enter",
    ),
    Command("shell", "run a shell where a job runs", _JOB, section=_LOOKING, family="enter"),
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
    Command("image list", "list installed images", section=_DATA, family="store"),
    Command(
        "image install",
        "make a file a job's image and upgrade the job",
        Argument("file", "FILE", "the archive"),
        Option("--sha256", "digest the file must have; required", metavar="HEX"),
        Option("--job", "the job it is for; required", metavar="JOB"),
        Option("--image-version", "its version", metavar="V"),
        Option("--type", "tarball, zip, devicejs_tarball or devicejs_zip", metavar="TYPE"),
        Option("--signature", "its .minisig file", metavar="FILE"),
        _NO_WAIT,
        section=_DATA,
        family="images",
    ),
    Command(
        "image pack",
        "pack a directory and print the entry of a document for it",
        Argument("directory", "DIR", "what is packed"),
        Option(
            "--output",
            "the archive: .tar, .tar.gz, .tgz, .tar.xz, .tar.zst or .zip",
            short="-o",
            metavar="FILE",
        ),
        Option("--job", "the entry's job (default: DIR's name)", metavar="JOB"),
        Option("--image-version", "the entry's version (default: 1)", metavar="V"),
        Option("--type", "the entry's image_type, if devicejs_tarball or devicejs_zip", metavar="TYPE"),
        section=_DATA,
        family="images",
    ),
    Command(
        "image rollback",
        "bring the version before a job's image back",
        _JOB,
        _NO_WAIT,
        section=_DATA,
        family="store",
    ),
    Command(
        "image verify",
        "look for damaged images; exit 1 if there are any",
        Argument("job", "JOB", "only this job's", optional=True),
        Option("--repair", "fetch those in use anew, remove the others"),
        _NO_WAIT,
        section=_DATA,
        family="store",
    ),
    Command(
        "image remove",
        "remove a version that is not in use",
        _JOB,
        Argument("image_version", "VERSION", "the version (default: all that nobody uses)", optional=True),
        section=_DATA,
        family="store",
    ),
    Command("image gc", "remove every image that nobody needs", section=_DATA, family="store"),
    Command("image pin", "keep an image from every removal", _JOB, _VERSION, section=_DATA, family="store"),
    Command("image unpin", "let a pinned image go", _JOB, _VERSION, section=_DATA, family="store"),
    Command("doctor", "say what this device offers, and what is missing", section=_DEVICE, family="device"),
    Command(
        "metrics",
        "print metrics, as OpenMetrics",
        Option("--textfile", "write FILE instead, for node_exporter's textfile collector", metavar="FILE"),
        section=_DEVICE,
        family="metrics",
    ),
    Command(
        "upgrade",
        "replace the daemon by what is installed now; jobs run on",
        section=_DEVICE,
        family="device",
    ),
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

HIDDEN = (
    Command(
        "_names",
        "print names, one to a line, for the completions of shells",
        Argument("kind", "KIND", "jobs, composites, templates, images or tasks"),
        section="",
        family="names",
        function="names",
    ),
    Command("net get-interfaces", "list network interfaces", section="", family="network"),
    Command("net get-dns", "list name servers", section="", family="network"),
    Command("net events", "show changes of network interfaces", section="", family="network"),
    *(
        Command(
            f"net {word}",
            "is refused: the network is the system's",
            _WORDS,
            section="",
            family="network",
            function="net_refused",
        )
        for word in ("config-interface", "add-dns", "delete-dns")
    ),
)
"""Understood but not listed: what shells ask, and words of upstream's maestro-shell."""

ALIASES = (
    ("alive", "version"),
    ("jobs get", "status"),
    ("jobs start", "start"),
    ("jobs stop", "stop"),
)
"""Words of upstream's maestro-shell, and the commands they stand for."""
