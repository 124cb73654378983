"""Slots, the slot map, and what each reply of a cluster leads to: tables without a server."""

from __future__ import annotations

from typing import Any

import pytest
from redis import exceptions
from redis.exceptions import ResponseError

from shared.redis.cluster.redirects import (
    PATIENCE_S,
    SENDINGS_MAX,
    TRYAGAIN_PAUSES_S,
    Redirects,
    Target,
)
from shared.redis.cluster.slot_map import SlotMap
from shared.redis.cluster.slots import SLOTS, CrossSlot, command_slot, key_slot

A, B, C = ("10.0.0.1", 7001), ("10.0.0.2", 7002), ("10.0.0.3", 7003)


@pytest.mark.parametrize(
    ("key", "slot"),
    [
        (b"123456789", 12_739),  # the example of the cluster's specification
        (b"foo", 12_182),
        (b"{foo}:log", 12_182),
        (b"tr:{foo}:meta", 12_182),
        (b"a{foo}{bar}", 12_182),
        (b"{}foo", 9_500),
        (b"{foo", 13_308),
        (b"foo}", 15_679),
        (b"", 0),
    ],
)
def test_the_slot_of_a_key(key: bytes, slot: int) -> None:
    """The numbers are those of CLUSTER KEYSLOT."""
    assert key_slot(key) == slot


@pytest.mark.parametrize(
    ("command", "key"),
    [
        (["XADD", "tr:{q}:batch", "*", "f", "v"], b"tr:{q}:batch"),
        (["get", b"foo"], b"foo"),
        (["XGROUP", "CREATE", "{foo}lane", "g", "0"], b"foo"),
        (["XINFO", "CONSUMERS", "{foo}lane", "g"], b"foo"),
        (["PUBLISH", "channel", "message"], None),
        (["SPUBLISH", "{foo}live", "message"], b"foo"),
        (["EVALSHA", "d" * 40, 2, "tr:{foo}:a", "tr:{foo}:b", "{other}"], b"foo"),
        (["XREADGROUP", "GROUP", "g", "c", "STREAMS", "{foo}a", "{foo}b", ">", ">"], b"foo"),
        (["EVALSHA", "d" * 40, 0, "foo"], None),
        (["PING"], None),
        (["SCRIPT", "LOAD", "return 1"], None),
        (["TIME"], None),
    ],
)
def test_the_slot_of_a_command(command: list[Any], key: bytes | None) -> None:
    assert command_slot(command) == (None if key is None else key_slot(key))


@pytest.mark.parametrize(
    "command",
    [["EVALSHA", "d" * 40, 2, "{a}", "{b}"], ["DEL", "{a}", "{b}"], ["EXISTS", "{a}1", "{b}1"]],
    ids=["script", "del", "exists"],
)
def test_keys_of_two_slots_are_a_defect(command: list[Any]) -> None:
    with pytest.raises(CrossSlot):
        command_slot(command)


def three() -> SlotMap:
    """A has slots 0 to 4999, B 5000 to 9999, C the rest."""
    found = SlotMap()
    found.read(
        [
            [0, 4_999, [b"10.0.0.1", 7001, b"id"], [b"10.0.0.9", 7009, b"id"]],
            [5_000, 9_999, [b"10.0.0.2", 7002, b"id"]],
            [10_000, SLOTS - 1, [b"10.0.0.3", 7003, b"id"]],
        ],
        A,
    )
    return found


def test_a_map_that_was_read() -> None:
    found = three()

    assert [found.master_of(slot) for slot in (0, 4_999, 5_000, 10_000)] == [A, A, B, C]
    assert found.masters == [A, B, C] and found.is_whole
    assert found.master_of(None) in found.masters
    assert (found.version, found.is_stale) == (1, False)


def test_an_empty_host_is_that_of_the_server_that_answered() -> None:
    found = SlotMap()
    found.read([[0, 10, [b"", 7001, b"id"]]], ("10.0.0.7", 7001))

    assert found.master_of(3) == ("10.0.0.7", 7001)
    assert not found.is_whole


@pytest.mark.parametrize("reply", [[[1]], [[5, 1, [b"h", 1]]], [[0, SLOTS, [b"h", 1]]], b"x", None])
def test_a_reply_of_another_form_leaves_the_map_as_it_is(reply: Any) -> None:
    found = three()

    with pytest.raises(ValueError, match="another form"):
        found.read(reply, A)
    assert found.master_of(0) == A and found.version == 1


def test_a_server_that_knows_no_master_changes_no_map() -> None:
    found = three()

    with pytest.raises(ValueError, match="no master"):
        found.read([], A)
    assert found.master_of(0) == A and found.version == 1


def test_a_moved_slot_is_known_at_once_and_makes_the_map_stale() -> None:
    found = three()

    found.note_moved(7, A)
    assert not found.is_stale, "nothing new"
    found.note_moved(7, C)
    assert (found.master_of(7), found.master_of(8)) == (C, A)
    assert found.is_stale


def begin(*slots: int | None, deadline_s: float = 10.0) -> tuple[Redirects, SlotMap]:
    slot_map = three()
    return Redirects(slots, slot_map, deadline_s=deadline_s), slot_map


def test_calls_go_to_their_masters_in_order_and_replies_come_in_theirs() -> None:
    calls, _ = begin(10_000, 1, 2, 10_001)

    assert calls.due(0.0) == {Target(C): [0, 3], Target(A): [1, 2]}
    for index, target in ((3, C), (1, A), (0, C), (2, A)):
        calls.take(index, Target(target), b"reply %d" % index, 0.0)
    assert calls.is_done
    assert calls.replies == [b"reply 0", b"reply 1", b"reply 2", b"reply 3"]


def test_moved_goes_to_the_new_master_at_once_and_teaches_the_map() -> None:
    calls, slot_map = begin(1, 2)
    calls.due(0.0)
    calls.take(0, Target(A), ResponseError("MOVED 1 10.0.0.2:7002"), 0.0)
    calls.take(1, Target(A), b"ok", 0.0)

    assert calls.due(0.0) == {Target(B): [0]}
    assert slot_map.master_of(1) == B and slot_map.is_stale
    calls.take(0, Target(B), b"ok", 0.0)
    assert calls.replies == [b"ok", b"ok"]


def test_moved_without_a_host_stays_at_the_host_that_answered() -> None:
    calls, _ = begin(1)
    calls.due(0.0)
    calls.take(0, Target(A), ResponseError("MOVED 1 :7005"), 0.0)

    assert calls.due(0.0) == {Target((A[0], 7005)): [0]}


def test_ask_goes_there_once_and_leaves_the_map_as_it_is() -> None:
    calls, slot_map = begin(1)
    calls.due(0.0)
    calls.take(0, Target(A), ResponseError("ASK 1 10.0.0.2:7002"), 0.0)

    assert calls.due(0.0) == {Target(B, is_asking=True): [0]}
    assert slot_map.master_of(1) == A and not slot_map.is_stale
    calls.take(0, Target(B, is_asking=True), ResponseError("TRYAGAIN half of it"), 0.0)
    assert calls.due(1.0) == {Target(A): [0]}, "from the beginning again"


@pytest.mark.parametrize(
    ("text", "is_stale"),
    [("TRYAGAIN Multiple keys", False), ("CLUSTERDOWN Hash slot", True), ("MASTERDOWN x", True)],
)
def test_a_refusal_for_now_goes_again_after_growing_pauses(text: str, is_stale: bool) -> None:
    calls, slot_map = begin(1)
    now, pauses = 0.0, []
    for _ in range(6):
        assert calls.due(now) == {Target(A): [0]}
        calls.take(0, Target(A), ResponseError(text), now)
        assert calls.due(now) == {}
        pauses.append(calls.pause_s(now))
        now += pauses[-1]

    assert pauses[0] == pytest.approx(TRYAGAIN_PAUSES_S[0])
    assert pauses[-1] == pytest.approx(TRYAGAIN_PAUSES_S[1])
    assert slot_map.is_stale is is_stale


def test_at_the_deadline_the_refusal_is_the_reply() -> None:
    calls, _ = begin(1, deadline_s=0.01)
    refusal = ResponseError("TRYAGAIN x")
    calls.due(0.0)
    calls.take(0, Target(A), refusal, 0.0)

    assert calls.is_done and calls.replies == [refusal]


def test_redirections_in_a_circle_end() -> None:
    calls, _ = begin(1)
    sendings = 0
    while targets := calls.due(0.0):
        (target,) = targets
        other = B if target.address == A else A
        calls.take(0, target, ResponseError(f"MOVED 1 {other[0]}:{other[1]}"), 0.0)
        sendings += 1

    assert sendings == SENDINGS_MAX
    assert str(calls.replies[0]).startswith("MOVED")


def test_an_unknown_script_is_loaded_at_the_server_that_lacks_it() -> None:
    calls, _ = begin(1)
    calls.due(0.0)
    target = Target(B, is_asking=True)
    calls.take(0, target, exceptions.NoScriptError("No matching script"), 0.0)

    assert calls.due(0.0) == {target: [0]} and calls.needs_script(0)
    calls.take(0, target, b"ok", 0.0)
    assert calls.replies == [b"ok"] and not calls.needs_script(0)


def test_another_error_is_the_reply() -> None:
    calls, _ = begin(1)
    wrong = ResponseError("WRONGTYPE x")
    calls.due(0.0)
    calls.take(0, Target(A), wrong, 0.0)

    assert calls.replies == [wrong]


def test_a_lost_reply_is_never_sent_again_and_spoils_no_other() -> None:
    calls, slot_map = begin(1, 10_000)
    calls.due(0.0)
    lost = exceptions.ConnectionError("lost")
    calls.lose([0], Target(A), lost)
    calls.take(1, Target(C), b"ok", 0.0)

    assert calls.is_done and calls.replies == [lost, b"ok"]
    assert slot_map.is_doubtful([1]) and not slot_map.is_doubtful([10_000])


def test_a_map_that_was_read_again_is_not_doubtful() -> None:
    slot_map = SlotMap()
    assert slot_map.is_doubtful([1]), "it was never read"
    slot_map = three()
    slot_map.note_lost(A)
    assert slot_map.is_doubtful([1])
    slot_map.read([[0, SLOTS - 1, [b"10.0.0.2", 7002]]], B)

    assert not slot_map.is_doubtful([1])


def test_a_slot_without_a_master_is_doubtful_until_it_has_one() -> None:
    slot_map = SlotMap()
    slot_map.read([[0, 10, [b"10.0.0.1", 7001]]], A)
    assert slot_map.is_doubtful([11]) and not slot_map.is_doubtful([10])
    slot_map.read([[0, SLOTS - 1, [b"10.0.0.1", 7001]]], A)

    assert not slot_map.is_doubtful([11])


def test_a_call_that_was_never_sent_goes_to_the_promoted_replica() -> None:
    calls, slot_map = begin(1, 2)
    calls.due(0.0)
    slot_map.note_moved(1, B)  # as a new reading of the map may say
    absent = exceptions.ConnectionError("refused")
    calls.never_sent([0, 1], Target(A), absent)

    assert calls.due(0.0) == {Target(B): [0]}
    assert calls.replies[1] is absent, "slot 2 still has the master that cannot be reached"


def test_a_slot_without_a_master_is_an_error_of_its_call_only() -> None:
    slot_map = SlotMap()
    slot_map.read([[0, 10, [b"10.0.0.1", 7001]]], A)
    calls = Redirects([3, 11], slot_map, deadline_s=10.0)

    assert calls.due(0.0) == {Target(A): [0]}
    assert isinstance(calls.replies[1], exceptions.ConnectionError)


def test_a_call_alone_waits_until_the_deadline_and_calls_beside_others_only_a_moment() -> None:
    for slots, until_s in (((1,), 10.0), ((1, 2), PATIENCE_S)):
        calls, _ = begin(*slots)
        now, again = 0.0, ResponseError("TRYAGAIN")
        while not calls.is_done and now < 60:
            for target, indices in calls.due(now).items():
                for index in indices:
                    calls.take(index, target, again if index == 0 else b"ok", now)
            now += calls.pause_s(now) or 0.01

        assert calls.replies[0] is again
        waits = min(until_s, sum(TRYAGAIN_PAUSES_S[1] for _ in range(SENDINGS_MAX)))
        assert waits / 4 < now <= waits + TRYAGAIN_PAUSES_S[1]


def test_calls_that_no_server_has_answered_are_named() -> None:
    calls, _ = begin(1, 5_000)
    calls.due(0.0)
    calls.lose([0], Target(A), exceptions.ConnectionError("gone"))
    calls.take(1, Target(B), b"ok", 0.0)

    assert calls.is_done and calls.lost == {0}
