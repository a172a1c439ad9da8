# SPDX-License-Identifier: Apache-2.0
"""Changes of network interfaces, as upstream's subscribers hear of them; in a network of the test's own."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from support.daemon import Daemon
from support.netlab import Lab, lab, run
from support.rawhttp import ask

pytestmark = pytest.mark.root


@pytest.fixture
def device() -> Iterator[Lab]:
    with lab() as made:
        yield made


def test_a_subscriber_hears_of_links_and_addresses(device: Lab, tmp_path: Path) -> None:
    daemon = Daemon(tmp_path / "device")
    daemon.program = device.program()
    daemon.start()
    try:
        id = ask(daemon.socket, "GET", "/net/events").json["id"]
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(ask, daemon.socket, "GET", f"/net/events/{id}")
            run("ip", "addr", "add", "198.51.100.77/32", "dev", "wan0", namespace=device.device)
            [first, *_] = waiting.result(30).json
        assert first["data"] == {
            "type": "new-address",
            "interface": {
                "id": "wan0",
                "index": first["data"]["interface"]["index"],
                "address": "198.51.100.77",
                "addressV6": "",
                "linkstate": "up",
            },
        }
        run("ip", "link", "set", "wan0", "down", namespace=device.device)
        seen: list[dict[str, Any]] = []
        while not any(each["type"] == "interface-state-down" for each in seen):
            answer = ask(daemon.socket, "GET", f"/net/events/{id}")
            assert answer.status == 200
            seen += [each["data"] for each in answer.json]
        rows = {row["name"]: row for row in ask(daemon.socket, "GET", "/net/interfaces").json}
        assert rows["wan0"]["CurrentIPv4Addr"] == "198.51.100.2"
    finally:
        daemon.close()
