# SPDX-License-Identifier: Apache-2.0
"""How long to wait before another try, by which name what came is found again, and who is told who asks."""

from __future__ import annotations

from maestro_py.daemon import items
from maestro_py.daemon.downloads import LONGEST_ASKED, LONGEST_PAUSE, Milestones, how_far, pause_before
from maestro_py.daemon.items import Item
from maestro_py.spec.model import Checksum, Credentials, Delta, ImageSpec, Secret
from maestro_py.spec.resolved import ResolvedProcess


def test_pauses_double_up_to_a_limit_and_differ_between_devices() -> None:
    assert [pause_before(tries, 1, 0, 1) for tries in range(1, 6)] == [1, 2, 4, 8, 16]
    assert [pause_before(tries, 1, 0, 0) for tries in range(1, 6)] == [0.5, 1, 2, 4, 8]
    assert pause_before(1000, 1, 0, 1) == LONGEST_PAUSE


def test_a_server_may_ask_for_more_but_not_for_ever() -> None:
    assert pause_before(1, 1, 30, 1) == 30
    assert pause_before(5, 1, 3, 1) == 16
    assert pause_before(1, 1, 1e9, 1) == LONGEST_ASKED


def test_a_long_download_tells_each_tenth_and_a_quick_one_nothing() -> None:
    quick = Milestones(now=0)
    assert not any(quick.due(done, 100, now=done / 100) for done in range(101))
    slow = Milestones(now=0)
    assert [done for done in range(101) if slow.due(done, 100, now=done * 9)] == [*range(10, 101, 10)]
    unknown = Milestones(now=0)
    assert [now for now in range(31) if unknown.due(now, None, now=now)] == [10, 20, 30]


def test_how_far_a_download_is_has_bytes_rate_and_time_left() -> None:
    assert how_far("app 2", 10 << 20, 40 << 20, 1 << 20) == "app 2: 10.0M of 40.0M arrived, 1.0M/s, 30s left"
    assert how_far("app 2", 10 << 20, None, 1 << 20) == "app 2: 10.0M arrived, 1.0M/s"
    assert how_far("app 2", 10 << 20, None, None) == "app 2: 10.0M arrived"


def test_what_came_of_a_file_is_found_by_what_it_is_and_what_it_is_for() -> None:
    checksum = Checksum("sha256sum", "0123456789abcdef" * 4)
    one = Item("a/b", "a", "http://h/1", checksum=checksum)
    assert one.part == "a%2Fb-0123456789abcdef"
    assert one.part == Item("a/b", "a", "http://mirror/1?token=2", checksum=checksum).part
    assert Item("a", "a", "http://h/1").part != Item("a", "a", "http://h/2").part
    assert len(Item("/" * 1000, "a", "http://h/1").part) < 200


def test_credentials_of_an_image_go_to_its_own_server_only() -> None:
    credentials = Credentials("bearer", "token")
    image = ImageSpec("a", "2", "https://h:1/x.tgz", credentials=credentials)
    process = ResolvedProcess("a", ("a",), secrets=(Secret("token", data="dA==", encoding="base64"),))
    asked = {"type": "bearer", "user": "", "value": "t"}
    checksum = Checksum("sha256sum", "0" * 64)

    def delta(url: str) -> object:
        return items.of_delta(image, Delta("1", url, checksum), process).credentials

    assert items.of_image(image, process).credentials == asked
    assert delta("https://h:1/d") == items.of_signature(image, "https://h:1/s", process).credentials == asked
    for other in ("https://h:2/d", "http://h:1/d", "https://h:1.example/d", "file:///d"):
        assert delta(other) is None


def test_what_is_checked_is_called_by_its_address_without_a_password() -> None:
    item = Item("a", "app 1", "https://me:secret@h/x?y=1@2")
    assert item.checks() == {"name": "app 1 from https://h/x?y=1@2", "size": 0, "checksum": None}
