# SPDX-License-Identifier: Apache-2.0
"""Tests of other rooms, run in the device; each comes back as a result of its own."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from device.lab.image import PROJECT
from device.lab.machine import Machine

FILE_TIMEOUT = 600.0
"""Seconds for one file of tests in the device."""


@dataclass(frozen=True)
class Outcome:
    """What came of one test: passed, failed or skipped, and what pytest says about it."""

    status: str
    text: str = ""


class Contract:
    """Runs a file of tests in the device when its first result is asked for."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._files: dict[str, dict[str, Outcome]] = {}

    def outcome(self, test: str) -> Outcome:
        """Return the outcome of a test, named as pytest does."""
        path = test.partition("::")[0]
        if path not in self._files:
            self._files[path] = self._run(path)
        return self._files[path].get(test) or Outcome("failed", "it was not run in the device")

    def _run(self, path: str) -> dict[str, Outcome]:
        unit = f"contract@{path.replace('/', '-')}.service"
        code, said = self._machine.attempt(f"rm -f /run/contract.*; systemctl start {unit}", FILE_TIMEOUT)
        if code == 124:
            self._machine.run(f"systemctl stop {unit}")
        _, log = self._machine.attempt("tail -c 10000 /run/contract.log")
        print(f"pytest in the device: {said or 'done'}\n{log}")
        written, report = self._machine.attempt("cat /run/contract.xml")
        return dict(_outcomes(report)) if written == 0 else {}


def _outcomes(report: str) -> Iterator[tuple[str, Outcome]]:
    for case in ET.fromstring(report).iter("testcase"):
        outcome = Outcome("passed")
        for part in case:
            text = f"{part.get('message') or ''}\n{part.text or ''}".strip()
            if part.tag == "skipped":
                outcome = Outcome("skipped", (part.get("message") or "").removeprefix("Skipped: "))
            elif part.tag in ("failure", "error"):
                outcome = Outcome("failed", text)
        yield f"{case.get('file')}::{case.get('name')}", outcome


class Failed(Exception):
    """A test failed in the device."""


class ContractFile(pytest.File):
    """A list of test files; every test in them becomes one in the device."""

    def collect(self) -> Iterable[pytest.Item]:
        for line in self.path.read_text().splitlines():
            name = line.partition("#")[0].strip()
            if name:
                module = pytest.Module.from_parent(self, path=PROJECT / "tests" / name)
                for item in self.session.genitems(module):
                    yield InDevice.from_parent(self, name=item.nodeid)


class InDevice(pytest.Item):
    """One test, run in the device with the others of its file."""

    contract: Contract

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.add_marker("device")

    def runtest(self) -> None:
        outcome = self.session.config.stash[LAB].contract.outcome(self.name)
        if outcome.status == "skipped":
            pytest.skip(outcome.text)
        if outcome.status == "failed":
            raise Failed(outcome.text)

    def repr_failure(self, excinfo: Any, style: Any = None) -> Any:
        if isinstance(excinfo.value, Failed):
            return str(excinfo.value)
        return super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[Any, None, str]:
        return self.path, None, self.name


class Lab:
    """The device of this test run; built and switched on when first needed."""

    def __init__(self) -> None:
        self._machine: Machine | None = None
        self._contract: Contract | None = None
        self._failure: Exception | None = None

    @property
    def machine(self) -> Machine:
        """The device, up. A device that could not be built is not tried again."""
        from device.lab import image

        if self._failure:
            raise self._failure
        if self._machine is None:
            try:
                self._machine = Machine(image.build())
            except Exception as error:
                self._failure = error
                raise
        return self._machine

    @property
    def contract(self) -> Contract:
        """What runs tests of other rooms in the device."""
        if self._contract is None:
            self._contract = Contract(self.machine)
        return self._contract

    def close(self) -> None:
        """Switch it off."""
        if self._machine:
            self._machine.close()


LAB = pytest.StashKey[Lab]()
