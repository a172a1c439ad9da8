# SPDX-License-Identifier: Apache-2.0
"""`make demo`: a daemon under a private root, images from a local server, one running config. Stdlib only.

Everything is kept in `.demo/` of the repository. `demo.py stop` ends what `demo.py start` started, and
nothing else: a pid counts only with the start time it was recorded with.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from typing import Any

REPO = Path(__file__).resolve().parents[1]
HERE = REPO / ".demo"
ROOT = HERE / "root"
WWW = HERE / "www"
SOCKET = ROOT / "run" / "maestro.sock"
DOCUMENT = HERE / "running-config.json"
BIN = Path(sys.executable).parent
SERVED = ("maestrod", "images")


class DemoError(Exception):
    """Something the reader has to know; ends the demo."""


def start_ticks(pid: int) -> str:
    """Return the start time of a living process in clock ticks since boot, `` if there is none.

    Field 22 of proc(5) `/proc/PID/stat`; a zombie counts as gone.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] == "Z" else fields[19]


def remember(name: str, pid: int) -> None:
    """Record a process that was started here, for a later `stop`."""
    (HERE / f"{name}.pid").write_text(f"{pid} {start_ticks(pid)}\n")


def recorded(name: str) -> int:
    """Return the pid of the process recorded under a name, 0 when it is gone."""
    try:
        pid, ticks = (HERE / f"{name}.pid").read_text().split()
    except (OSError, ValueError):
        return 0
    return int(pid) if start_ticks(int(pid)) == ticks else 0


def stop() -> bool:
    """End what is still running of an earlier start; True if there was anything."""
    any_running = False
    for name in SERVED:
        pid = recorded(name)
        if pid:
            any_running = True
            try:
                os.kill(pid, signal.SIGTERM)
            except PermissionError:
                raise DemoError(f"cannot stop {name}, pid {pid}: it belongs to another user") from None
            deadline = time.monotonic() + 30
            while recorded(name):
                if time.monotonic() > deadline:
                    raise DemoError(f"cannot stop {name}: pid {pid} is still there 30 s after SIGTERM")
                time.sleep(0.05)
        (HERE / f"{name}.pid").unlink(missing_ok=True)
    return any_running


def launch(name: str, argv: list[str], **options: Any) -> subprocess.Popen[bytes]:
    """Start a background program that outlives this one; its output goes to `.demo/<name>.log`."""
    with (HERE / f"{name}.log").open("wb") as log:
        options = {"stdout": log, **options}
        process = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stderr=log, start_new_session=True, cwd=HERE, **options
        )
    remember(name, process.pid)
    return process


def serve_images() -> str:
    """Start an HTTP server for `.demo/www` on a free local port and return its URL."""
    argv = [sys.executable, "-u", "-m", "http.server", "--bind", "127.0.0.1", "--directory", str(WWW), "0"]
    process = launch("images", argv, stdout=subprocess.PIPE)
    assert process.stdout
    with process.stdout as out:
        line = out.readline().decode()
    port = re.search(r"port (\d+)", line)
    if not port:
        raise DemoError(f"cannot serve the images: see {HERE}/images.log")
    return f"http://127.0.0.1:{port[1]}"


def start_daemon() -> None:
    """Start maestrod and wait until its socket answers."""
    process = launch("maestrod", [str(BIN / "maestrod"), "--root", str(ROOT)])
    deadline = time.monotonic() + 15
    while True:
        with socket.socket(socket.AF_UNIX) as probe:
            try:
                probe.connect(str(SOCKET))
                return
            except OSError:
                pass
        if process.poll() is not None or time.monotonic() > deadline:
            tail = (HERE / "maestrod.log").read_text(errors="replace").splitlines()[-10:]
            raise DemoError("\n  ".join(["maestrod did not come up; it says:", *tail]))
        time.sleep(0.05)


def linked_files(program: str) -> list[str]:
    """Return a program and the libraries it is linked with, as absolute paths. Raises DemoError."""
    if not shutil.which("ldd"):
        raise DemoError("there is no ldd here to find the libraries of a program")
    text = subprocess.run(["ldd", program], check=True, capture_output=True, text=True).stdout
    return [program, *re.findall(r"(/\S+) \(0x", text)]


def pack(name: str, *extra: str) -> Path:
    """Make `.demo/www/<name>.tar.gz` of `demo/images/<name>` and of some files of this machine."""
    archive = WWW / f"{name}.tar.gz"
    with tarfile.open(archive, "w:gz", dereference=True) as tar:
        for file in sorted((REPO / "demo" / "images" / name).iterdir()):
            if file.is_file():
                tar.add(file, file.name)
        for path in extra:
            tar.add(path, path.lstrip("/"))
    return archive


def image(job: str, url: str, image_type: str, *extra: str) -> dict[str, Any]:
    """Pack an image and return its entry in the document."""
    data = pack(job, *extra).read_bytes()
    return {
        "job": job,
        "version": "1.0.0",
        "url": f"{url}/{job}.tar.gz",
        "size": len(data),
        "checksum": {"type": "sha256sum", "value": hashlib.sha256(data).hexdigest()},
        "image_type": image_type,
    }


def running_config(url: str) -> dict[str, Any]:
    """Return the document: a script, two modules in one process and, for root, a job in a root of its own."""
    host, image_type = (
        ("devicejs", "devicejs_tarball") if shutil.which("node") else ("python-modules", "tarball")
    )
    hub = {"composite_id": "hub", "container_template": host, "config": "rooms"}
    document: dict[str, Any] = {
        "config": "running",
        "date": int(time.time()),
        "jobs": [
            {
                "job": "clock",
                "container_template": "python",
                "exec_cmd": "{{IMAGE}}/clock.py",
                "wait_for_ok": True,
            },
            {"job": "lights", **hub},
            {"job": "heating", **hub},
        ],
        "templates": [],
        "images": [
            image("clock", url, "tarball"),
            *(image(job, url, image_type) for job in ("lights", "heating")),
        ],
        "configs": [
            {
                "name": "rooms",
                "job": job,
                "data": json.dumps({"rooms": rooms, "every_seconds": 5}),
                "encoding": "utf8",
            }
            for job, rooms in (("lights", ["kitchen", "hall"]), ("heating", ["bath"]))
        ],
    }
    if os.geteuid() == 0:
        files = sorted({file for program in ("/bin/sh", "/bin/sleep") for file in linked_files(program)})
        document["templates"].append(
            {
                "name": "cell",
                "ChrootImage": True,
                "user": "nobody",
                "cgroup": {"mem_limit": "16M", "pids_max": 16},
                "add_env": ["PATH=/bin"],
                "uses_ok_string": True,
                "timeout_for_ok": 10000,
                "restart": True,
            }
        )
        document["jobs"].append(
            {"job": "cell", "container_template": "cell", "exec_cmd": "{{IMAGE}}/hello.sh"}
        )
        document["images"].append(image("cell", url, "tarball", *files))
    return document


def maestro(*arguments: str) -> int:
    """Show and run one command of the control program; return its exit status."""
    print(f"\n$ maestro {' '.join(arguments)}", flush=True)
    return subprocess.run([BIN / "maestro", "--socket", SOCKET, *arguments], check=False, cwd=REPO).returncode


def show_isolation() -> None:
    """Print uid, root and memory limit of the job `cell` as the kernel has them."""
    answer = subprocess.run(
        [BIN / "maestro", "--socket", SOCKET, "--json", "status", "cell"], capture_output=True, check=True
    )
    (job,) = json.loads(answer.stdout)["jobs"]
    pid = job["pid"]
    if not pid:
        return
    status = Path(f"/proc/{pid}/status").read_text()
    uid = re.search(r"^Uid:\s+(\d+)", status, re.MULTILINE)
    limit = (job["memory"] or {}).get("limit")
    print("\nRoot has more to show. The job `cell`, as the kernel sees it:")
    print(f"  uid           {uid[1] if uid else '?'}")
    print(f"  its root      {' '.join(sorted(os.listdir(f'/proc/{pid}/root')))}")
    print(f"  memory limit  {f'{limit} bytes' if limit else 'none: this device has no memory controller'}")


def start() -> int:
    """Set everything up anew, apply, show, and say how to go on."""
    if stop():
        print("stopped the demo that was running")
    try:
        if HERE.exists():
            shutil.rmtree(HERE)
        WWW.mkdir(parents=True)
    except OSError as error:
        raise DemoError(
            f"cannot use {HERE}: {error.strerror}; remove it, it may belong to another user"
        ) from error
    try:
        DOCUMENT.write_text(json.dumps(running_config(serve_images()), indent=2) + "\n")
        start_daemon()
    except DemoError:
        stop()
        raise
    print(f"maestrod runs with everything it has below {ROOT.relative_to(REPO)}/")
    result = maestro("apply", str(DOCUMENT.relative_to(REPO)))
    maestro("status")
    if os.geteuid() == 0 and result == 0:
        show_isolation()
    print(f"""
Look further:
  export MAESTRO_SOCKET={SOCKET} PATH={BIN}:$PATH
  maestro status            what runs
  maestro logs -f clock     what a job prints
  maestro why lights        why it is in the state it is in
  maestro events            what has happened
  maestro restart lights    heating too: they are two modules of one process
Change {DOCUMENT.relative_to(REPO)} (disable a job, say)
and `maestro apply` it again.
Stop: make demo-stop""")
    return result


def main() -> int:
    """Run `start`, or `stop` when that is the argument."""
    try:
        if sys.argv[1:] == ["stop"]:
            print("stopped" if stop() else "nothing was running")
            return 0
        return start()
    except DemoError as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
