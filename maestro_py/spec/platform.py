# SPDX-License-Identifier: Apache-2.0
"""Platform readers: the ARCH_ variables a device's identity gives to its configuration.

Source of names and rules: PelionIoT/maestro's `fsonly` and `testplatform` readers.
"""

from __future__ import annotations

from typing import Any

IDENTITY = "/config/identity.json"
"""Where `fsonly` finds the identity unless `params.identityPath` says otherwise."""

TEXTS = {
    "SERIAL_NUMBER": "serialNumber",
    "OU": "OU",
    "DEVICE_ID": "deviceID",
    "HARDWARE_VERSION": "hardwareVersion",
    "RADIO_CONFIG": "radioConfig",
    "LED_CONFIG": "ledConfig",
    "CONFIG_CATEGORY": "category",
    "GW_SERVICES_URL": "gatewayServicesAddress",
    "API_SERVICES_URL": "apiServerAddress",
    "MCC_CONFIG": "mcc_config",
}
"""Variable, without ARCH_, by the key of the identity whose text it gets."""

_SWAPPED_LED = "02"

TEST_PLATFORM = {
    "ARCH_RELAYID": "WWTEST001",
    "ARCH_WW_PLATFORM": "test-platform",
    "ARCH_PAIRING_CODE": "123",
    "ARCH_RELAY_SECRET": "verysecret",
}
"""What `testplatform` says, for trying a configuration without a device."""


def readers(document: object) -> list[tuple[str, str]]:
    """Return (platform, file to read or "") for each reader of a daemon's file that is known.

    What is wrong with the section is said when the document is read.
    """
    section = next(
        (value for key, value in document.items() if str(key).lower() == "platform_readers"), None
    ) if isinstance(document, dict) else None  # fmt: skip
    found: list[tuple[str, str]] = []
    for item in section if isinstance(section, list) else ():
        platform = item.get("platform") if isinstance(item, dict) else None
        if platform == "fsonly":
            params = item.get("params")
            path = params.get("identityPath") if isinstance(params, dict) else None
            found.append((platform, path if isinstance(path, str) and path else IDENTITY))
        elif platform == "testplatform":
            found.append((platform, ""))
    return found


def identity(document: object) -> dict[str, str]:
    """Return the variables of an identity; what it does not say is not defined.

    Raises ValueError for what cannot be an identity.
    """
    if not isinstance(document, dict):
        raise ValueError("expected an object")
    given = {str(key).lower(): value for key, value in document.items()}
    found: dict[str, str] = {}
    for name, key in TEXTS.items():
        text = given.get(key.lower())
        if isinstance(text, str) and text:
            found[f"ARCH_{name}"] = text
    if "ARCH_HARDWARE_VERSION" in found:
        found["ARCH_EDGE_PLATFORM"] = f"wwgateway_v{found['ARCH_HARDWARE_VERSION']}"
    found["ARCH_LED_COLOR_PROFILE"] = "RBG" if found.get("ARCH_LED_CONFIG") == _SWAPPED_LED else "RGB"
    if "ARCH_GW_SERVICES_URL" in found:
        found["ARCH_GW_SERVICES_RESRC"] = found["ARCH_GW_SERVICES_URL"].partition("://")[2]
    if given.get("ethernetmac"):
        found["ARCH_ETHERNET_MAC"] = _address(given["ethernetmac"], "ethernetMAC", 6, ":")
    if given.get("sixbmac"):
        found["ARCH_SIXLBR_MAC"] = _address(given["sixbmac"], "sixBMAC", 8, "")
    return found


def _address(raw: Any, key: str, size: int, separator: str) -> str:
    numbers = raw if isinstance(raw, list) else []
    whole = [n for n in numbers if isinstance(n, int) and not isinstance(n, bool) and 0 <= n <= 255]
    if len(numbers) != size or whole != numbers:
        raise ValueError(f"{key}: expected {size} numbers from 0 to 255")
    return separator.join(f"{n:02x}" for n in whole)
