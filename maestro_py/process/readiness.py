# SPDX-License-Identifier: Apache-2.0
"""What a process says of itself by sd_notify(3): its socket, and how the messages read."""

from __future__ import annotations

import os
import socket
import struct

from maestro_py.errors import MaestroError

INSIDE = "/run/maestro/notify"
"""Where a process with a root of its own finds the directory of its socket."""

_NAME = "socket"
_LIMIT = 4096
_MESSAGES = 64
"""Messages read at once; a process that sends without end does not keep the daemon."""
_CREDENTIALS = struct.Struct("3i")  # ucred(7): pid, uid, gid


def parse(datagram: bytes) -> dict[str, str]:
    """Return the assignments of one message; what is not one is left out."""
    found = {}
    for line in datagram.decode("utf-8", "replace").split("\n"):
        key, equals, value = line.partition("=")
        if key and equals:
            found[key] = value
    return found


class NotifySocket:
    """The socket one process sends its messages to, in a directory of its own.

    The directory is what the process is shown, so that a socket made anew in it is found again.
    """

    def __init__(self, directory: str, uid: int, gid: int) -> None:
        """Make it, for this user alone. Raises MaestroError."""
        self.directory = directory
        self.path = f"{directory}/{_NAME}"
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        try:
            os.makedirs(directory, 0o711, exist_ok=True)
            if os.path.lexists(self.path):
                os.unlink(self.path)
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
            self._socket.bind(self.path)
            os.chmod(self.path, 0o600)
            if (uid, gid) != (os.geteuid(), os.getegid()):
                os.chown(self.path, uid, gid)
        except OSError as error:
            self._socket.close()
            raise MaestroError(f"cannot make the notify socket {self.path}: {error.strerror}") from error

    def fileno(self) -> int:
        """Return its descriptor, to wait for."""
        return self._socket.fileno()

    def receive(self) -> list[tuple[int, dict[str, str]]]:
        """Return (pid of the sender, assignments) of the messages that have come."""
        found = []
        for _ in range(_MESSAGES):
            try:
                data, ancillary, flags, _ = self._socket.recvmsg(
                    _LIMIT, socket.CMSG_SPACE(_CREDENTIALS.size) + socket.CMSG_SPACE(16 * 4)
                )
            except BlockingIOError:
                break
            pid = 0
            for level, kind, content in ancillary:
                if level != socket.SOL_SOCKET:
                    continue
                if kind == socket.SCM_CREDENTIALS:
                    pid = _CREDENTIALS.unpack(content[: _CREDENTIALS.size])[0]
                elif kind == socket.SCM_RIGHTS:  # descriptors nobody asked for
                    for fd in struct.unpack(f"{len(content) // 4}i", content[: len(content) // 4 * 4]):
                        os.close(fd)
            if not flags & socket.MSG_TRUNC:
                found.append((pid, parse(data)))
        return found

    def close(self) -> None:
        """Take it away."""
        self._socket.close()
        for remove, path in ((os.unlink, self.path), (os.rmdir, self.directory)):
            try:
                remove(path)
            except OSError:
                pass  # it is gone already, or not empty
