# SPDX-License-Identifier: Apache-2.0
"""`net ...`: words of upstream's maestro-shell, answered by its routes."""

from __future__ import annotations

TYPE_CHECKING = False  # typing's constant, without the import of typing
if TYPE_CHECKING:
    from maestro_py.cli.session import Session

POLL = 20.0
"""Seconds the daemon keeps who asks for events waiting."""


def net_get_interfaces(session: Session) -> int:
    """`maestro net get-interfaces`: JSON, as upstream's shell printed it."""
    session.screen.json(session.client.request("GET", "/net/interfaces"))
    return 0


def net_get_dns(session: Session) -> int:
    """`maestro net get-dns`."""
    session.screen.json(session.client.request("GET", "/net/dns"))
    return 0


def net_events(session: Session) -> int:
    """`maestro net events`: a line of JSON for each change of an interface, until interrupted."""
    ask = session.client.request
    subscription = ask("GET", "/net/events")["id"]
    while True:
        for event in ask("GET", f"/net/events/{subscription}", extra=POLL) or ():
            session.screen.json(event, lines=True)


def net_refused(session: Session) -> int:
    """`maestro net config-interface`, `add-dns`, `delete-dns`: what would change the system's network."""
    from maestro_py.errors import Unsupported

    assert session.call.command is not None
    raise Unsupported(
        f"cannot run {session.call.command.name}: maestro does not manage the network: the system does",
        hint="`maestro net get-interfaces` and `maestro net get-dns` show it",
    )
