# SPDX-License-Identifier: Apache-2.0
"""Reading logs: last lines, following, previous incarnations."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from maestro_py.process import logfile, logtimes
from maestro_py.process.output import Output


def tail(directory: Path | str, count: int | None = None, **how: Any) -> bytes:
    """What is shown of the log of `job`."""
    with logfile.Log(str(directory), "job") as log:
        return b"".join(log.pieces(*log.select(lines=count, **how)))


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
        assert tail(directory, count) == b"".join(lines[len(lines) - min(count, len(lines)) :])


def test_tail_of_a_log_that_is_not_there_is_empty(tmp_path: Path) -> None:
    assert tail(tmp_path, 10) == b""


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
    assert tail(tmp_path, 3) == b"line\n" * 3
    assert read <= 1 << 16 << 1
    read = 0
    write(tmp_path, b"z" * (logfile.LOOK_BACK + 5_000_000))
    with logfile.Log(str(tmp_path), "job") as log:
        start, stop = log.select(lines=3)
    assert stop - start == read == logfile.LOOK_BACK


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
    assert tail(directory, 10, previous=True) == b""
    output = Output("job", directory, directory, max_size=20_000, max_files=3)
    stdout, stderr = output.child_fds()

    def start(*lines: bytes) -> None:
        output.mark_start()
        for line in lines:
            os.write(stdout, line + b"\n")
            output.pump(output.fds()[0])

    start(b"first incarnation")
    assert tail(directory, 10, previous=True) == b""
    start(*(b"second %010d" % number for number in range(1500)))
    assert (tmp_path / "job.log.1").exists()
    assert tail(directory, 10, previous=True) == b"first incarnation\n"
    start(b"third")
    text = tail(directory, 10_000, previous=True).splitlines()
    assert text == [b"second %010d" % number for number in range(1500)]
    assert tail(directory, 1, previous=True) == b"second %010d\n" % 1499
    for fd in (stdout, stderr):
        os.close(fd)
    output.remove()


def test_an_index_with_torn_lines_is_read_as_far_as_it_makes_sense(tmp_path: Path) -> None:
    (tmp_path / "job.idx").write_bytes(b"100 5 -\n100 6 1\n200 7 2\n3")
    assert logfile.read_index(str(tmp_path), "job") == logfile.Index(100, ((100, 6, 1), (200, 7, 2)))


# when


def stamped(monkeypatch: pytest.MonkeyPatch, directory: Path, moments: list[int], **how: int) -> Output:
    """A log that got one line at each of these moments, in seconds, which is what the line says."""
    output = Output("job", str(directory), str(directory), **{"max_size": 1 << 20, "max_files": 3, **how})
    stdout, stderr = output.child_fds()
    for moment in moments:
        monkeypatch.setattr(logtimes, "time", Clock(moment))
        os.write(stdout, b"%d\n" % moment)
        output.pump(output.fds()[0])
    for fd in (stdout, stderr):
        os.close(fd)
    return output


class Clock:
    """Stands at one second."""

    def __init__(self, second: int) -> None:
        self.second = second

    def monotonic(self) -> float:
        return self.second

    def time_ns(self) -> int:
        return self.second * 10**9


def numbers(text: bytes) -> list[int]:
    return [int(line) for line in text.splitlines()]


def test_a_span_of_time_is_cut_out_to_the_second(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    moments = [1000, 1001, 1010, 2000, 2001, 3000]
    output = stamped(monkeypatch, tmp_path, moments)
    assert numbers(tail(tmp_path, since=1500)) == [2000, 2001, 3000]
    assert numbers(tail(tmp_path, since=2002)) == [3000]
    assert numbers(tail(tmp_path, since=4000)) == []
    assert numbers(tail(tmp_path, since=0)) == moments
    assert numbers(tail(tmp_path, until=1001)) == [1000]
    assert numbers(tail(tmp_path, until=1000)) == []
    assert numbers(tail(tmp_path, since=1005, until=2001)) == [1010, 2000]
    assert numbers(tail(tmp_path, 1, since=1005, until=2500)) == [2001]
    output.remove()


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.integers(0, 3), min_size=1, max_size=60),
    st.integers(0, 150),
    st.integers(0, 150),
    st.integers(3, 50),
)
def test_nothing_of_a_span_is_ever_missing(gaps: list[int], first: int, last: int, exact: int) -> None:
    """However many lines come in a second, and whatever marks had to be joined."""
    moments = [100 + sum(gaps[: number + 1]) for number in range(len(gaps))]
    with tempfile.TemporaryDirectory() as directory, pytest.MonkeyPatch.context() as patch:
        patch.setattr(logtimes, "_SIZE", 300)
        patch.setattr(logtimes, "_EXACT", exact)
        output = stamped(patch, Path(directory), moments, max_size=9_000_000)
        shown = numbers(tail(directory, since=100 + first, until=100 + last))
        output.remove()
    wanted = [moment for moment in moments if 100 + first <= moment < 100 + last]
    assert not [moment for moment in wanted if moment not in shown]
    assert shown == [moment for moment in moments if moment in shown]


def test_marks_stay_few_and_recent_ones_exact(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    marker = logtimes.Marker(str(tmp_path), "job")
    for second in range(20_000):
        monkeypatch.setattr(logtimes, "time", Clock(second))
        marker.note(second * 10)
        marker.note(second * 10 + 5)  # within the same second
    path = logtimes.times_path(str(tmp_path), "job")
    assert os.path.getsize(path) <= 65 << 10
    marks = logtimes.read_marks(path)
    assert marks[-1] == (199_990, 19_999_000, 1000)
    assert logtimes.since(marks, 19_500_000) == 195_000
    assert sum(span for _, _, span in marks) == 20_000_000


def test_marks_that_make_no_sense_are_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "job.times"
    path.write_bytes(b"900 1 1\nx\n0 5000 1000\n10 7000 1000\n20 80")
    assert logtimes.read_marks(str(path)) == [(0, 5000, 1000), (10, 7000, 1000)]
    assert logtimes.read_marks(str(tmp_path / "nothing")) == []
    write(tmp_path, b"a line\n")
    assert tail(tmp_path, since=9e9) == b""
    path.unlink()
    assert tail(tmp_path, since=9e9) == b"a line\n"  # nothing is known: better too much


def test_a_log_that_cannot_be_marked_is_written_all_the_same(tmp_path: Path) -> None:
    (tmp_path / "job.times").mkdir()
    output = Output("job", str(tmp_path), str(tmp_path), max_size=1 << 20, max_files=2)
    stdout, stderr = output.child_fds()
    os.write(stdout, b"line\n")
    output.pump(output.fds()[0])
    assert tail(tmp_path) == b"line\n"
    for fd in (stdout, stderr):
        os.close(fd)
    output.remove()


# absolute places


def test_a_follower_goes_on_at_a_place_whatever_was_rotated_since(tmp_path: Path) -> None:
    output = Output("job", str(tmp_path), str(tmp_path), max_size=2_000, max_files=50)
    stdout, stderr = output.child_fds()
    whole = b""
    for number in range(300):
        os.write(stdout, line := b"%030d\n" % number)
        whole += line
        output.pump(output.fds()[0])
    assert (tmp_path / "job.log.3").exists()
    for place in (0, 31, 2_000, 5_000, len(whole) - 1, len(whole)):
        follower = logfile.Follower(str(tmp_path), "job", place)
        assert follower.offset == place
        rest = b""
        while piece := follower.read_new():
            rest += piece
        assert rest == whole[place:]
        assert follower.offset == len(whole)
        follower.close()
    for fd in (stdout, stderr):
        os.close(fd)
    output.remove()


def test_a_place_that_fell_out_is_the_oldest_there_is(tmp_path: Path) -> None:
    output = Output("job", str(tmp_path), str(tmp_path), max_size=2_000, max_files=2)
    stdout, stderr = output.child_fds()
    slow = logfile.Follower(str(tmp_path), "job", 0)
    for number in range(300):
        os.write(stdout, b"%030d\n" % number)
        output.pump(output.fds()[0])
    with logfile.Log(str(tmp_path), "job") as log:
        begin = log.begin
    assert begin > 0
    follower = logfile.Follower(str(tmp_path), "job", 0)
    assert follower.offset == begin
    rest = b""
    while piece := slow.read_new():  # it never read: what fell out is skipped, and its offset says so
        rest += piece
    assert slow.offset == 300 * 31
    assert rest.endswith(b"%030d\n" % 299)
    for fd in (stdout, stderr):
        os.close(fd)
    output.remove()
