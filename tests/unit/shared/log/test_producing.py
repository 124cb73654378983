"""What a producer outside of the workers may do to a generation, in each of its states."""

from __future__ import annotations

from typing import Any

import pytest

from shared.log.events import End, Token, encode
from shared.log.producing import (
    Appended,
    Denied,
    OutsideEvents,
    Tenure,
    append_outside,
    begin_producing,
)
from shared.log.records import Absent, Begun
from shared.log.store import Store
from shared.queue.endings import CANCELLED
from shared.redis import keys
from tests.support.generation import ID, create, let_lapse, store_on, types_of

FIRST, NEXT = "first", "next"
TOKEN, END = encode(Token("a")), encode(End("completed", "stop"))
PRODUCED: dict[str, Any] = {"producer": "30000", "first_token": FIRST}


@pytest.fixture
def store(redis) -> Store:
    return store_on(redis)


async def append(
    store: Store, token: str, *raws: bytes, attempt: int = 0, seq: int = 0, status: str = ""
) -> str:
    """Append, by default as the present attempt and after its last event; return the outcome."""
    meta = await store.meta(ID)
    (top,) = await store.tops([ID])
    known = meta.attempt if meta is not None else 1
    after = top.id.seq + 1 if top.id is not None else 2
    said = OutsideEvents(ID, token, attempt or known, seq or after, raws, status)
    outcome = await append_outside(store, said)
    return outcome.reason if isinstance(outcome, Denied) else outcome.status


async def begin(store: Store, token: str, *, is_first: bool = False) -> str:
    outcome = await begin_producing(store, ID, token, is_first=is_first)
    return outcome.reason if isinstance(outcome, Denied) else "ok"


async def bring_to(store: Store, state: str) -> None:
    if state == "sealed":
        await store.seal(ID)
    elif state in ("of a worker, queued", "of a worker, held"):
        await create(store)
        if state == "of a worker, held":
            await store.begin(ID, FIRST, "worker")
    elif state != "absent":
        await create(store, **PRODUCED)
    if state in ("held", "lapsed", "taken over", "ended", "cancelled"):
        assert await begin(store, FIRST, is_first=True) == "ok"
    if state == "lapsed":
        await let_lapse(store)
    elif state == "taken over":
        assert await begin(store, NEXT) == "ok"
    elif state == "ended":
        assert await append(store, FIRST, END, status="completed") == "completed"
    elif state == "cancelled":
        await store.close(ID, CANCELLED)


# State -> the outcome of: begin first, take over, append, end, append by a stranger.
CELLS = {
    "absent": ("absent", "absent", "absent", "absent", "absent"),
    "sealed": ("ended", "ended", "ended", "ended", "ended"),
    "queued": ("ok", "ok", "fenced", "fenced", "fenced"),
    "held": ("ok", "ok", "running", "completed", "fenced"),
    "lapsed": ("ok", "ok", "running", "completed", "fenced"),
    "taken over": ("fenced", "ok", "fenced", "fenced", "fenced"),
    "ended": ("ended", "ended", "ended", "ended", "ended"),
    "cancelled": ("ended", "ended", "ended", "ended", "ended"),
    "of a worker, queued": ("worker", "worker", "worker", "worker", "worker"),
    "of a worker, held": ("worker", "worker", "worker", "worker", "worker"),
}


@pytest.mark.parametrize("at", range(5), ids=["first", "take over", "append", "end", "stranger"])
@pytest.mark.parametrize("state", CELLS)
async def test_each_action_in_each_state(store: Store, state: str, at: int) -> None:
    await bring_to(store, state)
    outcome = await _act(store, at)

    assert outcome == CELLS[state][at]


async def _act(store: Store, at: int) -> str:
    if at == 0:
        return await begin(store, FIRST, is_first=True)
    if at == 1:
        return await begin(store, "third")
    if at == 2:
        return await append(store, FIRST, TOKEN)
    if at == 3:
        return await append(store, FIRST, END, status="completed")
    return await append(store, "stranger", TOKEN)


async def test_a_repeated_begin_gives_the_same_attempt_and_writes_nothing(store: Store) -> None:
    await create(store, **PRODUCED)
    first = await begin_producing(store, ID, FIRST, is_first=True)
    again = await begin_producing(store, ID, FIRST, is_first=True)

    assert first == again
    assert await types_of(store) == ["start"]


async def test_an_append_extends_the_lease_and_an_empty_one_does_too(store: Store) -> None:
    await create(store, **PRODUCED)
    await begin(store, FIRST, is_first=True)
    for raws in ((TOKEN,), ()):
        await let_lapse(store)
        await append(store, FIRST, *raws)
        meta = await store.meta(ID)

        assert meta is not None and meta.lease_ms > await store.now_ms() + 25_000


async def test_entries_of_an_older_attempt_are_no_repeat(store: Store) -> None:
    """The same text under the same number, but the number belongs to the producer before."""
    await create(store, **PRODUCED)
    await begin(store, FIRST, is_first=True)
    await append(store, FIRST, TOKEN)
    await begin(store, NEXT)

    assert await append(store, NEXT, TOKEN, seq=2) == "conflict"
    assert await types_of(store) == ["start", "a", "start"]


async def test_after_the_end_only_the_same_events_are_a_repeat(store: Store) -> None:
    await create(store, **PRODUCED)
    await begin(store, FIRST, is_first=True)
    await append(store, FIRST, TOKEN, END, status="completed")
    other = TOKEN.replace(b'"a"', b'"b"')

    assert await append(store, FIRST, TOKEN, END, seq=2, status="completed") == "completed"
    assert await append(store, FIRST, other, END, seq=2, status="completed") == "conflict"


async def test_the_attempt_of_a_producer_cannot_be_another_one(store: Store) -> None:
    await create(store, **PRODUCED)
    tenure = await begin_producing(store, ID, FIRST, is_first=True)
    assert isinstance(tenure, Tenure)

    assert await append(store, FIRST, TOKEN, attempt=tenure.attempt + 1) == "fenced"
    assert await types_of(store) == ["start"]


async def test_only_new_events_count_against_the_bytes_of_the_answer(redis) -> None:
    store = store_on(redis, answer_bytes_max=3 * len(TOKEN))
    await create(store, **PRODUCED)
    tenure = await begin_producing(store, ID, FIRST, is_first=True)
    assert isinstance(tenure, Tenure)
    said = OutsideEvents(ID, FIRST, tenure.attempt, tenure.next_seq, [TOKEN, TOKEN])
    outcomes = [await append_outside(store, said) for _ in range(3)]

    assert all(isinstance(outcome, Appended) for outcome in outcomes)
    assert await append(store, FIRST, TOKEN) == "running"
    assert await append(store, FIRST, TOKEN) == "full"
    assert await append(store, FIRST, END, status="completed") == "completed"


@pytest.mark.parametrize(
    ("fields", "status"), [({"deadline": "1"}, "failed"), ({"grace": "0"}, "cancelled")], ids=str
)
async def test_a_deadline_and_a_grace_end_the_generation_at_an_append(
    store: Store, fields: dict[str, str], status: str
) -> None:
    await create(store, **PRODUCED)
    await begin(store, FIRST, is_first=True)
    await store.redis.hset(keys.meta(ID), mapping={**fields, "created": "1"})
    await store.redis.zadd(keys.readers(ID), {"node": 1})

    assert await append(store, FIRST, TOKEN) == "ended"
    meta = await store.meta(ID)
    assert meta is not None and meta.status == status


async def test_no_worker_begins_it(store: Store) -> None:
    await create(store, **PRODUCED)

    assert await store.begin(ID, "token", "worker") == Absent()
    await create(store, "gen_of_worker")
    assert isinstance(await store.begin("gen_of_worker", "token", "worker"), Begun)
