"""The figures of one hub."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from api.hub.contracts import Connection, ConnectionRecord, HubCounters
from api.hub.live_connection import LiveSource
from api.hub.probe import Probe
from api.hub.relay import Relay


@dataclass(frozen=True, slots=True)
class HubStatistics:
    """The state of a hub for /metrics; the field names are the names of the metrics.

    Attributes:
        connections: open connections by transport.
        relays: generations with a copy on this node.
        bytes_kept: memory of all copies, bytes, approximately.
        events_delivered, bytes_delivered, cuts, rotations, resumes, resets: as in `HubCounters`.
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


class CountedHub(Protocol):
    """The part of a hub (api/hub/hub.py) whose figures are shown."""

    relays: dict[str, Relay]
    connections: dict[Connection, ConnectionRecord]
    counters: HubCounters
    probe: Probe
    live: LiveSource
    repairs_closed: int

    @property
    def is_live(self) -> bool: ...


def statistics_of(hub: CountedHub) -> HubStatistics:
    """Return the present figures of a hub."""
    relays = hub.relays.values()
    return HubStatistics(
        connections=_by_transport(hub.connections),
        relays=len(hub.relays),
        bytes_kept=sum(relay.bytes_kept for relay in relays),
        events_delivered=hub.counters.events_delivered,
        bytes_delivered=hub.counters.bytes_delivered,
        cuts=hub.counters.cuts,
        rotations=hub.counters.rotations,
        resumes=hub.counters.resumes,
        resets=hub.counters.resets,
        repairs=hub.repairs_closed + sum(relay.feed.repairs for relay in relays),
        reconnects=getattr(hub.live, "reconnects", 0),
        probes_lost=hub.probe.lost,
        is_live=hub.is_live,
    )


def _by_transport(connections: Mapping[Connection, ConnectionRecord]) -> dict[str, int]:
    return dict(Counter(record.transport for record in connections.values()))
