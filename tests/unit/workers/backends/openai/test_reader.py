"""The reader: the same items and the same failure, however the bytes are cut.

tests/integration/backends/test_every_kind.py cuts the same streams, and those of all kinds, in two.
"""

from __future__ import annotations

import time
import tracemalloc

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shared.errors import BackendError
from shared.log.events import Extra, Token, Usage, decode, encode
from tests.support.examples import examples
from tests.support.openai_streams import ALL, OPENAI, Recorded
from workers.backends.contract import BackendItem, Finish
from workers.backends.openai.reader import ChatReader

LINE_BYTES_MAX = 4_096


def read(
    *pieces: bytes, line_bytes_max: int = LINE_BYTES_MAX
) -> tuple[list[BackendItem], ChatReader]:
    reader = ChatReader(line_bytes_max=line_bytes_max, body_bytes_max=LINE_BYTES_MAX)
    items = [item for piece in pieces for item in reader.feed(piece)]
    return items + reader.feed_eof(), reader


def check(recorded: Recorded, *pieces: bytes) -> None:
    items, reader = read(*pieces)
    assert items == recorded.items
    assert reader.is_done
    if recorded.failure:
        assert reader.failure is not None
        assert reader.failure.message.startswith(recorded.failure)
    else:
        assert reader.failure is None


def chunk(delta: dict[str, object], finish: str | None = None, **more: object) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return b"data: " + msgspec.json.encode({"choices": [choice]} | more) + b"\n\n"


@pytest.mark.parametrize("name", ALL)
def test_recorded_stream(name: str) -> None:
    check(ALL[name], ALL[name].raw)


@pytest.mark.parametrize("name", ALL)
def test_one_byte_at_a_time(name: str) -> None:
    raw = ALL[name].raw
    check(ALL[name], *(raw[at : at + 1] for at in range(len(raw))))


@settings(max_examples=examples(100, in_ci=300))
@given(name=st.sampled_from(sorted(ALL)), data=st.data())
def test_cut_anywhere_many_times(name: str, data: st.DataObject) -> None:
    raw = ALL[name].raw
    cuts = sorted(data.draw(st.lists(st.integers(0, len(raw)), max_size=12)))
    check(ALL[name], *(raw[a:b] for a, b in zip([0, *cuts], [*cuts, len(raw)], strict=True)))


@settings(max_examples=examples(40, in_ci=100))
@given(
    name=st.sampled_from(sorted(ALL)),
    ends=st.sampled_from([b"\r", b"\r\n"]),
    cut=st.floats(0, 1),
)
def test_any_line_end(name: str, ends: bytes, cut: float) -> None:
    recorded = ALL[name]
    raw = recorded.raw.replace(b"\r\n", b"\n").replace(b"\r", b"\n").replace(b"\n", ends)
    at = int(cut * len(raw))
    check(recorded, raw[:at], raw[at:])


@settings(max_examples=examples(70, in_ci=200))
@given(st.binary(max_size=200), st.integers(0, 200))
def test_any_bytes_end_in_a_finish_or_a_backend_error(raw: bytes, at: int) -> None:
    items, reader = read(raw[:at], raw[at:])
    assert reader.is_done
    assert (reader.failure is None) == bool(items and isinstance(items[-1], Finish))


# Any JSON, and members that resemble those of real servers.
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**40), 10**40)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)
# Values that a member should not have. To draw nested ones for each member takes most of the time.
ODD = st.sampled_from(
    [
        None, True, False, 0, 1, -1, 0.5, 10**40, -(10**40), "", "x", "流", "\x00", [], {}, [None],
        ["x"], [[]], [{}], [5, {"text": 7}], [{"text": "x"}], {"text": "x"}, {"text": {}},
        {"thinking": [5]}, [{"thinking": ["x"]}], {"message": "x"}, {"message": {"a": []}},
        {"code": []}, {"content": 5}, {"function": {"name": 5, "arguments": {"a": 1}}},
        [{"function": []}], {"a": {"b": {"c": [1, [2]]}}},
    ]
)  # fmt: skip
CALL = st.fixed_dictionaries(
    {},
    optional={
        "index": st.integers(-1, 3) | ODD,
        "id": st.sampled_from(["", "a", "b"]) | ODD,
        "function": ODD
        | st.fixed_dictionaries({}, optional={"name": st.text(max_size=3) | ODD, "arguments": ODD}),
    },
)
DELTA = st.fixed_dictionaries(
    {},
    optional={
        "content": st.text(max_size=5)
        | st.lists(st.fixed_dictionaries({}, optional={"text": ODD, "thinking": ODD}), max_size=2)
        | ODD,
        "reasoning": ODD,
        "reasoning_content": ODD,
        "refusal": ODD,
        "tool_calls": st.lists(CALL, max_size=3) | ODD,
        "function_call": ODD,
    },
)
CHOICE = st.fixed_dictionaries(
    {"delta": DELTA | ODD},
    optional={
        "index": st.integers(0, 1) | ODD,
        "finish_reason": st.sampled_from(["stop", "tool_calls", "error", "", "x"]) | ODD,
        "error": ODD,
        "message": DELTA | ODD,
    },
)
COUNTS = st.integers(-1, 9) | st.sampled_from([10**4299, 2**64]) | ODD
CHUNK = st.fixed_dictionaries(
    {"choices": st.lists(CHOICE, max_size=2) | ODD},
    optional={
        "usage": st.fixed_dictionaries(
            {},
            optional={"prompt_tokens": COUNTS, "completion_tokens": COUNTS, "total_tokens": COUNTS},
        )
        | ODD,
        "error": st.fixed_dictionaries(
            {}, optional={"message": ODD, "code": ODD, "type": ODD, "status": ODD}
        )
        | ODD,
        "object": st.sampled_from(["error", "chat.completion.chunk"]) | ODD,
    },
)
LINE = st.one_of(
    CHUNK.map(lambda value: b"data: " + msgspec.json.encode(value) + b"\n\n"),
    JSON.map(lambda value: b"data: " + msgspec.json.encode(value) + b"\n\n"),
    JSON.map(lambda value: b"event: error\ndata: " + msgspec.json.encode(value) + b"\n\n"),
    st.binary(max_size=20),
    st.sampled_from([b"data: [DONE]\n\n", b": ping\n\n", b"\n\n", b"data:\n", b"error: {\n"]),
)


@settings(max_examples=examples(200, in_ci=500), suppress_health_check=[HealthCheck.too_slow])
@given(lines=st.lists(LINE, max_size=6), size=st.sampled_from([1, 7, 10_000]))
def test_any_stream_gives_storable_items_or_a_backend_error(lines: list[bytes], size: int) -> None:
    raw = b"".join(lines)
    items, reader = read(*(raw[at : at + size] for at in range(0, len(raw), size)))

    assert reader.is_done
    assert (reader.failure is None) == bool(items and isinstance(items[-1], Finish))
    for item in items:
        if not isinstance(item, Finish):
            assert decode(encode(item)) == item


@pytest.mark.parametrize(
    "piece",
    [
        b": ping\n\n",
        b"\n",
        b"\r\n",
        b"   ",
        b"event: x\n",
        b"id: 1\nretry: 1\n",
        b"data: x",
        b"data: x\n",
        b"data:\n",
        b'{"a":1,',
        b"nonsense",
        b"error",
        b'data: {"choices":[]}\n\n',
        b'data: {"choices":[],"usage":{"prompt_tokens":1}}\n\n',
    ],
    ids=repr,
)
def test_an_endless_stream_uses_bounded_memory(piece: bytes) -> None:
    """Comments and empty chunks may be endless; anything that must be stored has a limit."""
    reader = ChatReader(line_bytes_max=LINE_BYTES_MAX, body_bytes_max=LINE_BYTES_MAX)
    block = piece * (LINE_BYTES_MAX // len(piece))
    tracemalloc.start()
    try:
        for _ in range(50):
            reader.feed(block)
        used_bytes, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert used_bytes < 10 * LINE_BYTES_MAX


@settings(max_examples=examples(70, in_ci=200))
@given(texts=st.lists(st.text(min_size=1), max_size=8), size=st.integers(1, 40))
def test_text_arrives_exactly(texts: list[str], size: int) -> None:
    texts = [text.encode("utf-8", "ignore").decode() for text in texts]
    raw = b"".join(chunk({"content": text}) for text in texts) + chunk({}, "stop")
    items, _ = read(*(raw[at : at + size] for at in range(0, len(raw), size)))
    assert items == [*(Token(text) for text in texts if text), Finish("stop")]


@pytest.mark.parametrize("raw_reason", ["error", "abort", "insufficient_system_resource"])
def test_finish_reason_that_means_failure(raw_reason: str) -> None:
    items, reader = read(chunk({"content": "a"}), chunk({}, raw_reason), b"data: [DONE]\n\n")
    assert items == [Token("a")]
    assert reader.failure is not None and reader.failure.retryable
    assert raw_reason in reader.failure.message


@pytest.mark.parametrize("raw_reason", ["", "null"])
def test_finish_reason_that_means_not_yet(raw_reason: str) -> None:
    items, _ = read(chunk({"content": "a"}, raw_reason), chunk({"content": "b"}, "stop"))
    assert items == [Token("a"), Token("b"), Finish("stop")]


@pytest.mark.parametrize(
    ("error", "retryable"),
    [
        ({"message": "busy", "code": 429}, True),
        ({"message": "busy", "code": "503"}, True),
        ({"message": "too long", "code": 400, "type": "BadRequestError"}, False),
        ({"message": "too long", "code": "context_length_exceeded"}, False),
        ("just words", True),
    ],
)
def test_error_in_the_stream_sets_retryable(error: object, retryable: bool) -> None:
    _, reader = read(b"data: " + msgspec.json.encode({"error": error}) + b"\n\n")
    assert reader.failure is not None
    assert reader.failure.retryable is retryable
    assert reader.failure.code == ("upstream_error" if retryable else "upstream_refused")


def test_error_by_event_name() -> None:
    _, reader = read(b'event: error\ndata: {"message":"overloaded"}\n\n', chunk({}, "stop"))
    assert reader.failure is not None and reader.failure.message == "overloaded"


def test_error_inside_a_choice() -> None:
    raw = b'data: {"choices":[{"index":0,"error":{"message":"gone","code":502}}]}\n\n'
    _, reader = read(raw, chunk({}, "stop"))
    assert reader.failure is not None and reader.failure.message == "gone"


def test_usage_comes_once_and_last_count_wins() -> None:
    pieces = [
        chunk({"content": str(n)}, usage={"prompt_tokens": 1, "completion_tokens": n})
        for n in range(3)
    ]
    items, _ = read(*pieces, chunk({}, "stop"), b"data: [DONE]\n\n")
    assert items[-2:] == [Usage(1, 2, 3), Finish("stop")]
    assert sum(isinstance(item, Usage) for item in items) == 1


@pytest.mark.parametrize(
    "usage",
    [
        None,
        {},
        [],
        "many",
        {"prompt_tokens": "3"},
        {"prompt_tokens": True},
        {"prompt_tokens": -1},
        {"prompt_tokens": 1, "completion_tokens": 10**30},
    ],
)
def test_odd_usage_does_not_end_an_answer(usage: object) -> None:
    assert read(chunk({"content": "a"}, "stop", usage=usage))[0] == [Token("a"), Finish("stop")]


def test_optional_members_of_an_odd_form_are_kept_but_not_read() -> None:
    faulty = {"reasoning": {"x": 1}, "audio": 5}
    assert read(chunk({"content": "a", "refusal": [], **faulty}, "stop"))[0] == [
        Token("a", {"delta": faulty}),
        Finish("stop"),
    ]
    parts = [5, {"type": "text", "text": 7}, {"thinking": True}, {"thinking": ["x"]}]
    assert read(chunk({"content": parts}, "stop"))[0] == [
        Extra({"delta": {"content_parts": parts}}),
        Finish("stop"),
    ]


def test_nothing_is_read_after_done() -> None:
    items, reader = read(OPENAI.raw, chunk({"content": "more"}), b"\xff")
    assert items == OPENAI.items
    assert reader.failure is None


def test_a_line_beyond_the_limit_fails_after_the_earlier_items() -> None:
    raw = chunk({"content": "a"}) + b"data: " + b"x" * LINE_BYTES_MAX
    for size in (1, 1_000, len(raw)):
        items, reader = read(*(raw[at : at + size] for at in range(0, len(raw), size)))
        assert items == [Token("a")]
        assert reader.failure is not None and "line" in reader.failure.message


def test_a_document_beyond_the_limit_is_too_large() -> None:
    _, reader = read(b'{"x":"' + b"x" * LINE_BYTES_MAX + b'"}')
    assert reader.failure is not None
    assert (reader.failure.code, reader.failure.retryable) == ("answer_too_large", False)


def test_deep_json_is_a_backend_error() -> None:
    raw = b'data: {"x":' + b"[" * 200_000 + b"]" * 200_000 + b"}\n\n"
    _, reader = read(raw, line_bytes_max=2**20)
    assert isinstance(reader.failure, BackendError)


@pytest.mark.parametrize("error", ['{"status":[]}', '{"code":{},"type":[1]}', '{"code":[[]]}'])
def test_an_error_with_an_odd_code_is_a_backend_error(error: str) -> None:
    reader = ChatReader(line_bytes_max=LINE_BYTES_MAX, body_bytes_max=LINE_BYTES_MAX)
    reader.feed(f'data: {{"choices":[],"error":{error}}}\n\n'.encode())
    assert reader.failure is not None and reader.failure.code == "upstream_error"


@pytest.mark.parametrize("place", ['"usage":[%s]', '"choices":[{"delta":{"content":[%s]}}]'])
@pytest.mark.parametrize("value", ["[],", "1e300,"])
def test_a_chunk_with_too_many_values_is_refused_quickly(place: str, value: str) -> None:
    payload = "{" + place % (value * 100_000 + "1") + "}"
    reader = ChatReader(line_bytes_max=2**20, body_bytes_max=2**20)

    begun_s = time.thread_time()
    reader.feed(b"data: " + payload.encode() + b"\n\n")

    assert time.thread_time() - begun_s < 0.06
    assert reader.failure is not None and "50000 values" in reader.failure.message


def test_skipped_members_may_have_any_number_of_values() -> None:
    payload = (
        '{"choices":[{"index":0,"message":{"content":"all"},"finish_reason":"stop",'
        '"logprobs":{"content":[' + '{"token":"a","logprob":-0.1},' * 50_000 + "{}]}}]}"
    )
    reader = ChatReader(line_bytes_max=2**20, body_bytes_max=2**24)

    items = [*reader.feed(payload.encode()), *reader.feed_eof()]

    assert items[0] == Token("all") and reader.failure is None


def test_facts_in_every_chunk_cost_the_template_only_once() -> None:
    reader = ChatReader(line_bytes_max=LINE_BYTES_MAX, body_bytes_max=LINE_BYTES_MAX)
    for _ in range(3):
        reader.feed(chunk({"content": "a"}, system_fingerprint="p"))
    template = reader._template
    assert template is not None
    reader.feed(chunk({"content": "b"}, system_fingerprint="p"))
    assert reader._template is template
    assert reader.feed(chunk({"content": "c"}, system_fingerprint="q"))[0] == Token(
        "c", {"chunk": {"system_fingerprint": "q"}}
    )
