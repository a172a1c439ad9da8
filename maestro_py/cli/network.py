# SPDX-License-Identifier: Apache-2.0
"""`net get-interfaces` and `net get-dns`: words of upstream's maestro-shell, answered by its routes."""

from __future__ import annotations

TYPE_CHECKING = False  # typing's constant, without the import of typing
if TYPE_CHECKING:
    from maestro_py.cli.session import Session


def net_get_interfaces(session: Session) -> int:
    """`maestro net get-interfaces`: JSON, as upstream's shell printed it."""
    session.screen.json(session.client.request("GET", "/net/interfaces"))
    return 0


def net_get_dns(session: Session) -> int:
    """`maestro net get-dns`."""
    session.screen.json(session.client.request("GET", "/net/dns"))
    return 0
