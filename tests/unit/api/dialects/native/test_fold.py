"""The bytes of single events in the three native framings."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.dialects.native.fold import NativeFrameFold, NdjsonFold, SseFold, as_one_line
from shared.log.events import Data, Reset, Token, encode
from shared.log.ids import EventId
from tests.support.hub_harness import GENERATION, make_meta

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
def test_an_event_has_exactly_these_bytes_in_each_framing(
    raw: bytes, sse: bytes, socket: bytes
) -> None:
    assert SseFold(META).add(ID, raw) == sse
    assert NativeFrameFold(META).add(ID, raw) == (socket,)
    assert NdjsonFold(META).add(ID, raw) == b'{"id":"3-42",' + raw[1:] + b"\n"


@given(st.text())
def test_any_text_can_be_read_back_from_each_framing(text: str) -> None:
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
        assert json.loads(NativeFrameFold(META).add(ID, raw)[0]) == {**fields, **named}


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
def test_entries_of_other_programs_do_not_break_the_framing(
    raw: bytes, fields: dict[str, str]
) -> None:
    if raw != b'{"type":"a\\nb"}':
        assert json.loads(as_one_line(raw)) == fields
    assert SseFold(META).add(ID, raw).count(b"\n") == 4
