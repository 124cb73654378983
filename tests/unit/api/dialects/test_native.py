"""The native bytes, event by event."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.dialects.native import NdjsonFold, SocketFold, SseFold, as_one_line, joined_tokens
from shared.events import Data, Reset, Token, ToolCall, decode, encode
from shared.ids import EventId
from tests.support.bench import GENERATION, make_meta

ID = EventId(3, 42)
META = make_meta()


@pytest.mark.parametrize(
    ("raw", "sse", "socket"),
    [
        (
            b'{"type":"token","text":" Hello"}',
            b'id: 3-42\nevent: token\ndata: {"text":" Hello"}\n\n',
            b'{"type":"token","id":"gen_0000000000","event_id":"3-42","text":" Hello"}',
        ),
        (
            b'{"type":"from_a_newer_worker"}',
            b"id: 3-42\nevent: from_a_newer_worker\ndata: {}\n\n",
            b'{"type":"from_a_newer_worker","id":"gen_0000000000","event_id":"3-42"}',
        ),
    ],
)
def test_the_bytes_are_exactly(raw: bytes, sse: bytes, socket: bytes) -> None:
    assert SseFold(META).add(ID, raw) == sse
    assert SocketFold(META).add(ID, raw) == (socket,)
    assert NdjsonFold(META).add(ID, raw) == b'{"id":"3-42",' + raw[1:] + b"\n"


@given(st.text())
def test_any_text_survives_all_three(text: str) -> None:
    for event in (Token(text), Reset(text), Data(name=text, value={text: [text]})):
        raw = encode(event)
        fields = json.loads(raw)
        frame = SseFold(META).add(ID, raw)
        assert frame.count(b"\n") == 4
        data = json.loads(frame.split(b"\ndata: ")[1])
        assert {"type": fields["type"], **data} == fields
        line = NdjsonFold(META).add(ID, raw)
        assert line.count(b"\n") == 1
        assert json.loads(line) == {"id": "3-42", **fields}
        named = {"id": GENERATION, "event_id": "3-42"}
        assert json.loads(SocketFold(META).add(ID, raw)[0]) == {**fields, **named}


@pytest.mark.parametrize(
    ("raw", "fields"),
    [
        (b'{"text":"a",\n "type":"token"}', {"type": "token", "text": "a"}),
        (b'{ "type":"token","text":"a"}', {"type": "token", "text": "a"}),
        (b"not json", {"type": "unreadable"}),
        (b"[1]", {"type": "unreadable"}),
        (b'{"type":"a\\nb"}', {"type": "unreadable"}),
        (b"\xff", {"type": "unreadable"}),
    ],
)
def test_a_foreign_writers_bytes_do_not_break_the_framing(
    raw: bytes, fields: dict[str, str]
) -> None:
    if raw != b'{"type":"a\\nb"}':
        assert json.loads(as_one_line(raw)) == fields
    assert SseFold(META).add(ID, raw).count(b"\n") == 4


@given(st.lists(st.text(max_size=8), max_size=12), st.integers(1, 60))
def test_joined_tokens_are_the_same_text(texts: list[str], bytes_max: int) -> None:
    raws = [encode(Token(text)) for text in texts]
    joined, place = "", 0
    while place < len(raws):
        raw, count = joined_tokens(raws, place, len(raws), bytes_max)
        assert count >= 1
        event = decode(raw)
        assert isinstance(event, Token)
        joined, place = joined + event.text, place + count
    assert joined == "".join(texts)


def test_only_plain_tokens_are_joined() -> None:
    raws = [
        encode(Token("a")),
        b'{"type":"token","text":"b","logprob":"-1"}',
        encode(ToolCall(index=0)),
        encode(Token("c")),
        encode(Token("d")),
        encode(Token("e")),
    ]
    assert [joined_tokens(raws, n, len(raws), 99)[1] for n in range(4)] == [1, 1, 1, 3]
    assert joined_tokens(raws, 3, 5, 99) == (encode(Token("cd")), 2)
