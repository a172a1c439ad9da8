# SPDX-License-Identifier: Apache-2.0
"""Run the members of a composite as modules of one Python process (Python >= 3.10, no packages).

stdin: {"moduleconfigs": {"<job>": {<job payload>}}, "process_config": "<text>",
"maestro_user_socket_path": "<path>"}, up to EOF. The module contract is in README.md.
"""

from __future__ import annotations

import base64
import http.client
import importlib.util
import inspect
import io
import json
import os
import queue
import re
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from types import FrameType, ModuleType
from typing import Any
from urllib.parse import quote

OK_STRING = "!!OK!!"
FETCH_TIMEOUT = 10.0
JOIN_TIMEOUT = 5.0


class Stop(BaseException):
    """SIGTERM or SIGINT came."""


def say(text: str) -> None:
    print(f"python-modules host: {text}", file=sys.stderr, flush=True)


def without_comments(text: str) -> str:
    """Blank out JSON comments; positions in syntax errors stay true."""

    def blank(match: re.Match[str]) -> str:
        found = match[0]
        return found if found[0] == '"' else re.sub(r"[^\n]", " ", found)

    return re.sub(r'"[^"\\]*(?:\\.[^"\\]*)*"|//[^\n]*|/\*.*?\*/', blank, text, flags=re.DOTALL)


def substitute(text: str, directory: str, escape: Callable[[str], str]) -> str:
    """Fill in `${home}`, `${thisdir}` and `${NAME}` of the environment; others stay as written."""

    def value_of(match: re.Match[str]) -> str:
        name = match[1]
        if name == "home":
            return escape(os.path.expanduser("~"))
        value = directory if name == "thisdir" else os.environ.get(name)
        return match[0] if value is None else escape(value)

    return re.sub(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}", value_of, text)


def parse_config(text: str, directory: str) -> Any:
    """Return the value of JSON with comments, other text as it is. Raises ValueError for broken JSON."""
    clean = without_comments(substitute(text, directory, lambda value: json.dumps(value)[1:-1]))
    try:
        return json.loads(clean)
    except ValueError as error:
        if clean.lstrip().startswith(("{", "[")):
            raise ValueError(f"its config is not JSON: {error}") from None
        return substitute(text, directory, str)


class UnixConnection(http.client.HTTPConnection):
    """HTTP over the daemon's Unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__("127.0.0.1", timeout=FETCH_TIMEOUT)
        self.path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


def fetch_config(socket_path: str, job: str, name: str) -> str | None:
    """Return the text of a job's stored config, None when there is none. Raises OSError, ValueError."""
    if not socket_path:
        return None
    connection = UnixConnection(socket_path)
    try:
        connection.request("GET", f"/jobConfig/{quote(job, '')}/{quote(name, '')}")
        response = connection.getresponse()
        body = response.read()
        if response.status in (204, 404):
            return None
        if response.status != 200:
            raise ValueError(f"the daemon answered {response.status}")
        config = json.loads(body)["configs"][0]
        data: str = config["data"]
        return base64.b64decode(data).decode() if config.get("encoding") == "base64" else data
    except (http.client.HTTPException, LookupError, TypeError) as error:
        raise ValueError(f"the daemon's answer makes no sense: {error!r}") from error
    finally:
        connection.close()


@dataclass
class Context:
    """What a module gets beside its config."""

    name: str
    directory: str
    socket: str
    process_config: Any
    config_name: str = "default"
    stopping: threading.Event = field(default_factory=threading.Event)

    def fetch_config(self, name: str = "") -> Any:
        """Return a config of this job as it is stored now, or None."""
        text = fetch_config(self.socket, self.name, name or self.config_name)
        return None if text is None else parse_config(text, self.directory)


@dataclass
class Member:
    """One job of the composite and what became of it."""

    name: str
    payload: dict[str, Any]
    number: int
    directory: str = ""
    state: str = "starting"  # then up, done or failed
    module: ModuleType | None = None
    context: Context | None = None
    thread: threading.Thread | None = None


def call(function: Callable[..., Any], *arguments: Any) -> None:
    """Call with as many of the arguments as the function takes; wait for a coroutine."""
    count = len(arguments)
    signature = inspect.signature(function)
    while count:
        try:
            signature.bind(*arguments[:count])
            break
        except TypeError:
            count -= 1
    result = function(*arguments[:count])
    if inspect.iscoroutine(result):
        import asyncio  # costs megabytes; paid only by those who use it

        asyncio.run(result)


def entry_file(member: Member) -> str:
    """Return the file to import: `__init__.py`, `main.py` or `<job>.py` of a directory, or the file named."""
    target: str = member.payload.get("exec_cmd") or ""
    if not target:
        raise ValueError("it has no exec_cmd naming its directory")
    target = os.path.abspath(target)
    if os.path.isfile(target):
        return target
    if not os.path.isdir(target):
        raise FileNotFoundError(f"{target} does not exist")
    names = ("__init__.py", "main.py", re.sub(r"\W", "_", member.name) + ".py")
    for name in names:
        if os.path.isfile(os.path.join(target, name)):
            return os.path.join(target, name)
    raise FileNotFoundError(f"{target} holds none of {', '.join(names)}")


def config_of(member: Member, socket_path: str) -> Any:
    """Inline data first, then what the daemon has stored, then the module's own config.json."""
    config = member.payload.get("config")
    if config:
        return parse_config(config, member.directory) if isinstance(config, str) else config
    try:
        text = fetch_config(socket_path, member.name, member.payload.get("config_name") or "default")
        if text:
            return parse_config(text, member.directory)
    except OSError as error:
        say(f"cannot fetch the config of module {member.name}: {error.strerror or error}")
    except ValueError as error:
        say(f"cannot fetch the config of module {member.name}: {error}")
    own = os.path.join(member.directory, "config.json")
    if os.path.exists(own):
        with open(own, encoding="utf-8") as file:
            return parse_config(file.read(), member.directory)
    return None


def warn_of_shared_names(member: Member) -> None:
    """Members share one module namespace; say so before one silently gets another's helper.

    Only names that an absolute import has bound to a file of another member can be mixed up.
    """
    for entry in os.listdir(member.directory):
        loaded = sys.modules.get(entry.removesuffix(".py"))
        file = getattr(loaded, "__file__", None) or ""
        others = [m for m in MEMBERS if m.directory and m.directory != member.directory]
        for other in others:
            if file.startswith(other.directory + os.sep):
                say(f"modules {member.name} and {other.name} both hold {entry}: use `from . import` there")


def load(member: Member, file: str) -> ModuleType:
    """Import a member as a package of its own, so that two members may use the same file names."""
    warn_of_shared_names(member)
    if member.directory not in sys.path:
        sys.path.append(member.directory)
    spec = importlib.util.spec_from_file_location(
        f"maestro_member_{member.number}", file, submodule_search_locations=[member.directory]
    )
    if spec is None or spec.loader is None:
        raise ImportError(f"{file} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


MEMBERS: list[Member] = []
ENDED: queue.SimpleQueue[tuple[Member, bool]] = queue.SimpleQueue()
"""Members whose `run` ended, and whether it ended well."""


def run_in_thread(member: Member, run: Callable[..., Any], config: Any) -> None:
    good = False
    try:
        call(run, config, member.context)
        good = True
    except BaseException as error:
        say(f"module {member.name} failed: {type(error).__name__}: {error}\n{traceback.format_exc()}")
    finally:
        ENDED.put((member, good))


def bring_up(member: Member, socket_path: str, process_config: Any) -> None:
    try:
        file = entry_file(member)
        member.directory = os.path.dirname(file)
        config = config_of(member, socket_path)
        member.context = Context(
            member.name,
            member.directory,
            socket_path,
            process_config,
            member.payload.get("config_name") or "default",
        )
        module = member.module = load(member, file)
        if callable(getattr(module, "start", None)):
            call(module.start, config, member.context)
        # Before the thread starts: what it does first may be to ask for the end, and then `stop` is due.
        member.state = "up"
        run = getattr(module, "run", None)
        if callable(run):
            member.thread = threading.Thread(
                target=run_in_thread, args=(member, run, config), name=member.name, daemon=True
            )
            member.thread.start()
    except (Exception, SystemExit) as error:
        member.state = "failed"
        say(f"cannot load module {member.name}: {type(error).__name__}: {error}\n{traceback.format_exc()}")


def stop_all() -> None:
    """Tell every module to stop, wait a little for its thread, and leave."""
    late = [member.name for member in MEMBERS if member.state == "starting"]
    if late:
        say(f"asked to stop while still starting: {', '.join(late)}")
    for member in MEMBERS:
        if member.context:
            member.context.stopping.set()
    for member in MEMBERS:
        stop = getattr(member.module, "stop", None)
        try:
            if member.state == "up" and callable(stop):
                call(stop)
        except (Exception, SystemExit) as error:
            say(
                f"cannot stop module {member.name}: {type(error).__name__}: {error}\n{traceback.format_exc()}"
            )
    deadline = time.monotonic() + JOIN_TIMEOUT
    threads = [member.thread for member in MEMBERS if member.thread]
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    leave(0)


def leave(status: int) -> None:
    """End the process. With a thread still at work the interpreter's own way out could hang or crash."""
    if any(member.thread and member.thread.is_alive() for member in MEMBERS):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    sys.exit(status)


def supervise() -> None:
    """Wait for modules to end; return when none is left."""
    while any(member.state == "up" for member in MEMBERS):
        member, good = ENDED.get()
        if not good:
            leave(1)
        member.state = "done"
        say(f"module {member.name} has finished")


def read_composite() -> dict[str, Any]:
    try:
        composite: dict[str, Any] = json.loads(sys.stdin.buffer.read())
        for number, (name, payload) in enumerate(composite["moduleconfigs"].items()):
            MEMBERS.append(Member(name, payload, number))
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        say(f"cannot read the list of modules from stdin: {error!r}")
        sys.exit(1)
    return composite


def parse_process_config(value: Any) -> Any:
    try:
        return json.loads(without_comments(value)) if isinstance(value, str) else value
    except ValueError:
        return value


def on_signal(signum: int, frame: FrameType | None) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    raise Stop


def main() -> None:
    # By lines, where unbuffered output would tear the lines of two threads apart.
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(line_buffering=True, errors="backslashreplace")
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, on_signal)
    try:
        composite = read_composite()
        socket_path = composite.get("maestro_user_socket_path") or os.environ.get("MAESTRO_SOCKET", "")
        process_config = parse_process_config(composite.get("process_config"))
        for member in MEMBERS:
            bring_up(member, socket_path, process_config)
        failed = [member.name for member in MEMBERS if member.state == "failed"]
        if len(failed) == len(MEMBERS):
            say("no module could be loaded")
            leave(1)
        if failed:
            say(f"running without: {', '.join(failed)}")
        sys.stdout.write(OK_STRING + "\n")
        supervise()
    except Stop:
        stop_all()
    leave(0)


if __name__ == "__main__":
    main()
