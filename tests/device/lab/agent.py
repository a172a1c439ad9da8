# SPDX-License-Identifier: Apache-2.0
"""Runs in the booted device and does what the lab asks for.

Reads a JSON line {"id", "run", "timeout"} from a virtio port, runs the text in a shell, and answers
{"id", "code", "out"}. Code 124 stands for a command that was ended after its time.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

PORT = "/dev/virtio-ports/maestro.lab"


def run(command: str, timeout: float) -> tuple[int, str]:
    """Return status and output of a shell command; what it leaves in the background keeps no pipe open."""
    with open("/run/lab.out", "wb+") as out:
        process = subprocess.Popen(
            ["/bin/sh", "-c", command],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            code = process.wait(timeout)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            code = 124
        out.seek(0)
        return code, out.read().decode(errors="replace")


def main() -> None:
    with open(PORT, "r+b", buffering=0) as port:
        line = b""
        while True:
            line += port.read(65536) or sys.exit("the other side is gone")
            while b"\n" in line:
                request, _, line = line.partition(b"\n")
                asked = json.loads(request)
                code, out = run(asked["run"], asked["timeout"])
                answer = json.dumps({"id": asked["id"], "code": code, "out": out}).encode() + b"\n"
                while answer:
                    answer = answer[port.write(answer) :]


if __name__ == "__main__":
    main()
