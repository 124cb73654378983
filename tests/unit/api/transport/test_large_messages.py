"""Large messages are taken out of the frames, and every other byte reaches the parser unchanged."""

from __future__ import annotations

import gc
import random
import weakref
import zlib
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.body_room import BodyRoom, bodies_full
from api.errors import request_error
from api.transport import large_messages
from api.transport.large_messages import (
    BrokenMessage,
    CompressedMessage,
    LargeMessage,
    MessageSieve,
)
from tests.support.raw_wire import frame

SMALL, MOST = 10, 40  # bytes: above the first a message is large, above the second refused
PING = frame(b"between", opcode=9)


@pytest.fixture(autouse=True)
def few_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(large_messages, "SMALL_BYTES", SMALL)


class Memory:
    def __init__(self, room: BodyRoom) -> None:
        self.hold = room.hold()

    def grow(self, count: int) -> None:
        self.hold.grow(count, 0.0)

    def lend(self, on_given_up: object) -> None: ...

    def release(self) -> None:
        self.hold.release()


@dataclass
class Connection:
    """A sieve and the parser behind it, which knows complete unmasked frames."""

    room: BodyRoom = field(default_factory=lambda: BodyRoom(1_000_000, 1_000_000))
    passed: bytearray = field(default_factory=bytearray)
    messages: list[bytes | str] = field(default_factory=list)
    kept_max: int = 0

    def __post_init__(self) -> None:
        self.sieve = MessageSieve(MOST, self.begin, inflates=True)
        self.fragments = b""

    def begin(self, is_text: bool, is_compressed: bool) -> LargeMessage:
        kind = CompressedMessage if is_compressed else LargeMessage
        message = kind(Memory(self.room), is_text=is_text, bytes_max=MOST)
        message.add(self.fragments)
        self.fragments = b""
        return message

    def say(self, data: bytes) -> None:
        for piece in self.sieve.feed(data):
            self.passed += piece
            self.parse()
        if self.sieve.message is not None:
            self.kept_max = max(self.kept_max, len(self.sieve.message.content))

    def parse(self) -> None:
        while len(self.passed) >= 6 and len(self.passed) >= (end := 6 + (self.passed[1] & 0x7F)):
            first, mask = self.passed[0], self.passed[2:6]
            body = bytes(byte ^ mask[n % 4] for n, byte in enumerate(self.passed[6:end]))
            del self.passed[:end]
            if first & 0x0F > 2:
                continue
            self.fragments += body
            if first & 0x80:
                self.deliver()

    def deliver(self) -> None:
        large, self.sieve.message = self.sieve.message, None
        if large is None:
            self.messages.append(self.fragments)
        elif large.refusal is not None:
            self.messages.append(large.refusal.code)
        else:
            self.messages.append(bytes(large.content))
        self.fragments = b""


def fragments(message: bytes, cuts: list[int], *, is_compressed: bool = False) -> list[bytes]:
    message = compressed(message) if is_compressed else message
    places = [0, *sorted({min(cut, len(message)) for cut in cuts}), len(message)]
    parts = [message[a:b] for a, b in zip(places, places[1:], strict=False)]
    last = len(parts) - 1
    return [
        frame(
            part,
            opcode=0 if n else 1,
            fin=n == last,
            reserved=4 if is_compressed and not n else 0,
        )
        for n, part in enumerate(parts)
    ]


def compressed(message: bytes) -> bytes:
    compressor = zlib.compressobj(wbits=-15)
    return (compressor.compress(message) + compressor.flush(zlib.Z_SYNC_FLUSH))[:-4]


MESSAGES = st.lists(
    st.tuples(
        st.text("aé流😀", max_size=30).map(str.encode),
        st.lists(st.integers(0, 60), max_size=4),
        st.booleans(),
    ),
    max_size=6,
)


@given(MESSAGES, st.randoms(use_true_random=False))
def test_messages_arrive_whole_in_order_however_they_are_cut(
    said: list[tuple[bytes, list[int], bool]], chance: random.Random
) -> None:
    connection = Connection()
    wire = b"".join(
        PING.join(fragments(text, cuts, is_compressed=is_compressed))
        for text, cuts, is_compressed in said
    )
    while wire:
        size = chance.randint(1, 50)
        connection.say(wire[:size])
        wire = wire[size:]

    expected = [text if len(text) <= MOST else "body_too_large" for text, *_ in said]
    assert connection.messages == expected
    assert connection.kept_max <= MOST
    assert connection.sieve.is_between_frames


@given(MESSAGES.filter(lambda said: all(len(text) <= SMALL for text, *_ in said)))
def test_small_messages_pass_unchanged(said: list[tuple[bytes, list[int], bool]]) -> None:
    wire = b"".join(PING.join(fragments(text, cuts)) for text, cuts, _ in said)

    sieve = MessageSieve(MOST, Connection().begin)

    assert b"".join(sieve.feed(wire)) == wire


@pytest.mark.parametrize(
    "broken",
    [
        frame(b"x" * 20, is_masked=False),
        frame(b"x" * 20, reserved=4),
        frame(b"x" * 20, opcode=3),
        frame(b"x" * 20, opcode=0),
        frame(b"x", fin=False) + frame(b"x" * 20),
        frame(b"x" * 200, opcode=9),
    ],
    ids=["unmasked", "compressed", "opcode", "continuation", "begun twice", "long ping"],
)
def test_what_breaks_the_protocol_reaches_the_parser(broken: bytes) -> None:
    sieve = MessageSieve(MOST, Connection().begin)

    assert b"".join(sieve.feed(broken)) == broken


@pytest.mark.parametrize("cuts", [[], [9]], ids=["large from the start", "large later"])
@pytest.mark.parametrize("text", [b"x" * 20 + b"\xff" + b"x", b"x" * 20 + "é".encode()[:1]])
def test_a_large_text_that_is_no_utf_8_closes_with_1007(text: bytes, cuts: list[int]) -> None:
    with pytest.raises(BrokenMessage) as caught:
        Connection().say(b"".join(fragments(text, cuts)))

    assert caught.value.code == 1007


def test_a_message_of_more_than_eight_times_the_bound_closes_with_1009() -> None:
    connection = Connection()
    connection.say(frame(b"x" * 8 * MOST, fin=False))

    with pytest.raises(BrokenMessage) as caught:
        connection.say(frame(b"x", opcode=0)[:6])

    assert caught.value.code == 1009


def test_a_message_without_room_is_refused_and_the_next_one_arrives() -> None:
    class Full(Memory):
        def grow(self, count: int) -> None:
            raise bodies_full()

    connection = Connection()
    connection.begin = lambda is_text, is_compressed: LargeMessage(  # type: ignore[method-assign]
        Full(connection.room), is_text=is_text, bytes_max=MOST
    )
    connection.__post_init__()
    connection.say(frame(b"x" * 20) + frame(b"y"))

    assert connection.messages == ["bodies_full", b"y"]


def test_a_message_that_is_given_up_is_dropped_to_its_end() -> None:
    connection = Connection()
    whole = frame(b"x" * 30)
    connection.say(whole[:20])
    assert connection.sieve.message is not None

    connection.sieve.message.refuse(request_error("request_timeout", "too slow"))
    connection.say(whole[20:] + frame(b"y"))

    assert connection.messages == ["request_timeout", b"y"]


@pytest.mark.parametrize(
    ("deflated", "reason"),
    [
        (b"\xff\xff\xff", "not DEFLATE"),
        (compressed(b"Hello, Hello, Hello")[:-3], "cut off|not DEFLATE"),
        (b"\x03\x00" * 20, "final blocks"),
    ],
)
def test_a_compressed_message_that_does_not_inflate_closes_with_1007(
    deflated: bytes, reason: str
) -> None:
    with pytest.raises(BrokenMessage, match=reason) as caught:
        Connection().say(frame(deflated, reserved=4))

    assert caught.value.code == 1007


def test_a_compressed_text_that_is_no_utf_8_closes_with_1007() -> None:
    with pytest.raises(BrokenMessage, match="UTF-8") as caught:
        Connection().say(frame(compressed(b"x\xff"), reserved=4))

    assert caught.value.code == 1007


def test_a_bomb_takes_no_more_memory_than_a_message_may() -> None:
    connection = Connection()
    bomb = compressed(bytes(200_000))
    connection.say(frame(bomb, reserved=4) + frame(b"y"))

    assert connection.messages == ["body_too_large", b"y"]
    assert connection.kept_max <= MOST


def test_rsv1_on_a_continuation_or_a_control_frame_reaches_the_parser() -> None:
    for broken in (
        frame(b"x", reserved=4, opcode=9),
        frame(b"x", reserved=5),
        frame(b"x", reserved=6),
    ):
        sieve = MessageSieve(MOST, Connection().begin, inflates=True)
        assert b"".join(sieve.feed(broken)) == broken
    sieve = MessageSieve(MOST, Connection().begin, inflates=True)
    again = frame(b"x", reserved=4, opcode=0)
    assert b"".join(sieve.feed(frame(b"a", fin=False) + again)).endswith(again)


@pytest.mark.parametrize("kind", [LargeMessage, CompressedMessage])
def test_a_message_that_will_not_become_complete_is_freed_at_once(kind: type[LargeMessage]) -> None:
    """Its bytes are given back at that moment, so others may take them."""

    class Watched(kind):  # type: ignore[misc, valid-type]
        __slots__ = ("__weakref__",)

    gc.disable()
    try:
        memory = Memory(BodyRoom(1_000_000, 1_000_000))
        message = Watched(memory, is_text=True, bytes_max=1_000)
        memory.hold.on_given_up = lambda kept=message: kept.refuse(bodies_full())
        message.add(
            zlib.compress(b"x" * 900, wbits=-15)[:-1] if kind is CompressedMessage else b"x"
        )
        held = weakref.ref(message)
        content = message.content
        message.drop()
        assert content and not message.content
        del message, memory
        assert held() is None
    finally:
        gc.enable()
