"""What a worker notes about a backend, and how notes change its breaker. Pure.

A worker collects notes and writes them in the background: the notes of one call must not wait for
Redis. If another worker has changed the record meanwhile, the notes are applied to the new record.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from shared.backends.breaker import Breaker, Times

Kind = Literal["answered", "struck", "opened", "returned", "probe_up", "probe_down", "limited"]


@dataclass(frozen=True, slots=True)
class Note:
    """One thing that happened at a backend.

    Attributes:
        kind: `answered`: a first token came. `struck`: a call failed. `opened`: a trial failed, or
            every request would fail. `returned`: a trial was not used. `limited`: the vendor gives
            nothing before `until_ms`.
        reason: one sentence without addresses.
        is_away: the failure says that the server is away.
        until_ms: of `limited`, Redis's clock.
    """

    kind: Kind
    reason: str = ""
    is_away: bool = False
    until_ms: int = 0


def apply(
    breaker: Breaker, notes: Sequence[Note], now_ms: int, times: Times, *, jitter: float
) -> Breaker:
    """Return the breaker after `notes`, in their order.

    Args:
        jitter: from 0 to 1, random.
    """
    breaker = breaker.expired(now_ms, times, jitter=jitter)
    for note in notes:
        breaker = _apply_one(breaker, note, now_ms, times, jitter)
    return breaker


def _apply_one(breaker: Breaker, note: Note, now_ms: int, times: Times, jitter: float) -> Breaker:
    match note.kind:
        case "answered":
            return breaker.answered(now_ms)
        case "returned":
            return breaker.returned(now_ms)
        case "limited":
            return breaker.limited(note.until_ms)
        case "probe_up" | "probe_down":
            is_up = note.kind == "probe_up"
            return breaker.probed(now_ms, times, is_up=is_up, reason=note.reason, jitter=jitter)
        case "opened":
            if breaker.state == "open":
                return breaker  # a late failure of a trial that counts as failed already
            change = breaker.opened
        case "struck":
            change = breaker.struck
    return change(now_ms, times, reason=note.reason, is_away=note.is_away, jitter=jitter)
