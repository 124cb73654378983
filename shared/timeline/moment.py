"""The moments in the life of a generation: which there are, and which members each has.

A moment holds names, numbers and codes. It never holds a piece of a prompt or of an answer, and no
message of an error, because a model server may quote the prompt there. Pure.
Source: docs/timeline.md.
"""

from __future__ import annotations

from typing import Literal, get_args

import msgspec

# In the order in which moments of the same millisecond happened.
What = Literal[
    "accepted",  # node, request_id
    "queued",  # lane, partition; again_s: the pause before it
    "begun",  # worker, attempt, waited_s
    "takeover",  # worker, attempt, taken_from: the worker of the attempt before
    "connected",  # worker, attempt, backend
    "first_reasoning",  # worker, attempt
    "first_token",  # worker, attempt
    "gap",  # worker, attempt, seconds: the silence before this moment
    "reset",  # worker, attempt
    "readers",  # node, joined, left, readers: how many remain on the node
    "cancel_requested",  # by: `owner`, `operator`, `batch`, `no_readers`; node
    "attempt_ended",  # worker, attempt, ending, code, seconds, pieces
    "released",  # worker, attempt, lane, again_s
    "end",  # status, code
]
RANK = {name: rank for rank, name in enumerate(get_args(What))}


class Moment(msgspec.Struct, frozen=True, omit_defaults=True):
    """One moment. Members with their default are left out of the JSON.

    Attributes:
        worker, node: the process where it happened; each start of a process has another name.
        request_id: the `X-Request-Id` of the request.
        waited_s: how long the prompt waited for this attempt.
        again_s: the pause before the next attempt.
        taken_from: the worker whose lease has run out.
        backend: the name of the model's kind or of the backend that was chosen.
        ending: as in the log message `generation left`.
        code: of the error.
        by: who asked.
        seconds: how long it took, or the length of the silence.
    """

    what: What
    worker: str = ""
    node: str = ""
    request_id: str = ""
    attempt: int = 0
    lane: str = ""
    partition: str = ""
    waited_s: float | None = None
    again_s: float | None = None
    taken_from: str = ""
    backend: str = ""
    ending: str = ""
    status: str = ""
    code: str = ""
    by: str = ""
    seconds: float | None = None
    pieces: int = 0
    joined: int = 0
    left: int = 0
    readers: int | None = None


class Timed(msgspec.Struct, frozen=True):
    """A moment and when it was, ms since 1970, Redis's clock."""

    at_ms: int
    moment: Moment


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Moment)


def encode_moment(moment: Moment) -> bytes:
    """Return the JSON of a moment."""
    return _encoder.encode(moment)


def decode_moment(raw: bytes) -> Moment | None:
    """Decode a moment; None: a newer version wrote it, ignore it."""
    try:
        return _decoder.decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None
