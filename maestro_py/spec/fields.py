# SPDX-License-Identifier: Apache-2.0
"""The one table of fields: every key a document may have, for each kind of object.

It drives the reader, its messages, the canonical form that is written back, and the manual. Names
and meanings of the older fields are upstream's payload types (maestroSpecs); the rest is ours.
Upstream's payloads carry every key, so an empty text, null and an empty list mean "not said" there.
"""

from __future__ import annotations

from maestro_py.spec import checks, imagery, isolation, kinds, watching
from maestro_py.spec.imagery import CHECKSUM
from maestro_py.spec.kinds import (
    ABSOLUTE_PATH,
    ARGUMENT,
    ARGUMENTS,
    BOOLEAN,
    ENVIRONMENT,
    NAME,
    NAMES,
    OPTIONAL_NAME,
    TEXT,
    choice,
    integer,
    list_of,
    number,
    object_of,
)
from maestro_py.spec.model import (
    Backoff,
    ConfigFile,
    ConfigSpec,
    ImageSpec,
    JobSpec,
    Limits,
    Settings,
    TemplateSpec,
)
from maestro_py.spec.quantities import CPUS, MILLISECONDS, RLIMIT_TABLE, SECONDS, SIGNAL, SIZE, UMASK
from maestro_py.spec.reader import Field, Table

UINT32 = integer(0, (1 << 32) - 1)
WEIGHT = integer(1, 10_000)

CGROUP = Table(
    "cgroup limits",
    Limits,
    (
        Field("mem_limit", SIZE, "Memory the process and its children may use; 0 lifts it.",
              "no limit", ("MemLimit",)),
        Field("mem_high", SIZE, "Memory above which the process is slowed down; 0 lifts it.",
              "no limit"),
        Field("swap_limit", SIZE, "Swap the process may use on top of its memory.", "no limit"),
        Field("pids_max", integer(0, 1 << 22), "Processes and threads it may have; 0 lifts it.",
              "no limit"),
        Field("cpu_weight", WEIGHT, "Share of CPU time against others, 1 to 10000.", "100"),
        Field("cpu_max", CPUS, 'CPUs it may use at most, as 0.5 or "50%".', "no limit"),
        Field("io_weight", WEIGHT, "Share of disk time against others, 1 to 10000.", "100"),
    ),
)  # fmt: skip

BACKOFF = Table(
    "a restart back-off",
    Backoff,
    (
        Field("initial", SECONDS, "Delay before the first restart.", "100ms"),
        Field("factor", number(1, 100), "What each further delay is multiplied by.", "2"),
        Field("max", SECONDS, "The longest delay.", "60s, or `initial` when that is longer"),
        Field("jitter", number(0, 1), "Random part of each delay, as a fraction of it.", "0.1"),
        Field("reset_after", SECONDS, "Running this long makes the next death the first again.",
              "10s"),
    ),
)  # fmt: skip

_OK_KEYS = ("wait_for_ok", "uses_ok_string")


def _settings(job: bool) -> tuple[Field, ...]:
    """Return the rows that jobs and templates share; they differ in one spelling."""
    ok, ok_alias = _OK_KEYS if job else _OK_KEYS[::-1]
    return (
        Field("restart", BOOLEAN, "Restart after every death; `restart_policy` says it finer.",
              "false"),
        Field("restart_limit", UINT32, "Restarts after the first start; 0 is no limit.", "0"),
        Field("restart_pause", MILLISECONDS,
              "Fixed delay before each restart, in milliseconds or with a unit; replaces the back-off.",
              "the back-off"),
        Field("restart_on_dependency_fail", BOOLEAN,
              "Restart this process when one it depends on has died.", "false"),
        Field("restart_policy", kinds.RESTART_POLICY,
              "When a death is followed by a restart: never, on-failure, always or unless-stopped.",
              "what `restart` says"),
        Field("restart_backoff", object_of(BACKOFF, checks.backoff),
              "Growing delay between restarts.", "100ms, doubling, at most 60s"),
        Field("die_on_parent_death", BOOLEAN,
              "Send SIGTERM to the process when the daemon dies.", "false"),
        Field("inherit_env", BOOLEAN, "Add the daemon's environment, after everything else.",
              "false"),
        Field("defer_running_status", MILLISECONDS,
              "Time from the start until the process counts as running, in milliseconds or with a unit; "
              "waiting for the OK string takes its place.", "0"),
        Field(ok, BOOLEAN, "The process counts as running once it has printed the OK string.",
              "false, true when `ok_string` is given", (ok_alias,), attr="wait_for_ok"),
        Field("ok_string", kinds.OK_TEXT, "What the process prints once it is ready.", "!!OK!!"),
        Field("timeout_for_ok", MILLISECONDS,
              "Time to say OK in, in milliseconds or with a unit; 0 is for ever.", "0"),
        Field("user", kinds.USER, "User to run as, by name or number.", "the daemon's own"),
        Field("group", kinds.USER, "Group to run as, by name or number.", "the user's"),
        Field("supplementary_groups", kinds.USERS, "Further groups of the process.",
              "those of the user"),
        Field("umask", UMASK,
              'Mode bits taken from new files, as octal text "022"; a bare number is taken by its value, '
              "as YAML's 022 is.", "022"),
        Field("working_dir", ABSOLUTE_PATH, "Directory to start in, as the process sees it.", "/"),
        Field("rlimits", RLIMIT_TABLE,
              'Resource limits by name, each a number, "unlimited" or {"soft": number, "hard": number}.',
              "the daemon's own"),
        Field("nice", integer(-20, 19), "Scheduling priority, -20 (first) to 19 (last).", "0"),
        Field("oom_score_adj", integer(-1000, 1000),
              "Who is killed first when memory runs out, -1000 (never) to 1000.", "the daemon's own"),
        Field("no_new_privs", BOOLEAN, "Programs the process executes gain no privileges.",
              "true unless it runs as root"),
        Field("capabilities", isolation.CAPABILITY_SET,
              'The capabilities the process has, as "net_bind_service"; no other can be had. [] is none.',
              "all as root, else none"),
        Field("seccomp", isolation.SECCOMP,
              "default refuses system calls that jobs have no use for; it implies no_new_privs.", "none"),
        Field("chroot_path", ABSOLUTE_PATH,
              "Directory that becomes the root of a process without an image to run in.",
              "the device's root"),
        Field("chroot_image", BOOLEAN, "The job's image becomes the root of the process.",
              "false", ("ChrootImage",)),
        Field("image_allow", imagery.IMAGE_ALLOW,
              "What else than files, directories and links its images may have: devices, fifos, setuid "
              "(setgid too) and capabilities.", "nothing else"),
        Field("image_owner", imagery.IMAGE_OWNER,
              "Whose the files of its images are: the daemon's, its user's, or as the archive says.",
              "daemon"),
        Field("read_only_root", BOOLEAN,
              "Nothing below the root can be written but /tmp, `tmpfs`, `mounts` with rw and the process's "
              "own data and run directories.", "false"),
        Field("mounts", isolation.MOUNTS, "Directories and files of the device the process sees.", "none"),
        Field("tmpfs", isolation.TMPFS,
              'Directories in memory, empty at each start, as "/var/cache" or "/var/cache:size=16M".',
              "none"),
        Field("devices", isolation.DEVICES,
              "Further device nodes of a process with a root of its own; they belong to its user.",
              "null, zero, full, random, urandom and tty"),
        Field("pids", isolation.PIDS,
              "private: the process sees no others but those it starts, and is number 1 among them.", "host"),
        Field("network", isolation.NETWORKS,
              "host, none (only loopback) or private, as a word or as an object with `mode`, `address` "
              "and `ports`.", "host"),
        Field("secrets", isolation.SECRETS,
              "Files only the process can read, in the directory that MAESTRO_SECRETS_DIR names.", "none"),
        Field("cgroup", object_of(CGROUP), "Limits of memory, CPU, processes and disk.", "no limits"),
        Field("stop_signal", SIGNAL, "Signal that asks the process to end.", "SIGTERM"),
        Field("stop_timeout", SECONDS, "Time to end in before everything is killed.", "10s"),
        Field("reload_signal", SIGNAL,
              "Signal that makes the process read its configs again; without it a new config restarts it.",
              "none"),
        Field("ready", watching.READINESS,
              "How the process says that it is ready, as a word or as an object with `type`.",
              "what `wait_for_ok` says"),
        Field("health", watching.HEALTH_CHECK, "Question asked again and again while it runs.", "none"),
        Field("watchdog", SECONDS,
              "Longest time between two WATCHDOG=1 messages of sd_notify while it runs; 0 is none.", "0"),
        Field("pre_start", watching.COMMAND,
              "Command run before each start, as the process itself is; it must succeed within a minute.",
              "none"),
        Field("post_stop", watching.COMMAND,
              "Command run each time the process is gone, as the process itself is, for a minute at most.",
              "none"),
        Field("on_failure", watching.FAILURE, "What follows when the process has failed for good.", "none"),
        Field("upgrade_timeout", SECONDS,
              "Time from its launch in which a new version of an image must be running, else the version "
              "before comes back.", "`timeout_for_ok` when that is given, else 60s"),
        Field("probation", SECONDS,
              "Time after that in which a new version that keeps dying is still rolled back.", "60s"),
        Field("probation_deaths", integer(1, 1000),
              "Deaths of a new version that bring the version before back.", "3"),
    )  # fmt: skip


def _job(*, inline_config: bool) -> Table:
    """Return the table of jobs; the two readings of `config` are told apart.

    `config_data` and `config_name` mean the same in both and are what is written.
    """
    data, name = (("config",), ()) if inline_config else ((), ("config",))
    return Table(
        "a job",
        JobSpec,
        (
            Field("job", NAME, "Name of the job, unique on the device.", required=True),
            Field("composite_id", OPTIONAL_NAME,
                  "Jobs with the same composite_id share one process.", "a process of its own"),
            Field("container_template", OPTIONAL_NAME, "Template the job is started by.",
                  "none"),
            Field("config_data", TEXT,
                  "Config data itself; spelled `config` in the daemon's configuration file.", "none", data,
                  attr="config"),
            Field("config_name", OPTIONAL_NAME,
                  "Name of the config the job uses; spelled `config` in a running config.", "default", name),
            Field("message", TEXT, "Text for the standard input of the process.", "none"),
            Field("depends_on", NAMES, "Jobs that must be running first.", "none"),
            Field("exec_cmd", ARGUMENT,
                  "Program to run, or its first argument when the template names the program.", "none"),
            Field("exec_args", ARGUMENTS, "Arguments.", "none"),
            Field("pgid", integer(0, (1 << 31) - 1), "Process group to join; 0 makes a new one.", "0"),
            Field("env", ENVIRONMENT, 'Environment, as "NAME=value"; comes before the template\'s.',
                  "none"),
            Field("daemonize", BOOLEAN, "Run in a session of its own.", "false"),
            Field("immutable", BOOLEAN, "The job belongs to its file and cannot be changed.",
                  "false"),
            Field("no_autostart", BOOLEAN, "Know the job, but start it only when asked.",
                  "false"),
            Field("disabled", BOOLEAN, "Know the job, but keep it stopped.", "false"),
            *_settings(job=True),
        ),
        "settings",
        Settings,
        'job "{job}"',
    )  # fmt: skip


JOB = _job(inline_config=False)
"""A job of a running config: `config` is the name of a config."""

JOB_INLINE = _job(inline_config=True)
"""A job of the daemon's file or of upstream's API: `config` is the data itself."""

TEMPLATE = Table(
    "a template",
    TemplateSpec,
    (
        Field("name", NAME, "Name jobs refer to the template by.", required=True),
        Field("exec_cmd", ARGUMENT, "Program that runs the job: an interpreter or a wrapper.",
              "the job's own"),
        Field("exec_pre_args", ARGUMENTS, "Arguments before the job's.", "none"),
        Field("exec_post_args", ARGUMENTS, "Arguments after the job's.", "none"),
        Field("add_env", ENVIRONMENT, 'Environment, as "NAME=value"; comes after the job\'s.', "none"),
        Field("depends_on", NAMES, "Jobs that must be running before any job of this template.",
              "none"),
        Field("send_composite_jobs_to_stdin", BOOLEAN,
              "A composite gets its member jobs as one JSON object on standard input.", "false"),
        Field("composite_config", TEXT, "The `process_config` of that JSON object.", "none"),
        Field("send_grease_origin_id", BOOLEAN,
              "Accepted from older configurations; has no effect.", "false"),
        Field("immutable", BOOLEAN, "The template belongs to its file and cannot be changed.",
              "false"),
        *_settings(job=False),
    ),
    "settings",
    Settings,
    'template "{name}"',
)  # fmt: skip

_DOCKER = "docker images cannot run here: this device has no Docker; export the file system as a tarball"

IMAGE = Table(
    "an image",
    ImageSpec,
    (
        Field("job", NAME, "Job the image is for.", required=True),
        Field("version", kinds.VERSION, "Version, for people and for the directory's name.", "none"),
        Field("url", kinds.URL, "Where the archive is: an http, https or file URL.", required=True),
        Field("size", SIZE, "Size of the archive; checked when it is not 0.", "0"),
        Field("checksum", object_of(CHECKSUM, checks.checksum), "Digest the archive must have.",
              "not verified"),
        Field("image_type", choice("tarball", "zip", "devicejs_tarball", "devicejs_zip", empty="tarball",
                     refused={"docker": _DOCKER}),
              "Kind of archive: tarball, zip, devicejs_tarball or devicejs_zip.", "tarball"),
        Field("credentials", imagery.CREDENTIALS_OBJECT, "Who asks the server for it.", "nobody"),
        Field("signature", imagery.SIGNATURE_OBJECT, "Signature by one of the device's trusted keys.",
              "none"),
        Field("deltas", imagery.DELTAS,
              "Smaller files that make the archive out of an older version's, where that was kept.", "none"),
    ),
    label='image of job "{job}"',
)  # fmt: skip

CONFIG_FILE = Table(
    "a config file",
    ConfigFile,
    (
        Field("url", kinds.URL, "Where the file is: an http, https or file URL.", required=True),
        Field("dest_relative_path", kinds.RELATIVE_PATH,
              "Where it goes below the job's config directory.", required=True),
        Field("size", SIZE, "Size of the file; checked when it is not 0.", "0"),
        Field("checksum", object_of(CHECKSUM, checks.checksum), "Digest the file must have.",
              "not verified"),
        Field("credentials", imagery.CREDENTIALS_OBJECT, "Who asks the server for it.", "nobody"),
    ),
)  # fmt: skip

CONFIG = Table(
    "a config",
    ConfigSpec,
    (
        Field("name", NAME, "Name of the config, unique for its job.", required=True),
        Field("job", NAME, "Job the config is for.", required=True),
        Field("data", TEXT, "The content, as `encoding` says.", "none"),
        Field("encoding", choice("utf8", "base64", empty="utf8"), "utf8 or base64.", "utf8"),
        Field("files", list_of(object_of(CONFIG_FILE), "config files"), "Files to fetch and place.",
              "none"),
        Field("mod_time", TEXT, "When it was last changed, as text.", "none"),
    ),
    label='config "{name}" of job "{job}"',
)  # fmt: skip
