# SPDX-License-Identifier: Apache-2.0
"""Capturing output: FIFOs, OK string, rotation, full disks; with real writers and real files."""

from __future__ import annotations

import os
import select
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.launching import PATIENCE

from maestro_py.errors import MaestroError
from maestro_py.process import logfile
from maestro_py.process.output import Output

Make = Callable[..., Output]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    made: list[Output] = []

    def build(name: str = "job", **options: object) -> Output:
        arguments = {"max_size": 1 << 20, "max_files": 4, **options}
        output = Output(name, str(tmp_path), str(tmp_path), **arguments)  # type: ignore[arg-type]
        made.append(output)
        return output

    yield build
    for output in made:
        output.close()


def log(directory: Path, name: str = "job") -> bytes:
    """Everything that is logged, oldest first."""
    files = sorted(
        directory.glob(f"{name}.log*"), key=lambda file: -int(file.suffix[1:]) if file.suffix != ".log" else 0
    )
    return b"".join(file.read_bytes() for file in files)


def printed(output: Output, data: bytes, stream: int = 0) -> bool:
    """Write like a job would, all at once, and pump."""
    child = output.child_fds()
    try:
        os.write(child[stream], data)
        return output.pump(output.fds()[stream])
    finally:
        for fd in child:
            os.close(fd)


def test_both_streams_end_up_in_the_log_in_the_order_read(make: Make, tmp_path: Path) -> None:
    output = make()
    printed(output, b"out 1\n")
    printed(output, b"err 1\n", 1)
    printed(output, b"out 2\n")
    assert log(tmp_path) == b"out 1\nerr 1\nout 2\n"
    assert output.position == 18


def test_the_fifos_are_private_and_named_safely(make: Make, tmp_path: Path) -> None:
    make("../a b")
    for end in (".out", ".err"):
        info = (tmp_path / ("%2E./a b".replace("/", "%2F").replace(" ", "%20") + end)).lstat()
        assert stat.S_ISFIFO(info.st_mode)
        assert stat.S_IMODE(info.st_mode) == 0o600


def test_a_fifo_is_taken_over_and_anything_else_replaced(make: Make, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "job.out", 0o600)
    inode = (tmp_path / "job.out").lstat().st_ino
    (tmp_path / "job.err").symlink_to("/etc/passwd")
    make()
    assert (tmp_path / "job.out").lstat().st_ino == inode
    assert stat.S_ISFIFO((tmp_path / "job.err").lstat().st_mode)


def test_a_missing_run_directory_is_named(tmp_path: Path) -> None:
    where = str(tmp_path / "none")
    with pytest.raises(
        MaestroError, match=r"cannot capture the output of job: No such file or directory: .*none/job\.out"
    ):
        Output("job", where, where, max_size=1000, max_files=1)


def test_nothing_to_read_is_no_wait(make: Make) -> None:
    output = make(ok_string=b"!!OK!!")
    for fd in output.fds():
        assert output.pump(fd) is False


def test_the_death_of_the_process_does_not_keep_the_poll_loop_busy(make: Make) -> None:
    output = make()
    printed(output, b"last words")
    poll = select.poll()
    for fd in output.fds():
        poll.register(fd, select.POLLIN)
    assert poll.poll(0) == []


def test_the_ok_string_is_found_consumed_and_reported_once(make: Make, tmp_path: Path) -> None:
    output = make(ok_string=b"!!OK!!")
    assert not printed(output, b"starting\n!!O")
    assert log(tmp_path) == b"starting\n"
    assert printed(output, b"K!!\nready\n")
    assert not printed(output, b"!!OK!!\n")
    assert log(tmp_path) == b"starting\n\nready\n!!OK!!\n"


def test_the_ok_string_is_found_again_when_the_daemon_died_before_it_was_noted(
    make: Make, tmp_path: Path
) -> None:
    first = make(ok_string=b"!!OK!!")
    child = first.child_fds()  # as the job holds them
    os.write(child[0], b"before\n!!OK!!after\n")
    assert first.pump(first.fds()[0])
    assert log(tmp_path) == b"before\n"
    second = make(ok_string=b"!!OK!!")
    assert second.pump(second.fds()[0])
    assert not second.pump(second.fds()[0])
    assert log(tmp_path) == b"before\nafter\n"
    for fd in child:
        os.close(fd)


def test_the_ok_string_on_stderr_does_not_count(make: Make, tmp_path: Path) -> None:
    output = make(ok_string=b"!!OK!!")
    assert not printed(output, b"!!OK!!\n", 1)
    assert log(tmp_path) == b"!!OK!!\n"


def test_it_is_awaited_again_after_a_restart_and_what_was_held_back_is_logged(
    make: Make, tmp_path: Path
) -> None:
    output = make(ok_string=b"!!OK!!")
    assert printed(output, b"!!OK!!")
    output.expect(b"READY")
    assert not printed(output, b"REA")
    output.expect(b"READY")
    assert not printed(output, b"DY")
    assert printed(output, b"READY")
    output.expect(None)
    assert not printed(output, b"READY")
    assert log(tmp_path) == b"READYREADY"


def test_finish_takes_what_is_left_and_finds_the_ok_string_in_it(make: Make, tmp_path: Path) -> None:
    output = make(ok_string=b"!!OK!!")
    for fd, data in zip(output.child_fds(), (b"x" * 200_000 + b"!!OK!!!", b"err"), strict=True):
        os.set_blocking(fd, False)
        os.write(fd, data)
        os.close(fd)
    assert output.finish()
    assert log(tmp_path) == b"x" * 200_000 + b"!err"


def test_a_flood_without_newline_is_handed_out_in_portions_and_kept_in_bounds(
    make: Make, tmp_path: Path
) -> None:
    """One turn never takes more than its budget, so that other processes get theirs."""
    output = make(max_size=100_000, max_files=3)
    stdout, stderr = output.child_fds()
    null = os.open("/dev/zero", os.O_RDONLY)
    flood = subprocess.Popen(["/bin/cat"], stdin=null, stdout=stdout, stderr=stderr)
    for fd in (stdout, stderr, null):
        os.close(fd)
    try:
        fd = output.fds()[0]
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        total = 0
        while total < 20_000_000:
            assert poll.poll(PATIENCE * 1000)
            before = output.position
            output.pump(fd, 65536)
            assert output.position - before <= 65536 + 4096
            total = output.position
            sizes = [file.stat().st_size for file in tmp_path.glob("job.log*")]
            assert sum(sizes) <= 300_000
            assert len(sizes) <= 3
    finally:
        flood.kill()
        flood.wait()


def test_files_end_where_a_line_ends(make: Make, tmp_path: Path) -> None:
    output = make(max_size=20_000, max_files=4)
    line = b"a line of some length %06d\n"
    whole = b"".join(line % number for number in range(4000))
    for at in range(0, len(whole), 10_001):
        printed(output, whole[at : at + 10_001], stream=at % 2)
    files = [tmp_path / f"job.log{end}" for end in (".3", ".2", ".1", "")]
    texts = [file.read_bytes() for file in files]
    assert all(text.endswith(b"\n") for text in texts)
    assert all(len(text) <= 20_000 for text in texts)
    assert all(len(text) > 15_000 for text in texts[:3])
    assert whole.endswith(b"".join(texts))
    assert not (tmp_path / "job.log.4").exists()


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.tuples(st.binary(min_size=1, max_size=3000), st.booleans()), max_size=30),
    st.integers(400, 5000),
    st.booleans(),
)
def test_nothing_is_lost_or_repeated_whatever_the_sizes(
    tmp_path: Path, writes: list[tuple[bytes, bool]], max_size: int, awaiting: bool
) -> None:
    name = f"p{len(os.listdir(tmp_path))}"
    output = Output(
        name,
        str(tmp_path),
        str(tmp_path),
        max_size=max_size,
        max_files=500,
        ok_string=b"\xff\xfe never \xff" if awaiting else None,
    )
    follower = logfile.Follower(str(tmp_path), name)
    followed = b""
    for data, drained in writes:
        printed(output, data)
        while drained and (piece := follower.read_new()):
            followed += piece
    output.finish()
    output.remove()
    while piece := follower.read_new():
        followed += piece
    follower.close()
    whole = b"".join(data for data, _ in writes)
    assert followed == whole
    assert output.position == len(whole)
    for file in tmp_path.iterdir():
        file.unlink()


def test_a_single_file_is_begun_again_when_full(make: Make, tmp_path: Path) -> None:
    output = make(max_size=10_000, max_files=1)
    for number in range(100):
        printed(output, b"%0999d\n" % number)
    assert os.listdir(tmp_path) != []
    assert log(tmp_path).endswith(b"%0999d\n" % 99)
    assert len(log(tmp_path)) <= 10_000


def test_the_process_survives_our_vanishing_and_what_it_wrote_is_there(tmp_path: Path) -> None:
    """A daemon that crashes: its ends are closed without a word while the process goes on writing."""
    first = Output("job", str(tmp_path), str(tmp_path), max_size=1 << 20, max_files=2)
    stdout, stderr = first.child_fds()
    code = (
        "import sys\n"
        "for line in sys.stdin:\n"
        "    sys.stdout.write(line); sys.stdout.flush()\n"
        "    sys.stderr.write('done\\n'); sys.stderr.flush()\n"
    )
    argv = [sys.executable, "-I", "-S", "-c", code]
    job = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=stdout, stderr=stderr)
    os.close(stdout)
    os.close(stderr)
    assert job.stdin
    with job:
        for number, action in enumerate((None, first.close, None)):
            if action:
                action()
            job.stdin.write(b"line %d\n" % number)
            job.stdin.flush()
            if number == 0:
                for fd in first.fds():
                    assert select.select([fd], [], [], PATIENCE)[0]
                    first.pump(fd)
        # it is held open here as the job held it, or the last lines would go with the job
        second = Output("job", str(tmp_path), str(tmp_path), max_size=1 << 20, max_files=2)
        job.stdin.close()
        assert job.wait(PATIENCE) == 0
    second.finish()
    second.close()
    text = (tmp_path / "job.log").read_text()
    assert [line for line in text.splitlines() if line != "done"] == ["line 0", "line 1", "line 2"]
    assert text.count("done") == 3


def test_a_log_that_cannot_be_written_never_blocks_and_says_what_was_lost(make: Make, tmp_path: Path) -> None:
    """/dev/full is a disk without space."""
    output = make()
    printed(output, b"before\n")
    own = output._log
    real = os.dup(own)
    full = os.open("/dev/full", os.O_RDWR)
    os.dup2(full, own)
    os.close(full)
    for _ in range(20):
        printed(output, b"x" * 50_000)
    assert output.dropped == 1_000_000
    assert output.error == "cannot log job: No space left on device"
    os.dup2(real, own)
    os.close(real)
    printed(output, b"after\n")
    assert output.error == ""
    assert log(tmp_path) == (
        b"before\n\nmaestro: 1000000 bytes of output were lost here: "
        b"cannot log job: No space left on device\nafter\n"
    )


def test_a_missing_log_directory_is_an_error_that_ends_when_it_is_there(tmp_path: Path) -> None:
    output = Output("job", str(tmp_path), str(tmp_path / "log"), max_size=10_000, max_files=2)
    assert "No such file or directory" in output.error
    printed(output, b"lost\n")
    (tmp_path / "log").mkdir()
    printed(output, b"kept\n")
    assert output.error == ""
    assert (
        (tmp_path / "log" / "job.log")
        .read_text()
        .endswith("were lost here: cannot log job: No such file or directory\nkept\n")
    )
    output.close()


def test_a_log_that_somebody_deleted_is_begun_anew_at_the_next_start(make: Make, tmp_path: Path) -> None:
    output = make()
    printed(output, b"one\n")
    (tmp_path / "job.log").unlink()
    output.mark_start()
    printed(output, b"two\n")
    assert log(tmp_path) == b"two\n"
    assert output.position == 8


def test_starts_are_noted_with_their_place_over_rotations_and_restarts_of_the_daemon(
    make: Make, tmp_path: Path
) -> None:
    output = make(max_size=10_000, max_files=3)
    assert output.mark_start() == 1
    for _ in range(30):
        printed(output, b"%0999d\n" % 1)
    assert output.mark_start() == 2
    output.close()
    output = make(max_size=10_000, max_files=3)
    assert output.position == 30_000
    printed(output, b"second\n")
    assert output.mark_start() == 3
    index = logfile.read_index(str(tmp_path), "job")
    assert [(offset, number) for offset, _, number in index.starts] == [(0, 1), (30_000, 2), (30_007, 3)]
    for _ in range(1000):
        output.mark_start()
    assert (tmp_path / "job.idx").stat().st_size < 20_000
    assert logfile.read_index(str(tmp_path), "job").starts[-1][2] == 1003


def test_descriptors_are_given_back(tmp_path: Path) -> None:
    counts = []
    for _ in range(2):  # the pipe for looking at what comes is made with the first, and kept
        output = Output("job", str(tmp_path), str(tmp_path), max_size=5_000, max_files=3, ok_string=b"OK")
        for _ in range(20):
            printed(output, b"y" * 1000)
        output.mark_start()
        output.remove()
        counts.append(len(os.listdir("/proc/self/fd")))
    assert counts[0] == counts[1]
    assert sorted(os.listdir(tmp_path)) == ["job.idx", "job.log", "job.log.1", "job.log.2", "job.times"]


@pytest.mark.root
def test_the_owner_of_the_process_may_open_its_fifos_by_name(make: Make, tmp_path: Path) -> None:
    output = make(owner=(1234, 2345))
    for fd in output.child_fds():
        info = os.fstat(fd)
        assert (info.st_uid, info.st_gid) == (1234, 2345)
        os.close(fd)


def test_a_signal_that_comes_between_is_no_error() -> None:
    """Here thousands come; where tee(2) told of one, the end of a process could be forgotten."""
    code = (
        "import os, signal\n"
        "from maestro_py.process import kernel\n"
        "signal.signal(signal.SIGALRM, lambda *_: None)\n"
        "source, target = (os.pipe2(os.O_NONBLOCK) for _ in range(2))\n"
        "signal.setitimer(signal.ITIMER_REAL, 2e-5, 2e-5)\n"
        "for _ in range(20000):\n"
        "    try:\n"
        "        kernel.tee(source[0], target[1], 4096)\n"
        "    except BlockingIOError:\n"
        "        pass\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr == ""
