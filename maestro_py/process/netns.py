# SPDX-License-Identifier: Apache-2.0
"""A process gets a network of its own: the steps that make or join one, in the child.

`OwnNetwork` is all there is to `network: none`. A private network is made beforehand by the helper program
network.py; the child joins it by descriptor, so a failure there can never leave it in the device's own.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import struct
from dataclasses import dataclass
from typing import ClassVar

from maestro_py.errors import MaestroError, Unsupported
from maestro_py.process import kernel
from maestro_py.process.steps import Step
from maestro_py.spec.resolved import ResolvedProcess
from maestro_py.valueclass import valueclass

# include/uapi/linux/sockios.h, include/uapi/linux/if.h
SIOCSIFFLAGS = 0x8914
IFF_UP = 1


@dataclass(frozen=True, slots=True)
class PrivateNetwork:
    """A private network as the launcher needs it.

    fd: its open namespace. files: (file of the device, where the process sees it), for name resolution.
    """

    fd: int
    files: tuple[tuple[str, str], ...] = ()


@valueclass(frozen=True)
class OwnNetwork:
    """Step into a new network with nothing but loopback."""

    name: ClassVar[str] = "network"
    libc: ClassVar[bool] = True

    def describe(self) -> str:
        """Return what it does."""
        return "make a network of its own"

    def run(self) -> None:
        """unshare(2), then loopback is brought up (netdevice(7))."""
        kernel.unshare(kernel.CLONE_NEWNET)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as any_socket:
            fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", IFF_UP))


@valueclass(frozen=True)
class JoinNetwork:
    """Step into the network whose namespace is open."""

    fd: int
    name: ClassVar[str] = "network"
    libc: ClassVar[bool] = True

    def describe(self) -> str:
        """Return what it does."""
        return "join its private network"

    def run(self) -> None:
        """setns(2)."""
        kernel.setns(self.fd, kernel.CLONE_NEWNET)


@valueclass(frozen=True)
class ShowFiles:
    """Show other files of the device in some places, to a process without a root of its own."""

    files: tuple[tuple[str, str], ...]
    name: ClassVar[str] = "files"
    libc: ClassVar[bool] = True

    def describe(self) -> str:
        """Return what it does."""
        return f"show it {' and '.join(target for _, target in self.files)}"

    def run(self) -> None:
        """Bind mounts in a mount namespace of its own; what the device mounts later is seen all the same.

        A place the device does not have is left out.
        """
        kernel.unshare(kernel.CLONE_NEWNS)
        kernel.mount("none", "/", None, kernel.MS_REC | kernel.MS_SLAVE)
        flags = kernel.MS_REMOUNT | kernel.MS_BIND | kernel.MS_RDONLY | kernel.MS_NOSUID | kernel.MS_NODEV
        for source, target in self.files:
            try:
                os.stat(target)
            except OSError as error:
                if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                    continue
                raise
            kernel.mount(source, target, None, kernel.MS_BIND)
            kernel.mount("none", target, None, flags | kernel.MS_NOEXEC)


def steps(process: ResolvedProcess, private: PrivateNetwork | None) -> list[Step]:
    """Return what brings a process into its network, before its root changes; nothing for the device's own.

    Raises MaestroError when a private network was not made before, Unsupported without the right to it.
    """
    mode = process.network.mode
    if mode == "host":
        return []
    if os.geteuid() != 0:
        why = f"maestrod runs as user {os.geteuid()}, and only root may make networks"
        hint = "run maestrod as root, or leave `network` out"
        raise Unsupported(f"cannot run {process.name} with network {mode}: {why}", hint=hint)
    if mode == "none" and private is None:
        return [OwnNetwork()]
    if private is None:
        raise MaestroError(f"cannot run {process.name}: its private network is not there")
    joined: list[Step] = [JoinNetwork(private.fd)]
    if private.files and not process.root.strip("/"):
        joined.append(ShowFiles(private.files))
    return joined


def files(process: ResolvedProcess, private: PrivateNetwork | None) -> tuple[tuple[str, str], ...]:
    """Return what is to be shown inside a root of its own, by the step that changes the root."""
    return private.files if private and process.root.strip("/") else ()
