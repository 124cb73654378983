"""Decides how a generation waits for the rate limit of a vendor. Pure.

A 429 that says for how long says nothing about the prompt, so it counts as no failed attempt, and
the generation waits as long as a prompt may wait for a worker. A 429 without a time is a failure
like others: the server may never take the request.
"""

from __future__ import annotations

import random

import msgspec

from shared.errors import BackendError
from shared.queue.lanes import LaneEntry
from workers.failures.outage import Postponed

SPREAD = 1.1  # the generations that wait for one reset do not come back at the same moment


def is_limited(error: BackendError) -> bool:
    """Whether a vendor has refused a request for now, and has said for how long."""
    return error.status == 429 and error.retryable and error.retry_after_s is not None


def limit_wait(
    ticket: LaneEntry, error: BackendError, *, now_ms: int, limit_s: float
) -> Postponed | None:
    """Return how a generation waits for the vendor; None: too long, so the failure counts.

    Args:
        ticket: the entry of this attempt.
        now_ms: Redis's clock.
        limit_s: the longest wait, with the earlier ones.
    """
    since_ms = ticket.away_since_ms or now_ms
    left_s = limit_s - (now_ms - since_ms) / 1000
    asked_s = error.retry_after_s or 0.0
    if asked_s >= left_s:
        return None
    pause_s = max(asked_s, 0.1) * random.uniform(1.0, SPREAD)
    return Postponed(msgspec.structs.replace(ticket, away_since_ms=since_ms), pause_s)
