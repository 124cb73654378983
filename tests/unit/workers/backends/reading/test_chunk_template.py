"""A template returns the same text as a full decoding."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.openai_streams import ALL
from workers.backends.openai import reader as openai_reader
from workers.backends.openai.reader import ChatReader
from workers.backends.reading.chunk_template import learn

CHUNK = (
    b'{"id":"c","created":1,"choices":[{"index":0,"delta":{"content":"%b"},"finish_reason":null}]}'
)


def read(pieces: list[bytes], *, has_templates: bool, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(openai_reader, "TEMPLATES_MAX", 16 if has_templates else 0)
    reader = ChatReader(line_bytes_max=10_000, body_bytes_max=10_000)
    items = [item for piece in pieces for item in reader.feed(piece)]
    items += reader.feed_eof()
    return items, str(reader.failure)


def template():
    found = learn(CHUNK % b"first", "first")
    assert found is not None
    return found


def test_the_template_returns_the_text():
    assert template().text_of(CHUNK % "über".encode()) == "über"
    assert template().text_of_event(b"data: " + CHUNK % b" two" + b"\n\n") == " two"


@pytest.mark.parametrize(
    "faulty",
    [
        CHUNK % rb"a\n",
        CHUNK % rb"\u00e9",
        CHUNK % b'a"},"x":{"y":"b',
        CHUNK % b"a\nb",
        CHUNK % b"\xff",
        CHUNK % b"",
        (CHUNK % b"a").replace(b"null", b'"stop"'),
        (CHUNK % b"a").replace(b'"created":1', b'"created":2'),
        CHUNK % b"a" + b" ",
        CHUNK[:20],
        b"",
    ],
)
def test_a_chunk_that_differs_must_be_decoded(faulty):
    assert template().text_of(faulty) is None
    assert template().text_of_event(faulty) is None


def test_two_events_in_one_read_are_not_matched():
    both = b"data: " + CHUNK % b"a" + b"\n\ndata: " + CHUNK % b"b" + b"\n\n"

    assert template().text_of_event(both) is None


@pytest.mark.parametrize(
    ("payload", "text"),
    [
        (b'{"choices":[{"delta":{"content":"a","x":{"content":"b"}}}]}', "a"),
        (rb'{"choices":[{"delta":{"content":"a\"b"}}]}', 'a"b'),
        (b'{"choices":[{"delta":{"content":["a"]}}]}', "a"),
        (b'{"choices":[{"delta":{"cont\\u0065nt":"a"}}]}', "a"),
    ],
)
def test_an_ambiguous_chunk_gives_no_template(payload, text):
    assert learn(payload, text) is None


PLAIN = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=6)
DELTAS = st.one_of(
    PLAIN.map(lambda text: {"content": text}),
    PLAIN.map(lambda text: {"role": "assistant", "content": text}),
    PLAIN.map(lambda text: {"reasoning": text}),
    PLAIN.map(lambda text: {"content": text, "refusal": text}),
    st.just({}),
)
CHUNKS = st.builds(
    lambda delta, finish, more: {"choices": [{"index": 0, "delta": delta, **finish}], **more},
    DELTAS,
    st.sampled_from([{}, {"finish_reason": None}, {"finish_reason": "stop"}]),
    st.sampled_from(
        [{}, {"id": "c"}, {"id": "d"}, {"usage": {"prompt_tokens": 1}}, {"error": "x"}]
    ),
)
STYLES = st.sampled_from(
    [
        {"separators": (",", ":"), "ensure_ascii": False},
        {"ensure_ascii": False},
        {"separators": (",", ":")},
    ]
)
ENDS = st.sampled_from([b"\n\n", b"\n\n", b"\r\n\r\n", b"\nevent: x\n\n"])


@given(
    chunks=st.lists(st.tuples(CHUNKS, ENDS), max_size=12),
    style=STYLES,
    cuts=st.lists(st.integers(0, 2_000), max_size=4),
)
def test_templates_do_not_change_the_result_of_any_stream(chunks, style, cuts):
    events = [b"data: " + json.dumps(one, **style).encode() + end for one, end in chunks]
    raw = b"".join(events)
    places = sorted({0, len(raw), *(cut for cut in cuts if cut < len(raw))})
    pieces = [raw[a:b] for a, b in zip(places, places[1:], strict=False)]
    with pytest.MonkeyPatch.context() as monkeypatch:
        for cut in (events, pieces):  # one event per read, as servers send them; and cut anywhere
            plain = read(cut, has_templates=False, monkeypatch=monkeypatch)
            assert read(cut, has_templates=True, monkeypatch=monkeypatch) == plain


@pytest.mark.parametrize("name", sorted(ALL))
def test_templates_do_not_change_the_result_of_recorded_streams(name, monkeypatch):
    events = [event + b"\n\n" for event in ALL[name].raw.split(b"\n\n") if event]
    plain = read(events, has_templates=False, monkeypatch=monkeypatch)

    assert read(events, has_templates=True, monkeypatch=monkeypatch) == plain


@pytest.mark.parametrize("before", [b"event: error\n", b"data: 1\n", b"data: {", b"x\r"])
def test_a_chunk_inside_another_event_is_not_matched(before, monkeypatch):
    """The fast path checks the bytes before the chunk."""
    event = b"data: " + CHUNK % b"a" + b"\n\n"
    pieces = [event, event, before, event, event]
    plain = read(pieces, has_templates=False, monkeypatch=monkeypatch)

    assert read(pieces, has_templates=True, monkeypatch=monkeypatch) == plain
