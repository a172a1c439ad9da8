# SPDX-License-Identifier: Apache-2.0
"""Tests of other rooms, run in the device; each comes back as a result of its own."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from device.lab.image import CACHE, PROJECT
from device.lab.machine import Machine

TIMEOUT = 1800.0
"""Seconds for all tests in the device."""


@dataclass(frozen=True)
class Outcome:
    """What came of one test: passed, failed or skipped, and what pytest says about it."""

    status: str
    text: str = ""


class Contract:
    """Runs what was selected in the device, all at once, when the first result is asked for."""

    def __init__(self, machine: Machine, tests: Iterable[str]) -> None:
        self._machine = machine
        self._tests = list(tests)
        self._outcomes: dict[str, Outcome] | None = None

    def outcome(self, test: str) -> Outcome:
        """Return the outcome of a test, named as pytest does."""
        if self._outcomes is None:
            self._outcomes = {}
            self._outcomes.update(self._run())
        return self._outcomes.get(test) or Outcome(
            "failed", "it was not run in the device, see the first failure"
        )

    def _run(self) -> Iterator[tuple[str, Outcome]]:
        self._machine.write("/run/contract.args", "".join(f"{test}\n" for test in self._tests))
        code, said = self._machine.attempt("rm -f /run/contract.xml; systemctl start contract", TIMEOUT)
        if code == 124:
            self._machine.run("systemctl stop contract")
        _, log = self._machine.attempt("tail -c 10000 /run/contract.log")
        (CACHE / "contract.log").write_text(log)
        print(f"pytest in the device: {said or 'done'}\n{log}")
        written, report = self._machine.attempt("cat /run/contract.xml")
        return _outcomes(report) if written == 0 else iter(())


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
            name, *left_out = line.partition("#")[0].split() or [""]
            if name:
                module = pytest.Module.from_parent(self, path=PROJECT / "tests" / name)
                for item in self.session.genitems(module):
                    if item.nodeid.partition("::")[2].partition("[")[0] not in left_out:
                        yield InDevice.from_parent(self, name=item.nodeid)


class InDevice(pytest.Item):
    """One test, run in the device with the others of its file."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.add_marker("device")

    def runtest(self) -> None:
        outcome = self.session.config.stash[LAB].contract(self.session).outcome(self.name)
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

    def contract(self, session: pytest.Session) -> Contract:
        """Return what runs tests of other rooms in the device."""
        if self._contract is None:
            tests = [item.name for item in session.items if isinstance(item, InDevice)]
            self._contract = Contract(self.machine, tests)
        return self._contract

    def close(self) -> None:
        """Switch it off."""
        if self._machine:
            self._machine.close()


LAB = pytest.StashKey[Lab]()
