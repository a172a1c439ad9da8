# SPDX-License-Identifier: Apache-2.0
"""The messages of sd_notify(3), as bytes somebody sends."""

from __future__ import annotations

import array
import os
import socket
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from maestro_py.errors import MaestroError
from maestro_py.process.readiness import NotifySocket, parse


@pytest.mark.parametrize(
    ("datagram", "found"),
    [
        (b"READY=1", {"READY": "1"}),
        (b"READY=1\nSTATUS=all is well = good\n", {"READY": "1", "STATUS": "all is well = good"}),
        (b"", {}),
        (b"=x\nnothing\n\n", {}),
        (b"STATUS=\xff", {"STATUS": "\N{REPLACEMENT CHARACTER}"}),
    ],
)
def test_a_message_is_its_assignments(datagram: bytes, found: dict[str, str]) -> None:
    assert parse(datagram) == found


@given(st.binary(max_size=300))
def test_no_message_is_too_strange(datagram: bytes) -> None:
    assert all(isinstance(key, str) and key for key in parse(datagram))


def test_the_sender_is_known_and_what_it_brings_along_is_closed(tmp_path: Path) -> None:
    listening = NotifySocket(str(tmp_path / "n"), os.geteuid(), os.getegid())
    before = os.listdir("/proc/self/fd")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.connect(listening.path)
        sender.send(b"READY=1")
        fds = array.array("i", [0, 1, 2])
        sender.sendmsg([b"WATCHDOG=1"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds)])
        sender.send(b"STATUS=" + b"x" * 5000)
    said = listening.receive()
    assert said == [(os.getpid(), {"READY": "1"}), (os.getpid(), {"WATCHDOG": "1"})]
    assert os.listdir("/proc/self/fd") == before
    listening.close()
    assert not (tmp_path / "n").exists()


def test_one_made_anew_takes_the_place(tmp_path: Path) -> None:
    first = NotifySocket(str(tmp_path / "n"), os.geteuid(), os.getegid())
    again = NotifySocket(str(tmp_path / "n"), os.geteuid(), os.getegid())
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.sendto(b"READY=1", again.path)
    assert again.receive() == [(os.getpid(), {"READY": "1"})]
    assert first.receive() == []
    again.close()
    first.close()


def test_a_place_that_is_none_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(MaestroError, match=r"cannot make the notify socket .*: Not a directory"):
        NotifySocket(str(tmp_path / "file/n"), 0, 0)
