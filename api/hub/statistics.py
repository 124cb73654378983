"""The figures of one hub."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class HubStatistics:
    """The state of a hub for /metrics; the field names are the names of the metrics.

    Attributes:
        connections: open connections by transport.
        relays: generations with a copy on this node.
        bytes_kept: memory of all copies, bytes, approximately.
        events_delivered, bytes_delivered, cuts, rotations, resets: as in `HubCounters`.
        repairs: reads of a log after something was missed.
        reconnects: attempts to connect the live connection after the first one.
        probes_lost: probes that the live connection did not receive in time.
        is_live: the live connection is up and has received its latest probe.
    """

    connections: dict[str, int]
    relays: int
    bytes_kept: int
    events_delivered: int
    bytes_delivered: int
    cuts: int
    rotations: int
    resumes: int
    resets: int
    repairs: int
    reconnects: int
    probes_lost: int
    is_live: bool
