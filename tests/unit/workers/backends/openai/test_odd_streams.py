"""Odd streams of real servers: bytes in, items out, however the bytes are cut."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from shared.log.events import Extra, Reasoning, Token, ToolCall, Usage, decode, encode
from tests.support.cuts import places
from workers.backends.contract import BackendItem, Finish
from workers.backends.openai.reader import ChatReader

DONE = b"data: [DONE]\n\n"
STOP: list[BackendItem] = [Finish("stop")]


def line(value: Any) -> bytes:
    raw = value if isinstance(value, bytes) else msgspec.json.encode(value)
    return b"data: " + raw + b"\n\n"


def chunk(delta: Any = None, reason: str | None = None, **more: Any) -> bytes:
    choice = {"index": 0, "delta": delta or {}, "finish_reason": reason}
    return line({"choices": [choice | more.pop("choice", {})], **more})


def text(value: str, reason: str | None = None) -> bytes:
    return chunk({"content": value}, reason)


def raw_text(inside: bytes, more: bytes = b"") -> bytes:
    """Return a chunk whose content is the inside of a JSON string."""
    return line(b'{"choices":[{"index":0,"delta":{"content":"%b"}%b}]}' % (inside, more))


def whole(reason: str = "stop", **message: Any) -> bytes:
    choice = {"index": 0, "message": {"role": "assistant", **message}, "finish_reason": reason}
    return line({"object": "chat.completion", "choices": [choice]})


def call(**members: Any) -> dict[str, Any]:
    return {"tool_calls": [members]}


F = {"name": "f", "arguments": '{"a":1}'}
PICTURE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
SIGNATURE = {"google": {"thought_signature": "S"}}
LOGPROBS = {"content": [{"token": "a", "logprob": -0.5}]}
USED = {"prompt_tokens": 3, "completion_tokens": 4}

# What the server does: the bytes, the items.
TABLE: dict[str, tuple[list[bytes], list[BackendItem]]] = {
    # Closing summaries
    "a whole completion behind the pieces": (
        [text("Hel"), text("lo"), whole(content="Hello")], [Token("Hel"), Token("lo"), *STOP]
    ),
    "a whole completion after the finish": (
        [text("Hel"), text("lo", "stop"), whole(content="Hello")],
        [Token("Hel"), Token("lo"), *STOP],
    ),
    "a whole completion with a longer text": (
        [text("Hel"), whole(content="Hello")], [Token("Hel"), Token("lo"), *STOP]
    ),
    "a whole completion with another text": (
        [text("Hello "), whole(content="Hello")], [Token("Hello "), *STOP]
    ),
    "a whole completion alone": ([whole(content="Hello")], [Token("Hello"), *STOP]),
    "a delta with the whole text at the end": (
        [text("Hel"), text("lo"), text("Hello", "stop")], [Token("Hel"), Token("lo"), *STOP]
    ),
    "a delta with the whole text after the finish": (
        [text("Hel"), text("lo"), chunk({}, "stop"), text("Hello")],
        [Token("Hel"), Token("lo"), *STOP],
    ),
    "a repeated word at the end is no summary": (
        [text("ha"), text("ha", "stop")], [Token("ha"), Token("ha"), *STOP]
    ),
    "the whole reasoning again": (
        [chunk({"reasoning": "so"}), chunk({"reasoning": "!"}), text("a"),
         whole(content="a", reasoning="so!")],
        [Reasoning("so"), Reasoning("!"), Token("a"), *STOP],
    ),
    "whole tool calls again": (
        [chunk(call(index=0, id="x", function={"name": "f", "arguments": '{"a"'})),
         chunk(call(index=0, function={"arguments": ":1}"})),
         whole("tool_calls", content=None, tool_calls=[{"id": "x", "function": F}])],
        [ToolCall(0, "x", "f", '{"a"'), ToolCall(0, arguments=":1}"), Finish("tool_calls")],
    ),
    "delta and message in one choice": (
        [chunk({"content": "a"}, choice={"message": {"content": "a"}}), chunk({}, "stop")],
        [Token("a"), *STOP],
    ),
    # Half surrogate pairs and odd members
    "half a pair in each of two deltas": (
        [text("x"), raw_text(rb"\ud83d"), raw_text(rb"\ude80y"), text("z"), chunk({}, "stop")],
        [Token("x"), Token("🚀y"), Token("z"), *STOP],
    ),
    "text with half a pair at its end": (
        [raw_text(rb"x\ud83d"), raw_text(rb"\ude80"), chunk({}, "stop")],
        [Token("x"), Token("🚀"), *STOP],
    ),
    "half a pair, then plain text": (
        [text("x"), raw_text(rb"a\ud83d"), text("y"), text("z"), chunk({}, "stop")],
        [Token("x"), Token("a"), Token("\ufffdy"), Token("z"), *STOP],
    ),
    "a lone second half": ([raw_text(rb"a\ude80b"), chunk({}, "stop")], [Token("a\ufffdb"), *STOP]),
    "half a pair at the end": (
        [raw_text(rb"a\ud83d"), chunk({}, "stop")], [Token("a"), Token("\ufffd"), *STOP]
    ),
    "half a pair in reasoning": (
        [line(rb'{"choices":[{"delta":{"reasoning":"\ud83d"}}]}'),
         line(rb'{"choices":[{"delta":{"reasoning":"\ude80"}}]}'), chunk({}, "stop")],
        [Reasoning("🚀"), *STOP],
    ),
    "half a pair in an unknown member": (
        [raw_text(b"a", rb',"x":"\ud83d"'), chunk({}, "stop")],
        [Token("a", {"choice": {"x": "\ufffd"}}), *STOP],
    ),
    "NaN and infinities": (
        [raw_text(b"a", b',"logprobs":{"x":[NaN,-Infinity,1]},"y":Infinity'), chunk({}, "stop")],
        [Token("a", {"choice": {"logprobs": {"x": [None, None, 1]}}}), *STOP],
    ),
    "numbers beyond 64 bits": (
        [raw_text(b"a", b',"x":[1' + b"0" * 30 + b',2]'), chunk({}, "stop")],
        [Token("a", {"choice": {"x": [None, 2]}}), *STOP],
    ),
    "an index, a role and a reason of wrong types": (
        [line({"choices": [{"index": "0", "finish_reason": 0,
                            "delta": {"role": 7, "content": "a"}}]}), chunk({}, "stop")],
        [Token("a"), *STOP],
    ),
    "a tool call that is no list": (
        [chunk({"tool_calls": {"id": "x", "function": F}}, "tool_calls")],
        [ToolCall(0, "x", "f", '{"a":1}'), Finish("tool_calls")],
    ),
    # Finish reasons
    "stop with tool calls": (
        [chunk(call(id="x", function=F), "stop")],
        [ToolCall(0, "x", "f", '{"a":1}'),
         Finish("tool_calls", "", {"choice": {"native_finish_reason": "stop"}})],
    ),
    "stop, and then a reason that says more": (
        [text("a", "stop"), chunk({}, "length"), chunk({}, "stop")], [Token("a"), Finish("length")]
    ),
    "an unknown reason": (
        [text("a", "solar_flare")],
        [Token("a"), Finish("stop", "solar_flare", {"choice": {"finish_reason": "solar_flare"}})],
    ),
    "a reason that is not there yet": (
        [text("a", ""), text("b", "null"), text("c", "FINISH_REASON_UNSPECIFIED"),
         chunk({}, "stop")],
        [Token("a"), Token("b"), Token("c"), *STOP],
    ),
    # Usage
    "usage in the choice": (
        [text("a"), chunk({}, "stop", choice={"usage": USED})], [Token("a"), Usage(3, 4, 7), *STOP]
    ),
    "usage in x_groq": (
        [text("a"), chunk({}, "stop", x_groq={"id": "r", "usage": USED | {"queue_time": 0.1}})],
        [Token("a"), Usage(3, 4, 7, {"queue_time": 0.1}),
         Finish("stop", "", {"chunk": {"x_groq": {"id": "r"}}})],
    ),
    "usage as floats": (
        [text("a", "stop"), line({"choices": [], "usage": {"prompt_tokens": 3.0,
         "completion_tokens": 4.0}})],
        [Token("a"), Usage(3, 4, 7), *STOP],
    ),
    "usage under other names": (
        [chunk({"content": "a"}, "stop", usage={"input_tokens": 3, "output_tokens": 4})],
        [Token("a"), Usage(3, 4, 7), *STOP],
    ),
    "usage split over chunks": (
        [chunk({"content": "a"}, usage={"prompt_tokens": 3, "total_tokens": 3}),
         chunk({}, "stop", usage={"completion_tokens": 4})],
        [Token("a"), Usage(3, 4, 7), *STOP],
    ),
    "zeros after real numbers": (
        [chunk({"content": "a"}, "stop", usage=USED),
         line({"choices": [], "usage": {"prompt_tokens": 0, "completion_tokens": 0}})],
        [Token("a"), Usage(3, 4, 7), *STOP],
    ),
    "usage with details": (
        [chunk({"content": "a"}, "stop",
               usage=USED | {"prompt_tokens_details": {"cached_tokens": 2}})],
        [Token("a"), Usage(3, 4, 7, {"prompt_tokens_details": {"cached_tokens": 2}}), *STOP],
    ),
    # Members that nothing reads
    "a signature in a tool call": (
        [chunk(call(index=0, id="x", function=F, extra_content=SIGNATURE), "tool_calls")],
        [ToolCall(0, "x", "f", '{"a":1}', {"extra_content": SIGNATURE}), Finish("tool_calls")],
    ),
    "pictures only": (
        [chunk({"content": "", "images": [PICTURE]}), chunk({}, "stop")],
        [Extra({"delta": {"images": [PICTURE]}}), *STOP],
    ),
    "log probabilities, the same twice": (
        [chunk({"content": "a"}, choice={"logprobs": LOGPROBS}),
         chunk({"content": "a"}, choice={"logprobs": LOGPROBS}), chunk({}, "stop")],
        [Token("a", {"choice": {"logprobs": LOGPROBS}})] * 2 + STOP,
    ),
    "a fact in every chunk": (
        [chunk({"role": "assistant", "content": ""}, system_fingerprint="p"),
         chunk({"content": "a"}, system_fingerprint="p"),
         chunk({"content": "b"}, system_fingerprint="p"),
         chunk({"content": "c"}, system_fingerprint="q"), chunk({}, "stop", service_tier="x")],
        [Token("a", {"chunk": {"system_fingerprint": "p"}}), Token("b"),
         Token("c", {"chunk": {"system_fingerprint": "q"}}),
         Finish("stop", "", {"chunk": {"service_tier": "x"}})],
    ),
    "a legacy function call": (
        [chunk({"function_call": {"name": "f", "arguments": ""}}),
         chunk({"function_call": {"arguments": "{}"}}), chunk({}, "function_call")],
        [ToolCall(0, "call_g_0", "f", "{}"),
         Finish("tool_calls", "", {"choice": {"native_finish_reason": "function_call"}})],
    ),
}  # fmt: skip

FAILED = [
    "error", "abort", "cancelled", "network_error", "MALFORMED_FUNCTION_CALL",
    "UNEXPECTED_TOOL_CALL", "insufficient_system_resource",
]  # fmt: skip
MEANINGS = {
    "length": ["length", "MAX_TOKENS", "max_output_tokens", "model_context_window_exceeded"],
    "content_filter": [
        "content_filter", "SAFETY", "RECITATION", "PROHIBITED_CONTENT", "refusal", "sensitive",
        "FINISH_REASON_SAFETY",
    ],
    "tool_calls": ["tool_calls", "tool_use", "function_call"],
    "stop": ["stop", "STOP", "end_turn", "eos_token", "COMPLETE"],
}  # fmt: skip


def read(*pieces: bytes) -> tuple[list[BackendItem], ChatReader]:
    reader = ChatReader(line_bytes_max=65_536, body_bytes_max=65_536, seed="g")
    items = [item for piece in pieces for item in reader.feed(piece)]
    return items + reader.feed_eof(), reader


@pytest.mark.parametrize("name", TABLE)
def test_an_odd_stream_gives_its_items_however_it_is_cut(name: str) -> None:
    pieces, expected = TABLE[name]
    raw = b"".join([*pieces, DONE])
    for at in places(0, len(raw)):
        items, reader = read(raw[:at], raw[at:])
        assert items == expected, at
        assert reader.failure is None
    assert read(*(raw[at : at + 1] for at in range(len(raw))))[0] == expected
    assert read(*pieces, DONE)[0] == expected  # one event in each read, as servers send it
    for item in expected:
        assert isinstance(item, Finish) or decode(encode(item)) == item


@pytest.mark.parametrize("word", FAILED)
def test_a_given_up_or_malformed_answer_is_a_failure(word: str) -> None:
    for pieces in ([text("a", word)], [text("a", "stop"), chunk({}, word)]):
        items, reader = read(*pieces, DONE)
        assert items == [Token("a")]
        assert reader.failure is not None and word in reader.failure.message


@pytest.mark.parametrize(
    ("reason", "word"), [(reason, word) for reason, words in MEANINGS.items() for word in words]
)
def test_the_meaning_of_a_finish_reason(reason: Any, word: str) -> None:
    extra = None if word == reason else {"choice": {"native_finish_reason": word}}
    assert read(text("a", word))[0] == [Token("a"), Finish(reason, "", extra)]


@pytest.mark.parametrize(
    "raw",
    [
        b"[1]", b"7", b'{"choices":7}', b'{"choices":[7]}', b'{"choices":[{"delta":7}]}',
        b'{"choices":[{"delta":{"tool_calls":7}}]}', b'{"choices":[{"delta":{"content":"a}',
        b'{"choices":[{"delta":{"content":"\xff"}}]}', b'{"choices":[{"delta":{"x":"\xc3"}}]}',
        b'{"choices":[{"delta":{"content":"\xed\xa0\xbd"}}]}',
    ],
)  # fmt: skip
def test_a_load_bearing_member_of_another_type_and_broken_bytes_are_failures(raw: bytes) -> None:
    items, reader = read(line(raw), text("b", "stop"))
    assert items == []
    assert reader.failure is not None and "broken data" in reader.failure.message


def test_a_repair_is_a_warning() -> None:
    assert read(raw_text(rb"a\ud83d"), text("b", "stop"))[1].warnings == {
        "odd_value", "lone_surrogate",
    }  # fmt: skip
    assert read(text("a", "stop"))[1].warnings == set()


def test_the_error_for_a_long_line_names_its_setting() -> None:
    _, reader = read(b"data: " + b"x" * 70_000)
    assert reader.failure is not None
    assert "TAILRACE_UPSTREAM_LINE_BYTES_MAX" in reader.failure.message
