# SPDX-License-Identifier: Apache-2.0
"""Who may do what: by uid and group on the socket, by a token on the optional TCP listener.

TCP is plain HTTP, so it is served on loopback only. Whoever can connect may read, unless the config file
says otherwise; a request with the token may do everything. A web page of somebody else cannot use it from
a browser on this device: by DNS rebinding its requests bear a foreign Host, and the token is no cookie.
"""

from __future__ import annotations

import grp
import os
import stat
from _operator import _compare_digest  # hmac.compare_digest without its imports
from collections.abc import Sequence

from maestro_py.daemon.messages import Peer
from maestro_py.daemon.router import Role
from maestro_py.errors import Forbidden, MaestroError
from maestro_py.spec.daemonconfig import DaemonConfig
from maestro_py.spec.kinds import loopback_address

TOKEN_BYTES = 24
"""Random bytes of a token made here; written in hexadecimal digits."""
_TOKEN_SIZE = 4096  # bytes of a token file

Headers = Sequence[tuple[bytes, bytes]]


def role_of(peer: Peer, config: DaemonConfig) -> Role:
    """Return what a peer on the socket may do: root and the daemon's own user everything, members of the
    configured groups what the group may, all others what their own job may.
    """
    if peer.uid in (0, os.geteuid()):
        return Role.ADMIN
    for name, role in (
        (config.admin_group, Role.ADMIN),
        (config.operate_group, Role.OPERATE),
        (config.read_group, Role.READ),
    ):
        try:
            group = grp.getgrnam(name).gr_gid if name else None
        except KeyError:  # a group that is not there has no members
            continue
        if group is not None and (group == peer.gid or group in peer.groups):
            return role
    return Role.JOB


def door(config: DaemonConfig, state_dir: str) -> Door | None:
    """Return the door the config file asks for, None when it asks for none."""
    if not config.http_tcp:
        return None
    token_file = config.http_token_file or os.path.join(state_dir, "http.token")
    return Door(config.http_tcp, token_file, Role.READ if config.http_anonymous == "read" else Role.NONE)


class Door:
    """One address, and what those who come through it may do.

    address: `host:port` as the config file has it. anonymous: the role of whoever shows no token.
    """

    def __init__(self, address: str, token_file: str, anonymous: Role) -> None:
        self.address = loopback_address(address)
        self.token_file = token_file
        self.anonymous = anonymous

    def prepare(self) -> None:
        """See to it that there is a token only its owner may read; make one. Raises MaestroError."""
        try:
            try:
                fd = os.open(self.token_file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            except FileExistsError:
                self._token()
                return
            try:
                os.write(fd, os.urandom(TOKEN_BYTES).hex().encode() + b"\n")
            finally:
                os.close(fd)
        except OSError as error:
            raise MaestroError(f"cannot make the token {self.token_file}: {error.strerror}") from error

    def role(self, headers: Headers) -> Role:
        """Return what a request may do. Raises Forbidden (foreign Host) or `unauthorized` (wrong token)."""
        host = _value(headers, b"host").decode("latin-1").lower()
        name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() else host
        if name not in ("localhost", "127.0.0.1", "[::1]", self.address[0].lower()):
            raise Forbidden(
                f"cannot answer for the host {host[:100]!r}: this is a daemon on loopback",
                hint="use http://localhost with the port",
            )
        given = _value(headers, b"authorization")
        if not given:
            return self.anonymous
        scheme, _, token = given.partition(b" ")
        if scheme.lower() == b"bearer" and _compare_digest(token.strip(), self._token()):
            return Role.ADMIN
        raise MaestroError(
            "cannot let this request in: its token is not the daemon's",
            hint=f"the token is in {self.token_file}",
            code="unauthorized",
        )

    def _token(self) -> bytes:
        """Return the token as it is in the file now, so that a new one holds at once. Raises MaestroError."""
        try:
            fd = os.open(self.token_file, os.O_RDONLY | os.O_CLOEXEC)
            try:
                mode = os.fstat(fd).st_mode
                token = os.read(fd, _TOKEN_SIZE).strip()
            finally:
                os.close(fd)
        except OSError as error:
            raise MaestroError(f"cannot read the token {self.token_file}: {error.strerror}") from error
        if not stat.S_ISREG(mode) or mode & 0o077:
            raise MaestroError(
                f"cannot use the token {self.token_file}: others may read it", hint="chmod 600 it"
            )
        if len(token) < 16:
            raise MaestroError(
                f"cannot use the token {self.token_file}: it is shorter than 16 characters",
                hint="remove the file and one is made",
            )
        return token


def _value(headers: Headers, name: bytes) -> bytes:
    return next((value for key, value in headers if key == name), b"")
