"""What the readers of the vendors' streams share: limits, documents, odd bytes."""

from __future__ import annotations

import msgspec
import pytest

from shared.log.events import Reasoning, Token, Usage
from workers.backends.anthropic.reader import MessagesReader
from workers.backends.contract import BackendItem, Finish
from workers.backends.gemini.reader import GenerateContentReader
from workers.backends.reading.event_reader import USAGES_EVERY, EventReader
from workers.backends.responses.reader import ResponsesReader

READERS: dict[str, type[EventReader]] = {
    "anthropic": MessagesReader,
    "gemini": GenerateContentReader,
    "responses": ResponsesReader,
}


def read(kind: str, *pieces: bytes) -> tuple[list[BackendItem], EventReader]:
    reader = READERS[kind](line_bytes_max=4_000_000, body_bytes_max=4_000_000, seed="s")
    items = [item for piece in pieces for item in reader.feed(piece)]
    return items + reader.feed_eof(), reader


def message_of(reader: EventReader) -> str:
    assert reader.failure is not None
    return reader.failure.message


@pytest.mark.parametrize("kind", READERS)
@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (b"", "the backend's answer is empty"),
        (b"<html><title>502 Bad Gateway</title></html>", "502 Bad Gateway"),
        (b'{"error":{"message":"no such model","type":"x"}}', "no such model"),
        (b'data: {"error":{"message":"no such model"}}\n\n', "no such model"),
        (b"data: [1]\n\n", "broken data"),
        (b"data: {\n\n", "broken data"),
        (b"data: [DONE]\n\n", "no choices"),
        (b"data: " + b"[" * 100_000 + b"\n\n", "more than 50000 values"),
        (b"[" + b"[]," * 60_000 + b"[]]", "more than 50000 values"),
    ],
)
def test_what_is_no_answer_is_a_failure_that_quotes_it(
    kind: str, raw: bytes, expected: str
) -> None:
    items, reader = read(kind, raw)

    assert not items and expected in message_of(reader)


@pytest.mark.parametrize("kind", READERS)
def test_the_end_of_a_gateway_says_nothing(kind: str) -> None:
    """Some gateways add OpenAI's [DONE] to every stream."""
    _, reader = read(kind, b": keep-alive\n\ndata: \n\ndata: [DONE]\n\n")

    assert "no choices" in message_of(reader)


def anthropic(*deltas: dict[str, str]) -> bytes:
    raw = b""
    for delta in deltas:
        event = {"type": "content_block_delta", "index": 0, "delta": delta}
        # As some servers write it: halves of pairs as escapes.
        data = msgspec.json.encode(event).replace(b"HIGH", b"\\ud83d").replace(b"LOW", b"\\ude80")
        raw += b"event: content_block_delta\ndata: %b\n\n" % data
    return raw + (
        b'event: message_delta\ndata: {"type":"message_delta","delta":{"stop_reason":"end_turn"}}'
        b'\n\nevent: message_stop\ndata: {"type":"message_stop"}\n\n'
    )


def text(words: str) -> dict[str, str]:
    return {"type": "text_delta", "text": words}


def test_two_halves_of_a_character_in_two_events_are_one_character() -> None:
    items, reader = read("anthropic", anthropic(text("a"), text("HIGH"), text("LOWb"), text("c")))

    assert "".join(item.text for item in items if isinstance(item, Token)) == "a🚀bc"
    assert not reader.warnings


def test_a_lone_half_is_replaced_and_noted() -> None:
    thought = {"type": "thinking_delta", "thinking": "HIGH"}
    items, reader = read("anthropic", anthropic(thought, text("a")))

    assert Reasoning("\ufffd") in items and isinstance(items[-1], Finish)
    assert reader.warnings == {"lone_surrogate"}


@pytest.mark.parametrize("size", [1, 7, 10_000])
def test_texts_that_are_read_without_decoding_are_the_same(size: int) -> None:
    words = [" a", ' "quoted"', " b", "\\", " 流", "", " c"]
    raw = anthropic(*map(text, words))
    items, _ = read("anthropic", *(raw[at : at + size] for at in range(0, len(raw), size)))

    assert "".join(item.text for item in items if isinstance(item, Token)) == "".join(words)


def test_running_counts_come_first_and_then_now_and_then() -> None:
    reader = GenerateContentReader(line_bytes_max=9_999, body_bytes_max=9_999)
    given: list[Usage] = []
    for number in range(1, 2 * USAGES_EVERY + 2):
        counts = {"promptTokenCount": 5, "candidatesTokenCount": number}
        part = {"content": {"parts": [{"text": "x"}]}}
        chunk = {"candidates": [part], "usageMetadata": counts}
        reader.feed(b"data: " + msgspec.json.encode(chunk) + b"\n\n")
        if (usage := reader.take_running_usage()) is not None:
            given.append(usage)

    counts_given = [usage.completion_tokens for usage in given]
    assert counts_given == [1, 1 + USAGES_EVERY, 1 + 2 * USAGES_EVERY]
