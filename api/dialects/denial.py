"""The errors of an append or a begin that was not written, for every dialect with producers.

Source: docs/producers.md.
"""

from __future__ import annotations

from typing import NoReturn

from api.errors import request_error
from shared.errors import NotFound
from shared.log.producing import Denied

_DENIALS = {
    "ended": ("generation_ended", "this generation has ended with the status {}: stop producing"),
    "fenced": (
        "producer_fenced",
        "another producer has taken over, or the takeover was lost: stop, or take over again",
    ),
    "worker": ("not_produced", "a worker writes this generation: create one with producer"),
    "gap": ("sequence_gap", "send the events from seq {} on: the log ends before it"),
    "conflict": (
        "sequence_conflict",
        "the log has another event with the seq {}: only a repeat may use a number again",
    ),
    "full": (
        "answer_full",
        "this append would exceed TAILRACE_ANSWER_BYTES_MAX: send the event end",
    ),
}


def deny(denied: Denied) -> NoReturn:
    """Raise the error of an append or a begin that was not written.

    Raises:
        RequestError: always.
    """
    if denied.reason == "absent" or denied.detail == "sealed":
        raise NotFound
    code, message = _DENIALS[denied.reason]
    error = request_error(code, message.format(denied.detail))
    if denied.reason == "ended":
        error.members = {"status": denied.detail}
    elif denied.reason == "gap":
        error.members = {"next_seq": int(denied.detail)}
    elif denied.reason == "conflict":
        error.members = {"seq": int(denied.detail)}
    raise error
