"""The slots of a backend: the script, on the fake and on a real server."""

from __future__ import annotations

import pytest

from shared.backends import slots as slots_module
from shared.backends.slots import (
    BackendSlots,
    Waiter,
    announce_slotted,
    slots_in_use,
    waiting_in_line,
)
from shared.redis import backend_keys
from shared.redis.client import clock_ms
from shared.redis.scripts import Scripts

LEASE_MS = 60_000


@pytest.fixture
def two(redis) -> BackendSlots:
    """A backend with two slots."""
    return BackendSlots(Scripts(redis), "a", 2, LEASE_MS)


def waiter(name: str, **changes) -> Waiter:
    return Waiter(name, entry=f"entry of {name}".encode(), **changes)


async def take(slots: BackendSlots, *names: str, **changes) -> list[bool]:
    return [(await slots.call(waiter(name, **changes))).has_slot for name in names]


async def release(slots: BackendSlots, *names: str) -> list[str]:
    """Give slots back; return the ids that were granted one."""
    granted = await slots.call(released=names)
    return [entry.decode().removeprefix("entry of ") for entry in granted.entries]


async def test_a_third_generation_waits_until_one_of_two_slots_is_free(two):
    assert await take(two, "x", "y", "z") == [True, True, False]
    assert await release(two, "x") == ["z"]
    assert await take(two, "z") == [True]


async def test_a_repeated_call_changes_nothing(two):
    assert await take(two, "x", "x", "y", "z", "z", "x") == [True, True, True, False, False, True]
    assert await release(two, "x") == ["z"]
    assert await release(two, "x") == []


async def test_a_newcomer_does_not_pass_a_generation_that_waits(two):
    await take(two, "x", "y", "z")
    assert await release(two, "x") == ["z"]
    assert await take(two, "late") == [False]
    assert await take(two, "z") == [True]
    assert await release(two, "y") == ["late"]


async def test_generations_of_one_owner_keep_their_order(two):
    await take(two, "x", "y", *"dcab")
    granted = []
    for name in ("x", "y", "d", "c"):
        granted += await release(two, name)
    assert granted == ["d", "c", "a", "b"]


async def test_a_prompt_goes_before_the_lines_of_a_batch(two):
    await take(two, "x", "y")
    await take(two, "line", is_batch=True)
    await take(two, "prompt")
    await take(two, "begun", has_begun=True)
    assert await release(two, "x") == ["begun"]
    assert await release(two, "y") == ["prompt"]
    assert await release(two, "begun") == ["line"]


async def test_prompts_without_end_leave_one_of_eight_slots_to_the_lines_of_a_batch(two):
    """Whether one slot or several are free at a time."""
    await take(two, "p0", "p1")
    await take(two, *(f"line{n}" for n in range(3)), is_batch=True, owner="batch")
    on, order, number = ["p0", "p1"], [], 2
    for _ in range(15):
        for _ in range(2):
            await take(two, f"p{number}", owner=f"owner {number % 3}")
            number += 1
        on = await release(two, *on)
        await take(two, *on)
        order += on

    places = [at for at, name in enumerate(order) if name.startswith("line")]
    assert len(order) == 30
    assert places == [7, 15, 23]


async def test_slots_before_a_line_waits_do_not_count_for_it(two):
    await take(two, "p0", "p1")
    on = ["p0"]
    for n in range(2, 22):
        await take(two, f"p{n}")
        on = await release(two, *on)
        await take(two, *on)
    await take(two, "line", is_batch=True)
    order = []
    for n in range(22, 22 + slots_module.BATCH_TURNS):
        await take(two, f"p{n}")
        on = await release(two, *on)
        await take(two, *on)
        order += on

    assert order.index("line") == slots_module.BATCH_TURNS - 1


async def test_the_owners_in_the_line_take_turns_by_their_weights(two):
    await take(two, "x", "y")
    await take(two, *(f"a{n}" for n in range(6)), owner="a", weight=2)
    await take(two, *(f"b{n}" for n in range(3)), owner="b")
    order, on = [], "x"
    for _ in range(9):
        (granted,) = await release(two, on)
        order.append(granted)
        on = granted
    assert [name[0] for name in order[:6]].count("b") == 2
    assert order.index("b0") <= 2


async def test_an_owner_that_comes_late_waits_behind_one_turn_of_the_others(two):
    await take(two, "x", "y")
    await take(two, *(f"a{n}" for n in range(50)), owner="a")
    await release(two, "x")
    await take(two, "a0", owner="a")
    await take(two, "b0", owner="b")
    assert "b0" in [*await release(two, "a0"), *await release(two, "y")]


async def test_a_call_that_does_not_wait_leaves_nothing_behind(two, redis):
    await take(two, "x", "y")
    assert not (await two.call(Waiter("z"))).has_slot
    assert await slots_in_use(redis, ["a"]) == {"a": (2, 0)}
    assert await release(two, "x") == []
    assert (await two.call(Waiter("z"))).has_slot


async def test_a_slot_that_nobody_keeps_comes_back(redis):
    short = BackendSlots(Scripts(redis), "a", 1, LEASE_MS)
    assert await take(short, "x", "y") == [True, False]
    assert (await short.call(kept=["x"])).entries == []
    await redis.zadd(backend_keys.slots("a")[0], {"x": 1})  # the lease is over
    assert [entry.decode() for entry in (await short.call()).entries] == ["entry of y"]


async def test_a_granted_slot_that_no_worker_takes_is_granted_anew(two, redis, monkeypatch):
    await take(two, "x", "y", "z")
    assert await release(two, "x") == ["z"]
    assert await release(two) == []
    await redis.zadd(backend_keys.slots("a")[0], {"z": 1})
    assert await release(two) == ["z"]
    assert slots_module.GRANT_MS >= 1_000


async def test_a_kept_slot_counts_also_when_its_lease_was_over(two):
    await take(two, "x", "y", "z")
    await two.call(kept=["v", "w"])
    assert await release(two, "x", "y") == []
    assert await release(two, "v") == ["z"]


async def test_an_empty_line_leaves_no_key_behind(two, redis):
    await take(two, "x", "y", "z", owner="a")
    await release(two, "x")
    await take(two, "z")
    await release(two, "y", "z")
    assert [await redis.exists(key) for key in backend_keys.slots("a")] == [0, 0, 0, 0]


async def test_the_line_of_a_backend_without_workers_does_not_count(two, redis):
    await take(two, "x", "y", "z")
    assert await waiting_in_line(redis, ["x", "z"]) == set()
    await announce_slotted(redis, ["a"], await clock_ms(redis))
    assert await waiting_in_line(redis, ["x", "z"]) == {"z"}
    await announce_slotted(redis, ["a"], await clock_ms(redis) - 60_000)
    assert await waiting_in_line(redis, ["x", "z"]) == set()
