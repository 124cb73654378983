"""The encoded log: slices have whole events, are shared, and are equal to the fold."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.dialects.ai_sdk.fold import AI_SDK
from api.dialects.chat.fold import CHAT
from api.dialects.deep_chat.fold import DEEP_CHAT
from api.dialects.native.fold import NDJSON, SSE, WIRE, NdjsonFold
from api.dialects.responses.fold import RESPONSES
from api.hub.encoded import EncodedLog
from api.hub.feed import Feed
from api.hub.frame import LiveFrame
from shared.log.event_bytes import escape_line_ends
from shared.log.events import Token, encode
from shared.log.fold import FOLD_ENTRIES_MAX, Dialect
from shared.log.ids import EventId
from shared.text.large import FOLD_BYTES_MAX
from tests.support.hub_harness import make_meta


def feed_of(*texts: str) -> Feed:
    feed = Feed()
    add(feed, *texts)
    return feed


def add(feed: Feed, *texts: str) -> None:
    entries = [
        (EventId(1, feed.count + n + 1), encode(Token(text))) for n, text in enumerate(texts)
    ]
    feed.offer_frame(LiveFrame(feed.top, tuple(entries), 0))


@given(
    st.lists(st.text(max_size=20), max_size=30),
    st.integers(0, 30),
    st.integers(1, 300),
)
def test_slices_from_any_place_concatenate_to_the_fold(
    texts: list[str], place: int, size: int
) -> None:
    feed = feed_of(*texts)
    log, fold = EncodedLog(feed, NDJSON, make_meta()), NdjsonFold(make_meta())
    seq = start = min(place, len(texts))
    body = b""
    while True:
        chunk, last = log.slice(seq, size)
        if last == seq:
            break
        assert chunk.endswith(b"\n")
        assert len(chunk) <= size or last == seq + 1
        body, seq = body + chunk, last
    assert body == b"".join(
        escape_line_ends(fold.add(feed.ids.at(n + 1), feed.raws[n]))
        for n in range(start, feed.count)
    )


def test_readers_with_the_same_seq_get_the_same_object() -> None:
    log = EncodedLog(feed_of("a", "b", "c"), SSE, make_meta())
    assert log.slice(1)[0] is log.slice(1)[0]


def test_a_long_log_is_encoded_in_bounded_steps() -> None:
    feed = feed_of(*("x" for _ in range(2 * FOLD_ENTRIES_MAX)))
    log = EncodedLog(feed, SSE, make_meta())
    assert log.slice(feed.count - 1) == (b"", feed.count - 1)
    assert not log.is_complete
    chunk, last = log.slice(feed.count - 1)
    assert last == feed.count
    assert chunk.startswith(b"id: 1-2000\n")


def test_the_backlog_counts_entries_that_are_not_encoded_yet() -> None:
    feed = feed_of("a", "b")
    log = EncodedLog(feed, NDJSON, make_meta())
    assert log.backlog_bytes(0) == sum(map(len, feed.raws))
    log.slice(0)
    size = log.backlog_bytes(0)
    add(feed, "c")
    assert log.backlog_bytes(0) == size + len(feed.raws[-1])
    assert log.backlog_bytes(3) == 0


def test_a_rewrite_of_the_log_starts_a_new_fold() -> None:
    feed = feed_of("a", "b")
    log = EncodedLog(feed, NDJSON, make_meta())
    log.slice(0)
    feed.mark_stale()
    feed.offer_page(feed.request_page(9), [(EventId(2, 1), encode(Token("B")))])
    feed.offer_page(feed.request_page(9), [(EventId(2, 1), encode(Token("B")))])
    assert log.slice(0) == (b'{"id":"2-1","type":"token","text":"B"}\n', 1)


@given(st.integers(1, 12), st.integers(0, 12), st.integers(0, 12), st.booleans())
def test_trimmed_bytes_are_encoded_again_with_the_same_result(
    count: int, trimmed: int, place: int, is_refilled: bool
) -> None:
    feed = feed_of(*map(str, range(count)))
    entries = [(feed.ids.at(n + 1), raw) for n, raw in enumerate(feed.raws)]
    log = EncodedLog(feed, NDJSON, make_meta())
    body = log.slice(0)[0]
    ends = [0]
    for line in body.splitlines(keepends=True):
        ends.append(ends[-1] + len(line))
    trimmed, place = min(trimmed, count), min(place, count)
    log.trim(trimmed)
    feed.trim(trimmed)
    if is_refilled:
        assert feed.refill(feed.epoch, entries)
    assert log.is_refill_needed(place) == (feed.base > 0 and place < trimmed)
    if not log.is_refill_needed(place):
        assert log.slice(place)[0] == body[ends[place] :]


def test_a_refill_with_entries_of_another_log_is_refused() -> None:
    feed = feed_of("a", "b", "c")
    feed.trim(2)
    other = [(EventId(2, n), b"{}") for n in (1, 2)]
    assert not feed.refill(feed.epoch, other)
    assert not feed.refill(feed.epoch - 1, [(EventId(1, n), b"{}") for n in (1, 2)])
    assert feed.base == 2


def test_one_step_of_encoding_is_bounded_by_bytes() -> None:
    """An entry may have a megabyte; a thousand of them in one step would take seconds."""
    feed = feed_of(*("x" * (FOLD_BYTES_MAX // 2) for _ in range(5)))
    log = EncodedLog(feed, SSE, make_meta())

    log.encode()
    assert log.count == 2
    log.encode()
    log.encode()
    assert log.is_complete


@pytest.mark.parametrize("dialect", [SSE, NDJSON, CHAT, RESPONSES, AI_SDK, DEEP_CHAT])
def test_line_ends_of_unicode_are_escaped_in_every_dialect_of_lines(dialect: Dialect) -> None:
    text = "a\u2028b\u2029c\u0085d\u2019\u00c5"
    meta = make_meta(request=b'{"messages":[]}')
    body = EncodedLog(feed_of(text), dialect, meta).slice(0)[0].decode()

    assert body.splitlines() == body.replace("\r", "").split("\n")[: len(body.splitlines())]
    assert r"a\u2028b\u2029c\u0085d\u2019".replace(r"\u2019", "\u2019") in body


def test_frames_with_a_length_keep_their_bytes() -> None:
    text = "a\u2028b"
    frame = EncodedLog(feed_of(text), WIRE, make_meta()).slice(0)[0]

    assert frame[1] == len(frame) - 2
    assert text.encode() in frame
