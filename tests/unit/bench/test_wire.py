"""Parsing what readers received: exact texts, and arrival times of tokens."""

from __future__ import annotations

import json

import pytest

from bench.support.bare import HEAD, LAST_CHUNK, frames_of
from bench.support.wire import ReaderResult, TextCheck

TOKENS = [" alpha", " brücke", " 流", " δ"]
REPLY = "HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s"


def read(kind: str, *arrivals: bytes, tokens: list[str] = TOKENS) -> ReaderResult:
    """Return the result of one reader whose reads come at 0 s, 1 s, 2 s …"""
    return TextCheck(kind, [tokens]).read(list(enumerate(arrivals)), 0)


def sse(*texts: str) -> bytes:
    return b"".join(frames_of("sse", texts))


def poll(*texts: str) -> bytes:
    events = [{"id": "1-1", "type": "token", "text": text} for text in texts]
    body = json.dumps({"events": events, "last_event_id": "1-1", "done": False})
    return (REPLY % (len(body), body)).encode()


@pytest.mark.parametrize("kind", ["sse", "ndjson", "ws"])
def test_the_frames_of_each_transport_are_parsed(kind: str) -> None:
    reading = read(kind, HEAD, *frames_of(kind, TOKENS), LAST_CHUNK)

    assert reading.is_exact
    assert list(reading.times) == [1, 2, 3, 4]
    assert reading.reads == 4


def test_long_polls_are_parsed() -> None:
    reading = read("poll", poll(*TOKENS[:3]), poll(), poll(TOKENS[3]))

    assert reading.is_exact
    assert list(reading.times) == [0, 0, 0, 2]


def test_joined_tokens_are_counted_one_by_one() -> None:
    reading = read("sse", HEAD + sse(TOKENS[0]), sse("".join(TOKENS[1:])))

    assert reading.is_exact
    assert list(reading.times) == [0, 1, 1, 1]
    assert reading.reads == 2


def test_a_token_arrives_with_its_last_byte() -> None:
    frame = sse(*TOKENS)

    assert list(read("sse", HEAD, frame[:-1], frame[-1:]).times) == [1, 1, 1, 2]


def test_a_frame_with_a_long_text_is_parsed() -> None:
    long = ["x" * 200, "y" * 70_000]

    assert read("ws", HEAD, *frames_of("ws", long), tokens=long).is_exact


def test_a_body_without_chunks_is_parsed_line_by_line() -> None:
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n: hi\n\n"
    events = [b'id: 1:1\ndata: {"text":"%b"}\n\n' % text.encode() for text in TOKENS]
    reading = read("sse", head, events[0], *events[1:])

    assert reading.is_exact
    assert list(reading.times) == [1, 2, 3, 4]


@pytest.mark.parametrize(
    "texts",
    [TOKENS[:-1], TOKENS[1:], [*TOKENS, " more"], [*TOKENS[:2], TOKENS[3], TOKENS[2]],
     [*TOKENS[:2], *TOKENS[1:]]],
    ids=["lost tail", "lost head", "too much", "swapped", "repeated"],
)  # fmt: skip
def test_a_different_text_is_not_exact(texts: list[str]) -> None:
    assert not read("sse", HEAD, sse(*texts), LAST_CHUNK).is_exact


def test_a_text_with_a_reset_is_not_exact() -> None:
    reset = b'id: 0-0\nevent: reset\ndata: {"reason":"log_rewritten"}\n\n'
    raw = sse(*TOKENS) + b"%x\r\n%b\r\n" % (len(reset), reset) + sse(*TOKENS)

    assert not read("sse", HEAD, raw).is_exact


def test_readers_with_equal_bodies_keep_their_own_times() -> None:
    check = TextCheck("sse", [TOKENS])
    together = [(7.0, HEAD + sse(*TOKENS))]
    slow = [(8.0, HEAD), (9.0, sse(*TOKENS))]

    assert list(check.read(together, 0).times) == [7.0] * 4
    assert list(check.read(slow, 0).times) == [9.0] * 4


def test_the_text_of_another_answer_is_not_exact() -> None:
    check = TextCheck("sse", [TOKENS, [" other"] * 4])

    assert not check.read([(0.0, HEAD + sse(*TOKENS))], 1).is_exact
