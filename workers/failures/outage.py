"""Decides whether a failure is an outage of the model server, and how long it may last. Pure.

A refused connection, a 502 or 503, and a connection that breaks are signs of a server that
restarts or loads its model. They say nothing about the prompt, so they do not count as failed
attempts. The generation is released and waits in the queue's set `later`, and not in the worker: a
slot that waits for a dead server would be missing for the models whose servers live.

The queue entry carries what is known of the outage (`LaneEntry`). Bounds: `limit_s` of waiting for
a server that does not answer, and `UPSTREAM_BREAKS_MAX` answers that broke off. Past a bound
failures count.
"""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from shared.config.settings import UPSTREAM_BREAKS_MAX
from shared.errors import BackendError
from shared.queue.lanes import LaneEntry

OUTAGE_PAUSE_MIN_S = 0.25
OUTAGE_PAUSE_MAX_S = 5.0  # a server that is back gets its prompts after at most this time


@dataclass(frozen=True, slots=True)
class Postponed:
    """A generation that waits for its server.

    Attributes:
        ticket: the queue entry for the next attempt.
        pause_s: the pause before the next attempt.
    """

    ticket: LaneEntry
    pause_s: float


def postpone(
    ticket: LaneEntry, error: BackendError, *, has_answered: bool, now_ms: int, limit_s: float
) -> Postponed | None:
    """Return how a generation waits after this failure; None: the failure counts.

    Args:
        ticket: the entry of this attempt.
        has_answered: the server has accepted the request of this attempt, so an earlier outage is
            over.
        now_ms: Redis's clock.
        limit_s: the longest outage.
    """
    if not error.is_outage or not error.retryable:
        return None
    breaks, since_ms = ticket.breaks, ticket.away_since_ms or now_ms
    if has_answered:
        breaks, since_ms = breaks + 1, now_ms
    left_s = limit_s - (now_ms - since_ms) / 1000
    if breaks > UPSTREAM_BREAKS_MAX or left_s <= 0:
        return None
    own_s = min(max((now_ms - since_ms) / 1000, OUTAGE_PAUSE_MIN_S), OUTAGE_PAUSE_MAX_S)
    # The last pause ends at the limit, so that the server is asked once more.
    pause_s = min(max(own_s, error.retry_after_s or 0.0), left_s)
    waiting = msgspec.structs.replace(ticket, away_since_ms=since_ms, breaks=breaks)
    return Postponed(waiting, pause_s)
