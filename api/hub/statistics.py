"""What a hub counts."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class HubStatistics:
    """What /metrics and the logs say of a hub."""

    connections: dict[str, int]  # by transport
    relays: int
    bytes_kept: int
    events_delivered: int
    bytes_delivered: int
    cuts: int
    rotations: int
    resets: int
    repairs: int
    reconnects: int
    probes_lost: int
    is_live: bool
