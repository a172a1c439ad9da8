# SPDX-License-Identifier: Apache-2.0
"""maestrod: directories, lock, signals, and the order of starting and ending."""

from __future__ import annotations

import fcntl
import os
import resource
import signal
import sys
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import maestro_py
from maestro_py import shipped
from maestro_py.daemon import access, helpers, intents, log, reexec, settings, wanted
from maestro_py.daemon.adopt import adopt
from maestro_py.daemon.api import Api
from maestro_py.daemon.api.device import Device
from maestro_py.daemon.arguments import Arguments, parse
from maestro_py.daemon.change import Changer
from maestro_py.daemon.fetching import Fetcher
from maestro_py.daemon.http import Server
from maestro_py.daemon.loop import Loop, Task
from maestro_py.daemon.notify import Manager
from maestro_py.daemon.paths import Paths, base_paths, make_dirs, with_config
from maestro_py.daemon.router import Router
from maestro_py.daemon.supervisor import Supervisor
from maestro_py.daemon.tasks import Tasks
from maestro_py.daemon.upstream import Upstream
from maestro_py.errors import MaestroError
from maestro_py.images.store import ImageStore
from maestro_py.process import cgroups, kernel, reaper
from maestro_py.spec.daemonconfig import DaemonConfig
from maestro_py.spec.layers import Layer
from maestro_py.spec.places import Places
from maestro_py.state.running import RunStore
from maestro_py.state.store import Store

if TYPE_CHECKING:
    from maestro_py.daemon import pid1
    from maestro_py.daemon.arrivals import Arrivals


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
        if arguments.check_state:
            return daemon.check_state()
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
        self.handover = None if arguments.check_state else reexec.received()
        self.manager = Manager(self.loop)
        self.status = 0
        self._lock = -1
        self._ending = False
        self._failure: MaestroError | None = None
        self.config = DaemonConfig()
        self.server: Server | None = None
        self._metrics: Task[None] | None = None
        self.groups: cgroups.Cgroups | None = None
        self.device: pid1.Device | None = None  # whose first process this is

    def run(self) -> None:
        """Start, serve until told to stop, end."""
        os.umask(0o022)
        make_dirs(self.paths)
        self._take_lock()
        self._open_files = resource.getrlimit(resource.RLIMIT_NOFILE)
        if self.handover:
            self._open_files = self.handover.open_files
        resource.setrlimit(resource.RLIMIT_NOFILE, (self._open_files[1], self._open_files[1]))
        kernel.prctl(kernel.PR_SET_CHILD_SUBREAPER, 1)
        for number, callback in (
            (signal.SIGTERM, lambda: self.shut_down(None)),
            (signal.SIGINT, lambda: self.shut_down(None)),
            (signal.SIGPWR, lambda: self.shut_down(None)),
            (signal.SIGHUP, lambda: self.loop.spawn(self._reload(), name="reload")),
            (signal.SIGCHLD, self._reap_strangers),
        ):
            self.loop.add_signal(number, callback)
        if os.getpid() == 1:
            from maestro_py.daemon import pid1  # few are

            if pid1.of_device():
                self.device = pid1.Device(self.loop, lambda: self.shut_down(None))
        reexec.take_signals()
        self.loop.spawn(self._start(), name="start")
        self.loop.run()
        if self._failure:
            if self.groups:
                self.groups.remove_base()
            raise self._failure
        if self.device:
            self.device.end()

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
        log.set_level(self.config.log_level)
        self.paths = with_config(self.paths, self.config, self.arguments.socket)
        make_dirs(self.paths)
        self._generate_files()
        store = Store(self.paths.database)
        run_store = RunStore(os.path.join(self.paths.run, "run.db"))
        damages = []
        for database in (store, run_store):
            if database.warning:
                damages.append(database.warning)
        groups = self.groups = cgroups.detect(self._cgroup_base(), own=self._cgroup_file())
        groups.prepare()
        images = ImageStore(self.paths.images, self.paths.scratch, self.config.disk_reserve)
        images.clean_staging()
        self.store, self.run_store = store, run_store
        self.supervisor = Supervisor(
            self.loop, self.paths, self.config, store, run_store, groups, self._open_files
        )
        if self.handover:
            self.supervisor.generation = self.handover.generation
        self.supervisor.warnings = damages
        for warning in damages:
            self.supervisor.happen("state-damaged", warning)
        tasks = Tasks(self.loop)
        fetcher = Fetcher(self.loop, self.config, lambda config: self._arrivals(images, config))
        sources = wanted.load(store, templates, settings.file_layer(self.config))
        self.changer = Changer(self.supervisor, store, images, fetcher, tasks, self._places(), sources)
        adopt(self.supervisor, self.changer.wanted.processes)
        api = Api(self.changer, Device(self.changer, self.shut_down, self._upgrade))
        routes = [*api.routes(), *Upstream(self.changer, api).routes()]
        router = Router(intents.remembering(routes, tasks))
        self.server = Server(
            self.loop, router, on_error=self._on_error, role_of=lambda peer: access.role_of(peer, self.config)
        )
        for fd in self.handover.listeners if self.handover else ():
            self.server.adopt(fd)
        if not self.server.listens_at(self.paths.socket):
            self.server.listen(self.paths.socket, 0o666)
        self._open_door()
        self._keep_metrics()
        self._write_pid_file()
        log.info(f"maestrod {maestro_py.__version__} serves {self.paths.socket}")
        self.manager.ready()
        self._reap_strangers()
        self.changer.boot()
        if self.handover:
            self.supervisor.happen("upgraded", f"maestrod {maestro_py.__version__} took over")
            await intents.take_up(self.handover.tasks, tasks, router)

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

    def _arrivals(self, images: ImageStore, config: DaemonConfig) -> Arrivals:
        from maestro_py.daemon.arrivals import Arrivals  # a device that has all it needs does without

        paths, tell = self.paths, self.supervisor.happen
        return Arrivals(self.loop, images, paths.scratch, config, paths.keys, tell)

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
        if self.handover:
            self._lock = self.handover.lock
            return
        path = os.path.join(self.paths.run, "maestrod.lock")
        self._lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        while True:
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError:
                pid = os.pread(self._lock, 32, 0).decode().strip()
                if not pid.isdigit() or os.path.exists(f"/proc/{pid}"):
                    raise MaestroError(
                        f"cannot start: a maestrod runs already below {self.paths.run} (pid {pid})"
                    ) from None
                time.sleep(0.005)  # a child it had just forked is on its way out
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

    def _generate_files(self) -> None:
        if self.config.generators:
            from maestro_py.daemon import generators  # only gateways have some

            generators.write_all(self.config, settings.builtins(), self.paths.root)

    def _open_door(self) -> None:
        """Serve on TCP too when the config file says so; no job suffers when that cannot be."""
        assert self.server
        try:
            self.server.open_door(access.door(self.config, self.paths.state))
        except MaestroError as error:
            log.error(str(error))

    def _keep_metrics(self) -> None:
        """Write the metrics to a file now and then, if the config file says so."""
        if self._metrics:
            self._metrics.cancel()
            self._metrics = None
        if self.config.metrics_file:
            from maestro_py.daemon import metrics  # few devices want this

            work = metrics.keep_file(self.changer, self.config.metrics_file, self.config.metrics_interval)
            self._metrics = self.loop.spawn(work, name="metrics file")

    def _reap_strangers(self) -> None:
        """Bury orphans that became our children because we are their sub-reaper."""
        if self.server:  # before that nobody knows which children are jobs
            jobs = {unit.launch.pid for unit in self.supervisor.units.values() if unit.launch}
            reaper.reap_strangers(helpers.running | jobs)

    async def _reload(self) -> None:
        """Read the files again and apply the difference; a bad file changes nothing."""
        try:
            templates = await self._read_files()
            self._generate_files()
            log.set_level(self.config.log_level)
            self._open_door()
            self._keep_metrics()
            self.changer.places = self._places()
            self.changer.fetcher.configure(self.config)
            file = settings.file_layer(self.config)
            self.changer.change("reload", "files", lambda s: replace(s, shipped=templates, file=file))
        except MaestroError as error:
            log.error(f"nothing was reloaded: {error}")

    def check_state(self) -> int:
        """Say whether this version could go on with configuration and state; changes nothing."""
        from maestro_py.daemon import trial  # a process of its own

        templates = self.loop.run_until(self._read_files())
        self.paths = with_config(self.paths, self.config, self.arguments.socket)
        trial.check(self.paths, templates, settings.file_layer(self.config), self._places())
        print(maestro_py.__version__)
        return 0

    async def _upgrade(self) -> dict[str, object]:
        assert self.server
        change = reexec.Upgrade(
            self.supervisor, self.changer.tasks, self.server, self.manager, self._lock, self._open_files
        )
        return await change.begin()

    def shut_down(self, jobs: str | None) -> None:
        """End the daemon in order. jobs: `stop` or `keep` them; None: as the config file says."""
        if self._ending:
            return
        self._ending = True
        keep = (jobs or self.config.on_daemon_stop) == "keep"
        self.loop.spawn(self._end(keep and not self.device), name="end")  # a device takes its jobs along

    async def _end(self, keep: bool) -> None:
        log.info(f"maestrod ends and {'keeps' if keep else 'stops'} its jobs")
        self.manager.stopping()
        if self.server:
            await self.supervisor.shut_down(keep=keep)
            self.server.close()
            await self.server.ended()
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
