"""The responses of streams: their headers, ETags and errors. Pure.

Every response forbids browsers to guess its type and lets pages of other origins embed it; whether
they may read it is the matter of CORS (api/edge/cors.py).
"""

from __future__ import annotations

import time
from collections.abc import Mapping

from starlette.responses import Response

from api.dialects.durable_streams.cursor import next_cursor
from api.dialects.durable_streams.request import ReadQuery
from api.errors import LOG_AWAY, ErrorBody, native_shape, request_error
from api.response import error_response
from shared.errors import RequestError
from shared.streams.place import Place
from shared.streams.record import Outcome

SECURITY = {"x-content-type-options": "nosniff", "cross-origin-resource-policy": "cross-origin"}
# A page that ends before the tail never changes; one that ends at the tail grows.
PAGE_CACHED = "private, max-age=60, stale-while-revalidate=300"
TAIL_CACHED = "private, no-cache"
NOT_CACHED = "no-store"
STREAM_AWAY = (
    "the streams cannot be reached right now; an append may have happened: repeating it with the "
    "same Producer-Id, Producer-Epoch and Producer-Seq is safe"
)


def stream_shape(error: RequestError) -> ErrorBody:
    """Return the native shape of an error, with the headers of every response of a stream."""
    if error.message == LOG_AWAY:
        error.message = STREAM_AWAY
    body = native_shape(error)
    return body._replace(headers=[(k.encode(), v.encode()) for k, v in SECURITY.items()])


def reply(
    status: int, headers: Mapping[str, str] | None = None, body: bytes = b"", *, media: str = ""
) -> Response:
    """Return a response; a 204 and a 304 have no body and no type."""
    all_headers = {**SECURITY, **(headers or {})}
    if media:
        all_headers["content-type"] = media
    return Response(body, status, all_headers)


def refusal(code: str, message: str, headers: Mapping[str, str] | None = None) -> Response:
    """Return an error response with headers of its own."""
    return error_response(request_error(code, message), stream_shape, headers or {})


def place_headers(
    place: Place, *, is_closed: bool = False, is_up_to_date: bool = False
) -> dict[str, str]:
    """Return `Stream-Next-Offset`, and where they apply `Stream-Up-To-Date` and `Stream-Closed`."""
    headers = {"stream-next-offset": str(place)}
    if is_up_to_date:
        headers["stream-up-to-date"] = "true"
    if is_closed:
        headers["stream-closed"] = "true"
    return headers


def etag_of(offset: str, place: Place, *, is_closed: bool) -> str:
    """Return the ETag of the entries from an offset to a place; a closure changes it."""
    return f'"{offset}:{place}{":c" if is_closed else ""}"'


def matches(if_none_match: str, etag: str) -> bool:
    """Whether the header `If-None-Match` names the ETag. Source: RFC 9110, 13.1.2."""
    named = [tag.strip().removeprefix("W/") for tag in if_none_match.split(",")]
    return etag in named or named == ["*"]


def page_reply(
    if_none_match: str,
    query: ReadQuery,
    place: Place,
    body: bytes,
    *,
    has_entries: bool,
    is_at_tail: bool,
    is_closed: bool,
    content_type: str,
) -> Response:
    """Return the response of a catch-up read, or of a long poll that is over.

    Args:
        place: behind the entries of the body.
        is_closed: the stream is closed, and `place` is its end.
    """
    headers = place_headers(place, is_closed=is_closed, is_up_to_date=is_at_tail)
    if query.live:
        headers["cache-control"] = NOT_CACHED
        if not is_closed or has_entries:
            headers["stream-cursor"] = next_cursor(query.cursor, time.time())
        if not has_entries:
            return reply(204, headers)
    elif query.place is None:
        headers["cache-control"] = NOT_CACHED
    else:
        is_final = is_closed or not is_at_tail
        headers["cache-control"] = PAGE_CACHED if is_final else TAIL_CACHED
    if query.place is not None:
        etag = headers["etag"] = etag_of(query.offset, place, is_closed=is_closed)
        if matches(if_none_match, etag):
            return reply(304, headers)
    return reply(200, headers, body, media=content_type)


_REFUSALS = {
    "absent": ("not_found", "no such stream"),
    "gone": ("stream_gone", "this stream was deleted; only its forks still read it"),
    "lost": (
        "offset_lost",
        "this stream does not have the bytes at this offset: they were trimmed or lost, or the "
        "stream is another one; read from -1, or create the stream anew",
    ),
    "differs": ("stream_exists", "this stream exists with another configuration"),
    "blocked": ("stream_exists", "this stream was deleted, but forks still read it"),
    "no source": ("not_found", "no such stream to fork"),
    "source gone": ("stream_exists", "the stream to fork was deleted"),
    "source type": ("content_type_mismatch", "a fork has the content type of its source"),
    "source deep": ("stream_request_invalid", "forks of forks go no deeper"),
    "changed": ("stream_exists", "the stream to fork has changed meanwhile: try again"),
    "closed": ("stream_closed", "this stream is closed"),
    "type": ("content_type_mismatch", "the content type is not that of the stream"),
    "seq": ("stream_seq_conflict", "Stream-Seq must be greater than that of the last append"),
    "stale": ("producer_stale", "a producer with this id and a later epoch has written"),
    "epoch": ("stream_request_invalid", "the first append of an epoch has Producer-Seq 0"),
    "gap": ("sequence_gap", "appends of this producer are missing before this one"),
}
_LIMITS = {
    "streams": "TAILRACE_STREAMS_MAX streams of this owner exist: delete some",
    "owner": "the streams of this owner reach TAILRACE_STREAMS_BYTES_MAX: delete some",
    "producers": "too many producers have written to this stream",
}


def refusal_of(kind: str, headers: Mapping[str, str] | None = None, detail: str = "") -> Response:
    """Return the response to what a script has refused."""
    if kind == "full":
        return refusal("streams_full", _LIMITS[detail], headers)
    return refusal(*_REFUSALS[kind], headers)


def append_refusal(outcome: Outcome, received_seq: int) -> Response:
    """Return the response to an append that was refused."""
    headers: dict[str, str] = {}
    if outcome.kind == "closed" and outcome.tail is not None:
        headers = place_headers(outcome.tail, is_closed=True)
    elif outcome.kind == "stale":
        headers = {"producer-epoch": outcome.detail}
    elif outcome.kind == "gap":
        headers = {
            "producer-expected-seq": outcome.detail,
            "producer-received-seq": str(received_seq),
        }
    return refusal_of(outcome.kind, headers, outcome.detail)
