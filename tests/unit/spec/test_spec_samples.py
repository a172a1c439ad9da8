# SPDX-License-Identifier: Apache-2.0
"""Documents that real devices and upstream's tests used. They are not part of this repository."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from maestro_py.errors import InvalidDocument
from maestro_py.spec.daemonconfig import DaemonConfig
from maestro_py.spec.documents import check_references, read_daemon_config, read_image, read_running_config
from maestro_py.spec.expand import resolve
from maestro_py.spec.model import TemplateSpec
from maestro_py.spec.places import Places
from maestro_py.spec.text import load

SAMPLES = Path(__file__).parents[4] / "shared/samples/maestro"
FILES = sorted([*SAMPLES.glob("maestro/*"), *SAMPLES.glob("wwrelay-utils-development/*")])

pytestmark = pytest.mark.skipif(not FILES, reason="upstream's sample files are not here")


def read(file: Path) -> DaemonConfig:
    data = load(file.read_bytes(), file.name)
    builtins = {"thisdir": "/opt/maestro", "cwd": "CWD"}
    config, _ = read_daemon_config(data, environ={}, builtins=builtins, source=file.name)
    errors, _ = check_references(config.jobs, config.templates, (), ())
    assert errors == []
    return config


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_a_valid_file_is_accepted_and_any_other_refused_with_its_line(file: Path) -> None:
    try:  # the reader in C takes tabs where the one in Python does not; real files have them
        yaml.load(file.read_text(), getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except yaml.YAMLError:
        with pytest.raises(InvalidDocument, match=file.name) as caught:
            read(file)
        assert caught.value.problems[0].line > 0
    else:
        config = read(file)
        resolve(config.jobs, config.templates, (), (), Places("/im", "/co", "/s", "/t", "CWD"))


def test_a_real_gateway_is_read_as_it_was_meant() -> None:
    config = read(SAMPLES / "wwrelay-utils-development/edge-config-rp100-production.yaml")
    assert (len(config.templates), len(config.jobs), len(config.variables)) == (2, 9, 14)
    processes = resolve(config.jobs, config.templates, (), (), Places("/im", "/co", "/s", "/t", "CWD"))
    assert processes["devicejs"].depends_on == ("devicedb",)
    assert processes["devicejs"].ready.defer == 30.0
    assert processes["devicejs"].limits.mem_limit == 10_000_000
    assert processes["mbed"].restart.limit == 5000
    assert processes["mbed"].restart.pause == 0.09
    assert processes["mbed"].depends_on == ("devicejs",)


def test_the_composite_of_the_sample_gets_exactly_upstreams_standard_input() -> None:
    config = read(SAMPLES / "maestro/test-assets__test-composite-id.config")
    places = Places("/im", "/co", "/tmp/maestroapi.sock", "/opt/maestro", "CWD", config.variables)
    process = resolve(config.jobs, config.templates, (), (), places)["test1"]
    expected = SAMPLES / "payloads/expected-composite-stdin.test1.derived.json"
    assert process.stdin == expected.read_text()


def running_config() -> Any:
    return json.loads((SAMPLES / "payloads/running-config.README.json").read_text())


def test_the_checksums_with_63_digits_are_refused_by_name() -> None:
    with pytest.raises(InvalidDocument) as caught:
        read_running_config(running_config())
    text = str(caught.value)
    assert len(caught.value.problems) == 3
    assert text.count("sha256sum value has 63 hex digits, expected 64") == 3
    for name in ('image of job "zigbeeHA"', 'image of job "UPnP"', 'config "testconfig"'):
        assert name in text


def test_the_running_config_is_accepted_once_its_checksums_are_right() -> None:
    document = running_config()
    for part in (*document["images"], *document["configs"][1]["files"]):
        part["checksum"]["value"] = part["checksum"]["value"].ljust(64, "0")
    config, warnings = read_running_config(document)
    assert (len(config.jobs), config.date, warnings) == (3, 7329847329, [])
    host = TemplateSpec("devicejs", exec_cmd="node", send_composite_jobs_to_stdin=True)
    templates = (host, *config.templates)
    errors, warnings = check_references(config.jobs, templates, config.images, config.configs)
    assert errors == []
    assert len(warnings) == 2  # two configs that the document names and does not have
    places = Places("/im", "/co", "/s", "/t", "/c")
    found = resolve(config.jobs, templates, config.images, config.configs, places)
    assert found["devicejs-core-modules"].members == ("zigbeeHA",)
    assert found["testscript2"].limits.mem_limit == 10485100
    assert found["testscript2"].env[0] == ("SPECIALVAR", "stuff")
    assert found["testscript2"].argv[:2] == ("/usr/bin/python", "-v")


def test_the_sample_image_is_accepted() -> None:
    payload = json.loads((SAMPLES / "payloads/POST_image.addImageTest.json").read_text())
    assert read_image(payload["image"], "image").image_type == "devicejs_zip"
