"""Whatever arrives on a WebSocket is answered, or closes it with its code, and harms no node.

Frames are built byte by byte. A conversation without a violation of RFC 6455 must still be alive at
its end, however wrong what was said in it; one with a violation is closed, with a code that means
it.
"""

from __future__ import annotations

import json
import struct
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.frames import BINARY, CLOSE, ENDED, JSON, PING, SentMessage, converse, harmless
from tests.support.raw_client import RawClient
from tests.support.raw_wire import frame, handshake, large_frame, raw_connection

MARK = "mark-of-the-end"
BODY_BYTES_MAX = 33_554_432  # the default
VIOLATIONS = {1002, 1003, 1007, 1009}
TYPES = [
    "start",
    "subscribe",
    "unsubscribe",
    "cancel",
    "ping",
    "Start",
    "",
    "token",
    "close",
    "audio",
    "audio_state",
]
CURSORS = ["1-1", "0-0", "1-99", "9-1", "1", "-", "1-1 ", "0" * 40, "9" * 19 + "-" + "9" * 19]
MAY_FIND = settings(
    max_examples=80,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


IDS = st.sampled_from(
    [ENDED, "gen_nothing", "a", "gen_" + "0" * 26, "../../x", "x" * 5_000, "tr:{x}:log"]
)
# Commands, nearly right and quite wrong.
COMMANDS = st.fixed_dictionaries(
    {"type": st.sampled_from(TYPES) | JSON},
    optional={
        "id": IDS | JSON,
        "last_event_id": st.sampled_from(CURSORS) | JSON,
        "ref": st.text(max_size=5) | JSON,
        "prompt": st.text(max_size=5) | JSON,
        "messages": JSON,
        "params": JSON,
        "model": st.sampled_from(["demo", "none", ""]) | JSON,
        "idempotency_key": st.text(max_size=5) | JSON,
        "on_disconnect": st.sampled_from(["cancel", "continue", -1, 0]) | JSON,
        "metadata": JSON,
    },
).map(json.dumps)


# Binary frames: chunks of audio, nearly right and quite wrong, whole and in two fragments.
HEADS = st.fixed_dictionaries(
    {"type": st.sampled_from(["audio", "Audio", "file"]) | JSON},
    optional={"id": IDS | JSON, "seq": st.integers(-1, 2) | JSON, "last": st.booleans() | JSON},
).map(lambda head: json.dumps(head).encode())
AUDIO = st.one_of(
    st.binary(max_size=40),
    st.builds(lambda head, data: head + b"\n" + data, HEADS, st.binary(max_size=20)),
    st.sampled_from([b" " * 2_000 + b"\n", b"{}\n" + b"x" * 65_537, b"x" * 200_000]),
)
BINARIES = st.one_of(
    AUDIO.map(lambda data: SentMessage(frame(data, opcode=BINARY))),
    st.builds(
        lambda data, cut: SentMessage(
            frame(data[:cut], opcode=BINARY, fin=False) + frame(data[cut:], opcode=0)
        ),
        AUDIO,
        st.integers(0, 70_000),
    ),
)


def lengths(*sizes: int) -> list[bytes]:
    """Heads of frames that announce a length and bring nothing."""
    return [b"\x81\xff" + struct.pack("!Q", size) + b"mask" for size in sizes]


BROKEN = st.one_of(
    st.sampled_from(
        [
            frame(b"\xff"),
            frame(b"\xe2\x82", fin=False) + frame(b"x", opcode=0),
            frame(b"\xed\xa0\x80"),  # a surrogate, in the way that is not UTF-8
            frame(b"x", is_masked=False),
            frame(b"x", reserved=4),
            frame(b"x", reserved=1),
            frame(b"x", opcode=0),  # goes on with nothing
            frame(b"x", fin=False) + frame(b"y"),  # begins in the middle of another
            frame(b"x" * 126, opcode=PING),
            frame(b"x", opcode=PING, fin=False),
            frame(b"x", opcode=CLOSE),  # half a code
            frame(struct.pack("!H", 1005), opcode=CLOSE),
            frame(struct.pack("!H", 0), opcode=CLOSE),
            frame(struct.pack("!H", 1000) + b"\xff", opcode=CLOSE),
            *lengths(2**63, 2**64 - 1, 2**40, 8 * BODY_BYTES_MAX + 1),
        ]
    ),
    st.integers(3, 7).map(lambda opcode: frame(b"x", opcode=opcode)),
    st.integers(11, 15).map(lambda opcode: frame(b"x", opcode=opcode)),
).map(SentMessage)


async def socket_client(
    api: RawClient, said: list[SentMessage], ended: str = ""
) -> tuple[list[dict[str, Any]], int]:
    """Say it all, then the mark; return the answers and the close code, 0 where it lives."""
    mark = frame(json.dumps({"type": "subscribe", "id": MARK}).encode())

    def is_over(answers: list[dict[str, Any]]) -> bool:
        check(answers[-1])
        return answers[-1]["type"] == "error" and answers[-1].get("id") == MARK

    wire = [*(one.wire(ended) for one in said), mark]
    return await converse(api.url, wire, is_over, headers=api.credentials)


def check(answer: dict[str, Any]) -> None:
    """A frame of ours has a type; an error has its members and is no defect."""
    assert isinstance(answer["type"], str)
    if answer["type"] == "error":
        assert {"code", "message", "retryable"} <= set(answer)
        assert answer["code"] != "internal"


@MAY_FIND
@given(said=st.lists(harmless(COMMANDS) | BINARIES, min_size=1, max_size=8))
async def test_an_invalid_message_is_answered_and_the_socket_stays_open(
    api: RawClient, ended: str, said: list[SentMessage]
) -> None:
    answers, code = await socket_client(api, said, ended)

    assert code == 0, (code, answers)


@MAY_FIND
@given(before=st.lists(harmless(COMMANDS), max_size=4), broken=BROKEN, after=st.binary(max_size=60))
async def test_a_protocol_violation_closes_the_socket_with_its_code(
    api: RawClient, before: list[SentMessage], broken: SentMessage, after: bytes
) -> None:
    _, code = await socket_client(api, [*before, broken, SentMessage(after)])

    assert code in VIOLATIONS, code


@MAY_FIND
@given(raw=st.binary(min_size=1, max_size=300))
async def test_any_bytes_are_answered_or_closed(api: RawClient, raw: bytes) -> None:
    """Also half a frame: then the rest is waited for, and the next connection is served."""
    async with raw_connection(api.url) as (_, writer):
        writer.write(handshake(api.url, api.credentials) + raw)
        writer.write_eof()

    assert (await socket_client(api, []))[1] == 0


@MAY_FIND
@given(
    said=st.lists(harmless(COMMANDS), max_size=3),
    code=st.sampled_from([1000, 1001, 1011, 3000, 4999]),
    reason=st.text(max_size=20),
)
async def test_a_close_frame_is_answered_whatever_came_before(
    api: RawClient, said: list[SentMessage], code: int, reason: str
) -> None:
    bye = struct.pack("!H", code) + reason.encode("utf-8", "replace")

    _, answered = await socket_client(api, [*said, SentMessage(frame(bye, opcode=CLOSE))])

    assert answered == code


async def test_a_message_one_byte_above_the_bound_is_refused_and_the_socket_lives(
    api: RawClient,
) -> None:
    text = b'{"type":"' + b"x" * (BODY_BYTES_MAX - 11) + b'"}'
    assert len(text) == BODY_BYTES_MAX

    answers, code = await socket_client(
        api, [SentMessage(large_frame(text)), SentMessage(large_frame(text + b" "))]
    )

    assert [answer["code"] for answer in answers] == [
        "invalid_request", "body_too_large", "not_found",
    ]  # fmt: skip
    assert code == 0
