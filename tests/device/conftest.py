# SPDX-License-Identifier: Apache-2.0
"""The device lab: one booted device for all tests here, and those of other rooms that run in it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from device.lab import image
from device.lab.contract import LAB, ContractFile, Lab
from device.lab.machine import Machine

TIMEOUT = 2400
"""Seconds for one test: the first one may have to make everything there is."""


def pytest_configure(config: pytest.Config) -> None:
    config.stash[LAB] = Lab()


def pytest_unconfigure(config: pytest.Config) -> None:
    if LAB in config.stash:
        config.stash[LAB].close()


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    if file_path.name == "contract.list":
        found: pytest.Collector = ContractFile.from_parent(parent, path=file_path)
        return found
    return None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = [item for item in items if item.get_closest_marker("device")]
    why = image.missing() if here else ""
    for item in here:
        if not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(TIMEOUT))
        if why:
            item.add_marker(pytest.mark.skip(reason=why))


@pytest.fixture
def machine(request: pytest.FixtureRequest) -> Machine:
    """Return the device, up, whatever it runs."""
    found: Machine = request.config.stash[LAB].machine
    return found


@pytest.fixture
def device(machine: Machine) -> Any:
    """Return the device with the service up and nothing to run; nothing runs afterwards either."""
    machine.clear()
    yield machine
    machine.clear()
