# SPDX-License-Identifier: Apache-2.0
"""maestrod: arguments, directories, lock, signals, and the order of starting and ending."""

from __future__ import annotations

import fcntl
import getopt
import grp
import os
import resource
import signal
import sys
from dataclasses import dataclass, replace
from typing import Any

import maestro_py
from maestro_py import shipped
from maestro_py.daemon import helpers, log, settings, wanted
from maestro_py.daemon.api import Api
from maestro_py.daemon.change import Changer
from maestro_py.daemon.fetching import Fetcher
from maestro_py.daemon.http import Peer, Server
from maestro_py.daemon.loop import Loop
from maestro_py.daemon.notify import Manager
from maestro_py.daemon.paths import Paths, base_paths, make_dirs, with_config
from maestro_py.daemon.router import Role, Router
from maestro_py.daemon.supervisor import Supervisor
from maestro_py.daemon.tasks import Tasks
from maestro_py.daemon.upstream import Upstream
from maestro_py.errors import MaestroError
from maestro_py.images.store import ImageStore
from maestro_py.process import cgroups, kernel, reaper
from maestro_py.spec.expand import Places
from maestro_py.spec.layers import Layer
from maestro_py.spec.model import DaemonConfig
from maestro_py.state.store import RunStore, Store

USAGE = """\
usage: maestrod [--config FILE] [--root DIR] [--socket PATH] [--check] [--version]

Make this device match its running config, and keep its jobs running. Stays in the foreground.

  --config FILE   the daemon's config file (default /etc/maestro/maestro.yaml)
  --root DIR      keep everything below DIR; needs no root, touches nothing of the system
  --socket PATH   socket of the API (default /run/maestro/maestro.sock, or DIR/run/maestro.sock)
  --check         check the config file and exit
  --version       print the version and exit
"""


@dataclass(frozen=True)
class Arguments:
    """The command line."""

    config: str = ""
    root: str = ""
    socket: str = ""
    check: bool = False


def parse(argv: list[str]) -> Arguments | int:
    """Return the arguments, or the exit status when there is nothing more to do."""
    try:
        options, rest = getopt.gnu_getopt(
            argv, "h", ["config=", "root=", "socket=", "check", "version", "help"]
        )
        if rest:
            raise getopt.GetoptError(f"unexpected argument {rest[0]!r}")
    except getopt.GetoptError as error:
        print(f"maestrod: {error}\n{USAGE}", file=sys.stderr, end="")
        return 2
    found = Arguments()
    for name, value in options:
        if name in ("-h", "--help"):
            print(USAGE, end="")
            return 0
        if name == "--version":
            print(f"maestrod {maestro_py.__version__}")
            return 0
        if name == "--check":
            found = replace(found, check=True)
        elif name == "--config":
            found = replace(found, config=value)
        elif name == "--root":
            found = replace(found, root=value)
        else:
            found = replace(found, socket=value)
    return found


def main(argv: list[str] | None = None) -> int:
    """Run the daemon; return its exit status."""
    arguments = parse(sys.argv[1:] if argv is None else argv)
    if isinstance(arguments, int):
        return arguments
    paths = base_paths(arguments.root, arguments.config)
    if arguments.check:
        return settings.check(paths)
    if arguments.config and not os.path.exists(paths.config):
        log.error(f"cannot read {paths.config}: No such file or directory")
        return 1
    daemon = Daemon(arguments, paths)
    try:
        daemon.run()
    except MaestroError as error:
        log.error(str(error))
        return 1
    return daemon.status


class Daemon:
    """Puts the rooms together, and takes them apart in the right order."""

    def __init__(self, arguments: Arguments, paths: Paths) -> None:
        self.arguments = arguments
        self.paths = paths
        self.loop = Loop()
        self.loop.on_error = self._on_error
        self.manager = Manager(self.loop)
        self.status = 0
        self._lock = -1
        self._ending = False
        self._failure: MaestroError | None = None
        self.config = DaemonConfig()
        self.server: Server | None = None
        self.groups: cgroups.Cgroups | None = None

    def run(self) -> None:
        """Start, serve until told to stop, end."""
        os.umask(0o022)
        make_dirs(self.paths)
        self._take_lock()
        self._open_files = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (self._open_files[1], self._open_files[1]))
        kernel.prctl(kernel.PR_SET_CHILD_SUBREAPER, 1)
        for number, callback in (
            (signal.SIGTERM, lambda: self.shut_down(None)),
            (signal.SIGINT, lambda: self.shut_down(None)),
            (signal.SIGHUP, lambda: self.loop.spawn(self._reload(), name="reload")),
            (signal.SIGCHLD, self._reap_strangers),
        ):
            self.loop.add_signal(number, callback)
        self.loop.spawn(self._start(), name="start")
        self.loop.run()
        if self._failure:
            if self.groups:
                self.groups.remove_base()
            raise self._failure

    async def _start(self) -> None:
        try:
            await self._begin()
        except MaestroError as error:
            self._failure = error
            self.loop.stop()
        except Exception as error:
            self._on_error("start", error)
            self._failure = MaestroError("cannot start: internal error, see above")
            self.loop.stop()

    async def _begin(self) -> None:
        templates = await self._read_files()
        self.paths = with_config(self.paths, self.config, self.arguments.socket)
        make_dirs(self.paths)
        store = Store(self.paths.database)
        run_store = RunStore(os.path.join(self.paths.run, "run.db"))
        for database in (store, run_store):
            if database.warning:
                log.error(database.warning)
        groups = self.groups = cgroups.detect(self._cgroup_base(), own=self._cgroup_file())
        groups.prepare()
        images = ImageStore(self.paths.images, self.paths.scratch)
        images.clean_staging()
        self.store, self.run_store = store, run_store
        self.supervisor = Supervisor(
            self.loop, self.paths, self.config, store, run_store, groups, self._open_files
        )
        self.supervisor.recover()
        tasks = Tasks(self.loop)
        fetcher = Fetcher(self.loop, images, self.paths.scratch)
        sources = wanted.load(store, templates, settings.file_layer(self.config))
        self.changer = Changer(self.supervisor, store, images, fetcher, tasks, self._places(), sources)
        api = Api(self.changer, self.shut_down)
        router = Router([*api.routes(), *Upstream(self.changer, api).routes()])
        self.server = Server(self.loop, router, on_error=self._on_error, role_of=self._role_of)
        self.server.listen(self.paths.socket, 0o666)
        self._write_pid_file()
        log.info(f"maestrod {maestro_py.__version__} serves {self.paths.socket}")
        self.manager.ready()
        self.changer.boot()

    async def _read_files(self) -> Layer:
        """Read the config file and all template files; return the templates. Raises MaestroError."""
        config, warnings = await settings.read_config(self.loop, self.paths.config, self.paths.state)
        directories = (shipped.templates(), self.paths.local_templates)
        templates, notes = await settings.template_layer(self.loop, directories)
        for warning in (*warnings, *notes):
            log.warning(f"{self.paths.config}: {warning}")
        # what is wrong in files is refused here, while somebody watches; what is stored is not
        wanted.resolved(
            wanted.Sources(shipped=templates, file=settings.file_layer(config)),
            self._places(),
            self.paths.config,
        )
        self.config = config
        return templates

    def _places(self) -> Places:
        built_in = settings.builtins()
        return Places(
            images=self.paths.images,
            configs=self.paths.configs,
            socket=self.paths.socket,
            thisdir=built_in["thisdir"],
            cwd=built_in["cwd"],
            data=os.path.join(self.paths.state, "data"),
            run=self.paths.run,
            variables={**self.config.variables, "templates": built_in["templates"]},
        )

    def _cgroup_base(self) -> str:
        """A name of our own below the control group root: several daemons may run side by side."""
        if not self.paths.root:
            return "maestro"
        return f"maestro-{os.stat(self.paths.root).st_ino:x}"

    def _cgroup_file(self) -> str:
        """Return the file that says below which control group ours belong, in the form of proc_pid_cgroup(5).

        A service manager may have left one for a group of the jobs' own, as maestro-jobs.service does.
        """
        given = os.path.join(self.paths.run, "jobs.cgroup")
        return given if os.path.exists(given) else "/proc/self/cgroup"

    def _take_lock(self) -> None:
        path = os.path.join(self.paths.run, "maestrod.lock")
        self._lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            pid = os.read(self._lock, 32).decode().strip()
            raise MaestroError(
                f"cannot start: a maestrod runs already below {self.paths.run} (pid {pid})"
            ) from None
        os.ftruncate(self._lock, 0)
        os.pwrite(self._lock, f"{os.getpid()}\n".encode(), 0)

    def _write_pid_file(self) -> None:
        if not self.paths.pid_file:
            return
        try:
            with open(self.paths.pid_file, "w", encoding="ascii") as file:
                file.write(f"{os.getpid()}\n")
        except OSError as error:
            log.warning(f"cannot write {self.paths.pid_file}: {error.strerror}")

    def _role_of(self, peer: Peer) -> Role:
        """Root and the daemon's own user may do everything, the operators' group may operate, a job may
        read its own config; the route decides the rest.
        """
        if peer.uid in (0, os.geteuid()):
            return Role.ADMIN
        try:
            operators = grp.getgrnam(self.config.operate_group).gr_gid
        except KeyError:
            return Role.JOB
        return Role.OPERATE if operators == peer.gid or operators in peer.groups else Role.JOB

    def _reap_strangers(self) -> None:
        """Bury orphans that became our children because we are their sub-reaper."""
        known = set(helpers.running)
        if self.server:
            known |= {unit.launch.pid for unit in self.supervisor.units.values() if unit.launch}
        reaper.reap_strangers(known)

    async def _reload(self) -> None:
        """Read the files again and apply the difference; a bad file changes nothing."""
        try:
            templates = await self._read_files()
            self.changer.places = self._places()
            file = settings.file_layer(self.config)
            self.changer.change("reload", "files", lambda s: replace(s, shipped=templates, file=file))
        except MaestroError as error:
            log.error(f"nothing was reloaded: {error}")

    def shut_down(self, jobs: str | None) -> None:
        """End the daemon in order. jobs: `stop` or `keep` them; None: as the config file says."""
        if self._ending:
            return
        self._ending = True
        self.loop.spawn(self._end((jobs or self.config.on_daemon_stop) == "keep"), name="end")

    async def _end(self, keep: bool) -> None:
        log.info(f"maestrod ends and {'keeps' if keep else 'stops'} its jobs")
        self.manager.stopping()
        if self.server:
            await self.supervisor.shut_down(keep=keep)
            self.server.close()
            if not keep:
                self.supervisor.cgroups.remove_base()
            self.store.close()
            self.run_store.close()
        self.loop.stop()

    def _on_error(self, where: Any, error: BaseException) -> None:
        """Log what nobody expected; the loop goes on."""
        import traceback  # only when something is wrong already

        text = "".join(traceback.format_exception(error))
        log.error(f"unexpected in {where}: {text}")


if __name__ == "__main__":
    raise SystemExit(main())
