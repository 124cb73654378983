"""Builds the result of a line for the output file or the error file. Pure.

    {"id":"batch_req_…","custom_id":"a","response":{"status_code":200,"request_id":"gen_…",
     "body":{…}},"error":null}

The body equals the response of the endpoint itself. Source: docs/batches.md, "The output".
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec

from api.dialects.chat.fold import completion_object
from api.dialects.openai_errors import GenerationFailed, failure_of, openai_shape
from api.dialects.responses.fold import ResponsesFold
from api.errors import ErrorBody, native_shape
from shared.errors import RequestError
from shared.log.event_bytes import escape_line_ends
from shared.log.events import End, Failure
from shared.log.ids import derived_id
from shared.log.records import Entry, Meta
from shared.log.snapshot import Snapshot

NATIVE = "/v1/generations"
TRIES_MAX = 3  # of a line that fails with a retryable error
GONE_MAX = 10  # of a line whose generation Redis loses
PAUSE_S, PAUSE_S_MAX = 0.5, 30.0  # before the second try, and before any try
# Not retried: a worker has made every attempt, or the batch has expired.
GIVEN_UP = ("attempts_exhausted", "queue_timeout")
EXPIRED = Failure("batch_expired", "the batch expired before this line was done", True)
LOST = Failure("lost", "the answer was lost again and again", True)


class Source(NamedTuple):
    """The line that a result belongs to."""

    batch_id: str
    endpoint: str
    line: int
    custom_id: str
    generation_id: str = ""


class Result(NamedTuple):
    """The result of a line.

    Attributes:
        raw: JSON and a line break.
        status: of the generation; `failed` if there is none.
        code: of the error, for the error file; empty: for the output file.
        usage: prompt, completion and total tokens.
    """

    raw: bytes
    status: str
    code: str = ""
    usage: tuple[int, int, int] = (0, 0, 0)
    model: str = ""

    @property
    def is_good(self) -> bool:
        return not self.code


def answered(source: Source, meta: Meta, log: Sequence[Entry]) -> tuple[Result, End]:
    """Return the result and the `end` of a line from the complete log of its generation."""
    snapshot = Snapshot(meta)
    for event_id, raw in log:
        snapshot.add(event_id, raw)
    end = snapshot.end
    assert end is not None
    # By name: usage may have further members, such as the details of the backend.
    counts = snapshot.usage or {}
    counted = [counts.get(f"{name}_tokens", 0) for name in ("prompt", "completion", "total")]
    prompt, output, total = counted
    failure = failure_of(end)
    if failure is not None and failure.code == "queue_timeout":
        result = never_done(source, EXPIRED)  # a line may wait until its batch expires
    elif failure is None:
        body = _body(source.endpoint, meta, snapshot, log)
        response = _response(200, source.generation_id, body)
        result = Result(_line(source, response, None), end.status)
    else:
        result = refused(source, GenerationFailed(failure))._replace(status=end.status)
    return result._replace(usage=(prompt, output, total), model=meta.model), end


def refused(source: Source, error: RequestError) -> Result:
    """Return the result of a line that the API would refuse: the error response."""
    shape = _native_shape if source.endpoint == NATIVE else openai_shape
    shaped = shape(error)
    status, body = shaped.status or error.status, msgspec.Raw(shaped.body)
    response = _response(status, source.generation_id, body)
    why = {"code": error.code, "message": error.message}
    return Result(_line(source, response, why), "failed", error.code)


def never_done(source: Source, failure: Failure) -> Result:
    """Return the result of a line without a response."""
    why = {"code": failure.code, "message": failure.message}
    return Result(_line(source, None, why), "failed", failure.code)


def pause_before_next_try(end: End, tries: int) -> float | None:
    """Return the pause before the next try of an ended line, s; None: no further try."""
    failure = end.error
    if end.status != "failed" or failure is None:
        return None
    if not failure.retryable or failure.code in GIVEN_UP or tries + 1 >= TRIES_MAX:
        return None
    return float(min(PAUSE_S * 2**tries, PAUSE_S_MAX))


def _native_shape(error: RequestError) -> ErrorBody:
    """Return the native body. That of a failed generation has the `error` of its `end`."""
    if isinstance(error, GenerationFailed):
        return ErrorBody(msgspec.json.encode({"error": error.failure}))
    return native_shape(error)


def _body(endpoint: str, meta: Meta, snapshot: Snapshot, log: Sequence[Entry]) -> dict[str, Any]:
    if endpoint == NATIVE:
        return snapshot.fields()
    if endpoint == "/v1/chat/completions":
        return completion_object(meta, snapshot)
    fold = ResponsesFold(meta)
    for event_id, raw in log:
        fold.add(event_id, raw)
    return fold.response()


def _response(status: int, generation_id: str, body: Any) -> dict[str, Any]:
    return {"status_code": status, "request_id": generation_id, "body": body}


def _line(source: Source, response: dict[str, Any] | None, error: dict[str, str] | None) -> bytes:
    line_id = derived_id("batch_req_", source.batch_id, source.line)
    line = {"id": line_id, "custom_id": source.custom_id, "response": response, "error": error}
    return escape_line_ends(msgspec.json.encode(line)) + b"\n"
