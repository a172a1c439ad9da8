# SPDX-License-Identifier: Apache-2.0
"""What a process prints: two FIFOs it holds itself, the OK string, and a log with rotation.

The process holds its FIFOs open for reading and writing, so the daemon may vanish and come back: no
SIGPIPE, no end of file, and what was written meanwhile is still there. The daemon's own ends are
open read-write too, so that the death of a process is no endless hang-up for the poll loop; that
everything was read is known by draining, that nobody writes any more by the processes being gone.

Bytes go from FIFO to file inside the kernel, in one system call: at no moment are they in neither, so
the daemon may be killed at any. What has to be looked at, for the OK string or for the end of a line
where a file ends, is looked at in a copy. A log that cannot be written (disk full) never blocks a
process: its output is then dropped and counted.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import time

from maestro_py.errors import MaestroError
from maestro_py.process import kernel
from maestro_py.process.logfile import index_path, log_path, read_index
from maestro_py.process.logtimes import Marker
from maestro_py.process.okstring import Matcher
from maestro_py.spec.names import safe_name

PIPE_SIZE = 256 << 10
_CHUNK = 64 << 10
_SEAM = 4096  # how far past the rotation point a line may end
_INDEX_SIZE = 16 << 10  # the index is cut back to the latest incarnations when it is larger
_INDEX_KEPT = 200
# What splice(2) answers where the file system of the log does not support it.
_NO_SPLICE = (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP)


_copies: tuple[int, ...] = ()  # the pipe that takes what is looked at


class Output:
    """Output of one process. Every call is quick and none waits for the process or a reader.

    owner: (uid, gid) who may open the FIFOs; may be changed between launches.
    error: why the log cannot be written now, "" when it can. dropped: bytes lost to that, in all.
    """

    def __init__(
        self,
        name: str,
        run_dir: str,
        log_dir: str,
        *,
        max_size: int,
        max_files: int,
        ok_string: bytes | None = None,
        owner: tuple[int, int] | None = None,
    ) -> None:
        """Make and open the FIFOs in run_dir and the log in log_dir; max_files counts the current one.

        FIFOs and a log that are there already are taken over. Raises MaestroError when the FIFOs
        cannot be made; a log that cannot be opened is an `error`.
        """
        self.name = name
        self.owner = owner
        self.error = ""
        self.dropped = 0
        self._log_dir = log_dir
        self._max_files = max(1, max_files)
        self.resize(max_size)
        self._matcher = Matcher(ok_string) if ok_string else None
        self._unreported = 0
        self._log = -1
        self._size = 0
        self._base = 0
        self._splice = True
        self._skip = 0  # bytes of the OK string that are still in the FIFO
        self._paths = tuple(os.path.join(run_dir, safe_name(name) + end) for end in (".out", ".err"))
        self._fds: tuple[int, ...] = ()
        try:
            for path in self._paths:
                self._make_fifo(path)
                self._fds += (os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW),)
        except OSError as error:
            self.close()
            raise MaestroError(f"cannot capture the output of {name}: {error.strerror}: {path}") from None
        for fd in self._fds:
            try:
                fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ if hasattr(fcntl, "F_SETPIPE_SZ") else 1031, PIPE_SIZE)
            except OSError:
                pass  # over this user's share of pipe memory: the usual 64 KiB do
        self._base = read_index(log_dir, name).base
        self._marker = Marker(log_dir, name)
        self._open_log()

    @property
    def position(self) -> int:
        """Number of bytes ever logged for this name: changes exactly when there is something new."""
        return self._base + self._size

    @property
    def waiting(self) -> bool:
        """Whether the OK string is still looked for."""
        return self._matcher is not None

    def fds(self) -> tuple[int, ...]:
        """Return our ends of stdout and stderr, to be polled for reading and given to `pump`."""
        return self._fds

    def child_fds(self) -> tuple[int, int]:
        """Return fresh descriptors to be stdout and stderr of a child. The caller closes them."""
        opened: list[int] = []
        try:
            for fd in self._fds:
                if self.owner is not None and os.geteuid() == 0:
                    os.fchown(fd, *self.owner)
                # through /proc it is this very FIFO, whatever has become of its name
                opened.append(os.open(f"/proc/self/fd/{fd}", os.O_RDWR | os.O_CLOEXEC))
        except OSError as error:
            for fd in opened:
                os.close(fd)
            raise MaestroError(f"cannot capture the output of {self.name}: {error.strerror}") from None
        return opened[0], opened[1]

    def expect(self, ok_string: bytes | None) -> None:
        """Look for the OK string from now on, or for none. Before each launch."""
        self.flush()
        self._matcher = Matcher(ok_string) if ok_string else None

    def mark_start(self) -> int:
        """Note that a new incarnation's output begins here; return its number, counted from 1."""
        self._reopen_if_touched()
        index = read_index(self._log_dir, self.name)
        number = index.starts[-1][2] + 1 if index.starts else 1
        self._note(b"%d" % number)
        return number

    def pump(self, fd: int, budget: int = 1 << 20) -> bool:
        """Move what is in `fd` to the log, at most `budget` bytes; return True when the OK string came.

        Never blocks. What is over the budget is left for the next turn of the poll loop, and so is the
        OK string itself and what follows it: until the caller has noted it, it can be found again.
        """
        found, before = False, self.position
        if self._skip and fd == self._fds[0]:
            os.read(fd, self._skip)
            self._skip = 0
        while budget > 0 and not found:
            if self._matcher is not None and fd == self._fds[0]:
                asked = min(budget, _CHUNK)
                moved, found = self._search(fd, asked)
            else:
                asked = min(budget, max(self._rotate_at - self._size, 1))
                moved = self._move(fd, asked)
            if moved < asked:
                break
            budget -= moved
        if self.position != before:
            self._marker.note(before)
        return found

    def finish(self) -> bool:
        """Take everything that is left once the process is gone; True when the OK string was in it."""
        found = self.pump(self._fds[0])
        if found:
            self.pump(self._fds[0])
        self.pump(self._fds[1])
        self.flush()
        return found

    def resize(self, max_size: int) -> None:
        """Rotate at another size from now on."""
        self._seam = min(_SEAM, max(1, max_size // 2))
        self._rotate_at = max(1, max_size - self._seam)

    def flush(self) -> None:
        """Log what is held back as a possible beginning of the OK string."""
        if self._matcher is not None:
            self._write(self._matcher.flush())

    def close(self) -> None:
        """Close all descriptors; FIFOs and log stay."""
        if self._fds:
            self.flush()
        for fd in (*self._fds, self._log):
            if fd >= 0:
                os.close(fd)
        self._fds, self._log = (), -1

    def remove(self) -> None:
        """Close, and delete the FIFOs; the log stays."""
        self.close()
        for path in self._paths:
            try:
                os.unlink(path)
            except FileNotFoundError:
                pass

    def _make_fifo(self, path: str) -> None:
        try:
            if stat.S_ISFIFO(os.lstat(path).st_mode):
                return
            os.unlink(path)
        except FileNotFoundError:
            pass
        os.mkfifo(path, 0o600)

    # moving bytes

    def _search(self, fd: int, asked: int) -> tuple[int, bool]:
        assert self._matcher is not None
        held, data = self._matcher.held, self._peek(fd, asked)
        passed, found, rest = self._matcher.feed(data)
        self._write(passed[:held])
        self._write(passed[held:], fd)
        left = len(data) - len(passed[held:])  # in the FIFO: part of the string, and what follows it
        if found:
            self._matcher = None
            self._skip = left - len(rest)
        elif left:
            os.read(fd, left)  # held back
        return len(data), found

    def _peek(self, fd: int, size: int) -> bytes:
        """Return up to `size` bytes that are in a FIFO, and stay there."""
        global _copies
        if not _copies:
            _copies = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            return os.read(_copies[0], kernel.tee(fd, _copies[1], size))
        except BlockingIOError:
            return b""

    def _move(self, fd: int, asked: int) -> int:
        """Move up to `asked` bytes and return how many left the FIFO."""
        if self._splice and self._size < self._rotate_at and self._ready():
            try:
                moved = os.splice(fd, self._log, asked, flags=kernel.SPLICE_F_NONBLOCK)
                self._size += moved
                return moved
            except BlockingIOError:
                return 0
            except OSError as error:
                if error.errno in _NO_SPLICE:
                    self._splice = False
                else:
                    self._fail(error)
        # at the end of a file a small piece, to find the end of the line in it
        data = self._peek(fd, min(asked, _CHUNK) if self._size < self._rotate_at else self._seam)
        self._write(data, fd)
        return len(data)

    def _write(self, data: bytes, fd: int = -1) -> None:
        """Write to the log, rotating where a line ends at or after the rotation point; drop on error.

        fd: the FIFO in which the data is still; it leaves it on the way.
        """
        rest = memoryview(data)
        while rest:
            if not self._ready():
                self._drop(len(rest), fd)
                return
            room = self._rotate_at - self._size
            if room > 0:
                piece = rest[:room]
            else:
                end = bytes(rest[: self._seam]).find(b"\n") + 1
                piece = rest[: end or self._seam]
                if self._line_ended():
                    piece = rest[:0]
            try:
                written = self._put(piece, fd) if piece else 0
            except OSError as error:
                self._fail(error)
                self._drop(len(rest), fd)
                return
            self._size += written
            rest = rest[written:]
            if room <= 0 and written == len(piece):
                self._rotate()

    def _put(self, piece: memoryview, fd: int) -> int:
        """Write bytes to the log; return how many. Raises OSError."""
        if fd >= 0 and self._splice:
            try:
                return os.splice(fd, self._log, len(piece), flags=kernel.SPLICE_F_NONBLOCK)
            except OSError as error:
                if error.errno not in _NO_SPLICE:
                    raise
                self._splice = False
        written = os.write(self._log, piece)
        if fd >= 0:
            os.read(fd, written)  # after it was written: better twice than never
        return written

    def _line_ended(self) -> bool:
        return os.pread(self._log, 1, self._size - 1) == b"\n"

    # trouble

    def _fail(self, error: OSError) -> None:
        self.error = f"cannot log {self.name}: {error.strerror}"

    def _drop(self, count: int, fd: int) -> None:
        if fd >= 0:
            os.read(fd, count)
        self.dropped += count
        self._unreported += count

    def _ready(self) -> bool:
        """Return whether the log is open; after a loss first say in it what is missing."""
        if self._log < 0 and not self._open_log():
            return False
        if self._unreported:
            note = f"\nmaestro: {self._unreported} bytes of output were lost here: {self.error}\n".encode()
            try:
                self._size += os.write(self._log, note)
            except OSError as error:
                self._fail(error)
                return False
            self._unreported = 0
        self.error = ""
        return True

    # files

    def _open_log(self) -> bool:
        """Open the log at its end."""
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            self._log = os.open(log_path(self._log_dir, self.name), flags, 0o640)
        except OSError as error:
            self._fail(error)
            return False
        # no O_APPEND: splice refuses such files, and nobody else writes here
        self._size = os.lseek(self._log, 0, os.SEEK_END)
        return True

    def _reopen_if_touched(self) -> None:
        """Begin again with what is there when somebody else deleted, moved or cut the log."""
        if self._log < 0:
            return
        try:
            there = os.stat(log_path(self._log_dir, self.name))
            if os.path.samestat(there, os.fstat(self._log)) and there.st_size == self._size:
                return
        except OSError:
            pass
        os.close(self._log)
        self._log = -1
        self._base += self._size
        self._size = 0
        self._note(b"-")
        self._open_log()

    def _rotate(self) -> None:
        """Shift log, log.1, … up by one, the last one falling out, and begin a new log."""
        names = [log_path(self._log_dir, self.name, i) for i in range(self._max_files)]
        try:
            try:
                # not left to rename(2): ext4 writes a file to disk at once when it replaces another
                os.unlink(names[-1])
            except FileNotFoundError:
                pass
            for younger, older in zip(names[-2::-1], names[:0:-1], strict=True):
                try:
                    os.rename(younger, older)
                except FileNotFoundError:
                    pass
        except OSError as error:
            # the directory is read-only or gone: begin the same file again rather than growing it
            self._fail(error)
            os.ftruncate(self._log, 0)
        os.close(self._log)
        self._log = -1
        self._base += self._size
        self._size = 0
        self._note(b"-")
        self._open_log()

    def _note(self, what: bytes) -> None:
        """Add a line to the index: at this place begins an incarnation, or (`-`) the current file."""
        path = index_path(self._log_dir, self.name)
        now = time.time_ns() // 1_000_000
        try:
            with open(path, "ab", buffering=0) as file:
                file.write(b"%d %d %b\n" % (self.position, now, what))
                full = file.tell() > _INDEX_SIZE
            if full:
                index = read_index(self._log_dir, self.name)
                lines = [b"%d %d -\n" % (index.base, now)]
                lines += [b"%d %d %d\n" % start for start in index.starts[-_INDEX_KEPT:]]
                with open(path + ".new", "wb", buffering=0) as file:
                    file.write(b"".join(lines))
                os.rename(path + ".new", path)
        except OSError:
            pass  # what is lost is where an incarnation began
