# SPDX-License-Identifier: Apache-2.0
"""Reading logs: last lines, following, previous incarnations."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from maestro_py.process import logfile
from maestro_py.process.output import Output


def write(directory: Path, *texts: bytes) -> None:
    """Files of a log, the current one first."""
    for generation, text in enumerate(texts):
        Path(logfile.log_path(str(directory), "job", generation)).write_bytes(text)


@settings(deadline=None, max_examples=60)
@given(
    st.lists(
        st.lists(st.sampled_from([b"\n", b"a", b"bc\n", b"x" * 40_000]), max_size=8).map(b"".join), max_size=4
    ),
    st.integers(0, 12),
)
def test_tail_is_the_last_lines_of_all_files_together(texts: list[bytes], count: int) -> None:
    with tempfile.TemporaryDirectory() as directory:
        write(Path(directory), *texts)
        lines = b"".join(reversed(texts)).splitlines(keepends=True)
        assert logfile.tail(directory, "job", count) == b"".join(lines[len(lines) - min(count, len(lines)) :])


def test_tail_of_a_log_that_is_not_there_is_empty(tmp_path: Path) -> None:
    assert logfile.tail(str(tmp_path), "job", 10) == b""


def test_tail_reads_only_what_it_needs_and_never_more_than_its_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, b"line\n" * 2_000_000, b"z" * 5_000_000)
    read = 0
    real = os.pread

    def counting(fd: int, size: int, offset: int) -> bytes:
        nonlocal read
        data = real(fd, size, offset)
        read += len(data)
        return data

    monkeypatch.setattr(os, "pread", counting)
    assert logfile.tail(str(tmp_path), "job", 3) == b"line\n" * 3
    assert read <= 1 << 16
    read = 0
    write(tmp_path, b"z" * 3_000_000)
    assert logfile.tail(str(tmp_path), "job", 3) == b"z" * logfile.LIMIT
    assert read == logfile.LIMIT


def test_a_follower_begins_at_the_end_and_waits_for_a_log_to_appear(tmp_path: Path) -> None:
    early = logfile.Follower(str(tmp_path), "job")
    assert early.read_new() == b""
    write(tmp_path, b"old\n")
    late = logfile.Follower(str(tmp_path), "job")
    assert early.read_new() == b"old\n"
    with open(tmp_path / "job.log", "ab") as file:
        file.write(b"new\n")
    assert early.read_new(2) + early.read_new(100) == b"new\n"
    assert late.read_new() == b"new\n"
    assert late.read_new() == early.read_new() == b""


def test_a_follower_goes_on_after_rotations_it_did_not_look_at(tmp_path: Path) -> None:
    write(tmp_path, b"1\n")
    follower = logfile.Follower(str(tmp_path), "job")
    with open(tmp_path / "job.log", "ab") as file:
        file.write(b"2\n")
    os.rename(tmp_path / "job.log", tmp_path / "job.log.1")
    write(tmp_path, b"3\n")
    os.rename(tmp_path / "job.log.1", tmp_path / "job.log.2")
    os.rename(tmp_path / "job.log", tmp_path / "job.log.1")
    write(tmp_path, b"4\n")
    assert [follower.read_new() for _ in range(4)] == [b"2\n", b"3\n", b"4\n", b""]


def test_a_follower_whose_file_fell_out_goes_on_with_the_oldest_left(tmp_path: Path) -> None:
    write(tmp_path, b"1\n")
    follower = logfile.Follower(str(tmp_path), "job")
    with open(tmp_path / "job.log", "ab") as file:
        file.write(b"2\n")
    (tmp_path / "job.log").unlink()
    write(tmp_path, b"5\n", b"4\n")
    assert [follower.read_new() for _ in range(4)] == [b"2\n", b"4\n", b"5\n", b""]


def test_a_follower_of_a_log_that_was_emptied_starts_over(tmp_path: Path) -> None:
    write(tmp_path, b"a long line\n")
    follower = logfile.Follower(str(tmp_path), "job")
    os.truncate(tmp_path / "job.log", 0)
    assert follower.read_new() == b""
    write(tmp_path, b"new\n")
    assert follower.read_new() == b"new\n"
    follower.close()


def test_previous_is_the_incarnation_before_the_current_one_even_over_rotations(tmp_path: Path) -> None:
    directory = str(tmp_path)
    assert logfile.previous(directory, "job", 10) == b""
    output = Output("job", directory, directory, max_size=20_000, max_files=3)
    stdout, stderr = output.child_fds()

    def start(*lines: bytes) -> None:
        output.mark_start()
        for line in lines:
            os.write(stdout, line + b"\n")
            output.pump(output.fds()[0])

    start(b"first incarnation")
    assert logfile.previous(directory, "job", 10) == b""
    start(*(b"second %010d" % number for number in range(1500)))
    assert (tmp_path / "job.log.1").exists()
    assert logfile.previous(directory, "job", 10) == b"first incarnation\n"
    start(b"third")
    text = logfile.previous(directory, "job", 10_000).splitlines()
    assert text == [b"second %010d" % number for number in range(1500)]
    assert logfile.previous(directory, "job", 1) == b"second %010d\n" % 1499
    for fd in (stdout, stderr):
        os.close(fd)
    output.remove()


def test_an_index_with_torn_lines_is_read_as_far_as_it_makes_sense(tmp_path: Path) -> None:
    (tmp_path / "job.idx").write_bytes(b"100 5 -\n100 6 1\n200 7 2\n3")
    assert logfile.read_index(str(tmp_path), "job") == logfile.Index(100, ((100, 6, 1), (200, 7, 2)))
