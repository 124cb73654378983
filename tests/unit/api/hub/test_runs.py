"""Runs and joined logs: from wherever one reads, each entry comes once, and in few frames."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.dialects.native import NDJSON, SSE
from api.hub import runs as module
from api.hub.feed import Feed
from api.hub.frame import Frame
from api.hub.joined import JOIN_FROM, JoinedLog
from api.hub.runs import Runs
from shared.events import Reset, Token, ToolCall, encode
from shared.ids import EventId
from tests.support.bench import make_meta

FOREIGN = (
    b'{"type":"token","text":"b","logprob":"-1"}',
    b'{"text":"b","type":"token"}',
    b'{"type":"token","text":"a\\"}',  # no JSON: the quote is escaped
)
TOKEN = st.text(max_size=8).map(lambda text: encode(Token(text)))
ENTRY = st.one_of(
    TOKEN,
    TOKEN,
    TOKEN,
    st.sampled_from([*FOREIGN[:2], encode(ToolCall(index=0)), encode(Reset("restarted"))]),
)
LOGS = st.lists(ENTRY, max_size=80)


def feed_of(*raws: bytes) -> Feed:
    feed = Feed()
    add(feed, *raws)
    return feed


def add(feed: Feed, *raws: bytes) -> None:
    entries = [(EventId(1, feed.count + n), raw) for n, raw in enumerate(raws, 1)]
    feed.offer_live(Frame(feed.top, tuple(entries), 0))


def joined_log(feed: Feed) -> JoinedLog:
    return JoinedLog(feed, Runs(feed), NDJSON, make_meta())


def said(raws: list[Any]) -> list[Any]:
    """What a log says, wherever pieces end: texts in a row are one."""
    whole: list[Any] = []
    for fields in (json.loads(raw) for raw in raws):
        fields.pop("id", None)
        is_text = set(fields) == {"type", "text"} and fields["type"] == "token"
        if is_text and whole and isinstance(whole[-1], str):
            whole[-1] += fields["text"]
        else:
            whole.append(fields["text"] if is_text else fields)
    return whole


@given(LOGS, st.integers(0, 80), st.integers(1, 60))
def test_pieces_from_any_place_say_what_the_log_says(
    raws: list[bytes], place: int, bytes_max: int
) -> None:
    feed = feed_of(*raws)
    runs = Runs(feed)
    runs.look()
    seq = start = min(place, len(raws))
    pieces = []
    while seq < len(raws):
        piece, end = runs.piece(seq, stop=len(raws), bytes_max=bytes_max)
        assert end > seq
        assert end == seq + 1 or len(piece) <= bytes_max + len('{"type":"token","text":""}')
        pieces.append(piece)
        seq = end
    assert said(pieces) == said(raws[start:])


def test_what_is_no_plain_token_ends_a_run() -> None:
    raws = [encode(Token("a")), *FOREIGN, *(encode(Token(text)) for text in 'c"\\e')]
    runs = Runs(feed_of(*raws))
    runs.look()
    ends = [runs.piece(seq, stop=len(raws), bytes_max=99)[1] for seq in range(5)]
    assert ends == [1, 2, 3, 4, 8]
    assert runs.piece(4, stop=8, bytes_max=99)[0] == encode(Token('c"\\e'))
    assert runs.piece(4, stop=6, bytes_max=99) == (encode(Token('c"')), 6)


def test_a_long_log_is_looked_at_step_by_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ENTRIES_MAX", 10)
    raws = [encode(Token("x"))] * 25
    runs = Runs(feed_of(*raws))
    ends = []
    for _ in range(3):
        runs.look()
        ends.append(
            (runs.piece(0, stop=25, bytes_max=99)[1], runs.piece(22, stop=25, bytes_max=99)[1])
        )
    assert ends == [(10, 23), (20, 23), (25, 25)]


@given(LOGS, st.integers(0, 80), st.integers(30, 300))
def test_slices_from_any_place_say_what_the_log_says(
    raws: list[bytes], place: int, bytes_max: int
) -> None:
    feed = feed_of(*raws)
    log = joined_log(feed)
    seq = start = min(place, len(raws))
    lines: list[bytes] = []
    while seq < len(raws):
        chunk, end = log.slice(seq, bytes_max)
        assert end > seq
        assert len(chunk) <= bytes_max or end == seq + 1
        lines += chunk.splitlines()
        assert json.loads(lines[-1])["id"] == f"1-{end}"
        seq = end
    assert log.slice(seq, bytes_max) == (b"", seq)
    assert said(lines) == said(raws[start:])


def test_who_is_far_behind_gets_one_frame_and_who_is_near_gets_each() -> None:
    count = JOIN_FROM + 3
    feed = feed_of(*(encode(Token(f"w{n} ")) for n in range(1, count + 1)))
    log = JoinedLog(feed, Runs(feed), SSE, make_meta())
    assert log.slice(4)[0].count(b"\n\n") == JOIN_FROM - 1
    far, end = log.slice(3)
    text = "".join(f"w{n} " for n in range(4, count + 1)).encode()
    assert far == b'id: 1-%d\nevent: token\ndata: {"text":"%b"}\n\n' % (count, text)
    assert end == count
    assert log.slice(3)[0] is far
    add(feed, encode(Token("new")))
    newest = log.slice(count)[0]
    assert newest == b'id: 1-%d\nevent: token\ndata: {"text":"new"}\n\n' % (count + 1)
    assert log.slice(count)[0] is newest
    assert log.slice(3)[0].endswith(b'w%d new"}\n\n' % count)


@given(LOGS, st.integers(0, 80), st.integers(0, 40), st.booleans())
def test_after_a_trim_and_a_refill_it_is_the_same(
    raws: list[bytes], trimmed: int, place: int, is_refilled: bool
) -> None:
    feed = feed_of(*raws)
    log = joined_log(feed)
    entries = [(feed.ids.at(n), raw) for n, raw in enumerate(feed.raws, 1)]
    place = min(place, len(raws))
    whole = log.slice(place)
    feed.trim(trimmed)
    if is_refilled:
        assert feed.refill(feed.epoch, entries)
    assert log.lacks(place) == (place < feed.base)
    if log.lacks(place):
        assert log.slice(place) == (b"", place)
    else:
        assert log.slice(place) == whole


def test_a_rewrite_is_seen() -> None:
    feed = feed_of(*[encode(Token("a"))] * 40)
    log = joined_log(feed)
    log.slice(0), log.slice(39)
    feed.mark_stale()
    again = [(EventId(2, n), encode(Token("A"))) for n in range(1, 41)]
    for _ in range(2):
        feed.offer_page(feed.request_page(99), again)
    assert log.slice(0) == (b'{"id":"2-40","type":"token","text":"%b"}\n' % (b"A" * 40), 40)
    assert log.slice(39) == (b'{"id":"2-40","type":"token","text":"A"}\n', 40)


def test_what_was_trimmed_unseen_and_read_again_is_joined_like_the_rest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "ENTRIES_MAX", 20)
    feed = feed_of(*(encode(Token(f"{n} ")) for n in range(1, 101)))
    entries = [(feed.ids.at(n), raw) for n, raw in enumerate(feed.raws, 1)]
    runs = Runs(feed)

    def text_after(seq: int) -> str:
        runs.look()
        piece, end = runs.piece(seq, stop=100, bytes_max=1_000)
        assert end == min(100, seq + 20)
        return str(json.loads(piece)["text"])

    assert text_after(0).startswith("1 2 ")
    feed.trim(50)  # the first 20 were seen
    assert text_after(50).startswith("51 52 ")
    assert feed.refill(feed.epoch, entries)
    assert text_after(0).startswith("1 2 ")
