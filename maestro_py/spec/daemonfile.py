# SPDX-License-Identifier: Apache-2.0
"""The daemon's own configuration file, as upstream wrote it, with our few keys beside theirs.

Real files carry the sections of other subsystems, so an unknown key is a warning here. Variables:
`var_defs` values may hold `${ENV}` and `${ENV|default}`; every text may hold `{{NAME}}`. `{{IMAGE}}`
and `{{CMD}}` stay for the expansion of jobs, `${...}` outside `var_defs` stays for the jobs.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from maestro_py.errors import InvalidDocument, Problem
from maestro_py.spec import checks, fields, imagery
from maestro_py.spec.daemonconfig import DaemonConfig, FileGenerator
from maestro_py.spec.kinds import (
    ABSOLUTE_PATH,
    ARGUMENT,
    BOOLEAN,
    LOOPBACK,
    NAME,
    OPTIONAL_NAME,
    TEXT,
    USER,
    choice,
    integer,
    list_of,
    number,
    object_of,
    text_kind,
)
from maestro_py.spec.quantities import MODE, SECONDS, SIZE
from maestro_py.spec.reader import BAD, Field, Kind, Reading, Table, Wrong, read_object, read_value
from maestro_py.spec.substitute import TooLong, substitute
from maestro_py.spec.variables import Renderer, from_environment, listed

KEPT = frozenset(("IMAGE", "CMD"))
"""Names that are filled in per job, later."""

OTHER_SECTIONS = (
    "apiUnixDgramSocket",
    "configs",
    "devicedb_conn_config",
    "gateway_capabilities",
    "linuxKernelLog",
    "linuxKernelLogLegacy",
    "mdns",
    "network",
    "plugins",
    "relaymq",
    "stats",
    "symphony",
    "sys_stats",
    "sysLogSocket",
    "targets",
    "time_server",
    "unixLogSocket",
    "watchdog",
)
"""Top-level keys of upstream's other subsystems: logging, networking, cloud."""

_ANY = Kind("anything", lambda raw, path, reading: raw)


def _scalar(raw: Any, path: str, reading: Reading) -> str:
    if isinstance(raw, bool):
        return "true" if raw else "false"
    if isinstance(raw, (str, int, float)):
        return str(raw)
    raise Wrong


_SCALAR = {"type": ["string", "number", "boolean"]}

VARIABLE = Table(
    "a variable",
    dict,
    (
        Field("key", text_kind("a name, as a string", TEXT.read), "Name of the variable.", required=True),
        Field("value", Kind("a string or a number", _scalar, schema=_SCALAR), "Its value.", "empty"),
    ),
)

GENERATOR = Table(
    "a file generator",
    dict,
    (
        Field("name", TEXT, "Name, for messages."),
        Field("output_file", ARGUMENT, "File to write."),
        Field("template", TEXT, "Content, with variables."),
        Field("template_file", ARGUMENT, "File that holds the content, with variables; 1 MiB at most."),
        Field("mode", MODE, 'Mode bits of the file, as octal text "640".', "as it is, 644 for a new file"),
        Field("user", USER, "Owner of the file, by name or number.", "as it is, the daemon's for a new file"),
        Field("group", USER, "Group of the file, by name or number.", "the same"),
    ),
)  # fmt: skip

DEBUG = Table(
    "debug options",
    dict,
    (
        Field("pid_file", ARGUMENT, "File that gets the daemon's process id.", "none"),
        Field("keep_pids", BOOLEAN, "Accepted; has no effect.", "false"),
        Field("pid_file_dates", BOOLEAN, "Accepted; has no effect.", "false"),
    ),
)

READER = Table(
    "a platform reader",
    dict,
    (
        Field("platform", TEXT, "Name of the reader: fsonly or testplatform.", required=True),
        Field("opts", _ANY, "Options of the reader."),
        Field("params", _ANY, "Parameters of the reader."),
    ),
)

PROCESSES = Table(
    "process options",
    dict,
    (
        Field("reaper_interval", integer(0, (1 << 32) - 1),
              "Accepted; has no effect, deaths are seen at once."),
    ),
)  # fmt: skip


def _dict_of(table: Table) -> Kind:
    return Kind(table.noun, lambda raw, path, reading: read_object(table, raw, path, reading), schema=table)


_VARIABLES = Kind(_ANY.expected, _ANY.read, schema=list_of(_dict_of(VARIABLE), "variables"))

SCHEMA = Field("$schema", TEXT, "Schema by which an editor checks the document; nothing here looks at it.")

DAEMON = Table(
    "a daemon configuration",
    dict,
    (
        SCHEMA,
        Field("jobs", list_of(object_of(fields.JOB_INLINE), "jobs"), "Jobs of this device.", "none"),
        Field("container_templates", list_of(object_of(fields.TEMPLATE), "templates"),
              "Templates of this device.", "those shipped", attr="templates"),
        Field("static_file_generators", list_of(_dict_of(GENERATOR), "file generators"),
              "Files to write when the daemon starts.", "none", attr="generators"),
        Field("var_defs", _VARIABLES, "Variables for this file, as a list of {key, value}.", "none"),
        Field("platform_readers", list_of(_dict_of(READER), "platform readers"),
              "Where ARCH_ variables come from.", "none"),
        Field("httpUnixSocket", ARGUMENT, "Path of the control socket.", "/run/maestro/maestro.sock",
              attr="socket"),
        Field("imagePath", ARGUMENT, "Directory of installed images.", "below the state directory",
              attr="image_path"),
        Field("scratchPath", ARGUMENT, "Directory for downloads.", "beside the images", attr="scratch_path"),
        Field("configDBPath", ARGUMENT, "File of the state database.", "below the state directory",
              attr="state_db"),
        Field("processes", _dict_of(PROCESSES), "Options of process management.", "none"),
        Field("debug_opts", _dict_of(DEBUG), "Options for debugging.", "none"),
        Field("clientId", TEXT, "Accepted; has no effect."),
        Field("tags", _ANY, "Accepted; has no effect."),
        Field("config_end", BOOLEAN, "Accepted; upstream's mark that the file is complete."),
        Field("on_daemon_stop", choice("stop", "keep"),
              "What an orderly stop of the daemon does to the jobs.", "stop"),
        Field("log_max_size", SIZE, "Size at which a log file is rotated.", "10M"),
        Field("log_max_files", integer(1, 1000),
              "Log files kept per process, the current one included.", "4"),
        Field("log_total_size", SIZE,
              "What all logs may take together; each process has the same share of it.",
              "a tenth of the file system, 1G at most"),
        Field("restart_rate", number(0, 1000),
              "Restarts a second that the whole device has time for; ten seconds of it may come at once, "
              "the rest waits in line. 0 is no limit.", "10"),
        Field("log_level", choice("error", "warning", "info"),
              "What the daemon's own log leaves out: whatever is less urgent than this.", "info"),
        Field("metrics_file", ABSOLUTE_PATH,
              "File that gets the metrics every `metrics_interval`, for node_exporter's textfile collector; "
              "its name ends in .prom.", "none"),
        Field("metrics_interval", SECONDS, "How often `metrics_file` is written; at least 1 second.", "30s"),
        Field("read_group", OPTIONAL_NAME, "Members of this group may see everything but configs.", "none"),
        Field("disk_reserve", SIZE,
              "Bytes that images and downloads leave free; versions that nobody needs go first.", "5M"),
        Field("operate_group", NAME, "Members of this group may operate the daemon.", "maestro"),
        Field("admin_group", OPTIONAL_NAME, "Members of this group may do whatever root may.", "none"),
        Field("http_tcp", LOOPBACK,
              "Address on loopback where the API and the dashboard are served over plain TCP as well.",
              "none"),
        Field("http_token_file", ARGUMENT,
              "File with the token that lets a request over TCP do everything; made when it is absent.",
              "http.token in the state directory"),
        Field("http_anonymous", choice("read", "none"),
              "What a request over TCP may do without the token.", "read"),
        Field("downloads", object_of(imagery.DOWNLOADS), "How images and files are fetched.",
              "see the fields"),
        Field("unpacking", object_of(imagery.UNPACKING), "What one image may become.", "see the fields"),
        Field("require_signature", BOOLEAN, "Refuse images without a signature by a trusted key.", "false"),
    ),
)  # fmt: skip


def read_daemon_config(
    data: object, *, environ: Mapping[str, str], builtins: Mapping[str, str], source: str
) -> tuple[DaemonConfig, list[Problem]]:
    """Return the daemon's configuration and warnings.

    environ: for `${ENV}` in `var_defs`. builtins: `thisdir`, `cwd` and what else the caller knows,
    such as ARCH_ variables; they are defined before the first of `var_defs`. An empty file is an
    empty configuration. Raises InvalidDocument with every problem.
    """
    rest, sections = _without_other_sections({} if data is None else data)
    variables = dict(builtins)
    reading = Reading(lenient=True)
    if isinstance(rest, dict):
        for key, value in rest.items():
            if str(key).lower() == "var_defs" and value is not None:
                _define(value, variables, environ, reading)

    reading.render = render = Renderer(variables, KEPT)
    values = read_value(_dict_of(DAEMON), rest, "", reading)
    values = {} if values is BAD else values
    if sections:
        reading.warn("", f"sections of other subsystems are ignored: {', '.join(sections)}")
    if render.unknown:
        reading.warn("", listed(render.unknown))
    for item in values.get("platform_readers", ()):
        if item.get("platform", "fsonly") not in ("fsonly", "testplatform"):
            reading.warn("platform_readers", f'no such platform reader: "{item["platform"]}"')
    if values.get("metrics_interval", 1) < 1:
        reading.problem("metrics_interval", "expected at least 1 second")
    checks.jobs(values.get("jobs", ()), "jobs", reading)
    checks.templates(values.get("templates", ()), "container_templates", reading)
    if reading.problems:
        raise InvalidDocument(source, reading.problems)
    return _config(values, variables, builtins, reading), reading.warnings


def _config(
    values: dict[str, Any], variables: Mapping[str, str], builtins: Mapping[str, str], reading: Reading
) -> DaemonConfig:
    generators, empty = [], []
    for i, item in enumerate(values.pop("generators", ())):
        if item.get("output_file") and (item.get("template") or item.get("template_file")):
            generators.append(FileGenerator(**{"name": "", **item}))
        else:
            empty.append(item.get("name") or str(i))
    if empty:
        reading.warn(
            "static_file_generators", f"without an output file or content, ignored: {', '.join(empty)}"
        )
    own = {name: value for name, value in variables.items() if name not in ("thisdir", "cwd")}
    debug = values.pop("debug_opts", {})
    for key in ("$schema", "var_defs", "platform_readers", "processes", "clientId", "tags", "config_end"):
        values.pop(key, None)
    return DaemonConfig(
        generators=tuple(generators),
        variables=MappingProxyType(own),
        pid_file=debug.get("pid_file", ""),
        **values,
    )


def _without_other_sections(data: object) -> tuple[object, list[str]]:
    if not isinstance(data, dict):
        return data, []
    known = {name.lower(): name for name in OTHER_SECTIONS}
    found = {key: known[str(key).lower()] for key in data if str(key).lower() in known}
    return {key: value for key, value in data.items() if key not in found}, sorted(found.values())


def _define(data: object, variables: dict[str, str], environ: Mapping[str, str], reading: Reading) -> None:
    """Add `var_defs` to the variables, each rendered with those before it."""
    kind = list_of(_dict_of(VARIABLE), "variables, each {key, value}")
    entries = read_value(kind, data, "var_defs", reading)
    for i, entry in enumerate(() if entries is BAD else entries):
        name = entry.get("key", "").strip()
        if not name:
            if "key" in entry:
                reading.problem(f"var_defs[{i}].key", "a variable needs a name")
            continue
        try:
            value = from_environment(entry.get("value", ""), environ)
            variables[name] = substitute(value, variables.get)
        except TooLong as error:
            reading.problem(f"var_defs[{i}].value", str(error))
