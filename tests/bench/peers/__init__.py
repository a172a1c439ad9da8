# SPDX-License-Identifier: Apache-2.0
"""One class per supervisor, all with the same few verbs."""

from __future__ import annotations

from .base import Job, Peer
from .circus import Circus
from .maestro import Maestro, MaestroLimited
from .runit import Runit
from .s6 import S6
from .supervisord import Supervisord

PEERS: dict[str, type[Peer]] = {
    peer.name: peer for peer in (Maestro, MaestroLimited, Supervisord, Circus, Runit, S6)
}

__all__ = ["PEERS", "Job", "Peer"]
