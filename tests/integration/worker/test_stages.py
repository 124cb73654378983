"""Stages in real workers: over takeovers, at the end, and where a stage ends the answer."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from shared.errors import BackendError
from shared.log.events import End, Reasoning, Token, ToolCall, Usage
from shared.queue.time_limits import TimeLimits
from tests.support.backend_scripts import says
from tests.support.worker_harness import WorkerHarness
from workers.backends.contract import Finish

RAW = "The secret word is Secret, and more."
MASKED = "The ****** word is ******, and more."
FILTER = {"stage": "filter", "words": ["secret"]}


def goes_on(raw: str, *, cut: int | None = None, piece: int = 3):
    """A script that says what follows a prefix, and fails after `cut` characters of the answer."""

    async def script(prefix):
        end = len(raw) if cut is None else cut
        for at in range(len(prefix), end, piece):
            yield [Token(raw[at : min(at + piece, end)])]
        if cut is not None:
            raise BackendError("upstream_error", "it broke")
        yield [Finish("stop")]

    return script


async def answer(harness: WorkerHarness, **changes: Any) -> tuple[str, list[Any]]:
    generation_id = await harness.ask(**changes)
    await harness.ended(generation_id)
    events = await harness.events(generation_id)
    return "".join(event.text for event in events if isinstance(event, Token)), events


WHOLE = {"stage": "filter", "words": ["ass"], "whole_words": True}
PATTERN = {"stage": "filter", "patterns": [r"\b\d{4}-\d{2}\b"]}


@pytest.mark.parametrize(
    ("stage", "raw", "masked"),
    [
        (FILTER, RAW, MASKED),
        (WHOLE, "a class ass, asset", "a class ***, asset"),
        (PATTERN, "x 1234-56, a1234-56.", "x *******, a1234-56."),
    ],
)
async def test_a_word_is_masked_wherever_a_worker_dies(url, stage, raw, masked):
    """The text is cut at each position; the next attempt goes on from the filtered text."""
    async with WorkerHarness(url, says("-"), stages=[stage]) as harness:
        await harness.start()
        for cut in range(1, len(raw)):
            harness.backend.prefixes.clear()
            harness.backend.backend_scripts = goes_on(raw, cut=cut), goes_on(raw)
            text, events = await answer(harness)

            assert text == masked, cut
            assert [type(event).__name__ for event in events].count("Reset") == 0


async def test_held_back_text_is_sent_before_the_end(url):
    async with WorkerHarness(url, says("a sec"), stages=[FILTER]) as harness:
        await harness.start()
        text, events = await answer(harness)

    assert text == "a sec"
    assert events[-1].finish_reason == "stop"


async def test_a_word_stops_the_answer_and_the_model(url):
    stop = FILTER | {"action": "stop"}
    async with WorkerHarness(url, says("one se", "cret, ", "two"), stages=[stop]) as harness:
        await harness.start()
        text, events = await answer(harness)

        assert text == "one "
        assert events[-1].status == "completed"
        assert events[-1].finish_reason == "content_filter"
        assert events[-1].usage.extra == {"estimated": True}
        assert harness.backend.open == 0
        assert harness.backend.lists == 2


async def test_thoughts_are_filtered_and_tool_calls_are_not_unless_asked(url):
    async def script(prefix):
        yield [
            Reasoning("a sec"),
            Reasoning("ret "),
            Token("the sec"),
            Usage(1, 2, 3),
            Token("ret."),
        ]
        yield [ToolCall(0, "call_a", "find", '{"a":"sec'), ToolCall(0, arguments='ret"}')]
        yield [Finish("tool_calls")]

    seen = {}
    for channels in (["answer", "reasoning"], ["tools"]):
        stage = FILTER | {"channels": channels}
        async with WorkerHarness(url, script, stages=[stage]) as harness:
            await harness.start()
            text, events = await answer(harness)
            thoughts = "".join(e.text for e in events if isinstance(e, Reasoning))
            arguments = "".join(e.arguments for e in events if isinstance(e, ToolCall))
            seen[channels[0]] = thoughts, text, arguments

    assert seen["answer"] == ("a ****** ", "the ******.", '{"a":"secret"}')
    assert seen["tools"] == ("a secret ", "the secret.", '{"a":"******"}')


async def test_log_probabilities_and_refusals_do_not_repeat_a_masked_word(url):
    picture = {"delta": {"images": [{"url": "x"}]}}

    async def script(prefix):
        yield [Token("sec", {"choice": {"logprobs": {"content": [{"token": "sec"}]}}})]
        yield [
            Token("ret", {"delta": {"refusal": "secret"}, "chunk": {"tier": "a"}}),
            Token(".", picture),
        ]
        yield [Finish("stop")]

    async with WorkerHarness(url, script, stages=[FILTER]) as harness:
        await harness.start()
        text, events = await answer(harness)

    assert text == "******."
    extras = [event.extra for event in events if getattr(event, "extra", None)]
    assert extras == [{"chunk": {"tier": "a"}}, picture]


async def test_a_drained_worker_shows_nothing_that_it_held_back(url):
    gate = asyncio.Event()

    async def waits(prefix):
        yield [Token("the sec")]
        await gate.wait()

    async with WorkerHarness(url, waits, goes_on("the secret."), stages=[FILTER]) as harness:
        worker = await harness.start()
        generation_id = await harness.ask()
        await harness.has_said(generation_id, "the ")
        worker.drain()
        await harness.drained()
        await harness.start("two")
        await harness.ended(generation_id)

        assert await harness.text(generation_id) == "the ******."
        assert isinstance((await harness.events(generation_id))[-1], End)


async def test_a_failed_answer_keeps_what_was_held_back(url):
    async def script(prefix):
        yield [Token("a sec")]
        raise BackendError("upstream_refused", "no", retryable=False)

    async with WorkerHarness(url, script, stages=[FILTER]) as harness:
        await harness.start()
        text, events = await answer(harness)

    assert text == "a sec"
    assert events[-1].status == "failed"


async def test_each_agent_has_a_text_of_its_own(url):
    async def script(prefix):
        yield [Token("a sec", agent="one"), Token("b ", agent="two"), Token("ret", agent="one")]
        yield [Token("secret", agent="two"), Finish("stop")]

    async with WorkerHarness(url, script, stages=[FILTER]) as harness:
        await harness.start()
        _, events = await answer(harness)

    said: dict[str, str] = {}
    for event in events:
        if isinstance(event, Token):
            said[event.agent] = said.get(event.agent, "") + event.text
    assert said == {"one": "a sec***", "two": "b ******"}


async def test_a_word_over_the_death_of_its_worker_is_masked(url):
    async def dies(prefix):
        yield [Token("the sec")]
        yield [Token("ret is sec")]
        await asyncio.Event().wait()

    raw = "the secret is secret."
    async with WorkerHarness(url, dies, goes_on(raw), stages=[FILTER]) as harness:
        await harness.start()
        generation_id = await harness.ask()
        await harness.has_said(generation_id, "the ****** is ")
        await harness.kill()
        await harness.start("two")
        await harness.ended(generation_id)

        assert await harness.text(generation_id) == "the ****** is ******."
        assert harness.backend.prefixes == ["", "the ****** is"]


async def test_a_stop_over_the_death_of_its_worker_ends_before_the_word(url):
    async def dies(prefix):
        yield [Token("the sec")]
        await asyncio.Event().wait()

    stop = FILTER | {"action": "stop"}
    async with WorkerHarness(url, dies, goes_on("the secret is"), stages=[stop]) as harness:
        await harness.start()
        generation_id = await harness.ask()
        await harness.has_said(generation_id, "the ")
        await harness.kill()
        await harness.start("two")
        await harness.ended(generation_id)

        assert await harness.text(generation_id) == "the "
        assert (await harness.events(generation_id))[-1].finish_reason == "content_filter"


async def test_the_deadline_shows_what_was_held_back(url):
    async def waits(prefix):
        yield [Token("so sec")]
        await asyncio.Event().wait()

    async with WorkerHarness(url, waits, stages=[FILTER]) as harness:
        await harness.start()
        text, events = await answer(harness, time_limits=TimeLimits(deadline_s=0.5))

    assert text == "so sec"
    assert events[-1].error.code == "deadline_exceeded"
