"""The lifecycle table is complete, and the scripts match it cell by cell."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from shared.log.events import End
from shared.log.ids import START, EventId
from shared.log.records import Begun, Ok, Released, parse_meta
from shared.log.store import Store
from shared.queue.endings import CANCELLED
from shared.redis import keys
from tests.support import lifecycle
from tests.support.generation import FIELDS, ID, Holder, let_lapse, lose, store_on, token
from tests.support.lifecycle import ANYBODYS, HOLDERS, STRANGERS, Action, GenerationState

S, A = GenerationState, Action
ANYONES_ACTIONS = (A.CREATE, A.BEGIN, A.CLOSE, A.SEAL, A.DELETE)
HOLDERS_ACTIONS = (A.APPEND, A.FINISH, A.RENEW, A.RELEASE, A.RESTORE)
Caller = tuple[str, int]  # token, attempt


def cells(table: dict[tuple[GenerationState, Action], GenerationState | str]) -> list[Any]:
    return [
        pytest.param(state, action, expected, id=f"{state.value}-{action.value}")
        for (state, action), expected in table.items()
    ]


# The table as such


def test_every_state_has_a_result_for_actions_of_any_caller() -> None:
    assert set(ANYBODYS) == {(state, action) for state in S for action in ANYONES_ACTIONS}


def test_every_state_that_had_a_holder_has_a_result_for_the_holder() -> None:
    """A queued generation has had no holder: only a begin gives a token."""
    expected = {(state, action) for state in S for action in HOLDERS_ACTIONS if state != S.QUEUED}

    assert set(HOLDERS) == expected


def test_every_state_after_a_takeover_has_a_result_for_the_former_holder() -> None:
    states = set(S) - {S.ABSENT, S.QUEUED}

    assert set(STRANGERS) == {(state, action) for state in states for action in HOLDERS_ACTIONS}


def test_every_action_belongs_to_anybody_or_to_holders() -> None:
    assert {*ANYONES_ACTIONS, *HOLDERS_ACTIONS} == set(A)
    assert not set(ANYBODYS) & set(HOLDERS)
    assert not set(ANYBODYS) & set(STRANGERS)


def test_an_ended_generation_only_expires_or_is_deleted() -> None:
    for table in (ANYBODYS, HOLDERS, STRANGERS):
        for (state, action), becomes in table.items():
            if state in (S.ENDED, S.SEALED) and action != A.DELETE:
                assert isinstance(becomes, str) or becomes is state


def test_it_knows_nothing_of_the_rest() -> None:
    tree = ast.parse(inspect.getsource(lifecycle))
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]

    assert {ast.unparse(node) for node in imports} == {
        "from __future__ import annotations",
        "import enum",
    }


# The scripts


async def bring_to(store: Store, state: GenerationState) -> Caller:
    """Bring the generation into `state`, and return its last holder."""
    if state not in (S.ABSENT, S.SEALED):
        await store.create(ID, FIELDS, may_be_lost=False)
    if state == S.QUEUED:
        return "mine", 1
    if state == S.SEALED:
        await store.seal(ID)
    if state in (S.ABSENT, S.SEALED):
        return "mine", 7
    holder = await Holder.begin(store)
    if state == S.LAPSED:
        await let_lapse(store)
    elif state == S.RELEASED:
        await holder.release()
    elif state == S.ENDED:
        await store.close(ID, End("completed", "stop"))
    return holder.token, holder.attempt


async def state_now(store: Store) -> GenerationState:
    """Read the state from Redis without the scripts."""
    raw: dict[bytes, bytes] = await store.redis.hgetall(keys.meta(ID))
    status = raw.get(b"status")
    if status is None:
        return S.ABSENT
    if status == b"sealed":
        return S.SEALED
    if status in (b"completed", b"cancelled", b"failed"):
        return S.ENDED
    if raw.get(b"token"):
        return S.HELD if int(raw[b"lease"]) > await store.now_ms() else S.LAPSED
    return S.QUEUED if status == b"queued" else S.RELEASED


async def test_a_deletion_leaves_only_a_seal_that_expires(redis) -> None:
    store = store_on(redis)
    await bring_to(store, S.ENDED)

    assert await store.delete(ID)

    meta, log = await snapshot(store)
    assert (meta, log) == ({b"status": b"sealed", b"deleted": b"1"}, [])
    assert 0 < await redis.pttl(keys.meta(ID)) <= 2 * store.retention_ms


async def snapshot(store: Store) -> tuple[Any, Any]:
    return await store.redis.hgetall(keys.meta(ID)), await store.redis.xrange(keys.log(ID))


async def top_of(store: Store) -> EventId:
    return (await store.tops([ID]))[0].id or START


def anybodys_call(store: Store, action: Action) -> Awaitable[Any]:
    match action:
        case A.CREATE:
            return store.create(ID, FIELDS, may_be_lost=False)
        case A.BEGIN:
            return store.begin(ID, "another", "worker")
        case A.CLOSE:
            return store.close(ID, CANCELLED)
        case A.DELETE:
            return store.delete(ID)
    return store.seal(ID)


async def holders_call(store: Store, action: Action, caller: Caller) -> Any:
    name, attempt = caller
    top = await top_of(store)
    if action == A.RENEW:
        return (await store.renew_many([(ID, name, attempt, False)]))[0]
    if action == A.RELEASE:
        return await store.release(ID, name, attempt, has_failed=False)
    if action == A.RESTORE:
        # What was lost is the caller's own: its start, where the log is empty.
        entries = [(EventId(attempt, top.seq + 1), token("again"))]
        return await store.restore(ID, name, attempt, top, {b"owner": b"alice"}, entries)
    start = (EventId(attempt, top.seq), b"")
    meta = parse_meta(ID, {b"token": name.encode()})
    holder = Holder(store, Begun(start, 0, {b"token": name.encode()}, meta))
    return await (holder.finish("x") if action == A.FINISH else holder.append(token("x")))


def word_for(outcome: Any) -> str:
    """Return the table's name of an outcome."""
    if isinstance(outcome, tuple) and not isinstance(outcome, EventId):  # create
        return "done" if outcome[0] else "exists"
    if isinstance(outcome, bool):  # delete
        return "done" if outcome else "absent"
    if isinstance(outcome, str):  # seal
        return "done" if outcome == "sealed" else "exists"
    if isinstance(outcome, Ok | EventId | Begun | Released):
        return "done"
    return type(outcome).__name__.lower()


async def check(
    store: Store, expected: GenerationState | str, call: Callable[[], Awaitable[Any]]
) -> None:
    before, state_before = await snapshot(store), await state_now(store)

    word = word_for(await call())

    if isinstance(expected, GenerationState):
        assert word == "done"
        assert await state_now(store) == expected
    else:
        assert word == expected
        assert await snapshot(store) == before, "a refusal changes nothing"
        assert await state_now(store) == state_before


@pytest.mark.parametrize(("state", "action", "expected"), cells(ANYBODYS))
async def test_anybodys(redis, state, action, expected):
    store = store_on(redis)
    await bring_to(store, state)
    assert await state_now(store) == state

    await check(store, expected, lambda: anybodys_call(store, action))


@pytest.mark.parametrize(("state", "action", "expected"), cells(HOLDERS))
async def test_holders(redis, state, action, expected):
    store = store_on(redis)
    caller = await bring_to(store, state)
    assert await state_now(store) == state

    await check(store, expected, lambda: holders_call(store, action, caller))


@pytest.mark.parametrize(("state", "action", "expected"), cells(STRANGERS))
async def test_strangers(redis, state, action, expected):
    """The caller was the holder before another worker began."""
    store = store_on(redis)
    if state == S.SEALED:
        # A seal is set on what is absent, so whoever held it is as much a stranger as anybody.
        await store.create(ID, FIELDS, may_be_lost=False)
        caller = ("first", (await Holder.begin(store, "first")).attempt)
        await lose(store)
        await store.seal(ID)
    else:
        await store.create(ID, FIELDS, may_be_lost=False)
        first = await Holder.begin(store, "first")
        caller = (first.token, first.attempt)
        await let_lapse(store)
        second = await Holder.begin(store, "second")
        if state == S.LAPSED:
            await let_lapse(store)
        elif state == S.RELEASED:
            await second.release()
        elif state == S.ENDED:
            await store.close(ID, CANCELLED)
    assert await state_now(store) == state

    await check(store, expected, lambda: holders_call(store, action, caller))
