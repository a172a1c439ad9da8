# SPDX-License-Identifier: Apache-2.0
"""Why execve(2) said no, in words: the kernel's errno alone sends people looking in the wrong place.

Runs in the forked child, after the root and the credentials have changed, so it sees what the
program would have seen. Never raises; what cannot be found out is left out.
"""

from __future__ import annotations

import errno
import os
import stat
import struct

# e_machine of elf(5), include/uapi/linux/elf-em.h, with how uname(2) calls such machines at first
_MACHINES = {
    3: ("x86 (32 bit)", "i"),
    8: ("MIPS", "mips"),
    20: ("PowerPC", "ppc"),
    21: ("PowerPC 64", "ppc64"),
    22: ("S390", "s390"),
    40: ("ARM (32 bit)", "arm"),
    62: ("x86-64", "x86_64"),
    183: ("ARM 64 (aarch64)", "aarch64"),
    243: ("RISC-V", "riscv"),
    258: ("LoongArch", "loongarch"),
}
_SIBLINGS = {"x86_64": "i686", "aarch64": "armv8l"}
"""The 32-bit machine whose programs a kernel may run too: it is this one's where Python itself is one."""

_PT_INTERP = 3
_HEAD = 4096


def explain(path: bytes, number: int) -> str:
    """Return one clause on why `path` could not be executed, or an empty text."""
    try:
        if number == errno.ENOENT:
            return _missing(path)
        if number == errno.EACCES:
            return _refused(path)
        if number == errno.ENOEXEC:
            return _not_a_program(path)
    except (OSError, ValueError, IndexError, struct.error):
        pass
    return ""


def _missing(path: bytes) -> str:
    if not os.path.exists(path):
        if os.path.islink(path):
            return f"it is a link to {_text(os.readlink(path))}, which is missing"
        return ""
    head = _head(path)
    script = _script_interpreter(head)
    if script:
        if script.endswith(b"\r"):
            return f"its first line names {_text(script[:-1])} and ends in a carriage return"
        return f"its interpreter {_text(script)} is missing"
    loader = _elf_interpreter(path, head)
    return f"its loader {_text(loader)} is missing" if loader else ""


def _refused(path: bytes) -> str:
    info = os.stat(path)
    if stat.S_ISDIR(info.st_mode):
        return "it is a directory"
    if not info.st_mode & 0o111:
        return f"it is not executable, its mode is {stat.S_IMODE(info.st_mode):04o}"
    if os.statvfs(path).f_flag & os.ST_NOEXEC:
        return "its file system is mounted noexec"
    if not os.access(path, os.X_OK):
        return f"user {os.geteuid()} may not execute it"
    script = _script_interpreter(_head(path))
    return f"its interpreter {_text(script)} may not be executed" if script else ""


def _not_a_program(path: bytes) -> str:
    head = _head(path)
    if not head:
        return "it is empty"
    if head.startswith(b"\x7fELF"):
        order = ">" if head[5] == 2 else "<"
        machine = struct.unpack_from(order + "H", head, 18)[0]
        name, prefix = _MACHINES.get(machine, (f"machine number {machine}", "none"))
        this = os.uname().machine
        sibling = _SIBLINGS.get(this, this) if struct.calcsize("P") == 4 else this
        if this.startswith(prefix) or sibling.startswith(prefix):
            return "it is damaged"
        return f"it is a program for {name}, this is {this}"
    return "it is neither a program nor a script with a first line such as #!/bin/sh"


def _head(path: bytes) -> bytes:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        return os.read(fd, _HEAD)
    finally:
        os.close(fd)


def _script_interpreter(head: bytes) -> bytes:
    if not head.startswith(b"#!"):
        return b""
    line = head[2:].partition(b"\n")[0].strip(b" \t")
    return line.replace(b"\t", b" ").partition(b" ")[0]


def _elf_interpreter(path: bytes, head: bytes) -> bytes:
    """Return PT_INTERP of an ELF file; empty for a static one."""
    if not head.startswith(b"\x7fELF"):
        return b""
    order = ">" if head[5] == 2 else "<"
    if head[4] == 2:
        table, size, count = _program_headers(head, order, "Q", 32, 54)
        layout, offset_at, length_at = "Q", 8, 32
    else:
        table, size, count = _program_headers(head, order, "I", 28, 42)
        layout, offset_at, length_at = "I", 4, 16
    for entry in range(table, table + size * count, size):
        if struct.unpack_from(order + "I", head, entry)[0] == _PT_INTERP:
            offset = struct.unpack_from(order + layout, head, entry + offset_at)[0]
            length = struct.unpack_from(order + layout, head, entry + length_at)[0]
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                return os.pread(fd, min(length, _HEAD), offset).rstrip(b"\0")
            finally:
                os.close(fd)
    return b""


def _program_headers(
    head: bytes, order: str, layout: str, offset_at: int, size_at: int
) -> tuple[int, int, int]:
    table = struct.unpack_from(order + layout, head, offset_at)[0]
    size, count = struct.unpack_from(order + "HH", head, size_at)
    return table, max(size, 1), count


def _text(path: bytes) -> str:
    return os.fsdecode(path)
