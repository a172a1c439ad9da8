# SPDX-License-Identifier: Apache-2.0
"""The main job, whole: a running config with a composite of Node modules and a limited Python script."""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.daemon import Daemon
from support.httpserver import FileServer

pytestmark = [pytest.mark.root, pytest.mark.node]

LIMIT = 10485100
SAMPLE = Path(__file__).parents[3] / "shared/samples/maestro/payloads/running-config.README.json"

MODULE = """
exports.start = function (config, context) {
  console.log(context.name + " is up in " + process.pid + " with " + JSON.stringify(config));
};
"""

SCRIPT = """
import os, signal, sys
print("flags", sys.flags.verbose, "special", os.environ["SPECIALVAR"], flush=True)
print("config", open(os.environ["MAESTRO_CONFIG_DIR"] + "/config/testconfig.dat").read(), flush=True)
print("!!OK!!", flush=True)
signal.pause()
"""

CONFIG_FILE = b"some data of a config file"


def archive(files: dict[str, str]) -> bytes:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w:gz") as tar:
        for name, text in files.items():
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(text), 0o755
            tar.addfile(info, io.BytesIO(text.encode()))
    return data.getvalue()


IMAGES = {
    "testscript2": archive({"testscript2.py": SCRIPT}),
    "zigbeeHA": archive({"index.js": MODULE}),
    "UPnP": archive({"index.js": MODULE}),
}


def own_document() -> dict[str, Any]:
    return {
        "config": "running",
        "date": 7329847329,
        "jobs": [
            {
                "job": "zigbeeHA",
                "composite_id": "devicejs-core-modules",
                "container_template": "devicejs",
                "config": "zigbeeHA-edge500v1",
            },
            {
                "job": "UPnP",
                "composite_id": "devicejs-core-modules",
                "container_template": "devicejs",
                "config": "std",
                "disabled": True,
            },
            {
                "job": "testscript2",
                "container_template": "python-wrapper-debug",
                "exec_cmd": "{{IMAGE}}/testscript2.py",
            },
        ],
        "templates": [
            {
                "name": "python-wrapper-debug",
                "exec_cmd": "/usr/bin/python",
                "exec_pre_args": ["-v"],
                "restart": True,
                "restart_limit": 10,
                "uses_ok_string": True,
                "cgroup": {"mem_limit": LIMIT},
                "inherit_env": True,
                "add_env": ["SPECIALVAR=stuff"],
            }
        ],
        "images": [
            {"job": "testscript2", "version": "0.0.1", "image_type": "tarball"},
            {"job": "zigbeeHA", "version": "1.0.8", "image_type": "devicejs_tarball"},
            {"job": "UPnP", "version": "1.0.1", "image_type": "devicejs_tarball"},
        ],
        "configs": [
            {"name": "standard-edge500", "job": "zigbeeHA", "data": '{"panId": 16}', "encoding": "utf8"},
            {
                "name": "testconfig",
                "job": "testscript2",
                "files": [{"dest_relative_path": "/config/testconfig.dat"}],
            },
        ],
    }


def document(source: str, url: str) -> dict[str, Any]:
    """Return the document with its URLs, sizes and checksums pointing at the local server."""
    if source == "upstream" and not SAMPLE.exists():
        pytest.skip("the upstream sample is not here")
    found: dict[str, Any] = json.loads(SAMPLE.read_text()) if source == "upstream" else own_document()
    for image in found["images"]:
        data = IMAGES[image["job"]]
        image.update(url=f"{url}/{image['job']}.tar.gz", size=len(data), checksum=checksum(data))
    found["configs"][1]["files"][0].update(
        url=f"{url}/testconfig.dat", size=len(CONFIG_FILE), checksum=checksum(CONFIG_FILE)
    )
    return found


def checksum(data: bytes) -> dict[str, str]:
    return {"type": "sha256sum", "value": hashlib.sha256(data).hexdigest()}


def environment(pid: int) -> dict[str, str]:
    pairs = Path(f"/proc/{pid}/environ").read_bytes().decode().split("\0")
    return dict(pair.split("=", 1) for pair in pairs if pair)


def memory_limit(pid: int) -> int:
    """Return the limit in the process's memory control group, v1 or v2."""
    for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "memory":
            return int(Path(f"/sys/fs/cgroup/memory{path}/memory.limit_in_bytes").read_text())
    return int(Path(f"/sys/fs/cgroup{path}/memory.max").read_text())


@pytest.mark.parametrize("source", ["own", "upstream"])
def test_seed_document_runs_and_enabling_a_member_restarts_only_its_composite(
    source: str, make_daemon: Callable[..., Daemon], tmp_path: Path
) -> None:
    served = tmp_path / "served"
    served.mkdir()
    for job, data in IMAGES.items():
        (served / f"{job}.tar.gz").write_bytes(data)
    (served / "testconfig.dat").write_bytes(CONFIG_FILE)
    with FileServer(served) as url:
        daemon = make_daemon()
        wanted = document(source, url)
        file = tmp_path / "running.json"
        if not os.path.exists("/usr/bin/python"):
            file.write_text(json.dumps(wanted))
            refused = daemon.cli("apply", str(file))
            assert refused.returncode == 1
            assert "cannot execute /usr/bin/python: No such file or directory" in refused.stderr
            wanted["templates"][0]["exec_cmd"] = "/usr/bin/python3"
        file.write_text(json.dumps(wanted))
        applied = daemon.cli("apply", str(file))
        assert applied.returncode == 0, applied.stdout + applied.stderr + daemon.output()

        zigbee, upnp, script = (daemon.job(name) for name in ("zigbeeHA", "UPnP", "testscript2"))
        assert (zigbee["state"], zigbee["image_version"]) == ("RUNNING", "1.0.8")
        assert os.path.basename(os.readlink(f"/proc/{zigbee['pid']}/exe")) == "node"
        assert (upnp["state"], upnp["enabled"], upnp["pid"]) == ("STOPPED", False, None)

        pid = script["pid"]
        argv = Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")
        assert script["state"] == "RUNNING"
        assert "python3" in os.readlink(f"/proc/{pid}/exe")
        assert argv[1] == "-v"
        assert argv[2].endswith("/testscript2.py")
        assert environment(pid)["SPECIALVAR"] == "stuff"
        assert memory_limit(pid) in (LIMIT, LIMIT // 4096 * 4096)
        log = b"".join(daemon.client().logs("testscript2", n=100000)).decode()
        assert "flags 1 special stuff" in log
        assert f"config {CONFIG_FILE.decode()}" in log
        assert "!!OK!!" not in log

        again = daemon.cli("diff", str(file))
        assert again.returncode == 0, again.stdout

        wanted["jobs"][1]["disabled"] = False
        file.write_text(json.dumps(wanted))
        assert daemon.cli("diff", str(file)).returncode == 1
        applied = daemon.cli("apply", str(file))
        assert applied.returncode == 0, applied.stdout + applied.stderr + daemon.output()

        after = {name: daemon.job(name) for name in ("zigbeeHA", "UPnP", "testscript2")}
        assert after["zigbeeHA"]["pid"] == after["UPnP"]["pid"] != zigbee["pid"]
        assert after["UPnP"]["state"] == after["zigbeeHA"]["state"] == "RUNNING"
        assert after["testscript2"]["pid"] == pid
        log = b"".join(daemon.client().logs("UPnP", n=1000)).decode()
        assert f"UPnP is up in {after['UPnP']['pid']}" in log
        assert f"zigbeeHA is up in {after['UPnP']['pid']}" in log
