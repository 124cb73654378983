"""Parsing the messages of a live channel."""

from __future__ import annotations

import pytest

from api.hub.frame import FrameInvalid, LiveFrame, TopNotice, parse_frame
from shared.log.ids import EventId


def test_a_frame_has_the_id_before_its_first_entry_and_its_entries() -> None:
    payload = b'1-41\n1-42 {"type":"token","text":" a b"}\n2-43 {"type":"end"}'
    assert parse_frame(payload) == LiveFrame(
        EventId(1, 41),
        (
            (EventId(1, 42), b'{"type":"token","text":" a b"}'),
            (EventId(2, 43), b'{"type":"end"}'),
        ),
        len(payload),
    )


def test_a_top_notice_has_the_id_of_the_top() -> None:
    assert parse_frame(b"top 1-99") == TopNotice(EventId(1, 99))


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"x",
        b"1-2\n1-4 {}",
        b"2-2\n1-3 {}",
        b"1-2\n1-3",
        b"1-2\n1-3 {}\n1-3 {}",
        b"top x",
        b"\xff",
    ],
)
def test_a_message_that_is_not_a_chain_of_entries_is_invalid(payload: bytes) -> None:
    with pytest.raises(FrameInvalid):
        parse_frame(payload)
