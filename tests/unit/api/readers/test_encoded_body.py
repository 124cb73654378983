"""Where a compressed reader may join the row of the others, and what its body has to contain."""

from __future__ import annotations

from typing import Any

import pytest

from api.compression.gzip_encoding import WINDOW_BITS, GzipEncoding
from api.dialects.native.fold import SSE
from api.hub.broadcast import FollowerRow
from api.hub.compressed import KEY_FRAME_ENTRIES, CompressedLog
from api.hub.contracts import HubCounters
from api.hub.encoded import EncodedLog
from api.hub.feed import Feed
from api.hub.frame import LiveFrame
from api.readers.encoded_body import SharedBody
from shared.log.events import Token, encode
from shared.log.ids import EventId
from tests.support.decoders import decode
from tests.support.hub_harness import make_meta


class Host:
    """A hub that gives no turns: the test takes the pieces itself."""

    counters = HubCounters()

    def now(self) -> float:
        return 0.0

    def wake_row(self, row: Any) -> None:
        pass

    def call_at(self, at: float, callback: Any) -> None:
        raise AssertionError("no timers")


class Follower:
    """A reader that follows in a row."""

    row: FollowerRow | None = None

    def __init__(self, body: SharedBody) -> None:
        self.body = body
        self.got: list[bytes] = []
        self.write = self.got.append

    def step_out(self, seq: int, sent_at: float) -> None:
        self.body.leave(seq)


class Place:
    """A log with a compressed form, and one reader in its row."""

    def __init__(self) -> None:
        self.feed = Feed()
        self.plain = EncodedLog(self.feed, SSE, make_meta())
        self.compressed = CompressedLog(self.plain, self.feed, Host(), GzipEncoding())
        self.first = Follower(self.body())
        self.say(1)
        self.join(self.first)

    def body(self) -> SharedBody:
        body = SharedBody(GzipEncoding())
        body.attach(self, SSE)  # type: ignore[arg-type]
        body.take_opening()
        return body

    def compressed_log(self, *_: object) -> CompressedLog:
        return self.compressed

    def say(self, entries: int, text: str = "word") -> None:
        first = self.feed.count + 1
        entry = encode(Token(text))
        raws = tuple((EventId(1, first + n), entry) for n in range(entries))
        self.feed.offer_frame(LiveFrame(self.feed.top, raws, 0))

    def read(self, body: SharedBody, seq: int) -> bytes:
        """Read from an entry to the end of the log."""
        got = b""
        while seq < self.feed.count:
            chunk, seq = self.plain.slice(seq)
            got += body.log_piece(chunk, self.feed.epoch)
        return got

    def join(self, follower: Follower) -> None:
        group = follower.body.follow(self.feed.count, self.feed.epoch)
        assert group is not None
        group.admit(follower, self.feed.count, 0.0)

    def may_join(self, body: SharedBody) -> bool:
        return body.follow(self.feed.count, self.feed.epoch) is not None


@pytest.fixture
def place() -> Place:
    return Place()


def test_a_reader_with_everything_since_the_compressor_began_joins_at_once(place: Place) -> None:
    place.say(10)
    whole, late = place.body(), place.body()
    place.read(whole, 0)
    place.read(late, 8)
    assert place.may_join(whole)
    assert not place.may_join(late)


def test_a_reader_with_a_window_of_the_log_joins_without_a_key_frame(place: Place) -> None:
    place.say(20, "x" * 400)
    late = place.body()
    place.read(late, 20 - (1 << WINDOW_BITS) // 400)
    assert place.may_join(late)


@pytest.mark.parametrize("what", ["heartbeat", "rewrite"])
def test_bytes_of_no_log_or_of_another_log_are_no_window(place: Place, what: str) -> None:
    place.say(10)
    body = place.body()
    place.read(body, 0)
    if what == "heartbeat":
        body.aside_piece(b": ping\n")
    else:
        body._epoch -= 1  # as if the log had been rewritten after the reading
    assert not place.may_join(body)
    place.say(KEY_FRAME_ENTRIES)
    place.read(body, 11)
    assert place.may_join(body), "a key frame is due"


def test_the_trailer_counts_what_the_row_has_written(place: Place) -> None:
    follower = Follower(place.body())
    got = [GzipEncoding.opening + place.read(follower.body, 0)]
    place.join(follower)
    place.say(5)
    piece, seq = place.compressed.slice(1)
    assert seq == 6 and place.compressed.slice(1)[0] is piece
    assert follower.row is not None
    follower.row.seq = seq
    follower.row.remove(follower)
    got += [piece, follower.body.aside_piece(b": ping\n"), follower.body.closing()]

    assert decode("gzip", b"".join(got)) == place.plain.slice(0)[0] + b": ping\n"
    assert follower.body.closing() == b"", "once"


def test_without_members_there_is_no_compressor(place: Place) -> None:
    place.say(3)
    place.compressed.slice(1)
    assert place.compressed.bytes_kept > 30_000
    row = place.first.row
    assert row is not None
    row.seq = 4
    row.remove(place.first)
    assert place.compressed.bytes_kept == 0
