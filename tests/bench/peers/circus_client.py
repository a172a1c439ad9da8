# SPDX-License-Identifier: Apache-2.0
"""Passes requests, a JSON line each, to circus and says when each was sent and answered (monotonic ns).

Runs as a program in the environment circus is installed in; the harness does not import it.
"""

from __future__ import annotations

import json
import sys
import time

import zmq  # type: ignore[import-not-found]  # in that environment only


def main() -> None:
    """Serve until standard input ends."""
    context = zmq.Context()
    peer = context.socket(zmq.DEALER)
    peer.linger = 0
    peer.connect(sys.argv[1])
    for line in sys.stdin.buffer:
        sent = time.monotonic_ns()
        peer.send(line.strip())
        if not peer.poll(20_000):
            print(json.dumps({"error": "no answer within 20 s"}), flush=True)
            continue
        answer = peer.recv_multipart()[-1]
        received = time.monotonic_ns()
        print(json.dumps({"sent": sent, "received": received, "answer": json.loads(answer)}), flush=True)


if __name__ == "__main__":
    main()
