"""Decides whether a node's copy of a log may still serve the generation that Redis has. Pure."""

from __future__ import annotations

from api.hub.relay import Relay
from shared.log.records import Meta

META_LAG_S = 2.0  # a meta without an end may be this much older than the end received live


def is_outdated(relay: Relay, meta: Meta, *, now: float, wall_ms: int, retention_ms: int) -> bool:
    """Whether the copy is of a log that is expired, lost, deleted, or replaced by another one.

    Args:
        meta: as Redis has it; or the copy's own meta, while Redis is away. The copy's own meta may
            be from before the end, and then does not say that Redis has lost the end.
        now: loop time, s.
        wall_ms: time since 1970, ms.
    """
    if relay.is_expired or relay.unlogged_end is not None:
        return True
    if not relay.feed.is_ended:
        return False
    if not meta.is_ended:
        # Either the end was written after the read of meta, or Redis has lost the end.
        return meta is not relay.meta and now - relay.heard_at > META_LAG_S
    has_expired = wall_ms > meta.ended_at_ms + retention_ms
    return has_expired or relay.feed.raws[-1] != meta.end
