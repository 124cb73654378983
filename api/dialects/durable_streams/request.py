"""Reads the headers and the query of a request to a stream. Pure.

Raises `RequestError` with 400 for what the protocol does not allow.
Source: the Durable Streams protocol, "HTTP Operations".
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

from starlette.datastructures import Headers, QueryParams

from api.errors import request_error
from shared.errors import RequestError
from shared.streams.content import DEFAULT_TYPE, is_media_type, media_of
from shared.streams.place import ZERO, Place, parse_place
from shared.streams.store import Producer

PATH_BYTES_MAX = 1_024
HEADER_CHARACTERS_MAX = 1_024  # of Producer-Id, Stream-Seq, Content-Type
NUMBER_MAX = 2**53 - 1
ROOT = "/v1/stream/"
RESERVED = ("__ds", "generations")
START, NOW = "-1", "now"
LIVE_MODES = ("long-poll", "sse")
_NUMBER = re.compile(r"0|[1-9][0-9]*", re.ASCII)
_DIGITS = re.compile(r"[0-9]{1,16}", re.ASCII)
_TIME = re.compile(
    r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?(Z|[+-]\d\d:\d\d)", re.ASCII | re.IGNORECASE
)


class CreateHeaders(NamedTuple):
    """The headers of a PUT; as `NewStream` has them."""

    content_type: str
    media: str
    ttl_s: str
    expires_at: str
    expires_ms: int
    is_closed: bool
    source: str
    fork: Place | None
    sub_offset: int


class AppendHeaders(NamedTuple):
    """The headers of a POST."""

    content_type: str
    closes: bool
    stream_seq: str | None
    producer: Producer | None


class ReadQuery(NamedTuple):
    """The query of a GET.

    Attributes:
        offset: as it was sent; `-1` without one.
        place: None: `now`.
        live: empty, `long-poll` or `sse`.
    """

    offset: str
    place: Place | None
    live: str
    cursor: str


def invalid(message: str) -> RequestError:
    """Return the 400 of a header or a query that the protocol does not allow."""
    return request_error("stream_request_invalid", message)


def check_path(path: str) -> str:
    """Return the path of a stream below /v1/stream/.

    Raises:
        RequestError: 400, it is empty, too long or reserved.
    """
    if not path or len(path.encode("utf-8", "replace")) > PATH_BYTES_MAX:
        raise invalid(f"the path of a stream has 1 to {PATH_BYTES_MAX} bytes")
    if path.partition("/")[0] in RESERVED:
        raise invalid(f"the paths below {' and '.join(RESERVED)} are reserved")
    return path


def source_path(header: str) -> str:
    """Return the path of a stream that `Stream-Forked-From` names, as a path or as a URL."""
    path = urlsplit(header).path if "://" in header[:10] else header
    _, found, rest = path.partition(ROOT)
    if not found:
        raise invalid(f"Stream-Forked-From: the path of a stream, {ROOT}…")
    return check_path(unquote(rest))


def read_create(headers: Headers, *, life_s_max: float) -> CreateHeaders:
    """Return the headers of a PUT. Args: life_s_max: the longest time to live, s."""
    source = headers.get("stream-forked-from", "")
    content_type = headers.get("content-type", "").strip()
    if not is_media_type(content_type):
        content_type = "" if source else DEFAULT_TYPE
    _check_length("Content-Type", content_type)
    ttl_s, expires_at = headers.get("stream-ttl", ""), headers.get("stream-expires-at", "")
    if "stream-ttl" in headers and "stream-expires-at" in headers:
        raise invalid("send Stream-TTL or Stream-Expires-At, not both")
    if "stream-ttl" in headers and _NUMBER.fullmatch(ttl_s) is None:
        raise invalid("Stream-TTL: seconds, a whole number without sign or leading zeros")
    if len(ttl_s) > 15 or int(ttl_s or 0) > life_s_max:
        raise invalid(f"Stream-TTL: at most {life_s_max:.0f} seconds on this server")
    return CreateHeaders(
        content_type,
        media_of(content_type),
        ttl_s,
        expires_at,
        _time_ms(expires_at, life_s_max) if "stream-expires-at" in headers else 0,
        headers.get("stream-closed", "").lower() == "true",
        source_path(source) if source else "",
        *_read_fork(headers, has_source=bool(source)),
    )


def _read_fork(headers: Headers, *, has_source: bool) -> tuple[Place | None, int]:
    """Return the place of a fork and its sub-offset."""
    offset = headers.get("stream-fork-offset", "")
    fork = parse_place(offset)
    if offset and fork is None:
        raise invalid("Stream-Fork-Offset: an offset of the source, as a response has named it")
    sub = headers.get("stream-fork-sub-offset")
    if sub is None:
        return fork, 0
    if not has_source:
        raise invalid("Stream-Fork-Sub-Offset needs Stream-Forked-From")
    if _NUMBER.fullmatch(sub) is None or len(sub) > 15:
        raise invalid("Stream-Fork-Sub-Offset: a whole number without sign or leading zeros")
    return fork, int(sub)


def _time_ms(text: str, life_s_max: float) -> int:
    if _TIME.fullmatch(text) is None:
        raise invalid("Stream-Expires-At: a time of RFC 3339, as 2027-01-31T12:00:00Z")
    try:
        at_s = datetime.fromisoformat(text.upper()).timestamp()
    except ValueError:
        raise invalid("Stream-Expires-At: there is no such time") from None
    if at_s > datetime.now(UTC).timestamp() + life_s_max:
        raise invalid(f"Stream-Expires-At: at most {life_s_max:.0f} seconds ahead on this server")
    return max(0, math.floor(at_s * 1000))


def read_append(headers: Headers) -> AppendHeaders:
    """Return the headers of a POST."""
    content_type = headers.get("content-type", "").strip()
    stream_seq = headers.get("stream-seq")
    _check_length("Stream-Seq", stream_seq or "")
    _check_length("Content-Type", content_type)
    closes = headers.get("stream-closed", "").lower() == "true"
    return AppendHeaders(content_type, closes, stream_seq, _read_producer(headers))


def _read_producer(headers: Headers) -> Producer | None:
    names = ("producer-id", "producer-epoch", "producer-seq")
    found = [headers.get(name) for name in names]
    if found == [None, None, None]:
        return None
    id_, epoch, seq = found
    if id_ is None or epoch is None or seq is None:
        raise invalid("send Producer-Id, Producer-Epoch and Producer-Seq together")
    if not id_:
        raise invalid("Producer-Id must not be empty")
    _check_length("Producer-Id", id_)
    return Producer(id_, _count("Producer-Epoch", epoch), _count("Producer-Seq", seq))


def _count(name: str, text: str) -> int:
    if _DIGITS.fullmatch(text) is None or int(text) > NUMBER_MAX:
        raise invalid(f"{name}: a whole number from 0 to {NUMBER_MAX}")
    return int(text)


def _check_length(name: str, text: str) -> None:
    if len(text) > HEADER_CHARACTERS_MAX:
        raise invalid(f"{name}: at most {HEADER_CHARACTERS_MAX} characters")


def read_query(query: QueryParams, parse: Callable[[str], Place | None] = parse_place) -> ReadQuery:
    """Return the query of a GET.

    Args:
        parse: returns the place of an offset; None: it is none.
    """
    offsets: Sequence[str] = query.getlist("offset")
    if len(offsets) > 1:
        raise invalid("send one offset")
    live = query.get("live", "")
    if live and live not in LIVE_MODES:
        raise invalid(f"live: one of {', '.join(LIVE_MODES)}")
    if live and not offsets:
        raise invalid(f"live={live} needs an offset")
    offset = offsets[0] if offsets else START
    place = None if offset == NOW else ZERO if offset == START else parse(offset)
    if place is None and offset != NOW:
        raise request_error(
            "offset_invalid", "offset: -1, now, or an offset that a response has named"
        )
    return ReadQuery(offset, place, live, query.get("cursor", ""))
