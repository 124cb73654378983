"""What a feeder may write, in each state of its generation; repeats and limits."""

from __future__ import annotations

from typing import Any

import pytest

from shared.log.events import Data, End, Token, encode
from shared.log.feeding import Fed, Repeated, feed, repeat_key
from shared.log.producing import Appended, Denied, begin_producing
from shared.log.store import Store
from shared.queue.endings import CANCELLED
from shared.redis import keys
from tests.support.generation import ID, create, let_lapse, store_on, types_of

FIRST = "first"
TOKEN, END = encode(Token("a")), encode(End("completed", "stop"))
PRODUCED: dict[str, Any] = {"producer": "30000", "first_token": FIRST}


@pytest.fixture
def store(redis) -> Store:
    return store_on(redis)


async def fed(store: Store, *raws: bytes, status: str = "", key: str = "", told: str = "") -> str:
    """Feed, and return the outcome."""
    (outcome,) = await feed(store, [Fed(ID, raws, status, key, told)])
    if isinstance(outcome, Denied):
        return outcome.reason
    return "repeated" if isinstance(outcome, Repeated) else outcome.status


async def bring_to(store: Store, state: str) -> None:
    if state == "of a worker":
        await create(store)
        await store.begin(ID, FIRST, "worker")
    elif state != "absent":
        await create(store, **PRODUCED)
    if state not in ("absent", "queued", "of a worker"):
        await begin_producing(store, ID, FIRST, is_first=True)
    if state == "lapsed":
        await let_lapse(store)
    elif state == "taken over":
        await begin_producing(store, ID, "next", is_first=False)
    elif state == "ended":
        assert await fed(store, END, status="completed") == "completed"
    elif state == "cancelled":
        await store.close(ID, CANCELLED)


# State -> the outcome of an event, and of an end.
CELLS = {
    "absent": ("absent", "absent"),
    "queued": ("running", "completed"),
    "held": ("running", "completed"),
    "lapsed": ("running", "completed"),
    "taken over": ("fenced", "fenced"),
    "ended": ("ended", "ended"),
    "cancelled": ("ended", "ended"),
    "of a worker": ("worker", "worker"),
}


@pytest.mark.parametrize("state", CELLS)
async def test_each_action_in_each_state(store: Store, state: str) -> None:
    await bring_to(store, state)
    assert await fed(store, TOKEN) == CELLS[state][0]
    assert await fed(store, END, status="completed") == CELLS[state][1]


async def test_entries_follow_on_each_other_and_the_end_is_the_last(store: Store) -> None:
    await bring_to(store, "held")
    outcomes = await feed(
        store, [Fed(ID, [TOKEN, TOKEN]), Fed(ID, [TOKEN, END], "completed"), Fed(ID, [TOKEN])]
    )
    assert [type(each) for each in outcomes] == [Appended, Appended, Denied]
    assert await types_of(store) == ["start", "a", "a", "a", "end"]


async def test_a_repeat_writes_nothing_also_after_the_end(store: Store) -> None:
    await bring_to(store, "held")
    for _ in range(2):
        await fed(store, TOKEN, key="aaa")
    assert await fed(store, END, status="completed", key="bbb") == "completed"
    assert await fed(store, END, status="completed", key="bbb") == "repeated"
    assert await types_of(store) == ["start", "a", "end"]


async def test_the_last_keys_are_known_and_older_ones_are_forgotten(store: Store) -> None:
    await bring_to(store, "held")
    names = [repeat_key("push", str(n)) for n in range(40)]
    for name in names:
        assert await fed(store, TOKEN, key=name) == "running"
    assert [await fed(store, TOKEN, key=name) for name in names[8:]] == 32 * ["repeated"]
    assert await fed(store, TOKEN, key=names[0]) == "running"


async def test_a_full_answer_takes_only_the_end(redis) -> None:
    store = store_on(redis, answer_bytes_max=100)
    await bring_to(store, "held")
    large = encode(Data("lobehub", "x" * 200))
    assert await fed(store, large) == "full"
    assert await fed(store, large, END, status="completed") == "completed"


async def test_the_status_of_the_operation_is_noted(store: Store) -> None:
    await bring_to(store, "held")
    await fed(store, TOKEN, told="waiting_input")
    await fed(store, TOKEN)
    assert await store.redis.hget(keys.meta(ID), "operation_status") == b"waiting_input"
