# SPDX-License-Identifier: Apache-2.0
"""`make footprint`: what maestro takes of a device beside supervisord and systemd, as the table in README.md.

Each processor's device is booted once in the lab, with the Debian package in it, and measures itself there
(tests/bench/footprint.py). What is installed beyond Python is weighed here, from the files or the wheels.
Times are those of an emulated processor: they are for comparing columns, not devices.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import zipfile
from collections.abc import Callable
from importlib.metadata import Distribution
from pathlib import Path
from typing import Any

from device.lab import image
from device.lab.architecture import ARCHITECTURES, Architecture
from device.lab.machine import Machine

sys.path.insert(0, str(image.PROJECT / "packaging"))
import sbom  # what belongs to an installation is known there

EXTRAS = ("seccomp", "signature")
JOBS = 100
BOOTS = 3
"""Of which the median counts."""
STARTED = "read up rest </proc/uptime; echo $up >/run/started/$1; exec sleep 100000"
SUPERVISORD = '#!/bin/sh\nPYTHONPATH=/opt/tools exec python3 -m supervisor.supervisord "$@"\n'
SUPERVISORD_UNIT = "[Service]\nExecStart=/usr/local/bin/supervisord -n -c /etc/supervisord.conf\n"
WANTED = "[Install]\nWantedBy=multi-user.target\n"

Figures = dict[str, Any]


def installed(dist: Distribution, kind: Architecture) -> int:
    """Return the bytes of a distribution's files, byte code excluded."""
    files = [Path(str(dist.locate_file(file))) for file in dist.files or [] if file.suffix != ".pyc"]
    if kind.name != "amd64" and any(file.suffix == ".so" for file in files):
        return _wheel(f"{dist.name}=={dist.version}", kind)
    return sum(path.stat().st_size for path in files if path.is_file())


def _wheel(requirement: str, kind: Architecture) -> int:
    with tempfile.TemporaryDirectory() as place:
        platforms = [f"--platform={platform}" for platform in kind.wheels]
        options = ["--only-binary=:all:", f"--python-version={image.PYTHON_VERSION}", *platforms]
        image.do(sys.executable, "-m", "pip", "download", "--no-deps", "-d", place, *options, requirement)
        (wheel,) = Path(place).iterdir()
        with zipfile.ZipFile(wheel) as file:
            return sum(entry.file_size for entry in file.infolist())


def own() -> int:
    """Return the bytes of the program itself and of the templates."""
    paths = [path for top in ("maestro_py", "templates") for path in (image.PROJECT / top).rglob("*")]
    return sum(path.stat().st_size for path in paths if path.is_file() and path.suffix != ".pyc")


def sizes(kind: Architecture) -> dict[str, float]:
    """Return MB: `core`, the program with what it depends on, and what each extra adds."""
    core, _ = sbom.collect(set())
    needed = sum(installed(dist, kind) for name, dist in core.items() if name != sbom.PROJECT)
    found = {"core": (own() + needed) / 1e6}
    for extra in EXTRAS:
        more, _ = sbom.collect({extra})
        found[extra] = sum(installed(dist, kind) for name, dist in more.items() if name not in core) / 1e6
    return found


def _tell(figures: str) -> None:
    """Write figures as soon as they are there: a device takes long, and what comes after may fail."""
    print(figures, file=sys.stderr, flush=True)


def _for_maestro(machine: Machine) -> None:
    job = {"exec_cmd": "/bin/sh"}
    jobs = [{"job": f"j{n}", **job, "exec_args": ["-c", STARTED, "sh", str(n)]} for n in range(JOBS)]
    machine.apply(*jobs)


def _for_supervisord(machine: Machine) -> None:
    machine.run("systemctl disable --now maestrod")
    entry = "[program:j{0}]\ncommand=/bin/sh /root/started.sh {0}\nstartsecs=0\n"
    jobs = "".join(entry.format(n) for n in range(JOBS))
    machine.write("/etc/supervisord.conf", f"[supervisord]\nlogfile=/var/log/supervisord.log\n{jobs}")
    machine.write("/etc/systemd/system/supervisord.service", SUPERVISORD_UNIT + WANTED)
    machine.run("systemctl enable supervisord")


def _for_systemd(machine: Machine) -> None:
    machine.run("systemctl disable --now supervisord")
    machine.write(
        "/etc/systemd/system/j@.service", f"[Service]\nExecStart=/bin/sh /root/started.sh %i\n{WANTED}"
    )
    machine.run(f"systemctl enable $(for n in $(seq 0 {JOBS - 1}); do echo j@$n; done)")


def boots(machine: Machine) -> dict[str, float]:
    """Return, for each supervisor, the seconds from the start of process 1 until all jobs have begun.

    The kernel's own share says nothing about them and, under emulation, may be minutes.
    """
    machine.write("/root/started.sh", f"{STARTED}\n")
    machine.write("/etc/tmpfiles.d/started.conf", "d /run/started 0755 root root\n")
    machine.run("systemd-tmpfiles --create started.conf")
    found = {}
    prepare: dict[str, Callable[[Machine], None]] = {
        "maestro": _for_maestro,
        "supervisord": _for_supervisord,
        "systemd": _for_systemd,
    }
    for name, make in prepare.items():
        make(machine)
        taken = [_boot(machine) for _ in range(BOOTS)]
        _tell(f"{name}: boots in {taken}")
        found[name] = statistics.median(taken)
    return found


def _boot(machine: Machine) -> float:
    machine.run("sync")
    machine.reboot()
    machine.until(f"test $(cat /run/started/* | wc -l) = {JOBS}", 300)
    last = float(machine.run("cat /run/started/* | sort -n | tail -n 1"))
    return last - int(machine.run("systemctl show --property UserspaceTimestampMonotonic --value")) / 1e6


def weigh(machine: Machine, listing: str) -> float:
    """Return the MB of the files that a command lists, byte code excluded."""
    files = f'{listing} | while read -r path; do [ -L "$path" ] || [ -d "$path" ] || echo "$path"; done'
    total = "grep -v '[.]pyc$' | xargs -d '\\n' stat -c %s 2>/dev/null | awk '{n += $1} END {print n}'"
    return int(machine.run(f"{files} | {total}")) / 1e6


def measure(kind: Architecture, seconds: float) -> Figures:
    """Boot a device and return all its figures."""
    os.environ["MAESTRO_DEVICE"] = kind.name
    machine = Machine(image.build())
    try:
        machine.write("/usr/local/bin/supervisord", SUPERVISORD)
        machine.run("cd /usr/local/bin && chmod 755 supervisord && cp supervisord supervisorctl")
        command = f"python3 -B -m tests.bench.footprint --json --disk vda --seconds {seconds:g}"
        said = machine.run(f"systemctl stop maestrod; cd /opt/tests && {command}", 1800 + 12 * seconds)
        found: Figures = json.loads(said.splitlines()[-1])
        _tell(f"{kind.name}: {found}")
        machine.run("systemctl start maestrod", 120)
        found["boot"] = boots(machine)
        found["size"] = {
            **sizes(kind),
            "supervisord": weigh(machine, "find /opt/tools/supervisor*"),
            "systemd": weigh(machine, "dpkg -L systemd libsystemd-shared"),
        }
        return found
    finally:
        machine.close()


def table(figures: dict[str, Figures]) -> str:
    """Return the figures of all processors, by its name, as Markdown."""
    columns: dict[str, Callable[[Figures, str], str]] = {
        "installed, MB": lambda found, name: f"{found['size'].get(name, found['size']['core']):.1f}",
        "memory with 0, 10, 100 jobs, MiB": lambda found, name: ", ".join(
            f"{pss:.1f}" for pss in found[name]["pss"]
        ),
        "boot to 100 jobs, s": lambda found, name: f"{found['boot'][name]:.0f}",
        "written idle, MB a day": lambda found, name: f"{found[name]['writes']['idle']:.1f}",
        "written busy, MB a day": lambda found, name: f"{found[name]['writes']['busy']:.0f}",
    }
    lines = [f"| | {' | '.join(columns)} |", f"|---|{'---:|' * len(columns)}"]
    for kind, found in figures.items():
        for name in ("maestro", "supervisord", "systemd"):
            cells = " | ".join(cell(found, name) for cell in columns.values())
            lines.append(f"| {name}, {kind} | {cells} |")
    extras = [
        f"`{extra}` " + " and ".join(f"{found['size'][extra]:.2f} MB" for found in figures.values())
        for extra in EXTRAS
    ]
    return "\n".join([*lines, "", f"On top of maestro come the extras {', '.join(extras)}."])


def main() -> int:
    """Print the table. Exit status 1 when no device could be measured."""
    parser = argparse.ArgumentParser(prog="make footprint", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60, help="time to watch writes for (default 60)")
    parser.add_argument("--keep", metavar="FILE", help="write the figures there, as JSON")
    parser.add_argument("device", nargs="*", default=list(ARCHITECTURES), help="default: all there are")
    options = parser.parse_args()
    found: dict[str, Figures] = {}
    for name in options.device:
        os.environ["MAESTRO_DEVICE"] = name
        if why := image.missing():
            print(f"{name}: {why}", file=sys.stderr)
            continue
        found[name] = measure(ARCHITECTURES[name], options.seconds)
    if options.keep:
        Path(options.keep).write_text(json.dumps(found))
    print(table(found))
    return 0 if found else 1


if __name__ == "__main__":
    sys.exit(main())
