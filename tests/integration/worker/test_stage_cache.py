"""The stage `cache` in real workers: hits, misses, owners, deletion, and trouble with Redis."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from shared.cache.answers import AnswerCache
from shared.erasure.generations import GenerationEraser
from shared.errors import Unavailable
from shared.log.events import Reasoning, Token, ToolCall, Usage
from shared.log.records import Meta
from shared.queue.endings import cancel
from shared.redis import cache_keys
from tests.support.backend_scripts import fails, says
from tests.support.wait import until
from tests.support.worker_harness import DEADLINE_S, WorkerHarness
from workers.backends.contract import Finish

CACHE = {"stage": "cache"}


def request(text: str = "hi", **params: Any) -> bytes:
    return json.dumps({"messages": [{"role": "user", "content": text}], "params": params}).encode()


class CachingHarness(WorkerHarness):
    """A harness with one worker, whose model has a cache."""

    async def __aenter__(self) -> CachingHarness:
        await super().__aenter__()
        self.one = await self.start()
        return self

    async def left(self, generation_id: str) -> Meta:
        """Wait until the worker has done everything for a generation."""
        meta = await self.ended(generation_id)
        await until(lambda: not self.one.runs, DEADLINE_S, "the run leaves")
        return meta


async def answer(harness: CachingHarness, **changes: Any) -> tuple[str, Any]:
    generation_id = await harness.ask(**{"request": request()} | changes)
    await harness.left(generation_id)
    return await harness.text(generation_id), (await harness.events(generation_id))[-1]


async def asked_after(harness: CachingHarness, **changes: Any) -> int:
    """How often the model was asked when another request followed the same one."""
    await answer(harness)
    await answer(harness, **changes)
    return len(harness.backend.prefixes)


async def test_the_same_request_replays_the_stored_answer_with_a_mark(url):
    async def script(prefix):
        yield [Reasoning("hm "), Reasoning("so"), Token("hel"), Usage(3, 1, 4), Token("lo")]
        yield [ToolCall(0, "call_a", "find", "{}"), Usage(3, 5, 8), Finish("tool_calls")]

    async with CachingHarness(url, script, stages=[CACHE]) as harness:
        first = await harness.ask(request=request())
        await harness.left(first)
        second = await harness.ask(request=request())
        await harness.left(second)
        events = await harness.events(second)

        assert len(harness.backend.prefixes) == 1
        assert events[1:4] == [Reasoning("hm so"), Token("hello"), events[3]]
        assert (events[3].name, events[3].arguments) == ("find", "{}")
        assert events[3].call_id != "call_a"
        assert events[-1].finish_reason == "tool_calls"
        assert events[-1].usage.completion_tokens == 5
        assert events[-1].usage.extra == {"cached": True}
        assert events[-1].cached_at > 1_700_000_000
        assert (await harness.events(first))[-1].cached_at == 0


@pytest.mark.parametrize(
    ("changes", "asked"),
    [
        ({}, 1),
        ({"request": request(user="u-1")}, 1),
        ({"session": "another"}, 1),
        ({"owner": "bob"}, 2),
        ({"request": request("ho")}, 2),
        ({"request": request(temperature=0.5)}, 2),
    ],
)
async def test_an_answer_belongs_to_its_request_and_its_owner(url, changes, asked):
    async with CachingHarness(url, says("hello"), stages=[CACHE]) as harness:
        assert await asked_after(harness, **changes) == asked


async def test_a_shared_cache_answers_all_owners(url):
    async with CachingHarness(url, says("hello"), stages=[CACHE | {"shared": True}]) as harness:
        assert await asked_after(harness, owner="bob") == 1


@pytest.mark.parametrize("stage", [{"bytes_max": 3}, {"ttl_s": 1}])
async def test_a_long_answer_is_not_stored_and_an_answer_expires(url, stage):
    async with CachingHarness(url, says("hello"), stages=[CACHE | stage]) as harness:
        await answer(harness)
        names = [name async for name in harness.redis.scan_iter("tr:cached:*")]

        assert len(names) == (0 if "bytes_max" in stage else 1)
        for name in names:
            assert 0 < await harness.redis.pttl(name) <= 1_000


async def test_failed_and_cancelled_answers_are_not_stored(url):
    async def waits(prefix):
        yield [Token("so far")]
        await asyncio.Event().wait()

    broken = fails("a", code="upstream_refused", retryable=False)
    async with CachingHarness(url, broken, waits, says("hello"), stages=[CACHE]) as harness:
        await answer(harness)
        generation_id = await harness.ask(request=request())
        await harness.has_said(generation_id, "so far")
        await cancel(harness.store, generation_id)

        text, end = await answer(harness)
        assert (text, end.cached_at) == ("hello", 0)


async def test_an_answer_of_two_attempts_is_stored_whole(url):
    async with CachingHarness(url, fails("one "), says("two"), stages=[CACHE]) as harness:
        await answer(harness)
        text, end = await answer(harness)

        assert text == "one two"
        assert end.cached_at
        assert len(harness.backend.prefixes) == 2


@pytest.mark.parametrize("order", ["cache first", "filter first"])
async def test_what_a_filter_takes_out_is_never_stored(url, order):
    stages = [CACHE, {"stage": "filter", "words": ["secret"]}]
    stages = stages if order == "cache first" else stages[::-1]
    async with CachingHarness(url, says("a sec", "ret."), stages=stages) as harness:
        await answer(harness)
        (name,) = [name async for name in harness.redis.scan_iter("tr:cached:*")]

        assert b"secret" not in await harness.redis.hget(name, "answer")
        assert (await answer(harness))[0] == "a ******."


async def test_deleting_the_generation_deletes_its_stored_answer(url):
    async with CachingHarness(url, says("hello"), stages=[CACHE]) as harness:
        generation_id = await harness.ask(request=request())
        meta = await harness.left(generation_id)
        assert (await answer(harness))[1].cached_at
        eraser = GenerationEraser(harness.redis, harness.store, harness.settings)
        await eraser.erase(meta)

        assert [name async for name in harness.redis.scan_iter("tr:cache*")] == []
        assert await harness.redis.get(cache_keys.cached_by(generation_id)) is None


async def test_the_answers_that_expire_first_make_room(url):
    async with CachingHarness(url, says("hello"), stages=[CACHE | {"answers_max": 2}]) as harness:
        for text in ("a", "b", "c"):
            await answer(harness, request=request(text))
        await answer(harness, request=request("c"))
        assert len(harness.backend.prefixes) == 3
        await answer(harness, request=request("a"))
        assert len(harness.backend.prefixes) == 4


async def test_trouble_with_the_cache_fails_no_answer(url, monkeypatch, caplog):
    async def away(*args: Any, **kwargs: Any) -> Any:
        raise Unavailable("Redis cannot be reached")

    monkeypatch.setattr(AnswerCache, "find", away)
    monkeypatch.setattr(AnswerCache, "store", away)
    async with CachingHarness(url, says("hello"), stages=[CACHE]) as harness:
        text, end = await answer(harness)

    assert (text, end.status) == ("hello", "completed")
    assert "cache not reached" in caplog.messages
