"""The memory for bodies: what counts, who finds room, and who is given up."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api import body_room
from api.body_room import (
    LARGE_AT_ONCE,
    LARGE_BODY_BYTES,
    PATIENCE_S,
    PIECE_BYTES,
    PIECE_S,
    UNCOUNTED_BYTES,
    ArrivalPace,
    BodyHold,
    BodyRoom,
)
from shared.errors import RequestError

MIB = 2**20


def full_room() -> tuple[BodyRoom, list[BodyHold]]:
    """Return a room of 16 MiB with 12 MiB in three large bodies: all but the reserve."""
    room = BodyRoom(16 * MIB, 4 * MIB)
    holds = [room.hold() for _ in range(3)]
    for hold in holds:
        hold.on_given_up = lambda: None
        hold.grow(4 * MIB + UNCOUNTED_BYTES, 0.0)
    return room, holds


def is_refused(hold: BodyHold, count: int, now_s: float = 1.0) -> bool:
    try:
        hold.grow(count, now_s)
    except RequestError as error:
        assert (error.status, error.code, error.retry_after_s) == (503, "bodies_full", 1)
        return True
    return False


def test_a_small_body_takes_nothing() -> None:
    room, _ = full_room()
    before = room.used

    assert not is_refused(room.hold(), UNCOUNTED_BYTES)
    assert room.used == before


def test_the_reserve_is_for_bodies_that_are_not_large() -> None:
    room, _ = full_room()

    assert not is_refused(room.hold(), LARGE_BODY_BYTES)
    assert is_refused(room.hold(), LARGE_BODY_BYTES + 1)


def test_a_refused_body_gives_its_bytes_back() -> None:
    room, holds = full_room()

    assert is_refused(holds[0], 1)
    assert room.used == 8 * MIB
    assert is_refused(holds[0], 1)
    assert room.used == 8 * MIB


def test_a_body_that_arrives_slowly_is_given_up_for_another() -> None:
    room, holds = full_room()
    given_up: list[int] = []
    for index, hold in enumerate(holds):
        hold.on_given_up = lambda index=index: given_up.append(index)  # type: ignore[misc]

    assert is_refused(room.hold(), 2 * MIB, PATIENCE_S)
    assert not given_up
    assert not is_refused(room.hold(), 2 * MIB, PATIENCE_S + 0.1)
    assert given_up == [0]
    assert room.used == 10 * MIB - UNCOUNTED_BYTES
    assert is_refused(holds[0], 1)


def test_a_complete_body_is_not_given_up() -> None:
    room, holds = full_room()
    for hold in holds:
        hold.complete()

    assert is_refused(room.hold(), 2 * MIB, PATIENCE_S + 0.1)


def test_no_body_is_given_up_in_vain() -> None:
    room, holds = full_room()
    for hold in holds[1:]:
        hold.complete()

    assert is_refused(room.hold(), 5 * MIB, PATIENCE_S + 0.1)
    assert not holds[0].is_given_up


def test_one_body_of_the_largest_size_always_fits_into_an_empty_room() -> None:
    assert not is_refused(BodyRoom(4 * MIB, 4 * MIB).hold(), 4 * MIB)


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 3 * MIB), st.booleans()), max_size=60))
def test_the_room_is_never_exceeded_and_empty_in_the_end(
    steps: list[tuple[int, int, bool]],
) -> None:
    room = BodyRoom(8 * MIB, 4 * MIB)
    holds = [room.hold() for _ in range(10)]
    for now_s, (which, count, has_gone) in enumerate(steps):
        hold = holds[which]
        hold.on_given_up = lambda: None
        if has_gone:
            hold.release()
        else:
            is_refused(hold, count, 10.0 * now_s)
        assert 0 <= room.used == sum(held.counted for held in holds) <= room.bytes_max
    for hold in holds:
        hold.release()
    assert room.used == 0


async def test_large_bodies_have_turns_and_small_ones_need_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(body_room, "LARGE_BODY_TURN_WAIT_S", 0.0)
    room = BodyRoom(8 * MIB, 4 * MIB)
    turns = [room.turn(2 * MIB) for _ in range(LARGE_AT_ONCE)]
    for turn in turns:
        await turn.__aenter__()

    async with room.turn(LARGE_BODY_BYTES):
        pass
    with pytest.raises(RequestError) as caught:
        await room.turn(2 * MIB).__aenter__()
    await turns[0].__aexit__(None, None, None)
    async with room.turn(2 * MIB):
        pass

    assert caught.value.code == "bodies_full"


def test_a_body_may_take_its_time_as_long_as_pieces_arrive() -> None:
    pace = ArrivalPace(100.0)

    assert pace.due_s == 100.0 + PATIENCE_S
    assert pace.note(PIECE_BYTES, 101.0) == 100.0 + PATIENCE_S
    assert pace.note(2 * PIECE_BYTES, 129.0) == 129.0 + PIECE_S
    assert pace.note(3 * PIECE_BYTES - 1, 144.0) == 129.0 + PIECE_S
    assert pace.note(3 * PIECE_BYTES, 144.5) == 144.5 + PIECE_S


def test_bytes_that_came_fast_give_no_credit_for_later() -> None:
    pace = ArrivalPace(0.0)

    assert pace.note(100 * PIECE_BYTES, 29.0) == 29.0 + PIECE_S
