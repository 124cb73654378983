"""Where a reader is placed, when it waits, and when it is reset."""

from __future__ import annotations

from api.hub.feed import Feed
from api.hub.position import Placement, Position
from shared.log.ids import EventId

TOKEN = b'{"type":"token","text":"x"}'


def read_feed(*attempts: int) -> Feed:
    """Return a feed that was read to its end; entry n has the nth of `attempts`."""
    feed = Feed()
    page = [(EventId(attempt, n + 1), TOKEN) for n, attempt in enumerate(attempts)]
    feed.offer_page(feed.request_page(100), page)
    return feed


def test_a_reader_is_placed_after_the_entry_of_its_cursor() -> None:
    position = Position(EventId(1, 2), now=0)
    assert position.place(read_feed(1, 1, 1), 0) is Placement.PLACED
    assert position.seq == 2


def test_a_cursor_with_the_seq_of_another_attempt_is_reset() -> None:
    position = Position(EventId(1, 2), now=0)
    assert position.place(read_feed(1, 2, 2), 0) is Placement.RESET
    assert position.seq == 0


def test_a_cursor_above_the_top_waits_two_seconds_and_is_reset() -> None:
    feed, position = read_feed(1), Position(EventId(1, 2), now=0)
    assert position.place(feed, 1.9) is Placement.WAITING
    assert position.place(feed, 2.0) is Placement.RESET


def test_a_feed_that_is_being_read_decides_no_place() -> None:
    feed, position = read_feed(1), Position(EventId(7, 1), now=0)
    feed.mark_stale()
    assert position.place(feed, 100) is Placement.WAITING


def test_after_a_rewrite_the_cursor_is_the_last_entry_that_was_handed_out() -> None:
    feed, position = read_feed(1, 1, 1), Position(EventId(1, 1), now=0)
    position.place(feed, 0)
    position.seq = 2
    feed.mark_stale()
    feed.offer_page(feed.request_page(100), [(EventId(1, 2), TOKEN), (EventId(2, 3), TOKEN)])
    assert feed.epoch == 1
    position.unplace(feed.former_ids, now=5)
    assert position.cursor == EventId(1, 2)
