"""The strict parser takes the protocol's form and flags every other."""

from __future__ import annotations

import pytest

from tests.support.sse import SseParser

GOOD = (
    b'retry: 1000\nid: 1-1\nevent: start\ndata: {"attempt":1}\n\n'
    b': ping\nid: 1-2\nevent: token\ndata: {"text":"\xc3\xa9"}\n\n'
)


def test_the_protocols_form_has_no_fault_cut_at_any_byte():
    for cut in range(len(GOOD)):
        parser = SseParser()

        blocks = parser.feed(GOOD[:cut]) + parser.feed(GOOD[cut:])

        assert [b.event_id for b in blocks] == ["1-1", "1-2"]
        assert blocks[1].delivery().fields == {"text": "é"}
        assert parser.faults == []
        assert (parser.pings, parser.retry_ms) == (1, 1000)


def test_an_unfinished_block_is_not_delivered():
    assert SseParser().feed(b"id: 1-1\nevent: token\ndata: {}\n") == []


@pytest.mark.parametrize(
    "body, words",
    [
        (b"id: 1-1\r\nevent: token\r\ndata: {}\r\n\r\n", "carriage return"),
        (b"retry: 1000\n\n", "without data, event, id"),
        (b"event: token\ndata: {}\n\n", "without id"),
        (b"id: 1-1\nevent: token\n\n", "without data"),
        (b": ping\n\n", "blank line"),
        (b"id: 1-1\n: ping\nevent: token\ndata: {}\n\n", "inside a block"),
        (b": hello\n", "comment"),
        (b"id: 1-1\nevent: token\ndata: {}\ndata: {}\n\n", "two data lines"),
        (b"id:1-1\nevent: token\ndata: {}\n\n", "is none of"),
        (GOOD + b"retry: 1\nid: 1-3\nevent: token\ndata: {}\n\n", "not the first"),
        (b"retry: soon\nid: 1-3\nevent: token\ndata: {}\n\n", "retry 'soon'"),
    ],
)
def test_each_departure_is_flagged(body, words):
    parser = SseParser()

    parser.feed(body)

    assert any(words in fault for fault in parser.faults), parser.faults
