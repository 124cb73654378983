"""The rules of the wire: cursors, events, frames, headers, caching."""

from __future__ import annotations

import json

import pytest
from starlette.datastructures import Headers, QueryParams

from api.dialects.durable_streams.cursor import EPOCH_S, next_cursor
from api.dialects.durable_streams.event_stream import control_event, data_event
from api.dialects.durable_streams.replies import etag_of, matches, page_reply, stream_shape
from api.dialects.durable_streams.request import (
    ReadQuery,
    check_path,
    read_append,
    read_create,
    read_query,
    source_path,
)
from api.dialects.durable_streams.tail import KEPT_ENTRIES_MAX, Frame, Tail, parse_frame
from api.errors import request_error, unavailable
from shared.errors import RequestError
from shared.streams.place import ZERO, Place, after
from shared.streams.record import StreamInfo
from shared.streams.store import Producer, Reading

NOW = EPOCH_S + 20 * 1_000
A = after(ZERO, b"a")
B = after(A, b"b")


def test_a_cursor_is_the_interval_and_always_rises() -> None:
    assert (
        next_cursor("", NOW) == next_cursor("999", NOW) == next_cursor("no number", NOW) == "1000"
    )
    for sent in ("1000", "1001", "5000"):
        assert int(sent) < int(next_cursor(sent, NOW)) <= int(sent) + 180


@pytest.mark.parametrize(
    ("media", "data", "event"),
    [
        ("text/plain", b"a\nb\r\nc\rd", b"event: data\ndata:a\ndata:b\ndata:c\ndata:d\n\n"),
        ("text/plain", b" x", b"event: data\ndata:  x\n\n"),
        ("text/plain", b"  a\n b\nc", b"event: data\ndata:   a\ndata:  b\ndata:c\n\n"),
        ("text/plain", b" \r\n", b"event: data\ndata:  \ndata:\n\n"),
        ("application/json", b'1,{"a":2}', b'event: data\ndata:[1,{"a":2}]\n\n'),
        ("image/png", b"\xff\x00", b"event: data\ndata:/wA=\n\n"),
    ],
)
def test_data_events(media: str, data: bytes, event: bytes) -> None:
    assert data_event(media, data) == event


def test_control_events() -> None:
    def fields(**how: bool) -> dict[str, object]:
        event = control_event(A, "7", **{"is_up_to_date": False, "is_closed": False, **how})
        found: dict[str, object] = json.loads(event.removeprefix(b"event: control\ndata:"))
        return found

    assert fields() == {"streamNextOffset": str(A), "streamCursor": "7"}
    assert fields(is_up_to_date=True)["upToDate"] is True
    assert fields(is_closed=True) == {"streamNextOffset": str(A), "streamClosed": True}


def test_an_error_without_redis_names_the_headers_that_make_a_repeat_safe() -> None:
    body = json.loads(stream_shape(unavailable()).body)["error"]
    assert body["code"] == "unavailable" and body["retryable"]
    assert "Producer-Seq" in body["message"] and "Idempotency-Key" not in body["message"]
    other = request_error("unavailable", "too many answers are read at once")
    assert json.loads(stream_shape(other).body)["error"]["message"] == other.message


def info(tail: Place, *, is_closed: bool = False) -> StreamInfo:
    return StreamInfo("text/plain", "text/plain", tail, ZERO, is_closed, "", "", (), (), 0)


def frame(before: Place, tail: Place, data: bytes | None, flags: str = "") -> Frame:
    return Frame(before, tail, "c" in flags, "x" in flags, data)


def test_frames() -> None:
    head = f"{ZERO} {A} -d\n".encode()
    assert parse_frame(head + b"a\nb") == frame(ZERO, A, b"a\nb")
    assert parse_frame(f"{A} {A} c-\n".encode()) == frame(A, A, None, "c")
    assert parse_frame(f"{ZERO} {ZERO} x-\n".encode()) == frame(ZERO, ZERO, None, "x")
    assert parse_frame(b"rubbish") is None and parse_frame(b"\xff a b\n") is None


async def test_a_tail_joins_frames_and_notices_a_gap() -> None:
    tail = Tail()
    tail.take(Reading("live", info(ZERO)))
    tail.offer(frame(ZERO, A, b"a"))
    tail.offer(frame(A, B, b"b"))
    found = tail.entries_after(A)
    assert found is not None and [entry.data for entry in found] == [b"b"]
    assert tail.entries_after(B) == () and not tail.is_behind

    tail.offer(frame(after(B, b"lost"), after(after(B, b"lost"), b"c"), b"c"))
    assert tail.is_behind and tail.top == B
    tail.take(Reading("live", info(after(after(B, b"lost"), b"c"))))
    assert tail.entries_after(B) is None, "it must be read from Redis"


async def test_a_tail_takes_frames_that_come_while_it_is_read() -> None:
    tail = Tail()
    tail.offer(frame(ZERO, A, b"a"))
    tail.offer(frame(A, B, b"b"))
    tail.take(Reading("live", info(A)))

    found = tail.entries_after(A)
    assert tail.top == B and found is not None and [entry.data for entry in found] == [b"b"]


async def test_a_tail_whose_history_changed_keeps_no_entry() -> None:
    tail = Tail()
    tail.take(Reading("live", info(ZERO)))
    tail.offer(frame(ZERO, A, b"a"))
    other = after(ZERO, b"x")
    tail.take(Reading("live", info(other)))

    assert tail.entries_after(ZERO) is None and tail.entries_after(A) is None


async def test_a_tail_is_bounded_and_knows_its_end() -> None:
    tail = Tail()
    tail.take(Reading("live", info(ZERO)))
    place = ZERO
    for _ in range(KEPT_ENTRIES_MAX + 5):
        place = after(place, b"x")
        tail.offer(frame(tail.top or ZERO, place, b"x"))
    assert tail.entries_after(ZERO) is None
    tail.offer(frame(place, place, None, "c"))
    assert tail.is_closed and tail.top == place
    tail.take(Reading("absent"))
    assert tail.is_gone


@pytest.mark.parametrize("path", ["", "__ds", "__ds/x", "generations/x", "x" * 1_025])
def test_paths_that_nobody_may_use(path: str) -> None:
    with pytest.raises(RequestError, match="path"):
        check_path(path)


@pytest.mark.parametrize(
    ("header", "path"),
    [
        ("/v1/stream/a/b", "a/b"),
        ("/ds/v1/stream/a", "a"),
        ("http://node:1/ds/v1/stream/a%20b?x", "a b"),
    ],
)
def test_the_source_of_a_fork(header: str, path: str) -> None:
    assert source_path(header) == path


@pytest.mark.parametrize(
    "headers",
    [
        {"stream-ttl": "+1"}, {"stream-ttl": "01"}, {"stream-ttl": "1.0"}, {"stream-ttl": "1e3"},
        {"stream-ttl": "-1"}, {"stream-ttl": ""}, {"stream-ttl": "9" * 20}, {"stream-ttl": "61"},
        {"stream-ttl": "1", "stream-expires-at": "2027-01-01T00:00:00Z"},
        {"stream-expires-at": "tomorrow"}, {"stream-expires-at": "2027-02-31T00:00:00Z"},
        {"stream-expires-at": "9999-01-01T00:00:00Z"},
        {"stream-fork-sub-offset": "1"}, {"stream-forked-from": "/elsewhere"},
        {"stream-forked-from": "/v1/stream/a", "stream-fork-offset": "1-1"},
        {"stream-forked-from": "/v1/stream/a", "stream-fork-sub-offset": ""},
    ],
)  # fmt: skip
def test_headers_that_create_nothing(headers: dict[str, str]) -> None:
    with pytest.raises(RequestError):
        read_create(Headers(headers), life_s_max=60)


def test_headers_of_a_creation() -> None:
    plain = read_create(Headers({}), life_s_max=60)
    assert (plain.content_type, plain.ttl_s, plain.fork) == ("application/octet-stream", "", None)
    fork = read_create(
        Headers(
            {
                "stream-forked-from": "/v1/stream/a", "stream-fork-offset": str(A),
                "stream-closed": "true", "stream-ttl": "60",
            }
        ),
        life_s_max=60,
    )  # fmt: skip
    assert (fork.content_type, fork.source, fork.fork, fork.is_closed) == ("", "a", A, True)


@pytest.mark.parametrize(
    "headers",
    [
        {"producer-id": "p"}, {"producer-id": "p", "producer-epoch": "0"},
        {"producer-id": "", "producer-epoch": "0", "producer-seq": "0"},
        {"producer-id": "p", "producer-epoch": "-1", "producer-seq": "0"},
        {"producer-id": "p", "producer-epoch": "0", "producer-seq": "1e3"},
        {"producer-id": "p", "producer-epoch": "0", "producer-seq": str(2**53)},
        {"stream-seq": "x" * 1_025},
    ],
)  # fmt: skip
def test_headers_that_append_nothing(headers: dict[str, str]) -> None:
    with pytest.raises(RequestError):
        read_append(Headers(headers))


def test_headers_of_an_append() -> None:
    names = {"producer-id": "p", "producer-epoch": "2", "producer-seq": "9007199254740991"}
    found = read_append(Headers({**names, "stream-seq": "", "stream-closed": "TRUE"}))

    assert found.producer == Producer("p", 2, 2**53 - 1)
    assert found.stream_seq == "" and found.closes


def test_queries() -> None:
    assert read_query(QueryParams("")) == ReadQuery("-1", ZERO, "", "")
    assert read_query(QueryParams(f"offset={A}&live=sse&cursor=7")) == ReadQuery(
        str(A), A, "sse", "7"
    )
    assert read_query(QueryParams("offset=now")).place is None
    for bad in ("offset=", "offset=1", "offset=-1&offset=now", "live=sse", "offset=-1&live=x"):
        with pytest.raises(RequestError):
            read_query(QueryParams(bad))


def test_etags_and_caching() -> None:
    query = ReadQuery("-1", ZERO, "", "")
    how = {"has_entries": True, "content_type": "text/plain"}
    full = page_reply("", query, A, b"a", is_at_tail=False, is_closed=False, **how)
    tail = page_reply("", query, A, b"a", is_at_tail=True, is_closed=False, **how)
    closed = page_reply("", query, A, b"a", is_at_tail=True, is_closed=True, **how)

    assert "max-age=60" in full.headers["cache-control"]
    assert tail.headers["cache-control"] == "private, no-cache"
    assert tail.headers["etag"] != closed.headers["etag"]
    assert "stream-up-to-date" not in full.headers and "stream-closed" in closed.headers
    again = page_reply(
        tail.headers["etag"], query, A, b"a", is_at_tail=True, is_closed=False, **how
    )
    assert (again.status_code, again.body) == (304, b"")
    tag = etag_of("-1", A, is_closed=False)
    assert matches(f'"x", W/{tag}', tag) and matches("*", tag) and not matches("", tag)


def test_a_long_poll_that_is_over_has_a_cursor_unless_the_stream_is_closed() -> None:
    query = ReadQuery(str(A), A, "long-poll", "")
    how = {"has_entries": False, "content_type": "text/plain", "is_at_tail": True}
    timed_out = page_reply("", query, A, b"", is_closed=False, **how)
    closed = page_reply("", query, A, b"", is_closed=True, **how)

    assert timed_out.status_code == closed.status_code == 204
    assert "stream-cursor" in timed_out.headers and "stream-cursor" not in closed.headers
    assert closed.headers["stream-closed"] == "true"
