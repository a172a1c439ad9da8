# SPDX-License-Identifier: Apache-2.0
"""Configuration files as gateways have them: jobs start as they are meant to, files are generated.

Upstream's samples are not part of this repository; where they are, they run as well.
"""

from __future__ import annotations

import json
import os
import signal
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from support.daemon import Daemon
from support.recorder import Recorder

SAMPLES = Path(__file__).parents[3] / "shared/samples/maestro"
needs_samples = pytest.mark.skipif(not SAMPLES.exists(), reason="upstream's sample files are not here")

IDENTITY = {
    "serialNumber": "GW0001",
    "deviceID": "2f9a",
    "hardwareVersion": "rp100",
    "radioConfig": "00",
    "ledConfig": "02",
    "category": "production",
    "ethernetMAC": [0, 165, 9, 106, 110, 148],
    "sixBMAC": [0, 165, 9, 0, 1, 106, 110, 148],
    "gatewayServicesAddress": "https://gateways.example",
}

GATEWAY = """\
httpUnixSocket: /tmp/maestroapi.sock
processes: {reaper_interval: 1500}
platform_readers:
  - platform: fsonly
    params: {identityPath: "@ROOT@/identity.json"}
var_defs:
  - {key: BASE, value: "@ROOT@/device/opt"}
  - {key: MODULES, value: "{{BASE}}/modules"}
static_file_generators:
  - name: database
    template_file: "{{BASE}}/database.in"
    output_file: "{{BASE}}/etc/database.yaml"
    mode: "640"
  - name: outside
    template: "{{ARCH_SERIAL_NUMBER}} {{ARCH_NOTHING}}{{ARCH_LED_COLOR_PROFILE}}"
    output_file: /tmp/gateway/outside.txt
container_templates:
  - name: host
    depends_on: [runtime]
    cgroup: {mem_limit: 10000000}
    die_on_parent_death: true
    inherit_env: true
    add_env: ["ROOT={{BASE}}", "SHADE=template", "NODE_PATH={{MODULES}}"]
    exec_cmd: "{{BASE}}/bin/node"
    exec_pre_args: ["--limit=128", "{{MODULES}}/runner.js"]
    send_composite_jobs_to_stdin: true
    send_grease_origin_id: true
    composite_config: >
      {"debug":true}
  - name: script
    exec_cmd: node
    exec_pre_args: [--limit=96]
    exec_post_args: [last]
    uses_ok_string: true
jobs:
  - job: database
    exec_cmd: "{{BASE}}/bin/database"
    exec_args: [start, "-conf={{BASE}}/etc/database.yaml"]
    restart: true
    restart_limit: 5000
    restart_pause: 1
  - job: runtime
    container_template: script
    depends_on: [database]
    exec_cmd: "{{cwd}}/runtime.js"
    exec_args: [--port, 9000]
    env: ["SHADE=job", "MAC={{ARCH_ETHERNET_MAC}}"]
    message: MAGIC-START
  - job: lights
    composite_id: home
    container_template: host
    exec_cmd: "${thisdir}/../lights"
    restart: true
    restart_pause: 90
    config: |
      {"serial":"{{ARCH_SERIAL_NUMBER}}", "at":"${thisdir}"}
  - job: doors
    composite_id: home
    container_template: host
    exec_cmd: "${thisdir}/../doors"
    restart: true
    restart_pause: 90
config_end: true
"""

Starter = Callable[..., Daemon]


@pytest.fixture
def recorder(tmp_path: Path) -> Recorder:
    return Recorder(tmp_path / "records")


@pytest.fixture
def start(make_daemon: Starter, tmp_path: Path) -> Starter:
    """Return a starter of a daemon with an identity, a `node` on its PATH and nothing else of ours."""

    def make(config: str) -> Daemon:
        path = f"{tmp_path}/bin:/usr/bin:/bin"
        return make_daemon(config.replace("@ROOT@", str(tmp_path)), env={"PATH": path, "SHADE": "daemon"})

    (tmp_path / "identity.json").write_text(json.dumps(IDENTITY))
    return make


def order(daemon: Daemon, *types: str) -> list[tuple[str, str]]:
    return [(e["process"], e["type"]) for e in daemon.events() if e["type"] in types]


def started_after_running(daemon: Daemon, process: str, dependency: str) -> bool:
    happened = order(daemon, "process-starting", "process-running")
    started, running = (process, "process-starting"), (dependency, "process-running")
    return happened.index(started) > happened.index(running)


def test_a_gateway_starts_as_its_file_says(start: Starter, recorder: Recorder, tmp_path: Path) -> None:
    base = tmp_path / "device/opt"
    recorder.install(base / "bin/node", base / "bin/database")
    recorder.install(tmp_path / "bin/node", pause=0.2)
    (base / "database.in").write_text("id: {{ARCH_DEVICE_ID}}\nplatform: {{ARCH_EDGE_PLATFORM}}\n")
    daemon = start(GATEWAY)
    for name in ("database", "runtime", "lights", "doors"):
        daemon.wait_state(name, "RUNNING")
    assert started_after_running(daemon, "runtime", "database")
    assert started_after_running(daemon, "home", "runtime")

    for name in ("database", "doors"):
        daemon.wait_log(name, "recorded")
    home, conf = str(base / "bin/node"), f"-conf={base}/etc/database.yaml"
    assert recorder.argv("database") == [str(base / "bin/database"), "start", conf]
    assert recorder.argv("home") == [home, "--limit=128", f"{base}/modules/runner.js", "${thisdir}/../doors"]
    node, script = str(tmp_path / "bin/node"), f"{daemon.root}/runtime.js"
    assert recorder.argv("runtime") == [node, "--limit=96", script, "--port", "9000", "last"]

    ours = {"MAESTRO_PROCESS", "MAESTRO_SOCKET"}
    assert {name for name, _ in recorder.environ("database")} == ours
    assert recorder.environ("runtime")[:2] == [("SHADE", "job"), ("MAC", "00:a5:09:6a:6e:94")]
    given = [("ROOT", str(base)), ("SHADE", "template"), ("NODE_PATH", f"{base}/modules")]
    assert recorder.environ("home")[:3] == given
    assert dict(recorder.environ("home"))["PATH"] == daemon.env["PATH"]

    assert recorder.stdin("database") == ""
    assert recorder.stdin("runtime") == "MAGIC-START"
    sent = json.loads(recorder.stdin("home"))
    assert list(sent) == ["moduleconfigs", "process_config", "maestro_user_socket_path"]
    assert list(sent["moduleconfigs"]) == ["doors", "lights"]
    assert json.loads(sent["moduleconfigs"]["lights"]["config"]) == {"serial": "GW0001", "at": "${thisdir}"}
    assert sent["process_config"] == '{"debug":true}\n'
    assert sent["maestro_user_socket_path"] == str(daemon.socket)

    before = daemon.job("lights")["pid"]
    os.kill(before, 9)
    daemon.wait("doors", lambda row: row["state"] == "RUNNING" and row["pid"] not in (None, before))


def test_generated_files_are_written_once_and_again_when_their_content_changes(
    start: Starter, recorder: Recorder, tmp_path: Path
) -> None:
    template = tmp_path / "device/opt/database.in"
    template.parent.mkdir(parents=True)
    template.write_text("id: {{ARCH_DEVICE_ID}}\n")
    config = GATEWAY[: GATEWAY.index("container_templates")]
    daemon = start(config)
    output = tmp_path / "device/opt/etc/database.yaml"
    outside = daemon.root / "files/tmp/gateway/outside.txt"
    assert output.read_text() == "id: 2f9a\n"
    assert outside.read_text() == "GW0001 RBG"
    modes = [stat.S_IMODE(file.stat().st_mode) for file in (output, outside)]
    assert modes == [0o640, 0o644]
    assert not Path("/tmp/gateway").exists()
    assert daemon.output().count("wrote ") == 2

    before = (output.stat(), outside.stat())
    daemon.stop()
    daemon.start()
    assert (output.stat(), outside.stat()) == before

    daemon.stop()
    template.write_text("name: {{ARCH_DEVICE_ID}}\n")
    outside.chmod(0o600)
    daemon.start()
    assert output.read_text() == "name: 2f9a\n"
    assert stat.S_IMODE(output.stat().st_mode) == 0o640
    assert outside.stat().st_ino == before[1].st_ino
    assert sorted(output.parent.iterdir()) == [output]


def test_a_reload_writes_what_has_changed(start: Starter, tmp_path: Path) -> None:
    path = tmp_path / "device/out"

    def config(content: str, *jobs: str) -> str:
        entries = [{"job": job, "exec_cmd": "/bin/sleep", "exec_args": ["600"]} for job in jobs]
        return json.dumps(
            {"static_file_generators": [{"template": content, "output_file": str(path)}], "jobs": entries}
        )

    daemon = start(config("before"))
    assert path.read_text() == "before"
    (daemon.root / "maestro.yaml").write_text(config("after", "new"))
    assert daemon.process
    daemon.process.send_signal(signal.SIGHUP)
    with daemon.client().events(follow=True) as events:
        next(event for event in events if event["process"] == "new")  # the file was read by then
    assert path.read_text() == "after"


@pytest.mark.root
def test_a_generated_file_gets_its_owner_and_keeps_it(start: Starter, tmp_path: Path) -> None:
    path = tmp_path / "device/key"
    entry = {"output_file": str(path), "mode": "400"}
    own = json.dumps(
        {"static_file_generators": [{**entry, "template": "x", "user": 12345, "group": "daemon"}]}
    )
    daemon = start(own)
    before = path.stat()
    assert (before.st_uid, before.st_gid, before.st_mode & 0o777) == (12345, 1, 0o400)
    daemon.stop()
    (daemon.root / "maestro.yaml").write_text(
        json.dumps({"static_file_generators": [{**entry, "template": "y"}]})
    )
    daemon.start()
    after = path.stat()
    assert path.read_text() == "y"
    assert (after.st_uid, after.st_gid, after.st_mode) == (before.st_uid, before.st_gid, before.st_mode)


@pytest.mark.parametrize("place", ["directory", "parent is a file", "no template", "no such user"])
def test_a_file_that_cannot_be_written_is_told_and_keeps_nothing_from_starting(
    start: Starter, tmp_path: Path, place: str
) -> None:
    device = tmp_path / "device"
    (device / "directory").mkdir(parents=True)
    (device / "file").write_text("x")
    entry: dict[str, str | None] = {"template": "x", "output_file": f"{device}/out"}
    changes: dict[str, dict[str, str | None]] = {
        "directory": {"output_file": f"{device}/directory"},
        "parent is a file": {"output_file": f"{device}/file/out"},
        "no template": {"template": None, "template_file": f"{device}/none"},
        "no such user": {"user": "nobody-of-this-name"},
    }
    entry |= changes[place]
    after = {"template": "y", "output_file": f"{device}/after"}
    daemon = start(json.dumps({"static_file_generators": [entry, after]}))
    line = next(line for line in daemon.output().splitlines() if "warning" in line)
    path = entry["template_file"] if place == "no template" else entry["output_file"]
    assert f"{path}" in line
    assert "cannot" in line
    assert (device / "after").read_text() == "y"


def test_a_symbolic_link_is_replaced_and_what_it_leads_to_is_left_alone(
    start: Starter, tmp_path: Path
) -> None:
    precious = tmp_path / "precious"
    precious.write_text("keep")
    # below the private root, where the daemon's files are not put elsewhere
    link = tmp_path / "device" / "link"
    link.parent.mkdir()
    link.symlink_to(precious)
    start(json.dumps({"static_file_generators": [{"template": "new", "output_file": str(link)}]}))
    assert (precious.read_text(), link.read_text(), link.is_symlink()) == ("keep", "new", False)


def test_an_identity_that_cannot_be_read_leaves_its_variables_empty(start: Starter, tmp_path: Path) -> None:
    (tmp_path / "identity.json").write_text('{"ethernetMAC": [1, 2]}')
    generator = {"template": "<{{ARCH_ETHERNET_MAC}}>", "output_file": "/x"}
    reader = {"platform": "fsonly", "params": {"identityPath": f"{tmp_path}/identity.json"}}
    daemon = start(json.dumps({"platform_readers": [reader], "static_file_generators": [generator]}))
    assert (daemon.root / "files/x").read_text() == "<>"
    assert "ethernetMAC: expected 6 numbers from 0 to 255" in daemon.output()


# Upstream's own files. Paths of the device are put below the test's directory, long waits are cut.


def sample(name: str, tmp_path: Path, *changes: tuple[str, str]) -> str:
    text = (SAMPLES / name).read_text()
    for old, new in (*changes, ("/userdata", f"{tmp_path}/userdata")):
        text = text.replace(old, new)
    return text


@needs_samples
def test_upstreams_ok_string_file_runs(start: Starter, recorder: Recorder, tmp_path: Path) -> None:
    recorder.install(tmp_path / "bin/node", pause=0.2)
    pause = ("restart_pause: 2000", "restart_pause: 200")
    daemon = start(sample("maestro/test-ok-string.config", tmp_path, pause))
    names = ("test_ok_string", "test_ok_string2", "test_ok_string_message")
    for name in names:
        daemon.wait_state(name, "RUNNING")
        daemon.wait_log(name, "recorded")
    assert started_after_running(daemon, "test_ok_string2", "test_ok_string")
    node = [str(tmp_path / "bin/node"), "--max-executable-size=96", "--max-old-space-size=128"]
    scripts = ("test-node-wait10s.js", "test-node.js", "test-node-read-stdin.js")
    for name, script, last in zip(names, scripts, ("whatev", "whatev2", "whatev2"), strict=True):
        assert recorder.argv(name) == [*node, f"{daemon.root}/auxtests/{script}", last]
        assert {key for key, _ in recorder.environ(name)} == {"MAESTRO_PROCESS", "MAESTRO_SOCKET"}
        assert recorder.stdin(name) == ("MAGIC-START" if name == names[2] else "")
    written = daemon.root / "files/tmp/somedir/test_inline.out"
    assert written.read_text().splitlines()[:2] == ["Hey there", "DEVJS_ROOT=/wigwag"]
    assert "ARCH_PAIRING_CODE= (and" in written.read_text()

    for _ in range(2):  # restart_limit
        restarts = daemon.job(names[1])["restarts"]
        os.kill(daemon.job(names[1])["pid"], 9)
        daemon.wait(names[1], lambda row, n=restarts: row["state"] == "RUNNING" and row["restarts"] > n)
    os.kill(daemon.job(names[1])["pid"], 9)
    assert "2 restarts" in daemon.wait_state(names[1], "FAILED")["cause"]


@needs_samples
def test_upstreams_composite_file_runs(start: Starter, recorder: Recorder, tmp_path: Path) -> None:
    node = tmp_path / "node"
    recorder.install(node)
    name = "maestro/test-assets__test-composite-id.config"
    variables = {each["key"]: each["value"] for each in yaml.safe_load(sample(name, tmp_path))["var_defs"]}
    daemon = start(sample(name, tmp_path, (variables["NODE_EXEC"], str(node))))
    for job in ("test_basic_devjs_1", "test_basic_devjs_2"):
        daemon.wait_state(job, "RUNNING")
    daemon.wait_log("test_basic_devjs_1", "recorded")
    runner = f"{variables['MAESTRO_RUNNER_DIR']}/index.js"
    options = ["--max-executable-size=96", "--max-old-space-size=128", "--max-semi-space-size=1"]
    member = f"{daemon.root}/test-assets/basic-devjs.js"
    assert recorder.argv("test1") == [str(node), *options, runner, member]
    root = variables["DEVICEJS_ROOT"]
    assert recorder.environ("test1")[:2] == [
        ("DEVJS_ROOT", root),
        ("DEVJS_CONFIG_FILE", f"{root}/.local/etc/devicejs/devicejs.conf"),
    ]
    assert dict(recorder.environ("test1"))["PATH"] == daemon.env["PATH"]
    expected = (SAMPLES / "payloads/expected-composite-stdin.test1.derived.json").read_text()
    expected = expected.replace('"CWD/', f'"{daemon.root}/').replace(
        "/tmp/maestroapi.sock", str(daemon.socket)
    )
    assert recorder.stdin("test1") == expected


@needs_samples
def test_the_file_of_a_real_gateway_runs(start: Starter, recorder: Recorder, tmp_path: Path) -> None:
    wigwag, node = tmp_path / "device/wigwag", tmp_path / "node"
    recorder.install(node, wigwag / "system/bin/devicedb")
    conf = wigwag / "wwrelay-utils/conf/maestro-conf"
    conf.mkdir(parents=True)
    for file in (SAMPLES / "wwrelay-utils-development").glob("*template*"):
        (conf / file.name).write_text(file.read_text().replace("/wigwag", str(wigwag)))
    identity = tmp_path / "userdata/edge_gw_config/identity.json"
    identity.parent.mkdir(parents=True)
    identity.write_text(json.dumps(IDENTITY))
    changes = (
        ("/wigwag", str(wigwag)),
        ("/usr/bin/node", str(node)),
        ("defer_running_status: 30000", "defer_running_status: 300"),
    )
    daemon = start(sample("wwrelay-utils-development/edge-config-rp100-production.yaml", tmp_path, *changes))
    composites = {
        "mbed": ["MbedDeviceJSBridge"],
        "all-modules": ["core-interfaces"],
        "user": ["OnsiteEnterpriseServer", "RelayStatsSender", "VirtualDeviceDriver"],
        "core": ["DevStateManager", "LEDController"],
    }
    jobs = ["devicedb", "devicejs", *(name for members in composites.values() for name in members)]
    for name in jobs:
        daemon.wait_state(name, "RUNNING", timeout=60)
        daemon.wait_log(name, "recorded")
    assert started_after_running(daemon, "devicejs", "devicedb")
    database = [str(wigwag / "system/bin/devicedb"), "start", f"-conf={wigwag}/etc/devicejs/devicedb.yaml"]
    assert recorder.argv("devicedb") == database
    options = [str(node), "--max-old-space-size=128", "--max-semi-space-size=1"]
    runtime = [f"{wigwag}/devicejs-ng/src/runtime/start", f"--config={wigwag}/etc/devicejs/devicejs.conf"]
    assert recorder.argv("devicejs") == [*options, *runtime]
    modules = f"{wigwag}/devicejs-core-modules/node_modules"
    logger = {"modulepath": f"{modules}/grease-log-client", "type": "global"}
    assert recorder.environ("devicejs")[:3] == [
        ("LD_PRELOAD", "/usr/lib/libcrypto.so.1.0.2"),
        ("NODE_PATH", f"{wigwag}/devicejs-ng/node_modules"),
        ("DEVJS_LOGGER", json.dumps(logger, separators=(",", ":"))),
    ]
    for process, members in composites.items():
        assert started_after_running(daemon, process, "devicejs")
        assert recorder.environ(process)[:4] == [
            ("LD_PRELOAD", "/usr/lib/libcrypto.so.1.0.2"),
            ("DEVJS_ROOT", f"{wigwag}/devicejs-ng"),
            ("DEVJS_CONFIG_FILE", f"{wigwag}/etc/devicejs/devicejs.conf"),
            ("NODE_PATH", modules),
        ]
        sent = json.loads(recorder.stdin(process))
        assert list(sent["moduleconfigs"]) == members
        assert sent["process_config"] == '{\n   "debug":true\n}\n'
        first = sent["moduleconfigs"][members[0]]
        runner = f"{wigwag}/devicejs-core-modules/maestroRunner/index.js"
        assert recorder.argv(process) == [*options, runner, first["exec_cmd"]]
        assert first["exec_cmd"].startswith("${thisdir}/../")
        assert (first["restart_limit"], first["restart_pause"], first["config_name"]) == (5000, 90, "default")

    stats = json.loads(json.loads(recorder.stdin("user"))["moduleconfigs"]["RelayStatsSender"]["config"])
    assert stats["relayInfo"] == {
        "serialNumber": "GW0001",
        "hardwareVersion": "rp100",
        "radioConfig": "00",
        "ledConfig": "RBG",
        "cloud": "https://gateways.example",
        "ethernetMac": "00:a5:09:6a:6e:94",
    }
    written = json.loads((wigwag / "etc/devicejs/devicejs.conf").read_text())
    assert written["cloudAddress"] == "https://gateways.example/devicejs/socket.io"
    assert written["databaseConfig"]["uri"] == "https://127.0.0.1:9000"
