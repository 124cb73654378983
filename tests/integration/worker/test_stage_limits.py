"""The stages `limits` and `usage` in real workers."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from shared.errors import BackendError
from shared.log.events import Reasoning, Token, Usage
from tests.support.backend_scripts import fails, says
from tests.support.worker_harness import WorkerHarness
from workers.backends.contract import Finish


async def answer(harness: WorkerHarness, **changes: Any) -> tuple[str, list[Any]]:
    generation_id = await harness.ask(**changes)
    await harness.ended(generation_id)
    events = await harness.events(generation_id)
    return "".join(event.text for event in events if isinstance(event, Token)), events


@pytest.mark.parametrize(
    ("limits", "text"),
    [
        ({"max_characters": 5}, "one t"),
        ({"max_characters": 4}, "one "),
        ({"max_tokens": 2}, "one two "),
        ({"max_characters": 14, "max_tokens": 100}, "one two three."),
    ],
)
async def test_an_answer_ends_at_its_limit(url, limits, text):
    pieces = "one ", "two ", "three."
    async with WorkerHarness(url, says(*pieces), stages=[{"stage": "limits"} | limits]) as harness:
        await harness.start()
        found, events = await answer(harness)

        assert found == text
        is_whole = found == "".join(pieces)
        assert events[-1].status == "completed"
        assert events[-1].finish_reason == ("stop" if is_whole else "length")
        assert (events[-1].usage is None) == is_whole
        assert harness.backend.open == 0


async def test_the_model_learns_the_limit_of_tokens_and_the_rest_of_it_after_a_takeover(url):
    stages = [{"stage": "limits", "max_tokens": 10}]
    scripts = fails("one two thre"), says("e.")  # 12 characters count as 2 tokens
    request = b'{"messages":[],"params":{"max_completion_tokens":50,"min_tokens":20}}'
    async with WorkerHarness(url, *scripts, stages=stages) as harness:
        await harness.start()
        text, _ = await answer(harness, request=request)

        assert text == "one two three."
        first, second = (request.params for request in harness.backend.requests)
        assert first == {"max_completion_tokens": 10, "min_tokens": 10}
        assert second == {"max_completion_tokens": 8, "min_tokens": 8}


async def test_characters_are_counted_over_a_takeover(url):
    stages = [{"stage": "limits", "max_characters": 9}]
    scripts = fails("one ", "two "), says("three.")
    async with WorkerHarness(url, *scripts, stages=stages) as harness:
        await harness.start()
        text, events = await answer(harness)

    assert text == "one two t"
    assert events[-1].finish_reason == "length"


async def test_an_answer_ends_when_its_time_is_over_although_the_model_is_silent(url):
    async def silent(prefix):
        yield [Token("so far")]
        await asyncio.Event().wait()

    stages = [{"stage": "limits", "max_seconds": 0.3}, {"stage": "filter", "words": ["farther"]}]
    async with WorkerHarness(url, silent, stages=stages) as harness:
        await harness.start()
        text, events = await answer(harness)

        assert text == "so far"
        assert (events[-1].status, events[-1].finish_reason) == ("completed", "length")
        assert harness.backend.open == 0


PRICES = {"stage": "usage", "input_price": 2.0, "output_price": 10.0, "cached_input_price": 0.5}


async def test_reported_counts_get_their_cost(url):
    async def script(prefix):
        yield [Token("hi"), Usage(100, 20, 120, {"prompt_tokens_details": {"cached_tokens": 40}})]
        yield [Finish("stop")]

    async with WorkerHarness(url, script, stages=[PRICES]) as harness:
        await harness.start()
        _, events = await answer(harness)

    # 60 × 2 + 40 × 0.5 + 20 × 10 = 340 for a million of each
    assert events[-1].usage.extra["cost"] == 0.00034
    assert events[-1].usage.extra["currency"] == "USD"
    (usage,) = (event for event in events if isinstance(event, Usage))
    assert usage.extra == events[-1].usage.extra


async def test_the_cost_is_of_all_attempts(url):
    async def ends(prefix):
        yield [Token("two"), Usage(15, 7, 22), Finish("stop")]

    async def first(prefix):
        yield [Token("one "), Usage(10, 5, 15)]
        raise BackendError("upstream_error", "it broke")

    async with WorkerHarness(url, first, ends, stages=[PRICES]) as harness:
        await harness.start()
        _, events = await answer(harness)

    usage = events[-1].usage
    cost = (usage.prompt_tokens * 2 + usage.completion_tokens * 10) / 1e6
    assert usage.completion_tokens > 7
    assert usage.extra["cost"] == pytest.approx(cost)


async def test_an_answer_without_counts_gets_estimated_counts_and_an_event(url):
    async def script(prefix):
        yield [Reasoning("hm"), Token("hello")]
        yield [Finish("stop")]

    found = {}
    for estimate in (True, False):
        stages = [{"stage": "usage", "estimate": estimate}]
        async with WorkerHarness(url, script, stages=stages) as harness:
            await harness.start()
            _, events = await answer(harness)
            found[estimate] = events

    assert isinstance(found[True][-2], Usage)
    assert found[True][-2].extra == {"estimated": True}
    assert found[True][-1].usage.completion_tokens == 2
    assert found[False][-1].usage is None
