"""Decides what the end of a call says about its backend. Pure."""

from __future__ import annotations

from enum import Enum

from shared.errors import BackendError
from workers.backends.contract import SetUpFault


class Outcome(Enum):
    """What a call says about its backend."""

    OK = "ok"  # the answer is complete
    ABANDONED = "abandoned"  # cancelled, drained or fenced before an end: says nothing
    REFUSED = "refused"  # the server refused this request, and would take another one
    LIMITED = "limited"  # the vendor's rate limit has nothing left
    AWAY = "away"  # no connection, no answer, or a server that starts
    FAILED = "failed"  # an error of the server, or an answer that broke off
    UNUSABLE = "unusable"  # a wrong key or address: every request fails


FAILURES = frozenset({Outcome.AWAY, Outcome.FAILED, Outcome.UNUSABLE})


def outcome_of(error: BackendError | None) -> Outcome:
    """Return what an error of a backend says; None: the answer is complete."""
    if error is None:
        return Outcome.OK
    if error.status == 429 and error.retryable:
        return Outcome.LIMITED
    if error.is_outage:
        return Outcome.AWAY
    if isinstance(error, SetUpFault):
        return Outcome.AWAY if error.retryable else Outcome.UNUSABLE
    if not error.retryable or error.code == "answer_too_large":
        return Outcome.REFUSED
    return Outcome.FAILED
