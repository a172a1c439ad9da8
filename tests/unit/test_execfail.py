# SPDX-License-Identifier: Apache-2.0
"""What is said of a program the kernel does not run, on processors that are not here."""

from __future__ import annotations

import errno
import os
import struct
from pathlib import Path
from types import SimpleNamespace

import pytest

from maestro_py.process.execfail import explain


@pytest.mark.parametrize(
    ("machine", "program", "why"),
    [
        ("x86_64", 62, "it is damaged"),
        ("aarch64", 183, "it is damaged"),
        ("armv7l", 40, "it is damaged"),
        ("armv6l", 40, "it is damaged"),
        ("i686", 3, "it is damaged"),
        ("riscv64", 243, "it is damaged"),
        ("aarch64", 62, "it is a program for x86-64, this is aarch64"),
        ("x86_64", 183, "it is a program for ARM 64 (aarch64), this is x86_64"),
        ("x86_64", 40, "it is a program for ARM (32 bit), this is x86_64"),
        ("armv7l", 183, "it is a program for ARM 64 (aarch64), this is armv7l"),
        ("x86_64", 9999, "it is a program for machine number 9999, this is x86_64"),
    ],
)
def test_a_program_of_this_machine_is_damaged_and_another_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, machine: str, program: int, why: str
) -> None:
    path = tmp_path / "program"
    path.write_bytes(b"\x7fELF\x02\x01\x01".ljust(16, b"\0") + struct.pack("<HH", 2, program))
    monkeypatch.setattr(os, "uname", lambda: SimpleNamespace(machine=machine))
    monkeypatch.setattr(struct, "calcsize", lambda _: 8)
    assert explain(os.fsencode(path), errno.ENOEXEC) == why


@pytest.mark.parametrize(
    ("machine", "program"), [("x86_64", 3), ("x86_64", 62), ("aarch64", 40), ("i686", 3)]
)
def test_a_32_bit_system_below_a_64_bit_kernel_knows_its_own_programs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, machine: str, program: int
) -> None:
    path = tmp_path / "program"
    path.write_bytes(b"\x7fELF\x01\x01\x01".ljust(16, b"\0") + struct.pack("<HH", 2, program))
    monkeypatch.setattr(os, "uname", lambda: SimpleNamespace(machine=machine))
    monkeypatch.setattr(struct, "calcsize", lambda _: 4)
    assert explain(os.fsencode(path), errno.ENOEXEC) == "it is damaged"
