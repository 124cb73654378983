"""Slots of one process: a share for each owner, and a reserve for likely successes."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from jobs.webhook_slots import (
    KNOWN_MAX,
    OWNER_MAX,
    RESULT_KNOWN_S,
    RUNNING_MAX,
    Experience,
    Hope,
    WebhookSlots,
)


def taken(slots: WebhookSlots, owner: str, hope: Hope) -> int:
    """Return how many slots this owner gets."""
    count = 0
    while slots.take(owner, hope):
        count += 1
    return count


def test_one_owner_gets_a_quarter_of_the_slots() -> None:
    assert taken(WebhookSlots(), "a", Hope.MUCH) == OWNER_MAX == RUNNING_MAX // 4


def test_repeats_leave_slots_for_first_attempts() -> None:
    slots = WebhookSlots()
    repeats = sum(taken(slots, f"owner {number}", Hope.LITTLE) for number in range(100))

    assert repeats == RUNNING_MAX // 2
    assert taken(slots, "owner 0", Hope.SOME) > 0
    assert taken(slots, "another", Hope.SOME) > 0


def test_hosts_with_a_success_get_slots_beside_hanging_hosts() -> None:
    slots = WebhookSlots()
    assert taken(slots, "a", Hope.LITTLE) == OWNER_MAX // 2
    assert taken(slots, "a", Hope.SOME) == OWNER_MAX // 4
    assert taken(slots, "a", Hope.MUCH) == OWNER_MAX // 4


@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.sampled_from(list(Hope))), max_size=200))
def test_a_freed_slot_can_be_taken_again(asked: list[tuple[str, Hope]]) -> None:
    slots = WebhookSlots()
    for owner, hope in [one for one in asked if slots.take(*one)]:
        slots.free(owner, hope)

    assert taken(slots, "a", Hope.MUCH) == OWNER_MAX


def test_experience_is_per_owner_and_expires() -> None:
    known = Experience()
    known.note("a host", 0.0, is_well=False)

    assert known.of("a host", 1.0) == Hope.LITTLE
    assert known.of("b host", 1.0) == Hope.SOME
    assert known.of("a host", RESULT_KNOWN_S + 1) == Hope.SOME
    known.note("a host", 2.0, is_well=True)
    assert known.of("a host", 3.0) == Hope.MUCH


def test_experience_is_bounded() -> None:
    known = Experience()
    for number in range(KNOWN_MAX + 1):
        known.note(f"a {number}", 0.0, is_well=True)

    assert known.of("a 0", 1.0) == Hope.SOME and known.of("a 1", 1.0) == Hope.MUCH
