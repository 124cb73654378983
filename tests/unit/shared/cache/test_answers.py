"""Stored answers: which requests are the same, and which generations may store an answer."""

from __future__ import annotations

import pytest

from shared.cache.answers import AnswerCache, CacheRules, encode_stored, key_for
from shared.log.events import End, Token, encode
from shared.log.request import Request
from shared.queue.endings import cancel
from tests.support.generation import ID, Holder, create, store_on
from tests.support.redis_contents import everything

RULES = CacheRules(60.0, 10)
RAW = encode_stored([Token("hello")], "stop", None, 1_700_000_000)


async def stored_after(store, ending: str) -> bool:
    await create(store)
    holder = await Holder.begin(store, "mine")
    if ending == "completed":
        raw = encode(End("completed", "stop"))
        await store.append_many([holder.batch(raw, status="completed")])
    elif ending == "cancelled":
        await cancel(store, ID)
    elif ending == "deleted":
        await store.delete(ID)
    cache = AnswerCache(store.redis)
    return await cache.store("demo", "key", RAW, RULES, owner="alice", generation=ID)


@pytest.mark.parametrize("ending", ["running", "cancelled", "deleted"])
async def test_only_a_completed_generation_stores_its_answer(redis, ending):
    store = store_on(redis)

    assert not await stored_after(store, ending)
    assert await AnswerCache(redis).find("demo", "key") is None
    assert "cached" not in await everything(redis)


async def test_an_answer_comes_back_as_it_was_stored(redis):
    assert await stored_after(store_on(redis), "completed")
    found = await AnswerCache(redis).find("demo", "key")

    assert found is not None
    assert (found.events, found.reason, found.made_at) == ([Token("hello")], "stop", 1_700_000_000)
    assert await AnswerCache(redis).find("other", "key") is None


async def test_the_answer_of_a_newer_version_is_a_miss(redis):
    assert await stored_after(store_on(redis), "completed")
    (name,) = [name async for name in redis.scan_iter("tr:cached:*")]
    await redis.hset(name, "answer", b'{"made_at":1,"reason":"new","events":[]}')

    assert await AnswerCache(redis).find("demo", "key") is None


def messages(call: str, message: str) -> list[dict]:
    return [
        {"role": "user", "content": "hi", "id": message},
        {"role": "assistant", "tool_calls": [{"id": call, "function": {"name": "f"}}]},
        {"role": "tool", "tool_call_id": call, "content": "1"},
    ]


def test_ids_and_names_of_users_make_no_difference_and_everything_else_does():
    def key(call="a", message="m", *, owner="alice", model="x", **params) -> str:
        return key_for(Request(messages(call, message), params), owner=owner, model=model)

    assert key() == key("b", "n", user="u", metadata={"a": 1}, prompt_cache_key="k")
    assert key(a=1, b=2) == key(b=2, a=1)
    others = [key(owner="bob"), key(model="y"), key(temperature=0), key(seed=1)]
    assert len({key(), *others}) == 5


def test_calls_that_were_swapped_are_another_request():
    def ask(first: str, second: str) -> str:
        asked = Request([
            {"role": "assistant", "tool_calls": [{"id": "a"}, {"id": "b"}]},
            {"role": "tool", "tool_call_id": first, "content": "1"},
            {"role": "tool", "tool_call_id": second, "content": "2"},
        ])  # fmt: skip
        return key_for(asked, owner="", model="x")

    assert ask("a", "b") != ask("b", "a")
