# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from typing import Any

import pytest

from maestro_py.spec.platform import IDENTITY, identity, readers


def test_an_identity_gives_the_variables_of_upstreams_reader() -> None:
    document = {
        "serialNumber": "S1",
        "OU": "ou",
        "DeviceID": "d1",  # either spelling
        "hardwareVersion": "SOFT_GW",
        "radioConfig": "00",
        "ledConfig": "01",
        "category": "development",
        "ethernetMAC": [0, 165, 9, 106, 110, 148],
        "sixBMAC": [0, 165, 9, 0, 1, 106, 110, 148],
        "hash": [],
        "gatewayServicesAddress": "https://gw.example",
        "apiServerAddress": "https://api.example",
        "mcc_config": "00ff",
    }
    assert identity(document) == {
        "ARCH_SERIAL_NUMBER": "S1",
        "ARCH_OU": "ou",
        "ARCH_DEVICE_ID": "d1",
        "ARCH_HARDWARE_VERSION": "SOFT_GW",
        "ARCH_EDGE_PLATFORM": "wwgateway_vSOFT_GW",
        "ARCH_RADIO_CONFIG": "00",
        "ARCH_LED_CONFIG": "01",
        "ARCH_LED_COLOR_PROFILE": "RGB",
        "ARCH_CONFIG_CATEGORY": "development",
        "ARCH_ETHERNET_MAC": "00:a5:09:6a:6e:94",
        "ARCH_SIXLBR_MAC": "00a50900016a6e94",
        "ARCH_GW_SERVICES_URL": "https://gw.example",
        "ARCH_GW_SERVICES_RESRC": "gw.example",
        "ARCH_API_SERVICES_URL": "https://api.example",
        "ARCH_MCC_CONFIG": "00ff",
    }


def test_what_an_identity_does_not_say_is_not_defined() -> None:
    assert identity({}) == {"ARCH_LED_COLOR_PROFILE": "RGB"}
    assert identity({"OU": "", "serialNumber": 7, "ethernetMAC": [], "sixBMAC": None}) == identity({})
    assert identity({"ledConfig": "02"})["ARCH_LED_COLOR_PROFILE"] == "RBG"


@pytest.mark.parametrize(
    "document", [[], None, {"ethernetMAC": [1]}, {"ethernetMAC": [True] * 6}, {"sixBMAC": [256] * 8}]
)
def test_what_cannot_be_an_identity_is_refused(document: object) -> None:
    with pytest.raises(ValueError, match="expected"):
        identity(document)


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        (None, []),
        ({}, []),
        ({"platform_readers": None}, []),
        ({"platform_readers": ["fsonly", {"platform": "other"}, {"platform": 5}]}, []),
        ({"Platform_Readers": [{"platform": "fsonly"}]}, [("fsonly", IDENTITY)]),
        ({"platform_readers": [{"platform": "testplatform"}]}, [("testplatform", "")]),
        (
            {"platform_readers": [{"platform": "fsonly", "params": {"identityPath": "/i"}}]},
            [("fsonly", "/i")],
        ),
    ],
)
def test_readers_of_a_file(document: Any, expected: list[tuple[str, str]]) -> None:
    assert readers(document) == expected
