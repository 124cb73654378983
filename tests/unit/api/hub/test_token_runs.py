"""Token runs: from any place each entry comes once, in few joined pieces."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.hub import token_runs as module
from api.hub.feed import Feed
from api.hub.frame import LiveFrame
from api.hub.token_runs import TokenRuns
from shared.log.events import Reset, Token, ToolCall, encode
from shared.log.ids import EventId

FOREIGN = (
    b'{"type":"token","text":"b","logprob":"-1"}',
    b'{"text":"b","type":"token"}',
    b'{"type":"token","text":"a\\"}',  # invalid JSON: the last quote is escaped
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
    feed.offer_frame(LiveFrame(feed.top, tuple(entries), 0))


def merge_texts(raws: list[Any]) -> list[Any]:
    """Return the events of a log, with consecutive texts merged into one string."""
    merged: list[Any] = []
    for fields in (json.loads(raw) for raw in raws):
        fields.pop("id", None)
        is_text = set(fields) == {"type", "text"} and fields["type"] == "token"
        if is_text and merged and isinstance(merged[-1], str):
            merged[-1] += fields["text"]
        else:
            merged.append(fields["text"] if is_text else fields)
    return merged


@given(LOGS, st.integers(0, 80), st.integers(1, 60))
def test_pieces_from_any_place_have_the_events_of_the_log(
    raws: list[bytes], place: int, bytes_max: int
) -> None:
    feed = feed_of(*raws)
    runs = TokenRuns(feed)
    runs.scan()
    seq = start = min(place, len(raws))
    pieces = []
    while seq < len(raws):
        piece, end = runs.join_after(seq, stop=len(raws), bytes_max=bytes_max)
        assert end > seq
        assert end == seq + 1 or len(piece) <= bytes_max + len('{"type":"token","text":""}')
        pieces.append(piece)
        seq = end
    assert merge_texts(pieces) == merge_texts(raws[start:])


def test_an_entry_that_is_no_plain_token_ends_a_run() -> None:
    raws = [encode(Token("a")), *FOREIGN, *(encode(Token(text)) for text in 'c"\\e')]
    runs = TokenRuns(feed_of(*raws))
    runs.scan()
    ends = [runs.join_after(seq, stop=len(raws), bytes_max=99)[1] for seq in range(5)]
    assert ends == [1, 2, 3, 4, 8]
    assert runs.join_after(4, stop=8, bytes_max=99)[0] == encode(Token('c"\\e'))
    assert runs.join_after(4, stop=6, bytes_max=99) == (encode(Token('c"')), 6)


def test_a_long_log_is_scanned_in_bounded_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SCAN_ENTRIES_MAX", 10)
    raws = [encode(Token("x"))] * 25
    runs = TokenRuns(feed_of(*raws))
    ends = []
    for _ in range(3):
        runs.scan()
        ends.append(tuple(runs.join_after(seq, stop=25, bytes_max=99)[1] for seq in (0, 22)))
    assert ends == [(10, 23), (20, 23), (25, 25)]


def test_after_a_rewrite_the_new_log_is_scanned() -> None:
    feed = feed_of(*[encode(Token("a"))] * 4)
    runs = TokenRuns(feed)
    runs.scan()
    feed.mark_stale()
    again = [(EventId(2, n), encode(Token("A"))) for n in range(1, 4)]
    for _ in range(2):
        feed.offer_page(feed.request_page(99), again)
    runs.scan()
    assert runs.join_after(0, stop=3, bytes_max=99) == (encode(Token("AAA")), 3)


def test_entries_that_were_trimmed_unscanned_are_joined_after_a_refill(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "SCAN_ENTRIES_MAX", 20)
    feed = feed_of(*(encode(Token(f"{n} ")) for n in range(1, 101)))
    entries = [(feed.ids.at(n), raw) for n, raw in enumerate(feed.raws, 1)]
    runs = TokenRuns(feed)

    def text_after(seq: int) -> str:
        runs.scan()
        piece, end = runs.join_after(seq, stop=100, bytes_max=1_000)
        assert end == min(100, seq + 20)
        return str(json.loads(piece)["text"])

    assert text_after(0).startswith("1 2 ")
    feed.trim(50)  # only the first 20 entries were scanned
    assert text_after(50).startswith("51 52 ")
    assert feed.refill(feed.epoch, entries)
    assert text_after(0).startswith("1 2 ")
