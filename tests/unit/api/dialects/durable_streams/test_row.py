"""The row of a tail: each follower gets each entry once and in order, or reads on by itself."""

from __future__ import annotations

import asyncio

from api.dialects.durable_streams.row import SLICE_READERS, Chunks, Row
from api.dialects.durable_streams.tail import Frame, Tail
from shared.streams.place import ZERO, Place, after
from shared.streams.record import Entry, StreamInfo
from shared.streams.store import Reading

A = after(ZERO, b"a")
B = after(A, b"b")


class Reader:
    def __init__(self, row: Row, place: Place = ZERO) -> None:
        self.place = place
        self.got: list[bytes] = []
        self.has_left = False
        self.row = row
        row.join(self)

    def follow(self, entry: Entry, chunks: Chunks) -> None:
        assert entry.before == self.place
        chunks.setdefault(("", True), entry.data)
        self.place = entry.after
        self.got.append(entry.data)

    def leave(self) -> None:
        self.row.discard(self)
        self.has_left = True


def reading(place: Place) -> Reading:
    return Reading(
        "live", StreamInfo("text/plain", "text/plain", place, ZERO, False, "", "", (), (), 0)
    )


def known_tail() -> Tail:
    tail = Tail()
    tail.take(reading(ZERO))
    return tail


async def test_a_long_row_is_served_in_slices_and_in_order() -> None:
    row = Row()
    readers = [Reader(row) for _ in range(3 * SLICE_READERS)]

    row.deliver(Entry(ZERO, A, b"a"))
    assert [len(reader.got) for reader in readers].count(1) == SLICE_READERS
    readers[-1].leave()
    row.deliver(Entry(A, B, b"b"))
    for _ in range(6):
        await asyncio.sleep(0)

    assert all(reader.got == [b"a", b"b"] for reader in readers[:-1])
    assert readers[-1].got == []


async def test_a_reader_at_another_place_leaves_the_row() -> None:
    row = Row()
    late = Reader(row, A)
    row.deliver(Entry(ZERO, A, b"a"))
    assert late.has_left and late.got == []
    row.deliver(Entry(A, B, b"b"))
    assert late.got == []


async def test_a_frame_with_bytes_goes_to_the_row_and_another_one_dissolves_it() -> None:
    tail = known_tail()
    reader = Reader(tail.row)
    waiting = asyncio.create_task(tail.wait(5.0))
    await asyncio.sleep(0)
    tail.offer(Frame(ZERO, A, False, False, b"a"))

    assert (reader.got, reader.has_left) == ([b"a"], False)
    assert await waiting, "a long poll waits outside of the row"
    tail.take(reading(A))
    assert not reader.has_left, "a look that finds nothing new leaves the row alone"
    tail.offer(Frame(A, B, True, False, b"b"))
    assert reader.has_left and reader.got == [b"a"]


async def test_a_follower_whose_write_raises_leaves_and_the_others_get_the_entry() -> None:
    """Only this reader's connection is lost; the frame came over the connection of the node."""
    tail = known_tail()
    gone, other = Reader(tail.row), Reader(tail.row)

    def refuse(entry: Entry, chunks: Chunks) -> None:
        raise RuntimeError("the handler is closed")

    gone.follow = refuse  # type: ignore[method-assign]
    tail.offer(Frame(ZERO, A, False, False, b"a"))
    tail.offer(Frame(A, B, False, False, b"b"))

    assert gone.has_left and gone.got == []
    assert (other.got, other.has_left) == ([b"a", b"b"], False)


async def test_every_other_change_dissolves_the_row() -> None:
    changes = [
        lambda tail: tail.offer(Frame(ZERO, A, False, False, None)),
        lambda tail: tail.offer(Frame(ZERO, ZERO, False, True, None)),
        lambda tail: tail.take(Reading("absent")),
        lambda tail: tail.take(reading(A)),
        lambda tail: tail.wake(),
    ]
    for change in changes:
        tail = known_tail()
        reader = Reader(tail.row)
        change(tail)
        assert reader.has_left
